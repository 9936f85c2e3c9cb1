"""Usage in every shape that servers write it, and what is counted when none came.

    OpenAI            prompt_tokens, completion_tokens, total_tokens; *_tokens_details.{cached,reasoning}_tokens
    DeepSeek          prompt_cache_hit_tokens        Moonshot   cached_tokens
    OpenRouter        prompt_tokens_details.cache_write_tokens
    xAI, Gemini       reasoning only in total_tokens, not in completion_tokens
    Anthropic         input_tokens without what the cache read and wrote
    Gemini's own      promptTokenCount, candidatesTokenCount, and thoughtsTokenCount beside them

It may stand in a chunk of its own with `choices: []` or `[{}]`, with the last content, or in each chunk, growing.
"""

from __future__ import annotations

from msgspec import Struct

from penstock.core.types import Request, Usage

BYTES_PER_TOKEN = 4  # of English prose, about
MAX_PIECE_CHARS = 16  # longer pieces, on average, are several tokens each
MESSAGE_TOKENS = 4  # around each message of a chat, about
MOST_TOKENS = 10**9  # whoever says more says nothing: no such call is possible, and no counter is made for it


class PromptDetails(Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class CompletionDetails(Struct, gc=False):
    reasoning_tokens: int | None = None


class OpenAIUsage(Struct):
    """As OpenAI and those who followed write it."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    prompt_cache_hit_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None

    def usage(self) -> Usage | None:
        """The same in our words; None where it says nothing."""
        prompt, completion = _count(self.prompt_tokens), _count(self.completion_tokens)
        details, more = self.prompt_tokens_details, self.completion_tokens_details
        hidden = max(0, _count(self.total_tokens) - prompt - completion) if self.prompt_tokens is not None else 0
        completion += hidden
        if not prompt and not completion:
            return None
        reasoning = _count(more.reasoning_tokens if more else None) or _count(self.reasoning_tokens) or hidden
        cached = _count(details.cached_tokens if details else None) or _count(self.prompt_cache_hit_tokens) or _count(self.cached_tokens)
        return _bounded(prompt, completion, cached, _count(details.cache_write_tokens if details else None), reasoning)


class OutputDetails(Struct, gc=False):
    thinking_tokens: int | None = None


class AnthropicUsage(Struct):
    """As Anthropic writes it: what the cache read and wrote stands beside `input_tokens`, not within."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens_details: OutputDetails | None = None

    def usage(self) -> Usage | None:
        """The same in our words; None where it says nothing."""
        read, written = _count(self.cache_read_input_tokens), _count(self.cache_creation_input_tokens)
        details = self.output_tokens_details
        prompt, completion = _count(self.input_tokens) + read + written, _count(self.output_tokens)
        thinking = _count(details.thinking_tokens if details else None)
        return _bounded(prompt, completion, read, written, thinking) if prompt or completion else None


class GeminiUsage(Struct, rename="camel"):
    """As Gemini writes it: thoughts stand beside the candidates."""

    prompt_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    cached_content_token_count: int | None = None

    def usage(self) -> Usage | None:
        """The same in our words; None where it says nothing."""
        prompt = _count(self.prompt_token_count) + _count(self.tool_use_prompt_token_count)
        thoughts = _count(self.thoughts_token_count)
        completion = _count(self.candidates_token_count) + thoughts
        return _bounded(prompt, completion, _count(self.cached_content_token_count), 0, thoughts) if prompt or completion else None


def _bounded(prompt: int, completion: int, cached: int, written: int, reasoning: int) -> Usage:
    """Parts never exceed their wholes, whatever a server says."""
    cached = min(cached, prompt)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        cache_write_tokens=min(written, prompt - cached),
        reasoning_tokens=min(reasoning, completion),
    )


def _count(tokens: int | None) -> int:
    return tokens if tokens and 0 < tokens <= MOST_TOKENS else 0


def estimated(request: Request, completion_tokens: int, *, reasoning: int = 0) -> Usage:
    """What a call used as far as we saw it: the prompt by its length, the answer by the tokens that were delivered."""
    return Usage(
        prompt_tokens=prompt_tokens(request),
        completion_tokens=completion_tokens,
        reasoning_tokens=min(reasoning, completion_tokens),
        estimated=True,
    )


def counted(pieces: int, chars: int) -> int:
    """Tokens delivered: a piece is one, unless pieces are so long that they must hold several."""
    return pieces if chars <= pieces * MAX_PIECE_CHARS else -(-chars // BYTES_PER_TOKEN)


def prompt_tokens(request: Request) -> int:
    """About how many tokens the prompt has; exact for token ids."""
    if request.inputs is not None:
        return sum(len(item) if isinstance(item, tuple) else text_tokens(item) for item in request.inputs)
    if request.prompt_token_ids is not None:
        return len(request.prompt_token_ids)
    if request.prompt is not None:
        return text_tokens(request.prompt)
    return sum(MESSAGE_TOKENS + text_tokens(message.content) for message in request.messages or ())


def text_tokens(text: str) -> int:
    """About how many tokens a text has."""
    return -(-len(text.encode(errors="replace")) // BYTES_PER_TOKEN)
