"""Both tiers together: what is given again, to whom, why, and what is learned from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from cached import Foreseen, WordVectors, entry, open_store
from msgspec.structs import replace

from penstock.cache import AnswerCache, make_cache
from penstock.cache.index import VectorIndex
from penstock.cache.semantic import SemanticTier
from penstock.cache.store import Bounds, Part, Store
from penstock.core.config import CacheSettings
from penstock.core.types import Event, Finish, Judgement, Message, Options, Request, Sampling, Tool
from penstock.embed import open_vectors
from penstock.meter import MemoryLedger
from penstock.pipeline import Pipeline
from penstock.router import FixedRouter
from penstock.trace import Ended
from penstock.upstream import Dispatch, routes_by_model
from penstock.upstream.fake import FakeUpstream, Script

GREEDY = Sampling(temperature=0.0)
CAPITAL, ALIKE, AKIN, OTHER = (
    "what is the capital city of France",
    "what is the capital city of france please",
    "name the capital city of France",
    "how do plants grow in winter",
)


def ask(text: str = CAPITAL, **fields: object) -> Request:
    return Request(**({"id": "r", "model": "fake", "messages": (Message(role="user", content=text),), "sampling": GREEDY} | fields))


def wish(use: str, text: str = CAPITAL, **fields: object) -> Request:
    return ask(text, options=Options(cache=use), **fields)  # type: ignore[arg-type]


class Kept(MemoryLedger):
    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Ended] = []

    def record(self, ended: Ended) -> None:
        self.entries.append(ended)


class Page:
    """A pipeline with both tiers, whose judgement and clock are the test's."""

    def __init__(self, store: Store, upstream: FakeUpstream | None = None, verifier: Foreseen | None = None, **settings: object) -> None:
        self.now = 4e9
        self.verifier = verifier or Foreseen()
        self.vectors = WordVectors()
        chosen = CacheSettings(**({"exact": "on", "semantic": "on"} | settings))
        self.upstream = upstream or FakeUpstream(Script(pieces=("Par", "is")))
        index = VectorIndex(store.rows, self.vectors.dimensions, chosen.max_entries)
        semantic = None
        if chosen.semantic != "off":
            semantic = SemanticTier(store, index, self.vectors, lambda: self.verifier, policy=chosen.policy)
        self.cache = AnswerCache(chosen, store, semantic, lambda: self.now)
        self.ledger = Kept()
        named = {"here": self.upstream}
        router = FixedRouter(routes_by_model(named))
        self.pipeline = Pipeline(dispatch=Dispatch(named), router=router, cache=self.cache, ledger=self.ledger)

    async def events(self, request: Request) -> list[Event]:
        async with aclosing(self.pipeline.run(request)) as events:
            found = [event async for event in events]
        while self.cache._afterwards:
            await asyncio.sleep(0)
        return found

    async def told(self, request: Request) -> tuple[str, Judgement]:
        """The state of the cache, and the last that was judged."""
        await self.events(request)
        return self.ledger.entries[-1].cache, self.ledger.entries[-1].judgements[-1]

    async def states(self, *requests: Request) -> list[str]:
        return [(await self.told(request))[0] for request in requests]


@asynccontextmanager
async def page(upstream: FakeUpstream | None = None, verifier: Foreseen | None = None, **settings: object) -> AsyncIterator[Page]:
    async with open_store("memory", Path(), "", lambda: 4e9) as store:
        made = Page(store, upstream, verifier, **settings)
        yield made
        await made.cache.close()


@pytest.mark.feature("semantic cache", "streaming")
async def test_what_means_the_same_is_the_same_stream() -> None:
    async with page() as here:
        first = await here.events(ask(CAPITAL))
        again = await here.events(ask(ALIKE))
        assert again[:-1] == first[:-1]
        assert len(here.upstream.requests) == 1
        (judged,) = here.ledger.entries[-1].judgements
        assert (judged.room, judged.rule, judged.action, judged.shadow) == ("cache", "semantic", "hit", False)
        assert judged.why.startswith("means the same as a stored question")
        assert CAPITAL not in judged.why  # the ledger keeps it
        assert judged.score is not None and judged.score > 0.9
        assert here.ledger.entries[-1].finish.usage == here.ledger.entries[0].finish.usage


