"""The audit log: entries to chained rows and back. Writers hold the database's lock, so each sees the entry before its own."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from sqlalchemy import String, insert, select, type_coerce

from adapters.ledger.schema import audit
from adapters.ledger.types import CanonicalDocument
from quant.audit.chain import GENESIS, ChainEntry, entry_hash

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from sqlalchemy import Connection

ROWS_A_FETCH = 10_000
_CANONICAL = CanonicalDocument()
_INSTANT = "%Y-%m-%dT%H:%M:%S.%fZ"


def record_audit(
    connection: Connection, kind: str, payload: Mapping[str, object], recorded_at: datetime, *, key: str | None = None
) -> bool:
    """Append one entry, unless the log has its key; whether it did. The connection's transaction is a writing one."""
    if key is not None and connection.execute(select(audit.c.sequence).where(audit.c.key == key)).first() is not None:
        return False
    newest = connection.execute(select(audit.c.sequence, audit.c.hash).order_by(audit.c.sequence.desc()).limit(1)).one_or_none()
    last, head = newest or (0, GENESIS)
    text = _CANONICAL.process_bind_param(payload, connection.dialect)
    made = ChainEntry(last + 1, recorded_at.astimezone(UTC).strftime(_INSTANT), kind, key, text)
    row = {"sequence": made.sequence, "recorded_at": recorded_at, "kind": kind, "key": key, "hash": entry_hash(head, made.content)}
    connection.execute(insert(audit), {**row, "payload": payload})
    return True


def read_audit(connection: Connection, kind: str | None, containing: str | None) -> list[tuple[int, datetime, str, Mapping[str, object]]]:
    """Rows of one kind, or of all, oldest first."""
    query = select(audit.c.sequence, audit.c.recorded_at, audit.c.kind, audit.c.payload).order_by(audit.c.sequence)
    where = [] if kind is None else [audit.c.kind == kind]
    where += [] if containing is None else [type_coerce(audit.c.payload, String).contains(containing, autoescape=True)]
    rows = connection.execute(query.where(*where))
    return [(sequence, recorded_at, name, payload) for sequence, recorded_at, name, payload in rows]


def walk_entries(connection: Connection, after: int) -> Iterator[ChainEntry]:
    """Entries after a sequence as they are stored, oldest first, without parsing what is hashed."""
    column = audit.c
    instant, payload = type_coerce(column.recorded_at, String), type_coerce(column.payload, String)
    query = select(column.sequence, instant, column.kind, column.key, payload, column.hash).where(column.sequence > after)
    rows = connection.execute(query.order_by(column.sequence).execution_options(yield_per=ROWS_A_FETCH))
    for sequence, recorded_at, kind, key, text, digest in rows:
        yield ChainEntry(sequence, f"{recorded_at.replace(' ', 'T')}Z", kind, key, text, digest)
