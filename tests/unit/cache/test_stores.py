"""What every store of answers owes, and what happens where one is down, killed or damaged."""

from __future__ import annotations

import asyncio
import itertools
import logging
import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from cached import ROOMY, STORES, entry, key, open_store
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace
from redis_server import RedisServer

from penstock.cache.store import Bounds, Entry, Part, Seen, Store
from penstock.cache.store.outage import ForgivingStore
from penstock.cache.store.protocol import MOST_SEEN, SALT, opened, sealed
from penstock.core.errors import NotReady
from penstock.gateway.wire import call

PREFIXES = (f"test-{number}:{{t}}" for number in itertools.count())
VECTOR = b"\x01\x3c" * 8


class Place:
    """Where one test's store is; its clock is moved by the test."""

    def __init__(self, kind: str, folder: Path, url: str) -> None:
        self.now = 4e9  # beyond the clock by which Redis itself ends an entry
        self.kind, self._folder, self._url = kind, folder, url
        self._prefix = next(PREFIXES)

    @asynccontextmanager
    async def open(self, bounds: Bounds = ROOMY) -> AsyncIterator[Store]:
        async with open_store(self.kind, self._folder, self._url, lambda: self.now, bounds, self._prefix) as store:
            yield store


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    url = request.getfixturevalue("redis_url") if request.param == "redis" else ""
    return Place(request.param, tmp_path, url)


async def test_what_is_put_is_got_as_it_was(place: Place) -> None:
    kept = entry("a", scope=key("s"), text="why?", vector=VECTOR, tenant="é\x00", answer=bytes(range(256)))
    async with place.open() as store:
        assert await store.put(kept) == ()
        assert await store.get([key("b"), kept.key]) == {kept.key: kept}
        again = replace(kept, answer=b"another")
        await store.put(again)
        assert await store.get([kept.key]) == {kept.key: again}
        assert (await store.held()).entries == 1


async def test_an_entry_ends_at_its_time(place: Place) -> None:
    async with place.open() as store:
        await store.put(entry("a", until=place.now + 10, scope=key("s"), vector=VECTOR))
        place.now += 9.9
        assert await store.get([key("a")])
        place.now += 0.1
        assert await store.get([key("a")]) == {}
        await store.put(entry("b", scope=key("s"), vector=VECTOR))
        assert (await store.held()).entries == 1


async def test_the_longest_unused_go_first_and_are_named(place: Place) -> None:
    async with place.open(Bounds(10**7, 3)) as store:
        for name in "abc":
            place.now += 100
            await store.put(entry(name))
        place.now += 100
        await store.get([key("a")])
        await asyncio.sleep(0.05)  # SQLite writes down a use in the background
        place.now += 100
        assert await store.put(entry("d")) == (key("b"),)
        assert set(await store.get([key(name) for name in "abcd"])) == {key(name) for name in "acd"}


async def test_what_is_larger_than_the_store_drives_nothing_out(place: Place) -> None:
    async with place.open(Bounds(4000, 100)) as store:
        await store.put(entry("a"))
        assert await store.put(entry("b", answer=b"x" * 5000)) == ()
        assert set(await store.get([key("a"), key("b")])) == {key("a")}


async def test_the_vectors_of_a_scope_come_in_their_order_and_only_the_new_ones(place: Place) -> None:
    async with place.open() as store:
        for name in "abc":
            await store.put(entry(name, scope=key("s"), vector=VECTOR))
        await store.put(entry("other", scope=key("t"), vector=VECTOR))
        await store.put(entry("bare", scope=key("s")))
        rows = await store.rows(key("s"), 0)
        assert [(row.key, row.vector) for row in rows] == [(key(name), VECTOR) for name in "abc"]
        await store.put(entry("a", scope=key("s"), vector=VECTOR))
        assert [row.key for row in await store.rows(key("s"), rows[-1].number)] == [key("a")]
        assert (await store.held()).by_meaning == 4


async def test_comparisons_stay_with_their_entry_and_end_with_it(place: Place) -> None:
    async with place.open() as store:
        await store.put(entry("a"))
        for number in range(MOST_SEEN + 5):
            await store.note(key("a"), Seen(number / 100, number % 2 == 0))
        await store.note(key("gone"), Seen(0.5, True))
        seen = (await store.get([key("a")]))[key("a")].seen
        assert seen == tuple(Seen(number / 100, number % 2 == 0) for number in range(5, MOST_SEEN + 5))
        await store.put(entry("a"))
        assert (await store.get([key("a")]))[key("a")].seen == ()


@pytest.mark.parametrize(
    ("part", "left"),
    [
        (Part(tenant="alice"), {"bob 1", "bob 2"}),
        (Part(model="1"), {"alice 2", "bob 2"}),
        (Part(tenant="alice", model="1"), {"alice 2", "bob 1", "bob 2"}),
        (Part(scope=key("bob 2")), {"alice 1", "alice 2", "bob 1"}),
        (Part(), set()),
    ],
)
async def test_parts_are_dropped(place: Place, part: Part, left: set[str]) -> None:
    names = [f"{tenant} {model}" for tenant in ("alice", "bob") for model in "12"]
    async with place.open() as store:
        for name in names:
            tenant, model = name.split()
            await store.put(entry(name, tenant=tenant, model=model, scope=key(name), vector=VECTOR))
        assert await store.drop(part) == 4 - len(left)
        assert set(await store.get([key(name) for name in names])) == {key(name) for name in left}
        held = await store.held()
        assert (held.entries, held.by_meaning, held.bytes > 0) == (len(left), len(left), bool(left))