async def test_the_very_same_is_found_without_its_meaning() -> None:
    async with page() as here:
        await here.events(ask())
        state, judged = await here.told(ask())
        assert (state, judged.rule, judged.action) == ("hit", "exact", "hit")
        assert len(here.vectors.asked) == 1


async def test_what_is_far_is_a_miss_with_its_reason() -> None:
    async with page() as here:
        await here.events(ask())
        state, judged = await here.told(ask(OTHER))
        assert (state, judged.rule, judged.action, judged.why) == ("miss", "semantic", "miss", "too far")


@pytest.mark.parametrize(("answers", "same"), [(("Paris", "Paris."), True), (("Paris", "Rome"), False)])
async def test_a_trial_is_answered_compared_and_learned_from(answers: tuple[str, str], same: bool) -> None:
    upstream = FakeUpstream(*(Script(pieces=(answer,)) for answer in answers))
    async with page(upstream) as here:
        await here.events(ask(CAPITAL))
        state, judged = await here.told(ask(AKIN))
        assert (state, judged.action) == ("miss", "explore")
        assert len(upstream.requests) == 2
        assert here.verifier.learned == [("", same)]
        (stored,) = [entry for entry in here.cache._store._entries.values() if entry.text == CAPITAL]  # type: ignore[attr-defined]
        assert [seen.same for seen in stored.seen] == [same]
        assert (await here.told(ask(AKIN)))[1].rule == "exact"
        assert (await here.cache.held())[0].by_meaning == (1 if same else 2)  # the trials of one meaning gather at one entry


@pytest.mark.parametrize(
    "change",
    [
        {"tenant": "b"},
        {"model": "other"},
        {"tools": (Tool(name="f"),)},
        {"sampling": replace(GREEDY, max_tokens=3)},
        {"response_format": {"type": "json_object"}},
        {"messages": (Message(role="system", content="Be brief"), Message(role="user", content=ALIKE))},
        {"messages": tuple(Message(role=role, content=text) for role, text in (("user", "Hi"), ("assistant", "Hi"), ("user", ALIKE)))},
        {"options": Options(quality=0.5)},
    ],
    ids=str,
)
async def test_another_scope_is_never_compared(change: dict[str, object]) -> None:
    async with page() as here:
        await here.events(ask())
        state, judged = await here.told(ask(**({"text": ALIKE} | change)))
        assert (state, judged.action) in (("miss", "miss"), ("bypass", "bypass"))


