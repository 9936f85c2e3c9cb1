"""One table of every request field that is not simply honoured: what it may be, or why it is refused.

A field of the wire format is in exactly one of three places:

- a field of the wire struct (`ChatFields`, `CompletionFields`, …): honoured, within `RANGES` and `SIZES`;
- `RECORDED`: accepted, written to the access log, and of no other effect;
- `Neutral`: known and not honoured; accepted only at values that ask for nothing.

Anything else is unknown and refused with the closest known name. `null` means unset, everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec
from msgspec import Struct


class Range(Struct, frozen=True):
    """Inclusive bounds of a number; `above` instead of `low` where the lower bound itself is excluded."""

    low: float | None = None
    high: float | None = None
    above: float | None = None


class Neutral(Struct, frozen=True):
    """A field that Penstock knows and does not honour, and the values that ask for nothing."""

    why: str
    values: tuple[object, ...] = ()

    def accepts(self, value: object) -> bool:
        """Compared as JSON, so that `0` is not `false`."""
        given = msgspec.json.encode(value)
        return value is None or any(given == msgspec.json.encode(neutral) for neutral in self.values)


INT32 = 2**31 - 1

RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "n": Range(1, 128),
        "best_of": Range(1, 128),
        "max_tokens": Range(0, INT32),
        "max_completion_tokens": Range(1, INT32),
        "max_output_tokens": Range(1, INT32),
        "min_tokens": Range(0, INT32),
        "temperature": Range(0, 2),
        "top_p": Range(above=0, high=1),
        "top_k": Range(-1, INT32),
        "min_p": Range(0, 1),
        "repetition_penalty": Range(0.01, 10),
        "frequency_penalty": Range(-2, 2),
        "presence_penalty": Range(-2, 2),
        "seed": Range(-(2**63), 2**63 - 1),
        "top_logprobs": Range(0, 20),
        "logprobs": Range(0, 20),
        "prompt_logprobs": Range(0, 20),
        "truncate_prompt_tokens": Range(1, INT32),
        "priority": Range(-100, 100),
    }
)

SIZES: Mapping[str, int] = MappingProxyType(
    {
        "messages": 4096,
        "stop": 32,
        "stop_sequences": 32,
        "stop_token_ids": 256,
        "bad_words": 256,
        "logit_bias": 4096,
        "allowed_token_ids": 65536,
        "chat_template_kwargs": 64,
        "tools": 512,
        "input": 4096,
    }
)

MAX_STOP_CHARS = 256
MAX_PROMPTS = 256
MAX_CHOICES = 512  # prompts times n
MAX_LABEL_CHARS = 512
MAX_LABELS = 16
MAX_DEPTH = 16  # nesting of free-form values
MAX_SCHEMA_DEPTH = 64  # nesting of JSON schemas
MAX_NAME_CHARS = 128  # of a tool, a call's id, a schema

RECORDED = ("user", "safety_identifier", "prompt_cache_key", "metadata")

_GRAMMAR = Neutral("constrained decoding is not supported")
_TOOLS = Neutral("prompts with tools are made by the upstream alone", ([],))
_FUNCTIONS = Neutral("functions became tools; send tools and tool_choice", ([],))
_TEMPLATE = Neutral("a chat template is code: it comes with the model, never with a request")
_BEAM = Neutral("beam search is not supported", (False,))
_MULTIMODAL = Neutral("only text is supported")

_SHARED: Mapping[str, Neutral] = {
    "structured_outputs": _GRAMMAR,
    "guided_json": _GRAMMAR,
    "guided_regex": _GRAMMAR,
    "guided_choice": _GRAMMAR,
    "guided_grammar": _GRAMMAR,
    "guided_decoding_backend": _GRAMMAR,
    "guided_whitespace_pattern": _GRAMMAR,
    "use_beam_search": _BEAM,
    "length_penalty": Neutral("beam search is not supported", (1, 1.0)),
    "early_stopping": _BEAM,
    "service_tier": Neutral("there is one service tier", ("auto", "default")),
    "spaces_between_special_tokens": Neutral("special tokens are written as they are", (True, False)),
    "logits_processors": Neutral("code never comes with a request", ([],)),
    "kv_transfer_params": Neutral("moving KV between engines is not supported"),
    "vllm_xargs": Neutral("there are no custom sampling arguments", ({},)),
    "prompt_embeds": Neutral("prompts are text or token ids"),
}

CHAT_NEUTRAL: Mapping[str, Neutral] = MappingProxyType(
    {
        **_SHARED,
        "functions": _FUNCTIONS,
        "function_call": Neutral("functions became tools; send tools and tool_choice", ("none", "auto")),
        "modalities": Neutral("only text is supported", (["text"],)),
        "audio": _MULTIMODAL,
        "mm_processor_kwargs": _MULTIMODAL,
        "media_io_kwargs": _MULTIMODAL,
        "prediction": Neutral("predicted output is not supported"),
        "web_search_options": Neutral("web search is not supported"),
        "moderation": Neutral("moderation is not supported"),
        "store": Neutral("completions are never stored", (False,)),
        "verbosity": Neutral("it is not passed on to models", ("medium",)),
        "include_reasoning": Neutral("reasoning that an upstream tells apart is always shown", (True,)),
        "thinking_token_budget": Neutral("it is not passed on to models; send reasoning_effort"),
        "prompt_cache_retention": Neutral("cached prefixes live in memory", ("in_memory",)),
        "prompt_cache_options": Neutral("prefixes are cached without being asked", ({},)),
        "best_of": Neutral("ranking several completions is not supported", (1,)),
        "echo": Neutral("only /v1/completions echoes its prompt", (False,)),
        "documents": Neutral("documents are not supported", ([],)),
        "chat_template": _TEMPLATE,
    }
)

_STATELESS = Neutral("responses are not kept; send the whole conversation as input")

RESPONSES_NEUTRAL: Mapping[str, Neutral] = MappingProxyType(
    {
        "background": Neutral("responses are not made in the background", (False,)),
        "context_management": Neutral("conversations are not compacted", ([],)),
        "conversation": _STATELESS,
        "max_tool_calls": Neutral("there are no built-in tools"),
        "moderation": Neutral("moderation is not supported"),
        "previous_response_id": _STATELESS,
        "prompt": Neutral("prompt templates are not kept"),
        "prompt_cache_options": Neutral("prefixes are cached without being asked", ({},)),
        "prompt_cache_retention": Neutral("cached prefixes live in memory", ("in_memory",)),
        "service_tier": Neutral("there is one service tier", ("auto", "default")),
        "store": Neutral("responses are never stored", (False,)),
        "truncation": Neutral("conversations are not cut", ("disabled",)),
    }
)

COMPLETION_NEUTRAL: Mapping[str, Neutral] = MappingProxyType(
    {
        **_SHARED,
        "response_format": Neutral("only chats have a response format", ({"type": "text"},)),
        "suffix": Neutral("filling in the middle is not supported", ("",)),
        "store": Neutral("completions are never stored", (False,)),
    }
)

TOKENIZE_NEUTRAL: Mapping[str, Neutral] = MappingProxyType(
    {
        "tools": _TOOLS,
        "documents": Neutral("documents are not supported", ([],)),
        "chat_template": _TEMPLATE,
        "mm_processor_kwargs": _MULTIMODAL,
        "media_io_kwargs": _MULTIMODAL,
    }
)

DETOKENIZE_NEUTRAL: Mapping[str, Neutral] = MappingProxyType({})

MESSAGE_NEUTRAL: Mapping[str, Neutral] = MappingProxyType(
    {
        "function_call": Neutral("functions became tools; send tool_calls"),
        "audio": _MULTIMODAL,
        "refusal": Neutral("refusals are not parsed"),
        "annotations": Neutral("annotations are not supported", ([],)),
    }
)

PART_NEUTRAL: Mapping[str, Neutral] = MappingProxyType(
    {
        "image_url": _MULTIMODAL,
        "input_audio": _MULTIMODAL,
        "audio_url": _MULTIMODAL,
        "video_url": _MULTIMODAL,
        "file": _MULTIMODAL,
        "refusal": Neutral("refusals are not parsed"),
        "prompt_cache_breakpoint": Neutral("prefixes are cached without being asked"),
        "cache_control": Neutral("prefixes are cached without being asked"),
    }
)
