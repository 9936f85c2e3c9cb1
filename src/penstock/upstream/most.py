"""The most that a request can use: known before an upstream is called, for limits that are reserved."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from penstock.core.errors import InvalidRequest
from penstock.core.types import Request, Route
from penstock.upstream.protocol import Upstream, tokenizing

TEXT_TOKENS = 2  # that mark a text's beginning and end for an embedding model
MESSAGE_TOKENS = 16  # what a chat template may add around one message


class Most(Struct, frozen=True):
    """Tokens of the largest possible call, all choices together, and how many such calls may have to be paid."""

    prompt_tokens: int
    completion_tokens: int
    calls: int = 1


async def most_tokens(request: Request, upstream: Upstream, route: Route) -> Most:
    """Exact for the prompt where the upstream knows its tokenizer, else no token is shorter than a byte.

    Raises InvalidRequest where neither the request nor the model bounds the answer.
    """
    if request.inputs is not None:
        return Most(sum(len(item) if isinstance(item, tuple) else _bytes(item) + TEXT_TOKENS for item in request.inputs), 0)
    knows = tokenizing(upstream)
    prompt = _prompt_bytes(request) if knows is None else len((await knows.tokenize(request)).token_ids)
    card = next((card for card in upstream.models() if card.id == route.model), None)
    bounds = [request.sampling.max_tokens]
    if card is not None:
        least = 0 if knows is None else prompt  # bytes are the most tokens that there may be, not what the context surely loses
        bounds += [card.max_output_tokens, None if card.max_model_len is None else max(card.max_model_len - least, 0)]
    known = [bound for bound in bounds if bound is not None]
    if not known:
        hint = "send max_tokens, or set max_output_tokens of the upstream"
        raise InvalidRequest(f"the key has limits and nothing bounds the answer of {route.model!r}", hint=hint, param="max_tokens")
    return Most(prompt, min(known) * request.n)


def _prompt_bytes(request: Request) -> int:
    if request.prompt_token_ids is not None:
        return len(request.prompt_token_ids)
    if request.prompt is not None:
        return _bytes(request.prompt) + 1
    written = msgspec.json.encode([request.messages, request.tools, request.response_format])
    return len(written) + MESSAGE_TOKENS * len(request.messages or ())


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", errors="replace"))
