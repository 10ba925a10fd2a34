"""SQLite as the ledger needs it: write-ahead log, writers that take the lock first, whole transactions retried."""

from __future__ import annotations

import sqlite3
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError

from adapters.ledger.types import encode_json
from quant.errors import InputError, LedgerError, expected

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine
    from sqlalchemy.pool import ConnectionPoolEntry

T = TypeVar("T")

BUSY_TIMEOUT_SECONDS = 10
ATTEMPTS = 5
BACKOFF_SECONDS = 0.05
LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def sqlite_engine(url: str) -> Engine:
    """Engine on a database file, whose folder is made, or ``sqlite://``: in memory, for one thread. InputError for any other URL."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is None or parsed.get_backend_name() != "sqlite":
        raise InputError(expected("a URL sqlite:///path/to/file", found=url, where="the ledger's URL", do="correct the setting"))
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, json_serializer=encode_json, connect_args={"timeout": BUSY_TIMEOUT_SECONDS})
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    weakref.finalize(engine, engine.pool.dispose)  # a connection that nobody closes is a warning from Python 3.13 on
    return engine


def writing(engine: Engine) -> Engine:
    """The same engine, its transactions holding the write lock from their start: a deferred one that reads and then writes fails at
    once with SQLITE_BUSY_SNAPSHOT, whatever the timeout.
    """
    return engine.execution_options(sqlite_begin="IMMEDIATE")


def migrating(engine: Engine) -> Engine:
    """The same engine for migrations: writing, and free to replace a table that others refer to."""
    return engine.execution_options(sqlite_begin="IMMEDIATE", sqlite_foreign_keys="OFF")


def transact(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Run ``work`` in one transaction, all or nothing, again from its start while the database is locked: at most ATTEMPTS times
    BUSY_TIMEOUT_SECONDS. LedgerError if it stays locked or cannot be read or written.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with engine.begin() as connection:
                return work(connection)
        except DatabaseError as error:
            if attempt == ATTEMPTS or not _is_lock(error.orig):
                raise LedgerError(
                    expected(
                        "a ledger that can be read and written",
                        found=error.orig,
                        where=engine.url.render_as_string(),
                        do="look at its disk, permissions and other writers, then run again: nothing was written",
                    )
                ) from error
        time.sleep(BACKOFF_SECONDS * attempt)
    raise AssertionError("the last attempt returns or raises")


def _is_lock(error: BaseException | None) -> bool:
    # The low byte is the primary code; SQLITE_BUSY_SNAPSHOT and the like carry more above it.
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in LOCKED


def _configure(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver would begin (deferred) on its own, and only before some statements
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    # Within a transaction this pragma does nothing, and a pooled connection may have served a migration before.
    connection.exec_driver_sql(f"PRAGMA foreign_keys = {options.get('sqlite_foreign_keys', 'ON')}")
    connection.exec_driver_sql(f"BEGIN {options.get('sqlite_begin', 'DEFERRED')}")