async def test_a_tenant_s_answers_are_also_those_of_its_salts(place: Place) -> None:
    tenants = ("alice", f"alice{SALT}salt", "alice2", "ali", f"ali{SALT}ce")
    async with place.open() as store:
        for tenant in tenants:
            await store.put(entry(tenant, tenant=tenant))
        assert await store.drop(Part(tenant="alice")) == 2
        assert set(await store.get([key(tenant) for tenant in tenants])) == {key(tenant) for tenant in tenants[2:]}


def test_the_mark_of_a_salt_is_the_wire_s() -> None:
    assert call.SALT == SALT


class Bounded(RuleBasedStateMachine):
    """Whatever is done, a store never holds more than it may, and gives back only what was put last."""

    place: Place
    bounds = Bounds(6000, 5)

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.opened = AsyncExitStack()
        self.store = self.runner.run(self.opened.enter_async_context(self.place.open(self.bounds)))
        self.runner.run(self.store.drop(Part()))
        self.put: dict[bytes, Entry] = {}

    names = st.sampled_from("abcdefgh")

    @rule(name=names, size=st.integers(0, 3000), lasts=st.integers(1, 50), vector=st.sampled_from([b"", VECTOR]))
    def puts(self, name: str, size: int, lasts: int, vector: bytes) -> None:
        now = entry(name, answer=b"x" * size, until=self.place.now + lasts, scope=key("s"), vector=vector)
        self.put[now.key] = now
        gone = self.runner.run(self.store.put(now))
        assert now.key not in gone

    @rule(name=names)
    def gets(self, name: str) -> None:
        found = self.runner.run(self.store.get([key(name)])).get(key(name))
        if found is not None:
            assert replace(found, seen=()) == self.put[key(name)]
            assert self.place.now < found.until

    @rule(name=names)
    def notes(self, name: str) -> None:
        self.runner.run(self.store.note(key(name), Seen(0.5, True)))

    @rule(seconds=st.integers(1, 30))
    def waits(self, seconds: int) -> None:
        self.place.now += seconds

    @invariant()
    def is_bounded(self) -> None:
        held = self.runner.run(self.store.held())
        assert 0 <= held.bytes <= self.bounds.max_bytes
        assert 0 <= held.by_meaning <= held.entries <= self.bounds.max_entries

    def teardown(self) -> None:
        self.runner.run(self.opened.aclose())
        self.runner.close()


