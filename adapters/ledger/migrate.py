"""Bring a ledger database to the newest schema, in process."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text

from adapters.ledger.append_only import VERSION_TABLE
from adapters.ledger.schema import HEAD
from adapters.ledger.sqlite import migrating, transact
from quant.errors import LedgerError, expected

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

MIGRATIONS = Path(__file__).parent / "migrations"


def revision(connection: Connection) -> str | None:
    """The revision a database is at; None before its first migration."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))


def bring_to_head(engine: Engine, *, target: str = HEAD, migrations: Path = MIGRATIONS) -> None:
    """Run the missing migrations in one transaction; existing rows stay. Two processes that open a fresh file at once take turns.

    LedgerError if the database is at a revision this code does not know.
    """
    if transact(engine, revision) != target:  # without Alembic's import: most databases are at the head
        transact(migrating(engine), lambda connection: _upgrade(connection, target, migrations))


def _upgrade(connection: Connection, target: str, migrations: Path) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)  # before its import, which logs
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    try:
        command.upgrade(config, target)
    except CommandError as error:
        raise LedgerError(
            expected(f"a ledger at revision {HEAD} or before", found=error, where=str(connection.engine.url), do="update Afterclose")
        ) from error
