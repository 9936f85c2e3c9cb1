"""Answers in a SQLite file: they outlive the process, and several processes of one machine share them.

An entry is one row, written in one transaction, so that a killed process leaves all of it or nothing. Triggers keep the sums that the
bounds are held against. Reads have a connection and a thread of their own: in WAL mode they do not wait for writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from penstock.cache.store.protocol import MOST_SEEN, Bounds, Entry, Held, Part, Row, Seen, StoreDown, opened, sealed, unsalted

T = TypeVar("T")

VERSION = 1  # of the schema; a file of another one is begun anew
BUSY_S = 5.0  # how long to wait for another process that writes
TOUCH_S = 60.0  # an entry's last use is written down this exactly
TOGETHER = 200  # rows that one statement removes

SCHEMA = """
CREATE TABLE answers (
    number INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL UNIQUE, scope BLOB NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL,
    until REAL NOT NULL, used REAL NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL, vector BLOB NOT NULL
);
CREATE INDEX answers_by_scope ON answers (scope, number) WHERE vector != x'';
CREATE INDEX answers_by_use ON answers (used);
CREATE INDEX answers_by_end ON answers (until);
CREATE TABLE seen (number INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL, similarity REAL NOT NULL, same INTEGER NOT NULL);
CREATE INDEX seen_by_key ON seen (key, number);
CREATE TABLE held (bytes INTEGER NOT NULL, entries INTEGER NOT NULL, by_meaning INTEGER NOT NULL);
INSERT INTO held VALUES (0, 0, 0);
CREATE TRIGGER answer_put AFTER INSERT ON answers BEGIN
    UPDATE held SET bytes = bytes + new.size, entries = entries + 1, by_meaning = by_meaning + (new.vector != x'');
END;
CREATE TRIGGER answer_gone AFTER DELETE ON answers BEGIN
    UPDATE held SET bytes = bytes - old.size, entries = entries - 1, by_meaning = by_meaning - (old.vector != x'');
    DELETE FROM seen WHERE key = old.key;