def test_a_store_holds_no_more_than_it_may(place: Place) -> None:
    machine = type("Machine", (Bounded,), {"place": place})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine, settings=settings(max_examples=5, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
    )


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_what_was_put_outlives_the_process(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    place = Place(kind, tmp_path, request.getfixturevalue("redis_url") if kind == "redis" else "")
    kept = entry("a", scope=key("s"), text="why?", vector=VECTOR)
    async with place.open() as store:
        await store.put(kept)
        await store.note(kept.key, Seen(0.75, False))
    async with place.open() as store:
        assert await store.get([kept.key]) == {kept.key: replace(kept, seen=(Seen(0.75, False),))}
        assert [row.key for row in await store.rows(key("s"), 0)] == [kept.key]


@pytest.mark.parametrize("damage", ["cut", "flip", "swap"])
async def test_a_damaged_entry_is_none(damage: str, tmp_path: Path) -> None:
    place = Place("sqlite", tmp_path, "")
    async with place.open() as store:
        await store.put(entry("a"))
        await store.put(entry("b"))
    with sqlite3.connect(tmp_path / "cache.db") as database:
        body = database.execute("SELECT body FROM answers WHERE key = ?", (key("a"),)).fetchone()[0]
        other = database.execute("SELECT body FROM answers WHERE key = ?", (key("b"),)).fetchone()[0]
        harmed = {"cut": body[:-3], "flip": body.replace(b"answer to a", b"answer to b"), "swap": other}[damage]
        database.execute("UPDATE answers SET body = ? WHERE key = ?", (harmed, key("a")))
    database.close()
    async with place.open() as store:
        assert set(await store.get([key("a"), key("b")])) == {key("b")}


def test_only_what_was_sealed_is_opened() -> None:
    whole = sealed(entry("a"))
    assert opened(whole, key("a")) == entry("a")
    assert opened(whole, key("b")) is None
    for cut in range(len(whole)):
        assert opened(whole[:cut], key("a")) is None
    assert opened(b"\xff" * 40, key("a")) is None


def _put_for_ever(kind: str, folder: Path, url: str) -> None:
    """In a process that will be killed: entries whose text, answer and vector belong together."""

    async def run() -> None:
        async with open_store(kind, folder, url, time.time, prefix="killed:{t}") as store:
            for number in itertools.count():
                name = str(number % 50)
                word = f"{number} " * 300
                await store.put(entry(name, text=word, answer=word.encode(), scope=key("s"), vector=VECTOR))
                await store.note(key(name), Seen(0.5, True))

    asyncio.run(run())


async def _all_are_whole(store: Store) -> int:
    found = await store.get([key(str(number)) for number in range(50)])
    for one in found.values():
        assert one.answer == one.text.encode()
    held = await store.held()
    assert held.entries == held.by_meaning == len(found) == len(await store.rows(key("s"), 0))
    assert held.bytes == sum(replace(one, seen=()).size_bytes for one in found.values())
    return len(found)


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
@pytest.mark.feature("exact cache")
async def test_a_killed_process_leaves_whole_answers(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("redis_url") if kind == "redis" else ""
    spawning = multiprocessing.get_context("spawn")
    writer = spawning.Process(target=_put_for_ever, args=(kind, tmp_path, url))
    writer.start()
    async with open_store(kind, tmp_path, url, time.time, prefix="killed:{t}") as store:
        deadline = time.monotonic() + 30
        while (await store.held()).entries < 50 and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    async with open_store(kind, tmp_path, url, time.time, prefix="killed:{t}") as store:
        assert await _all_are_whole(store) == 50


@pytest.mark.feature("exact cache", "Redis")
async def test_a_killed_redis_has_whole_answers_or_none(durable_redis: RedisServer, tmp_path: Path) -> None:
    async with open_store("redis", tmp_path, durable_redis.url, time.time) as inner:
        store = ForgivingStore(inner, 1.0)
        writing = asyncio.create_task(_put_often(store))
        await asyncio.sleep(0.3)
        durable_redis.stop()
        await asyncio.sleep(0.1)
        started_s = time.monotonic()
        assert await store.get([key("1")]) == {}
        assert time.monotonic() - started_s < 1.0
        with pytest.raises(NotReady):
            await store.drop(Part())
        writing.cancel()
        durable_redis.start()
    async with open_store("redis", tmp_path, durable_redis.url, time.time) as store:
        assert await _all_are_whole(store) > 0


async def _put_often(store: Store) -> None:
    for number in itertools.count():
        word = f"{number} " * 100
        await store.put(entry(str(number % 50), text=word, answer=word.encode(), scope=key("s"), vector=VECTOR))


async def test_a_store_that_is_down_is_a_miss_said_once_and_comes_back(
    durable_redis: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now_s = 0.0
    caplog.set_level(logging.INFO, "penstock.cache")
    async with open_store("redis", tmp_path, durable_redis.url, time.time) as inner:
        store = ForgivingStore(inner, 1.0, lambda: now_s)
        await store.put(entry("a"))
        durable_redis.stop()
        for _ in range(20):
            assert await store.get([key("a")]) == {}
            assert await store.put(entry("b")) == ()
            assert await store.rows(key("s"), 0) == []
            now_s += 0.2
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        durable_redis.start()
        now_s += 10
        assert set(await store.get([key("a")])) == {key("a")}
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_a_store_that_hangs_keeps_nobody(redis_url: str, durable_redis: RedisServer, tmp_path: Path) -> None:
    async with open_store("redis", tmp_path, durable_redis.url, time.time) as inner:
        store = ForgivingStore(inner, 0.1)
        await store.put(entry("a"))
        assert durable_redis._process is not None
        durable_redis._process.send_signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(2.0):
                for _ in range(20):
                    assert await store.get([key("a")]) == {}
        finally:
            durable_redis._process.send_signal(signal.SIGCONT)


async def test_a_file_that_is_no_database_is_a_miss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache.db").write_bytes(b"something else entirely" * 100)
    async with Place("sqlite", tmp_path, "").open() as inner:
        store = ForgivingStore(inner, 5.0)
        assert await store.put(entry("a")) == ()
        assert await store.get([key("a")]) == {}
    assert "cache.db" in caplog.text


async def test_another_version_s_file_is_begun_anew(tmp_path: Path) -> None:
    place = Place("sqlite", tmp_path, "")
    async with place.open() as store:
        await store.put(entry("a"))
    with sqlite3.connect(tmp_path / "cache.db") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    async with place.open() as store:
        assert await store.get([key("a")]) == {}
        await store.put(entry("b"))
        assert (await store.held()).entries == 1


def test_the_file_is_its_owner_s_alone(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        opened = Place("sqlite", tmp_path, "").open()
        store = runner.run(opened.__aenter__())
        runner.run(store.put(entry("a")))
        assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("cache.db*")} == {0o600}
        runner.run(store.close())


async def test_a_comparison_in_redis_that_cannot_be_read_is_left_out(redis_url: str, tmp_path: Path) -> None:
    async with open_store("redis", tmp_path, redis_url, time.time, prefix="test:{unreadable}") as store:
        await store.put(entry())
        await store.note(key("a"), Seen(0.9, same=True))
        await store._redis.rpush(store._name("o", key("a")), b"\xc1")  # type: ignore[attr-defined]
        assert (await store.get([key("a")]))[key("a")].seen == (Seen(0.9, same=True),)
