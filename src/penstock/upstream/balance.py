"""Which replica is asked: the one that knows the prompt's beginning, unless it has far more to do than another.

Replicas are routes of one decision that serve the same model. What each has to do is counted in outstanding tokens: the
prompts under way, about four characters a token, and the answers to come, each as long as the route's answers were of late.
The beginning of a prompt is what repeats from turn to turn: a chat's messages up to the first of the user, or the first
characters of a text. It is remembered which replica saw it last, for the latest of them, and never across tenants.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from msgspec import Struct

from penstock.core.types import Request, Route

REMEMBERED = 16_384  # beginnings
SLACK_TOKENS = 8_192  # a replica may have twice as much to do as another, and this much more, before its prefixes are given up
PREFIX_CHARS = 1024
PREFIX_IDS = 256
CHARS_PER_TOKEN = 4
FIRST_GUESS = 256.0  # tokens of an answer, while no answer has been seen
RECENT = 0.1  # weight of the latest answer in the mean


class Ordered(Struct, frozen=True):
    """Routes in the order to try them, and why the first is first; "" where there was no choice."""

    routes: tuple[Route, ...]
    why: str = ""


class Balance:
    """Knows what each replica has to do, and what it has seen."""

    def __init__(self) -> None:
        self._outstanding: dict[Route, float] = {}
        self._answer: dict[Route, float] = {}  # tokens of a typical answer
        self._seen: OrderedDict[int, Route] = OrderedDict()

    def order(self, request: Request, routes: Sequence[Route], fit: Callable[[Route], bool]) -> Ordered:
        """Replicas beside each other, the best first; models stay in their order. `fit` says which can serve at all now."""
        groups: dict[str, list[Route]] = {}
        for route in routes:
            groups.setdefault(route.model, []).append(route)
        prefix = _prefix(request)
        known = None if prefix is None else self._seen.get(prefix)
        ordered = [self._group(group, known, fit) for group in groups.values()]
        return Ordered(tuple(route for group in ordered for route in group.routes), ordered[0].why)

    def begin(self, request: Request, route: Route) -> float:
        """The route is called; what it has to do by that, in tokens, is to be given back to `end`."""
        tokens = _prompt_tokens(request) + self._expected(request, route)
        self._outstanding[route] = self._outstanding.get(route, 0.0) + tokens
        prefix = _prefix(request)
        if prefix is not None:
            self._seen[prefix] = route
            self._seen.move_to_end(prefix)
            if len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
        return tokens

    def end(self, route: Route, tokens: float, answer: int | None) -> None:
        """The call is over. `answer` is how many tokens a whole answer had, all choices together; None: there was none."""
        self._outstanding[route] -= tokens
        if answer is not None:
            before = self._answer.get(route, float(answer))
            self._answer[route] = before + RECENT * (answer - before)

    def _group(self, group: list[Route], known: Route | None, fit: Callable[[Route], bool]) -> Ordered:
        if len(group) == 1:
            return Ordered(tuple(group))
        load = {route: self._outstanding.get(route, 0.0) for route in group}
        unfit = {route: not fit(route) for route in group}
        group = sorted(group, key=lambda route: (unfit[route], load[route]))  # of equals the first given
        why = f"{group[0].upstream!r} has the least to do of {len(group)} replicas"
        if known in load and not unfit[known] and load[known] <= 2 * load[group[0]] + SLACK_TOKENS:
            group.remove(known)
            group.insert(0, known)
            why = f"{known.upstream!r} of {len(group)} replicas has seen this prompt's beginning"
        return Ordered(tuple(group), why)

    def _expected(self, request: Request, route: Route) -> float:
        if request.inputs is not None:
            return 0.0
        expected = self._answer.get(route, FIRST_GUESS * request.n)
        most = request.sampling.max_tokens
        return expected if most is None else min(expected, float(most * request.n))


def _prompt_tokens(request: Request) -> int:
    if request.prompt_token_ids is not None:
        return len(request.prompt_token_ids)
    if request.messages is not None:
        return sum(len(message.content) for message in request.messages) // CHARS_PER_TOKEN
    return sum(map(len, request.inputs or (request.prompt or "",))) // CHARS_PER_TOKEN


def _prefix(request: Request) -> int | None:
    """The beginning that later prompts may share, as a number; None for inputs of an embedding."""
    if request.prompt_token_ids is not None:
        return hash((request.tenant, request.prompt_token_ids[:PREFIX_IDS]))
    if request.prompt is not None:
        return hash((request.tenant, request.prompt[:PREFIX_CHARS]))
    if request.messages is None:
        return None
    beginning: list[str] = [request.tenant]
    for message in request.messages:
        beginning += (message.role, message.content)
        if message.role == "user":
            break
    return hash(tuple(beginning))
