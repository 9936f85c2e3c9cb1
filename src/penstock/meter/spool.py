"""Attempts and judgements on their way to the database, in files: what `append` has taken survives the process.

Each process appends to files of its own, one line of JSON for each, and holds a lock on them for as long as it lives.
A file whose lock is free belonged to a process that is dead: whoever comes next adopts it.

    append → current file → (rotate) → sealed files → read by the writer → removed once written, and KEEP_S old

A sealed file outlives its writing by a little, so that after a crash the attempts of the last seconds are seen again by all who
count them, even where the database had them already. Everything that reads attempts takes one twice without harm.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from penstock.core.types import Attempt, Judged

log = logging.getLogger(__name__)

KEEP_S = 5.0  # how long what was written stays in the spool
READ_BYTES = 64 * 1024  # read, decoded and written at a time: keeps the event loop's wait for the interpreter short
MOST_FILES = 256  # open at a time; what else dead processes left waits for its turn
UNREADABLE = "unreadable.txt"
FOLDER_LOCK = "lock"

_decoder = msgspec.json.Decoder(Attempt | Judged)


class SpoolFile:
    """One file, locked. `append` is for one thread at a time, `sync` for any, the rest for the writer's thread."""

    def __init__(self, path: Path, fd: int, *, is_adopted: bool = False) -> None:
        self.path = path
        self.is_adopted = is_adopted  # another process wrote it
        self.sealed_s: float | None = None  # when, on the monotonic clock; None: still appended to
        self._fd = fd
        self._torn = False  # the disk was full in the middle of a line
        self._written = 0  # bytes that are in the database
        self._read = 0  # bytes that `read` has given

    @property
    def size_bytes(self) -> int:
        return os.fstat(self._fd).st_size

    @property
    def is_written(self) -> bool:
        return self._written >= self.size_bytes

    def append(self, lines: bytes) -> None:
        """Raises OSError where the disk is full; what was written until then is torn and will be read as no attempt."""
        if self._torn:
            lines = b"\n" + lines
        self._torn = True
        written = os.write(self._fd, lines)
        while written < len(lines):
            written += os.write(self._fd, lines[written:])
        self._torn = False

    def sync(self) -> None:
        """What was appended survives a power cut, too."""
        os.fdatasync(self._fd)

    def read(self) -> bytes:
        """The next complete lines, about READ_BYTES; b"" where there are none."""
        size = READ_BYTES
        block = os.pread(self._fd, size, self._read)
        while not (end := block.rfind(b"\n") + 1) and len(block) == size:  # a line longer than that
            size *= 2
            block = os.pread(self._fd, size, self._read)
        if not end and self.sealed_s is not None:
            end = len(block)  # torn off by a kill; nobody will complete it
        self._read += end
        return block[:end]

    def confirm(self) -> None:
        """All that `read` gave is in the database."""
        self._written = self._read

    def rewind(self) -> None:
        """It is not; `read` gives it again."""
        self._read = self._written

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Give up the lock; the file stays for whoever comes next."""
        os.close(self._fd)
        self._fd = -1  # the number may soon be another file's


class Spool:
    """The files of this process, and those of dead ones that it has adopted. Raises OSError where the folder cannot be used."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._numbers = itertools.count()
        self._lock = threading.Lock()  # held for an append, or for putting the next file in its place
        self._sealed: list[SpoolFile] = []
        self._current = self._create()

    def append(self, lines: bytes) -> None:
        """Take complete lines; once it returns they survive the process. Raises OSError where the disk is full."""
        with self._lock:
            self._current.append(lines)

    @property
    def size_bytes(self) -> int:
        """Of the current file."""
        return self._current.size_bytes

    def files(self) -> Sequence[SpoolFile]:
        """All that may hold what is not written yet, oldest first."""
        return [*self._sealed, self._current]

    def sync(self) -> None:
        """All that was appended survives a power cut, too. For any thread."""
        self._current.sync()

    def rotate(self) -> None:
        """Go on in a new file, unless the current one is empty."""
        if not self._current.size_bytes:
            return
        after = self._create()
        with self._lock:
            before, self._current = self._current, after
        before.sync()
        before.sealed_s = time.monotonic()
        self._sealed.append(before)

    def adopt(self) -> Sequence[SpoolFile]:
        """Take over the files of dead processes, the oldest first; they are among `files` from now on."""
        with _locked(self._folder):
            paths = sorted(self._folder.glob("*.jsonl"))[: max(0, MOST_FILES - len(self._sealed))]
            claimed = [(path, _claim(path)) for path in paths]
        found = [SpoolFile(path, fd, is_adopted=True) for path, fd in claimed if fd is not None]
        for file in found:
            file.sealed_s = time.monotonic()
        self._sealed = [*found, *self._sealed]
        return found

    def sweep(self, keep_s: float = KEEP_S) -> None:
        """Remove what was sealed `keep_s` ago and is written."""
        now = time.monotonic()
        over = [file for file in self._sealed if file.sealed_s is not None and now - file.sealed_s >= keep_s and file.is_written]
        self._sealed = [file for file in self._sealed if file not in over]
        for file in over:
            file.remove()

    def set_aside(self, lines: bytes, why: str) -> None:
        """Keep what cannot be written where a person can look at it, and say so."""
        path = self._folder / UNREADABLE
        log.error("%d bytes of the ledger's spool cannot be written (%s): kept in %s", len(lines), why, path)
        with path.open("ab") as file:
            file.write(lines.rstrip(b"\n") + b"\n")

    def close(self) -> None:
        """Remove what is written; the rest is adopted by the next process."""
        self.rotate()
        self.sweep(keep_s=0)
        for file in self._sealed:
            file.close()
        self._current.remove()

    def _create(self) -> SpoolFile:
        """A file that nobody can mistake for a dead process's: it gets its lock while nobody may look for those."""
        path = self._folder / f"{time.time_ns()}-{os.getpid()}-{next(self._numbers)}.jsonl"
        with _locked(self._folder):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)  # else a power cut could forget the file with all that is in it
        finally:
            os.close(folder)
        return SpoolFile(path, fd)


def parse(lines: bytes) -> Iterator[Attempt | Judged | bytes]:
    """Each line's attempt or judgement, or the line itself where it is neither. Blank lines are left out."""
    for line in lines.split(b"\n"):
        if line:
            try:
                yield _decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                yield line


def waiting(folder: Path) -> Iterator[Attempt]:
    """The attempts in all spools, for a look from outside: also those that the database has already."""
    for path in sorted(folder.glob("*.jsonl")):
        try:
            lines = path.read_bytes()
        except FileNotFoundError:  # written and removed just now
            continue
        yield from (found for found in parse(lines) if isinstance(found, Attempt))


def _claim(path: Path) -> int | None:
    """The file with its lock, or None where its process lives."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    if not path.exists():  # its owner removed it between the two calls
        os.close(fd)
        return None
    return fd


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder / FOLDER_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
