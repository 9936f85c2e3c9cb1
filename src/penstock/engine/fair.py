"""Who is admitted next: accounts share a full engine by the tokens that they were served.

Each account has a counter of the tokens it was served, and the next sequence is the best-ranked one of the account that
was served least. An account that comes back starts level with those that waited meanwhile: it neither gains from its
pause nor pays for it. (The virtual token counter: Sheng et al. 2024, "Fairness in Serving Large Language Models", whose
bound holds: two accounts that both wait all the time are never further apart than twice what one batch holds.)

A prompt token counts 1 when it is computed, one from the prefix cache nothing, a generated token 2. A level of priority
halves what a sequence's tokens count for, so that within an account it decides who goes first, as the rank does, and
between accounts it doubles the share.
"""

from __future__ import annotations

import heapq
import itertools
from bisect import insort
from collections.abc import Iterator

from penstock.core.errors import Bug
from penstock.engine.sequence import Sequence

OUTPUT_WEIGHT = 2  # a generated token costs a whole step, a prompt token a part of one
MOST_LEVELS = 8  # of priority that count between accounts: beyond, one of them would owe for ever

Entry = tuple[float, int, Sequence]  # rank, when it was queued, who


class FairQueue:
    """The sequences that wait. With one account the order is that of their ranks."""

    def __init__(self) -> None:
        self._served: dict[str, float] = {}  # weighted tokens by account
        self._queues: dict[str, list[Entry]] = {}  # by account, sorted, never empty
        self._serial = itertools.count()
        self._last = ""  # the account admitted last

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[Sequence]:
        """Everybody, in no order worth the name."""
        return (entry[2] for queue in self._queues.values() for entry in queue)

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence. An account of which none waited is lifted to the level of the others."""
        account = sequence.job.account
        if account not in self._queues:
            level = min(map(self._of, self._queues)) if self._queues else self._of(self._last)
            self._served[account] = max(self._of(account), level)
        self.put_back(sequence)

    def put_back(self, sequence: Sequence) -> None:
        """Queue a sequence that has run before. Its account was never away."""
        insort(self._queues.setdefault(sequence.job.account, []), (sequence.rank, next(self._serial), sequence))

    def candidates(self) -> Iterator[Sequence]:
        """Everybody, in the order of admission. Each one given may be taken, and charged, before the next is asked for."""
        heads = [(self._of(account), *queue[0], 0) for account, queue in self._queues.items()]
        heapq.heapify(heads)
        while heads:
            _, _, _, sequence, index = heapq.heappop(heads)
            account = sequence.job.account
            yield sequence
            queue = self._queues.get(account, [])
            if index < len(queue) and queue[index][2] is sequence:
                index += 1
            if index < len(queue):
                heapq.heappush(heads, (self._of(account), *queue[index], index))

    def take(self, sequence: Sequence) -> None:
        """Remove a sequence: it is admitted."""
        self._last = sequence.job.account
        self.remove(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Remove a sequence: it was aborted."""
        account = sequence.job.account
        queue = self._queues.get(account, [])
        index = next((index for index, entry in enumerate(queue) if entry[2] is sequence), None)
        if index is None:
            raise Bug(f"sequence {sequence.job.id} does not wait")
        del queue[index]
        if not queue:
            del self._queues[account]

    def charge(self, sequence: Sequence, tokens: int) -> None:
        """Count tokens served, generated ones `OUTPUT_WEIGHT` times."""
        account, priority = sequence.job.account, sequence.job.priority
        weight = 2.0 ** min(max(priority, -MOST_LEVELS), MOST_LEVELS) if priority else 1.0
        self._served[account] = self._of(account) + tokens * weight

    def forget(self) -> None:
        """Start level: nobody runs and nobody waits, so nobody was kept from anything."""
        self._served.clear()

    def _of(self, account: str) -> float:
        return self._served.get(account, 0.0)
