"""One small door to SQLite and PostgreSQL: the same SQL for both, for keys, ledger and counters.

SQL is written with `?` for values and in words that both understand: TEXT, BIGINT, DOUBLE PRECISION, and `{money}` of
`create` for exact money, which is NUMERIC in PostgreSQL and text in SQLite. `money_sum(column)` adds it up exactly.

A `Database` is one connection behind a lock. It blocks, so it is used from worker threads (`asyncio.to_thread`), never on the
event loop. A lost connection is an error once; the next call connects anew.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Protocol

from penstock.core.errors import ConfigError, DatabaseDown, missing_extra

BUSY_S = 10.0  # how long SQLite waits for another process that writes
CONNECT_S = 5  # how long PostgreSQL may take to answer the first time
STATEMENT_S = 60  # and for one statement
WHERE = "ledger.database says where it is"
CREATE_LOCK = 7364102  # an advisory lock: two processes that create the same table at once

Value = str | int | float | Decimal | None
Row = tuple[Any, ...]
Dialect = Literal["sqlite", "postgresql"]


class Driver(Protocol):
    """What differs between the two."""

    dialect: Dialect
    money: str
    create_lock: str | None
    columns: str  # the query for the names of a table's columns

    def connect(self) -> Any:
        """A new connection, in autocommit mode. Raises DatabaseDown."""

    def sql(self, text: str) -> str:
        """`text` with the driver's own mark for values."""

    def transaction(self, connection: Any) -> AbstractContextManager[object]:
        """Commits at the end, rolls back on an error."""

    def lost(self, error: Exception) -> DatabaseDown | None:
        """The error to raise where `error` means that the database cannot be reached; None: it is about the statement."""

    def refuses(self, error: Exception) -> bool:
        """Whether `error` is about a value that this database cannot keep."""


