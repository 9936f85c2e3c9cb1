"""What a store of counters can do."""

from __future__ import annotations

from typing import Protocol

from penstock.meter.counters.account import Claim, Refusal


class Counters(Protocol):
    """Counts what keys use. Each operation is one atomic step, whoever else counts in the same store.

    Every one may raise LimitsDown where the store cannot be reached.
    """

    async def admit(self, claim: Claim) -> Refusal | None:
        """Count a request of the account and take a concurrent place for the hold; None: done. A refusal counts nothing."""

    async def reserve(self, claim: Claim) -> Refusal | None:
        """Reserve the claim's tokens and money on its hold, all or nothing; None: done.

        A refusal that says `warned` was overruled: it is reserved. "unseeded": the store knows nothing of this account's spending;
        the claim is to be made again with a `seed`, which raises the spending counted to at least so much.
        """

    async def settle(self, claim: Claim) -> None:
        """Free the hold and count its tokens and money as used. Where there is no such hold nothing is counted, so that settling
        twice, or again after a crash, changes nothing; unless the claim says `unheld`: then it counts all the same, once.
        """

    async def close(self) -> None:
        """Free connections."""