END;
"""


class SQLiteStore:
    """Opens its file when first used. `clock` is in unix seconds."""

    def __init__(self, path: Path, bounds: Bounds, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._bounds = bounds
        self._clock = clock
        self._reads, self._writes = _Connection(path, "cache-reads"), _Connection(path, "cache-writes")
        self._touching: set[asyncio.Task[None]] = set()

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        now = self._clock()
        found, old = await self._reads.run(lambda connection: _get(connection, keys, now))
        if old and not self._touching:
            task = asyncio.create_task(self._touch(old, now))
            self._touching.add(task)
            task.add_done_callback(self._touching.discard)
        return found

    async def put(self, entry: Entry) -> tuple[bytes, ...]:
        if entry.size_bytes > self._bounds.max_bytes:
            return ()
        body = sealed(entry)
        return await self._writes.run(lambda connection: self._put(connection, entry, body))

    async def rows(self, scope: bytes, after: int) -> list[Row]:
        asked = "SELECT number, key, vector FROM answers WHERE scope = ? AND number > ? AND vector != x'' AND until > ? ORDER BY number"
        values = (scope, after, self._clock())
        return await self._reads.run(lambda connection: [Row(*row) for row in connection.execute(asked, values)])

    async def note(self, key: bytes, seen: Seen) -> None:
        def noted(connection: sqlite3.Connection) -> None:
            put = "INSERT INTO seen (key, similarity, same) SELECT key, ?, ? FROM answers WHERE key = ?"
            connection.execute(put, (seen.similarity, int(seen.same), key))
            oldest = "SELECT number FROM seen WHERE key = ? ORDER BY number DESC LIMIT -1 OFFSET ?"
            connection.execute(f"DELETE FROM seen WHERE number IN ({oldest})", (key, MOST_SEEN))

        await self._writes.run(noted)

    async def drop(self, part: Part) -> int:
        wanted = {"tenant": part.tenant, "model": part.model, "scope": part.scope}
        given = {name: value for name, value in wanted.items() if value is not None}
        asked = f"DELETE FROM answers WHERE {' AND '.join(f'{name} = ?' for name in given) or 'true'}"
        return await self._writes.run(lambda connection: connection.execute(asked, tuple(given.values())).rowcount)

    async def held(self) -> Held:
        def counted(connection: sqlite3.Connection) -> Held:
            size, entries, by_meaning = connection.execute("SELECT bytes, entries, by_meaning FROM held").fetchone()
            return Held(entries=entries, bytes=size, by_meaning=by_meaning)

        return await self._reads.run(counted)

    async def close(self) -> None:
        for task in self._touching:
            task.cancel()
        await asyncio.gather(*self._touching, return_exceptions=True)
        await self._reads.close()
        await self._writes.close()

    def _put(self, connection: sqlite3.Connection, entry: Entry, body: bytes) -> tuple[bytes, ...]:
        now = self._clock()
        connection.execute("DELETE FROM answers WHERE key = ?", (entry.key,))
        connection.execute(
            "INSERT INTO answers (key, scope, tenant, model, until, used, size, body, vector) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (entry.key, entry.scope, unsalted(entry.tenant), entry.model, entry.until, now, entry.size_bytes, body, entry.vector),
        )
        over = "SELECT key FROM answers WHERE until <= ? LIMIT ?"
        gone = [key for (key,) in connection.execute(over, (now, TOGETHER))]
        connection.executemany("DELETE FROM answers WHERE key = ?", [(key,) for key in gone])
        while True:
            size, entries = connection.execute("SELECT bytes, entries FROM held").fetchone()
            if size <= self._bounds.max_bytes and entries <= self._bounds.max_entries:
                return tuple(gone)
            (key,) = connection.execute("SELECT key FROM answers WHERE key != ? ORDER BY used, number LIMIT 1", (entry.key,)).fetchone()
            connection.execute("DELETE FROM answers WHERE key = ?", (key,))
            gone.append(key)

    async def _touch(self, keys: Sequence[bytes], now: float) -> None:
        """Write down that they were used. Where that fails they are merely thought to be older."""
        update = "UPDATE answers SET used = ? WHERE key = ?"
        with contextlib.suppress(StoreDown):
            await self._writes.run(lambda connection: connection.executemany(update, [(now, key) for key in keys]))


class _Connection:
    """One connection in a thread of its own, made when first used."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` in one transaction. Raises StoreDown."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, work)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._connection is None:
                self._connection = _connected(self._path)
            with self._connection:  # commits, or rolls back
                return work(self._connection)
        except (sqlite3.Error, OSError) as error:
            with contextlib.suppress(sqlite3.Error):
                self._close()
            raise StoreDown(f"{self._path}: {error}") from error

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _connected(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level="IMMEDIATE", check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last answers, and breaks nothing
        if connection.execute("PRAGMA user_version").fetchone() != (VERSION,):
            _begin(connection)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _begin(connection: sqlite3.Connection) -> None:
    """Make the tables, in the place of another version's; of two processes that come at once one does."""
    connection.execute("BEGIN IMMEDIATE")
    if connection.execute("PRAGMA user_version").fetchone() != (VERSION,):
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").fetchall()
        for (name,) in tables:
            connection.execute(f'DROP TABLE "{name}"')
        for statement in _statements(SCHEMA):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def _statements(script: str) -> list[str]:
    """One by one: `executescript` would end the transaction."""
    found, statement = [], ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            found.append(statement)
            statement = ""
    return found


def _get(connection: sqlite3.Connection, keys: Sequence[bytes], now: float) -> tuple[dict[bytes, Entry], list[bytes]]:
    """The entries, and which of them were not used for a while."""
    found: dict[bytes, Entry] = {}
    old: list[bytes] = []
    for key in keys:
        row = connection.execute("SELECT body, used FROM answers WHERE key = ? AND until > ?", (key, now)).fetchone()
        entry = None if row is None else opened(row[0], key)
        if row is None or entry is None:
            continue
        seen = connection.execute("SELECT similarity, same FROM seen WHERE key = ? ORDER BY number", (key,)).fetchall()
        found[key] = replace(entry, seen=tuple(Seen(similarity, bool(same)) for similarity, same in seen))
        if now - row[1] >= TOUCH_S:
            old.append(key)
    return found, old
