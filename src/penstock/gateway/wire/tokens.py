"""The bodies of `/tokenize` and `/detokenize`, in vLLM's shapes."""

from __future__ import annotations

from msgspec import Raw, Struct

from penstock.core.errors import InvalidRequest
from penstock.core.types import Request
from penstock.gateway.wire.call import check_token_ids
from penstock.gateway.wire.chat import read_template


class TokenizeFields(Struct, kw_only=True):
    """A text, or a conversation that the model's template renders."""

    model: str | None = None
    messages: list[dict[str, Raw]] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, object] | None = None
    prompt: str | None = None
    add_special_tokens: bool | None = None  # on for a text, off for a conversation
    return_token_strs: bool | None = None


class DetokenizeFields(Struct, kw_only=True):
    model: str | None = None
    tokens: list[int] | None = None


class Tokenized(Struct, frozen=True):
    count: int
    max_model_len: int | None
    tokens: tuple[int, ...]
    token_strs: tuple[str, ...] | None = None


class Detokenized(Struct, frozen=True):
    prompt: str


def tokenize_request(fields: TokenizeFields, request_id: str, model: str) -> Request:
    """Raises InvalidRequest unless there is exactly one of prompt and messages."""
    if (fields.prompt is None) == (fields.messages is None):
        raise InvalidRequest("send either prompt or messages", param="prompt")
    if fields.prompt is not None:
        _refuse_template_fields(fields)
        special = True if fields.add_special_tokens is None else fields.add_special_tokens
        return Request(id=request_id, model=model, prompt=fields.prompt, add_special_tokens=special)
    template = read_template(fields)
    return Request(
        id=request_id,
        model=model,
        messages=template.messages,
        add_special_tokens=bool(fields.add_special_tokens),
        add_generation_prompt=template.add_generation_prompt,
        continue_final_message=template.continue_final_message,
        chat_template_kwargs=template.chat_template_kwargs,
    )


def detokenize_request(fields: DetokenizeFields, request_id: str, model: str) -> Request:
    """Raises InvalidRequest where tokens is missing or has an impossible id."""
    if fields.tokens is None:
        raise InvalidRequest("tokens is missing", hint="send a list of token ids", param="tokens")
    check_token_ids("tokens", fields.tokens)
    return Request(id=request_id, model=model, prompt_token_ids=tuple(fields.tokens))


def _refuse_template_fields(fields: TokenizeFields) -> None:
    for name in ("add_generation_prompt", "continue_final_message", "chat_template_kwargs"):
        if getattr(fields, name) is not None:
            raise InvalidRequest(f"{name} goes only with messages", param=name)
