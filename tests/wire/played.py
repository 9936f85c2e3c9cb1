"""An upstream that plays deltas written beforehand, whatever is in them."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from penstock.core.types import Delta, Event, Finish, FinishReason, PromptInfo, Request, Route, ToolCallPiece, Usage
from penstock.trace import Tab
from penstock.upstream.fake import FakeUpstream

USAGE = Usage(prompt_tokens=10, completion_tokens=7, cached_tokens=4, reasoning_tokens=3)


class Played(FakeUpstream):
    """Says the same to everybody. Nothing is told of the prompt, as other servers tell nothing of theirs."""

    def __init__(self, *deltas: Delta, reason: FinishReason = "stop", error: Exception | None = None, prompt: bool = False) -> None:
        super().__init__()
        self._deltas = deltas
        self._reason = reason
        self._error = error
        self._prompt = prompt

    async def stream(self, request: Request, route: Route, tab: Tab) -> AsyncGenerator[Event, None]:
        self.requests.append(request)
        tab.usage = USAGE
        if self._prompt:
            yield PromptInfo(token_ids=(1, 2, 3))
        for delta in self._deltas:
            yield delta
        if self._error is not None:
            raise self._error
        yield Finish(reason=self._reason, usage=USAGE)


CALLS = (
    Delta(tool_calls=(ToolCallPiece(index=0, id="call_a", name="weather"),)),
    Delta(tool_calls=(ToolCallPiece(index=0, arguments='{"city":'),)),
    Delta(tool_calls=(ToolCallPiece(index=0, arguments=' "Rome"}'),)),
    Delta(tool_calls=(ToolCallPiece(index=1, id="call_b", name="time", arguments="{}"),)),
    Delta(finish_reason="tool_calls"),
)
THOUGHT = (
    Delta(reasoning="Let me "),
    Delta(reasoning="see."),
    Delta(text="For"),
    Delta(text="ty-two"),
    Delta(text=".", finish_reason="stop"),
)
WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
