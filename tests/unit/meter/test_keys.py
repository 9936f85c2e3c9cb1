"""Keys: made once, kept as hashes, found by their token alone, over when they are over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from penstock.core.errors import ConfigError, InvalidRequest, Unauthorized
from penstock.core.types import Limits
from penstock.meter.database import Database, open_database
from penstock.meter.keys import KeyRing, Keys, KeyScope, read_secret

SECRET = b"0123456789abcdef0123456789abcdef"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(database: Database, clock: Clock) -> Keys:
    return Keys(database, SECRET, clock=clock)


@pytest.fixture
def ring(keys: Keys, clock: Clock) -> KeyRing:
    return KeyRing(keys, 3600, clock=clock)


def test_a_token_finds_whom_it_was_made_for(keys: Keys, ring: KeyRing) -> None:
    scope = KeyScope(models=("mini",), routes=("/v1",), priority=3, limits=Limits(requests_per_minute=5))
    key, token = keys.create("ana", scope)
    ring.refresh()
    found = ring.find(token)
    assert (found.key_id, found.name, found.models, found.routes, found.priority) == (key.id, "ana", ("mini",), ("/v1",), 3)
    assert found.limits == Limits(requests_per_minute=5)
    assert not found.admin


def test_two_keys_share_no_cache_unless_they_are_of_one_tenant(keys: Keys, ring: KeyRing) -> None:
    tokens = [
        keys.create("a")[1],
        keys.create("b")[1],
        keys.create("c", KeyScope(tenant="t"))[1],
        keys.create("d", KeyScope(tenant="t"))[1],
    ]
    ring.refresh()
    tenants = [ring.find(token).tenant for token in tokens]
    assert "" not in tenants
    assert len(set(tenants)) == 3
    assert tenants[2] == tenants[3] == "t"


def test_neither_token_nor_secret_is_in_the_database(tmp_path: Path) -> None:
    database = open_database("sqlite", tmp_path)
    _, token = Keys(database, SECRET).create("ana")
    database.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert b"ana" in stored
    assert token.split("-", 3)[3].encode() not in stored  # the random part may hold dashes of its own
    assert SECRET not in stored


@pytest.mark.parametrize("spoil", [
    lambda token: token[:-1] + ("A" if token[-1] != "A" else "B"),
    lambda token: token[:-1],
    lambda token: token + "A",
    lambda token: token.upper(),
    lambda token: token.replace("sk-ps-", "sk-"),
    lambda token: token[:6] + "aaaaaaaaaaaa" + token[18:],
    lambda token: "",
    lambda token: "x" * 100_000,
    lambda token: "ключ\udcff\0",
])  # fmt: skip
def test_any_other_token_is_refused_in_the_same_words(keys: Keys, ring: KeyRing, spoil: object) -> None:
    _, token = keys.create("ana")
    ring.refresh()
    with pytest.raises(Unauthorized, match="^the API key is not known") as refused:
        ring.find(spoil(token))  # type: ignore[operator]
    assert token[-20:] not in str(refused.value)


def test_a_token_of_another_secret_is_refused(database: Database, keys: Keys) -> None:
    _, token = keys.create("ana")
    other = KeyRing(Keys(database, b"another secret, also long enough"), 3600)
    other.refresh()
    with pytest.raises(Unauthorized):
        other.find(token)


def test_a_key_ends_when_it_expires(keys: Keys, ring: KeyRing, clock: Clock) -> None:
    _, token = keys.create("ana", expires_at=clock.now + 10)
    ring.refresh()
    ring.find(token)
    clock.now += 10
    with pytest.raises(Unauthorized, match="is expired"):
        ring.find(token)


def test_a_revoked_key_is_refused_from_the_next_refresh_and_leaves_the_server_closed(keys: Keys, ring: KeyRing) -> None:
    key, token = keys.create("ana")
    ring.refresh()
    keys.revoke(key.id)
    ring.refresh()
    with pytest.raises(Unauthorized, match="is revoked"):
        ring.find(token)
    assert not ring.empty


def test_a_database_that_loses_its_keys_does_not_open_the_server(keys: Keys, ring: KeyRing, database: Database) -> None:
    _, token = keys.create("ana")
    ring.refresh()
    database.execute("DELETE FROM keys")
    ring.refresh()
    assert not ring.empty
    with pytest.raises(Unauthorized):
        ring.find(token)


def test_rotation_lets_the_former_token_go_on_for_a_while(keys: Keys, ring: KeyRing, clock: Clock) -> None:
    key, former = keys.create("ana")
    _, token = keys.rotate(key.id, grace_s=60)
    ring.refresh()
    assert ring.find(former) == ring.find(token)
    clock.now += 60
    assert ring.find(token).key_id == key.id
    with pytest.raises(Unauthorized):
        ring.find(former)


def test_rotation_without_grace_ends_the_former_token_at_once(keys: Keys, ring: KeyRing) -> None:
    key, former = keys.create("ana")
    keys.rotate(key.id)
    ring.refresh()
    with pytest.raises(Unauthorized):
        ring.find(former)


def test_a_key_that_is_over_gets_no_new_token(keys: Keys, clock: Clock) -> None:
    revoked, _ = keys.create("ana")
    keys.revoke(revoked.id)
    with pytest.raises(InvalidRequest, match="revoked"):
        keys.rotate(revoked.id)


def test_every_change_is_noticed_also_by_another_process(tmp_path: Path) -> None:
    here, there = (open_database("sqlite", tmp_path) for _ in range(2))
    keys, ring = Keys(here, SECRET), KeyRing(Keys(there, SECRET), 3600)
    ring.refresh()
    assert ring.empty
    key, token = keys.create("ana")
    ring.refresh()
    ring.find(token)
    keys.rotate(key.id)
    ring.refresh()
    with pytest.raises(Unauthorized):
        ring.find(token)
    here.close()
    there.close()


@pytest.mark.parametrize(("scope", "what"), [
    (KeyScope(routes=("v1",)), "a route is a path"),
    (KeyScope(limits=Limits(requests_per_minute=0)), "requests_per_minute is at least 1"),
    (KeyScope(limits=Limits(concurrent_requests=-1)), "concurrent_requests is at least 1"),
])  # fmt: skip
def test_a_scope_without_sense_is_refused(keys: Keys, scope: KeyScope, what: str) -> None:
    with pytest.raises(InvalidRequest, match=what):
        keys.create("ana", scope)


@pytest.mark.parametrize("budget", ["-1", "NaN", "Infinity", "9000001"])
def test_a_budget_without_sense_is_refused(keys: Keys, budget: str) -> None:
    from decimal import Decimal

    with pytest.raises(InvalidRequest, match="budget_day_usd is from 0"):
        keys.create("ana", KeyScope(limits=Limits(budget_day_usd=Decimal(budget))))


def test_a_near_id_is_suggested(keys: Keys) -> None:
    key, _ = keys.create("ana")
    near = replace(key, id=key.id[:-1] + ("a" if key.id[-1] != "a" else "b")).id
    with pytest.raises(InvalidRequest, match=f"did you mean '{key.id}'"):
        keys.revoke(near)


def test_the_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    secret = read_secret("", tmp_path / "data")
    assert len(secret) >= 32
    assert read_secret("", tmp_path / "data") == secret
    assert (tmp_path / "data" / "secret").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["secret"]


def test_a_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    read_secret("", tmp_path)
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(ConfigError, match="others may read"):
        read_secret("", tmp_path)


def test_a_short_secret_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError) as refused:
        read_secret("hunter2", Path(os.devnull))
    assert "hunter2" not in str(refused.value)
