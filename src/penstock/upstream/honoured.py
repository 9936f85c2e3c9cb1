"""No field is silently ignored: what a dialect has no word for is refused by name."""

from __future__ import annotations

from collections.abc import Collection

from msgspec.structs import asdict

from penstock.core.errors import Unsupported
from penstock.core.types import Request, Sampling

_DEFAULTS = asdict(Sampling())
_SPELLED = {"add_generation_prompt": True, "continue_final_message": False, "chat_template_kwargs": {}, "echo": False, "n": 1}
_OPTIONAL = (
    "prompt", "prompt_token_ids", "inputs", "dimensions", "truncate_prompt_tokens", "tool_choice", "parallel_tool_calls",
    "response_format", "reasoning_effort",
)  # fmt: skip
_WIRE = {"inputs": "input", "prompt_token_ids": "prompt"}


def refuse_beyond(request: Request, *, what: str, sampling: Collection[str], fields: Collection[str]) -> None:
    """Raises Unsupported for the first field that is set and not among those that `what` honours."""
    for name, default in _DEFAULTS.items():
        if name not in sampling and getattr(request.sampling, name) != default:
            raise _unsupported(request, name, what)
    for name, plain in (*_SPELLED.items(), *((name, None) for name in _OPTIONAL)):
        if name not in fields and getattr(request, name) != plain:
            raise _unsupported(request, name, what)
    if request.tools and "tools" not in fields:
        raise _unsupported(request, "tools", what)


def _unsupported(request: Request, name: str, what: str) -> Unsupported:
    wire = _WIRE.get(name, name)
    return Unsupported(f"{request.model!r} is served by {what}, which has no {wire}", hint="leave it out", param=wire)
