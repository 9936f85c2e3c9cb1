"""The ledger in a database: spooled on the event loop, written by a thread of its own.

    record() → spool (a file) → writer's thread → tables `attempts` and `judgements`

What `record` has taken survives the process at once, and a power cut after `sync_s`. While the database is down the spool grows,
as far as the disk goes, and is written when the database is back. Rows are written with their id, so that writing one twice
changes nothing: after a crash the spool is simply written again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from decimal import Decimal
from pathlib import Path

import msgspec

from penstock.core.errors import DatabaseDown
from penstock.core.types import Attempt, Judged
from penstock.meter import attempts as table
from penstock.meter import judgements
from penstock.meter.bill import Runs
from penstock.meter.database import Database
from penstock.meter.spool import KEEP_S, Spool, SpoolFile, parse
from penstock.trace.events import Ended

log = logging.getLogger(__name__)

ADOPT_S = 30.0  # between looks for files of processes that died meanwhile
FILE_BYTES = 4 * 2**20  # a larger file is followed by the next
TRANSACTION_BYTES = 512 * 1024  # of the spool, written at once: others wait so long for SQLite
TELL_S = 10.0  # how long whoever counts replayed attempts may take
BREATH_S = 0.0005  # between two blocks, so that the event loop gets the interpreter

Row = Attempt | Judged
Replayed = Callable[[Sequence[Attempt]], Coroutine[None, None, None]]  # runs on the event loop


class DatabaseLedger:
    """A `Ledger` that keeps every attempt and every judgement. The database stays the caller's; it is closed after the ledger.

    `runs` are those of the engines, for their bill. Raises OSError where `folder` cannot be used.
    """

    def __init__(self, database: Database, folder: Path, *, sync_s: float = 1.0, runs: Runs | None = None) -> None:
        self._database = database
        self._spool = Spool(folder)
        self._sync_s = sync_s
        self._runs = runs or Runs(database, {})
        self._replayed: Replayed | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._encode = msgspec.json.Encoder().encode_lines
        self._unspooled: deque[bytes] = deque()  # while the disk is full
        self._is_down = False
        self._is_behind = False  # one file grows then, instead of ever more of them being open
        self._is_untold = False
        self._created = False
        self._turning = threading.Lock()
        self._adopted_s = self._rotated_s = time.monotonic()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=run, name=f"ledger-{run.__name__}", daemon=True) for run in (self._write, self._sync)]

    async def start(self, replayed: Replayed | None = None) -> None:
        """Write what dead processes left, so that totals are right from now on; then go on in the background.

        Where the database is down that is logged, and made up for when it is back. `replayed` is told of what dead processes left,
        now and later, perhaps more than once; where it fails it is told again.
        """
        self._replayed, self._loop = replayed, asyncio.get_running_loop()
        await asyncio.to_thread(self._adopt)
        await asyncio.to_thread(self._turn)
        for thread in self._threads:
            thread.start()

    def record(self, ended: Ended) -> None:
        rows: list[Row] = [*ended.attempts, *judgements.judged(ended)]
        if rows:
            lines = self._encode(rows)  # of a tuple msgspec 0.22 keeps 48 bytes for ever, each time
            try:
                self._spool.append(lines)
            except OSError as error:
                if not self._unspooled:
                    log.error("the ledger's spool cannot be written (%s): attempts are kept in memory until it can", error)
                self._unspooled.append(lines)

    def spent(self, since: float) -> dict[str, Decimal]:
        """What each key has spent since then (unix seconds), with all that is recorded. Blocks. Raises DatabaseDown."""
        with self._turning:
            self._write_all()
        return table.spent(self._database, since)

    async def close(self) -> None:
        if not self._stopping.is_set():
            self._stopping.set()
            await asyncio.to_thread(self._finish)

    def _finish(self) -> None:
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self._turn()
        self._spool.close()

    def _sync(self) -> None:
        """On the thread that does nothing else: a database that hangs must not put it off."""
        while not self._stopping.wait(self._sync_s):
            try:
                self._spool.sync()
            except OSError:
                log.exception("the ledger's spool was not brought to the disk")

    def _write(self) -> None:
        while not self._stopping.wait(self._sync_s):
            self._turn()

    def _turn(self) -> None:
        """Everything that there is to do now. Raises nothing: what failed is tried again in the next turn."""
        is_behind = True
        try:
            with self._turning:
                self._tidy()
                comes = any(not file.is_written for file in self._spool.files())
                self._runs.see(due=comes or self._stopping.is_set())  # no engine's bill ends before what it is billed for
                self._write_all()
            self._say_down(None)
            is_behind = False
        except DatabaseDown as error:
            self._say_down(error)
        except Exception:
            log.exception("the ledger could not be written; it waits in the spool")
        self._is_behind = is_behind

    def _tidy(self) -> None:
        now = time.monotonic()
        if now - self._adopted_s >= ADOPT_S:
            self._adopt()
        if not self._is_behind and (now - self._rotated_s >= KEEP_S or self._spool.size_bytes >= FILE_BYTES):
            self._rotated_s = now
            try:
                self._spool.rotate()
            except OSError:
                log.exception("the ledger's spool goes on in the same file")
        self._spool.sweep()

    def _adopt(self) -> None:
        self._adopted_s = time.monotonic()
        try:
            self._spool.adopt()
        except OSError:
            log.exception("the spool of the ledger could not be searched for what dead processes left")

    def _write_all(self) -> None:
        if not self._created:
            table.create(self._database)
            judgements.create(self._database)
            self._created = True
        self._write_unspooled()
        for file in self._spool.files():
            while not file.is_written and self._write_some(file):
                pass  # until there is no more

    def _write_unspooled(self) -> None:
        """What was kept in memory goes to the spool, or straight to the database, whichever takes it first. Raises DatabaseDown."""
        while self._unspooled:
            lines = self._unspooled[0]
            try:
                self._spool.append(lines)
            except OSError:
                self._insert([found for found in parse(lines) if not isinstance(found, bytes)])
            self._unspooled.popleft()

    def _write_some(self, file: SpoolFile) -> bool:
        """One transaction. False where there is no complete line to write. Raises DatabaseDown."""
        rows, unreadable = _take(file)
        try:
            self._insert(rows)
            for line in unreadable:
                self._spool.set_aside(line, "it is neither attempt nor judgement")
        except Exception:
            file.rewind()
            raise
        attempts = [row for row in rows if isinstance(row, Attempt)]
        if file.is_adopted and attempts and not self._tell(attempts):
            file.rewind()
            return False
        file.confirm()
        return bool(rows or unreadable)

    def _insert(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        try:
            with self._database.transaction():
                table.insert(self._database, [row for row in rows if isinstance(row, Attempt)])
                judgements.insert(self._database, [row for row in rows if isinstance(row, Judged)])
        except Exception as error:
            if not self._database.refuses(error):
                raise
            self._insert_each(rows)

    def _insert_each(self, rows: Sequence[Row]) -> None:
        """One that the database refuses for what is in it must not hold up the others."""
        for row in rows:
            try:
                if isinstance(row, Attempt):
                    table.insert(self._database, [row])
                else:
                    judgements.insert(self._database, [row])
            except Exception as error:
                if not self._database.refuses(error):
                    raise
                self._spool.set_aside(msgspec.json.encode(row), str(error))

    def _tell(self, attempts: Sequence[Attempt]) -> bool:
        """Whether who counts them has counted them."""
        if self._replayed is None or self._loop is None:
            return True
        try:
            asyncio.run_coroutine_threadsafe(self._replayed(attempts), self._loop).result(TELL_S)
        except Exception as error:
            if not self._is_untold:
                log.exception("attempts of a dead process are not counted yet: %s", error)
            self._is_untold = True
            return False
        self._is_untold = False
        return True

    def _say_down(self, error: DatabaseDown | None) -> None:
        """Once when it goes and once when it is back."""
        if error is not None and not self._is_down:
            log.error("%s: attempts wait in the spool, which grows until it is back", error.message)
        elif error is None and self._is_down:
            log.warning("the database is back: all attempts are written")
        self._is_down = error is not None


def _take(file: SpoolFile) -> tuple[list[Row], list[bytes]]:
    """The next rows of a file, and the lines that are none."""
    rows: list[Row] = []
    unreadable: list[bytes] = []
    size = 0
    while size < TRANSACTION_BYTES and (lines := file.read()):
        size += len(lines)
        for found in parse(lines):
            if isinstance(found, bytes):
                unreadable.append(found)
            else:
                rows.append(found)
        time.sleep(BREATH_S)
    return rows, unreadable