class Database:
    """One connection, made when first needed, that any thread may use; each call and each transaction has it for itself."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._lock = threading.RLock()
        self._connection: Any = None
        self._depth = 0  # of transactions

    @property
    def dialect(self) -> Dialect:
        return self._driver.dialect

    def create(self, *statements: str) -> None:
        """Run CREATE … IF NOT EXISTS statements; `{money}` in them is the type of exact money. Raises DatabaseDown."""
        with self.transaction():
            if self._driver.create_lock:
                self.query(self._driver.create_lock)
            for statement in statements:
                self.execute(statement.replace("{money}", self._driver.money))

    def columns(self, table: str) -> set[str]:
        """The columns that a table has; none where it is not there. Raises DatabaseDown."""
        return {name for (name,) in self.query(self._driver.columns, (table,))}

    def execute(self, sql: str, values: Sequence[Value] = ()) -> int:
        """Run one statement and return how many rows it changed. Raises DatabaseDown, or the driver's error for a wrong statement."""
        with self._connected() as connection:
            return int(connection.execute(self._driver.sql(sql), self._bound(values)).rowcount)

    def executemany(self, sql: str, rows: Sequence[Sequence[Value]]) -> int:
        """The same statement for each of `rows`, in one transaction. Returns how many rows were changed."""
        with self.transaction(), self._connected() as connection:
            cursor = connection.cursor()
            cursor.executemany(self._driver.sql(sql), [self._bound(row) for row in rows])
            return int(cursor.rowcount)

    def query(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        """All rows of an answer. Money comes as Decimal from PostgreSQL and as text from SQLite: `Decimal(str(value))` reads both."""
        with self._connected() as connection:
            rows: list[Row] = connection.execute(self._driver.sql(sql), self._bound(values)).fetchall()
            return rows

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; other threads wait. One within another is part of it. Raises DatabaseDown."""
        with self._connected() as connection:
            if self._depth:
                yield
                return
            with self._driver.transaction(connection):
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1

    def refuses(self, error: Exception) -> bool:
        """Whether `error` is about a value that this database cannot keep, such as a text with a NUL; it will never be kept then."""
        return isinstance(error, ValueError | OverflowError) or self._driver.refuses(error)

    def close(self) -> None:
        """Close the connection; a later call opens it again, except that one in memory is gone."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        with self._lock:
            if self._connection is None:
                self._connection = self._driver.connect()
            try:
                yield self._connection
            except DatabaseDown:
                self._drop()
                raise
            except Exception as error:
                down = self._driver.lost(error)
                if down is None:
                    raise
                self._drop()
                raise down from error

    def _drop(self) -> None:
        """Forget a connection that may be broken; within a transaction its end does so."""
        if not self._depth and not isinstance(self._driver, InMemory):
            self.close()

    def _bound(self, values: Sequence[Value]) -> Sequence[Value]:
        """SQLite has no type for exact numbers: they are text there. PostgreSQL takes no truth for a number."""
        if self._driver.dialect == "sqlite":
            return [format(value, "f") if isinstance(value, Decimal) else value for value in values]
        return [int(value) if isinstance(value, bool) else value for value in values]


class SQLite:
    """A file, in WAL mode, so that readers and a writer do not wait for each other. A commit is on the disk when it returns."""

    dialect: Dialect = "sqlite"
    money = "TEXT"
    create_lock: str | None = None
    columns = "SELECT name FROM pragma_table_info(?)"

    def __init__(self, path: Path) -> None:
        self.path = path

    def connect(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.touch(mode=0o600)
            return _sqlite(str(self.path))
        except (sqlite3.Error, OSError) as error:
            raise DatabaseDown(f"cannot open the database {self.path}: {error}", hint=WHERE) from error

    def sql(self, text: str) -> str:
        return text

    @contextmanager
    def transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        connection.execute("BEGIN IMMEDIATE")  # a read that becomes a write later could not wait for its turn
        try:
            yield
        except BaseException:
            connection.rollback()
            raise
        connection.execute("COMMIT")

    def lost(self, error: Exception) -> DatabaseDown | None:
        if isinstance(error, sqlite3.OperationalError) and not str(error).startswith(("no such", "near ")):
            return DatabaseDown(f"the database {self.path} cannot be used: {error}")
        return None

    def refuses(self, error: Exception) -> bool:
        return isinstance(error, sqlite3.DataError | sqlite3.IntegrityError)


class InMemory(SQLite):
    """SQLite in memory: gone with its connection."""

    def __init__(self) -> None:
        super().__init__(Path("memory"))

    def connect(self) -> sqlite3.Connection:
        return _sqlite(":memory:")


class PostgreSQL:
    """A server, through psycopg (extra `postgres`)."""

    dialect: Dialect = "postgresql"
    money = "NUMERIC"
    create_lock: str | None = f"SELECT pg_advisory_xact_lock({CREATE_LOCK})"
    columns = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped"

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError:
            raise missing_extra("a PostgreSQL database", "postgres") from None
        self._psycopg = psycopg
        self._url = url

    def connect(self) -> Any:
        options = f"-c statement_timeout={STATEMENT_S}s"
        try:
            return self._psycopg.connect(self._url, autocommit=True, connect_timeout=CONNECT_S, prepare_threshold=None, options=options)
        except self._psycopg.Error as error:
            raise DatabaseDown(f"cannot connect to the database: {str(error).strip()}", hint=WHERE) from error

    def sql(self, text: str) -> str:
        return text.replace("%", "%%").replace("?", "%s").replace("money_sum(", "sum(")

    def transaction(self, connection: Any) -> AbstractContextManager[object]:
        transaction: AbstractContextManager[object] = connection.transaction()
        return transaction

    def lost(self, error: Exception) -> DatabaseDown | None:
        if isinstance(error, self._psycopg.OperationalError | self._psycopg.InterfaceError):
            return DatabaseDown(f"the database cannot be used: {str(error).strip()}")
        return None

    def refuses(self, error: Exception) -> bool:
        return isinstance(error, self._psycopg.DataError | self._psycopg.IntegrityError)


class MoneySum:
    """The exact sum of money kept as text; as with every sum in SQL, NULL is left out, and the sum of nothing is NULL."""

    def __init__(self) -> None:
        self._total: Decimal | None = None

    def step(self, value: str | None) -> None:
        if value is not None:
            self._total = (self._total or Decimal(0)) + Decimal(value)

    def finalize(self) -> str | None:
        return None if self._total is None else format(self._total, "f")


def open_database(url: str, data_dir: Path) -> Database:
    """The database of `ledger.database`: "sqlite" (in `data_dir`), "sqlite:///PATH", "postgresql://…" or "memory".

    Connects when first used. Raises ConfigError for another address, MissingExtra for PostgreSQL without psycopg.
    """
    if url == "memory":
        return Database(InMemory())
    if url == "sqlite":
        return Database(SQLite(data_dir.expanduser() / "penstock.db"))
    if url.startswith("sqlite:///") and url != "sqlite:///":
        return Database(SQLite(Path(url.removeprefix("sqlite:///")).expanduser()))
    if url.startswith(("postgresql://", "postgres://")):
        return Database(PostgreSQL(url))
    hint = "sqlite, sqlite:///PATH, postgresql://USER:PASSWORD@HOST/NAME or memory"
    raise ConfigError(f"ledger.database is no address of a database that Penstock knows: {url.partition('@')[2] or url!r}", hint=hint)


def _sqlite(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.create_aggregate("money_sum", 1, MoneySum)  # type: ignore[arg-type]  # typeshed has no sum that may be NULL
    except sqlite3.Error:
        connection.close()
        raise
    return connection