async def test_another_policy_leaves_all_behind(tmp_path: Path) -> None:
    async with open_store("sqlite", tmp_path, "", lambda: 4e9) as store:
        old, new = Page(store, policy="1"), Page(store, policy="2")
        await old.events(ask())
        assert await new.states(ask(), ask(ALIKE)) == ["miss", "hit"]  # its own
        assert await old.states(ask(), ask(ALIKE)) == ["hit", "hit"]
        assert (len(old.upstream.requests), len(new.upstream.requests)) == (1, 1)


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_after_a_restart_meanings_are_found_again(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("redis_url") if kind == "redis" else ""
    for state in ("miss", "hit"):
        async with open_store(kind, tmp_path, url, lambda: 4e9, prefix="restart:{t}") as store:
            here = Page(store)
            assert await here.states(ask(CAPITAL if state == "miss" else ALIKE)) == [state]


@pytest.mark.feature("semantic cache", "shadow")
async def test_a_shadow_says_what_it_would_do_and_changes_nothing() -> None:
    async with page(exact="shadow", semantic="shadow") as here:
        await here.events(ask())
        assert await here.states(ask(), ask(ALIKE)) == ["miss", "miss"]
        assert len(here.upstream.requests) == 3
        exact, meant = (entry.judgements[-1] for entry in here.ledger.entries[-2:])
        assert (exact.rule, exact.action, exact.shadow) == ("exact", "hit", True)
        assert (meant.rule, meant.action, meant.shadow) == ("semantic", "hit", True)
        assert here.verifier.learned == [("", True)]
        assert [len(entry.seen) for entry in here.cache._store._entries.values() if entry.vector] == [1]  # type: ignore[attr-defined]
        await here.events(ask())
        assert [len(entry.seen) for entry in here.cache._store._entries.values() if entry.vector] == [1]  # type: ignore[attr-defined]


async def test_one_tier_may_be_in_shadow_and_the_other_on() -> None:
    async with page(semantic="shadow") as here:
        await here.events(ask())
        assert await here.states(ask(ALIKE), ask()) == ["miss", "hit"]
    async with page(exact="off") as here:
        await here.events(ask())
        assert await here.states(ask(), ask(ALIKE)) == ["hit", "hit"]
        assert {judged.rule for entry in here.ledger.entries for judged in entry.judgements} == {"semantic"}


async def test_a_request_may_want_no_cache() -> None:
    async with page() as here:
        assert await here.states(ask(), wish("off"), ask()) == ["miss", "bypass", "hit"]
        assert here.ledger.entries[1].judgements[-1].action == "bypass"
        assert len(here.upstream.requests) == 2


async def test_read_stores_nothing() -> None:
    async with page() as here:
        assert await here.states(wish("read"), wish("read"), ask(), wish("read"), wish("read", ALIKE)) == [
            "miss",
            "miss",
            "miss",
            "hit",
            "hit",
        ]


async def test_write_is_never_answered_and_keeps_what_is_there() -> None:
    async with page(FakeUpstream(*(Script(pieces=(word,)) for word in ("one", "two", "three")))) as here:
        assert await here.states(wish("write"), wish("write"), ask(), ask(ALIKE)) == ["bypass", "bypass", "hit", "hit"]
        assert "".join(event.text for event in (await here.events(ask()))[1:-1]) == "one"  # type: ignore[union-attr]


async def test_refresh_replaces_what_is_there() -> None:
    async with page(FakeUpstream(*(Script(pieces=(word,)) for word in ("one", "two", "three")))) as here:
        assert await here.states(ask(), wish("refresh"), ask(), ask(ALIKE)) == ["miss", "bypass", "hit", "hit"]
        assert "".join(event.text for event in (await here.events(ask(ALIKE)))[1:-1]) == "two"  # type: ignore[union-attr]


async def test_a_request_may_want_what_chance_could_change() -> None:
    async with page() as here:
        drawn = {"sampling": Sampling(temperature=1.0)}
        assert await here.states(ask(**drawn), ask(**drawn), wish("on", **drawn), wish("on", **drawn)) == [
            "bypass",
            "bypass",
            "miss",
            "hit",
        ]


@pytest.mark.parametrize("text", ["what is the weather today", "what is my name", "tell me a joke"])
async def test_what_is_of_the_hour_or_of_one_person_is_not_compared(text: str) -> None:
    async with page() as here:
        await here.events(ask(text))
        assert await here.states(ask(text + " please"), ask(text)) == ["miss", "hit"]
        assert here.vectors.asked == []


async def test_a_refusal_is_not_found_by_meaning() -> None:
    async with page(FakeUpstream(Script(pieces=("I'm sorry, I can't help with that.",)))) as here:
        assert await here.states(ask(), ask(ALIKE)) == ["miss", "miss"]


async def test_an_answer_cut_by_its_limit_is_not_found_by_meaning() -> None:
    async with page() as here:
        short = {"sampling": replace(GREEDY, max_tokens=2)}
        assert await here.states(ask(**short), ask(**short), ask(ALIKE, **short)) == ["miss", "hit", "miss"]


async def test_what_was_cleared_is_not_found() -> None:
    async with page() as here:
        for tenant in "ab":
            await here.events(ask(tenant=tenant))
        assert await here.cache.clear(Part(tenant="a")) == 1
        assert await here.states(
            ask(
                ALIKE,
                tenant="a",
            ),
            ask(ALIKE, tenant="b"),
        ) == ["miss", "hit"]


async def test_what_is_being_answered_while_all_is_cleared_is_not_stored() -> None:
    async with page() as here:
        async with aclosing(here.pipeline.run(ask())) as events:
            await anext(events)
            await here.cache.clear(Part())
            async for _ in events:
                pass
        assert await here.states(ask()) == ["miss"]


async def test_evicted_answers_are_not_found_by_meaning() -> None:
    async with open_store("memory", Path(), "", lambda: 4e9, Bounds(10**7, 1)) as store:
        here = Page(store)
        assert await here.states(ask(), ask(OTHER), ask(ALIKE)) == ["miss", "miss", "miss"]


class Broken(WordVectors):
    async def of(self, texts: object) -> object:  # type: ignore[override]
        raise OSError("the weights are gone")


async def test_without_vectors_the_exact_tier_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async with page() as here:
        here.cache._semantic._vectors = Broken()  # type: ignore[union-attr]
        assert await here.states(ask(), ask(), ask(ALIKE)) == ["miss", "hit", "miss"]
        assert caplog.text.count("the semantic cache does not answer") == 1


async def test_a_foreign_entry_under_a_key_is_a_miss(tmp_path: Path) -> None:
    """Defence in depth: even a store that mixes up tenants gives nobody another's answer."""
    async with page() as here:
        await here.events(ask(tenant="b"))
        (stored,) = here.cache._store._entries.values()  # type: ignore[attr-defined]
        await here.cache._store.put(replace(stored, tenant="a"))
        state, _ = await here.told(ask(tenant="b"))
        assert state == "miss"


async def test_counts_say_what_was_decided() -> None:
    async with page() as here:
        await here.states(ask(), ask(), ask(ALIKE), ask(OTHER))
        held, counts = await here.cache.held()
        assert (held.entries, held.by_meaning) == (2, 2)
        assert counts == {"semantic miss": 2, "exact hit": 1, "semantic hit": 1}


async def test_a_hit_ends_like_any_answer() -> None:
    async with page() as here:
        await here.events(ask())
        finish = (await here.events(ask(ALIKE)))[-1]
        assert isinstance(finish, Finish)
        assert finish.reason == "stop"
        assert entry().seen == ()


async def test_the_real_encoder_and_the_real_judgement_take_part(tmp_path: Path) -> None:
    vectors = open_vectors("minilm")
    cache = make_cache(CacheSettings(exact="on", semantic="on", store="sqlite"), tmp_path, lambda: vectors)
    assert isinstance(cache, AnswerCache)
    assert cache._semantic is not None
    await cache._semantic.placed(ask(), "read the files beforehand")
    named = {"here": FakeUpstream(Script(pieces=("17 + 71 = 88.",)))}
    ledger = Kept()
    here = Pipeline(dispatch=Dispatch(named), router=FixedRouter(routes_by_model(named)), cache=cache, ledger=ledger)
    for text in ("What is 17 + 71?", "what is 17 + 71", "What is 17 + 25?"):
        async with aclosing(here.run(ask(text))) as events:
            async for _ in events:
                pass
        while cache._afterwards:
            await asyncio.wait(cache._afterwards)
    first, alike, other = (entry.judgements[-1] for entry in ledger.entries)
    assert (first.action, first.score) == ("miss", None)
    assert alike.action in ("hit", "explore")
    assert alike.score is not None and alike.score > 0.9
    assert (other.action, "number" in other.why) == ("miss", True)
    await cache.close()
    await vectors.close()


async def test_an_exact_tier_in_shadow_takes_no_hit_from_the_other() -> None:
    async with page(exact="shadow") as here:
        await here.events(ask())
        assert await here.states(ask()) == ["hit"]
        assert [(judged.rule, judged.shadow) for judged in here.ledger.entries[-1].judgements] == [("exact", True), ("semantic", False)]
