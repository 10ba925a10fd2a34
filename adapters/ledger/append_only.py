"""Triggers that make every table of the ledger append-only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import inspect

if TYPE_CHECKING:
    from sqlalchemy import Connection, Inspector

VERSION_TABLE = "alembic_version"


def protect(connection: Connection) -> None:
    """(Re)create the triggers of every table that exists now. Called after each migration: Alembic's batch operations copy a table and
    lose its triggers silently.
    """
    inspector = inspect(connection)
    for table in set(inspector.get_table_names()) - {VERSION_TABLE}:
        for operation, condition in (("UPDATE", ""), ("DELETE", ""), ("INSERT", f"WHEN EXISTS ({_same_key(inspector, table)})")):
            trigger = f"{table}_no_{operation.lower()}"
            connection.exec_driver_sql(f'DROP TRIGGER IF EXISTS "{trigger}"')
            connection.exec_driver_sql(
                f'CREATE TRIGGER "{trigger}" BEFORE {operation} ON "{table}" {condition} '
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only: {operation} of an existing row refused'); END"
            )


def _same_key(inspector: Inspector, table: str) -> str:
    """Rows with a key of the new one: INSERT OR REPLACE would delete them without firing a DELETE trigger."""
    keys = [inspector.get_pk_constraint(table)["constrained_columns"]]
    keys += [unique["column_names"] for unique in inspector.get_unique_constraints(table)]
    same = [" AND ".join(f'"{column}" = NEW."{column}"' for column in key) for key in keys]
    return f'SELECT 1 FROM "{table}" WHERE {" OR ".join(same)}'
