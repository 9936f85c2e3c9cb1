"""The ledger's protocol and one that only counts."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from penstock.core.types import FinishReason, Usage
from penstock.trace.events import Ended


class Ledger(Protocol):
    """Is told of each request exactly once, when it has ended, whatever happened."""

    def record(self, ended: Ended) -> None:
        """Write down the request's attempts and judgements. Once it returns, killing the process loses none of them.

        Runs on the event loop, before the client is told that the answer is complete: it may append to a file, not wait.
        """

    async def close(self) -> None:
        """Write what is still to be written."""


class MemoryLedger:
    """Totals since the start of the process; keeps nothing of a request itself."""

    def __init__(self) -> None:
        self.finished: Counter[FinishReason] = Counter()
        self.usage = Usage()

    def record(self, ended: Ended) -> None:
        usage = ended.finish.usage
        self.finished[ended.finish.reason] += 1
        self.usage = Usage(
            prompt_tokens=self.usage.prompt_tokens + usage.prompt_tokens,
            completion_tokens=self.usage.completion_tokens + usage.completion_tokens,
            cached_tokens=self.usage.cached_tokens + usage.cached_tokens,
            cache_write_tokens=self.usage.cache_write_tokens + usage.cache_write_tokens,
            reasoning_tokens=self.usage.reasoning_tokens + usage.reasoning_tokens,
        )

    async def close(self) -> None:
        return None
