"""The ledger's own rows held against the audit log: bookings, orders and champions that were changed behind its back."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import func, select

from adapters.ledger.audit import read_audit
from adapters.ledger.entries import bookings_digest, read_entries
from adapters.ledger.orders import INTENT, intent_row, read_orders
from adapters.ledger.schema import audit, champion_history, entries, orders
from quant.audit.canonical import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from quant.trading.orders import Order


def unlike_the_log(connection: Connection) -> list[str]:
    """What the tables have otherwise than the log tells, in words; rows from before the log told of them are left alone."""
    return [*_bookings(connection), *_orders(connection), *_champions(connection)]


def _told(connection: Connection, kind: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for sequence, _, _, payload in read_audit(connection, kind, None):
        yield sequence, cast("Mapping[str, Any]", payload)


def _bookings(connection: Connection) -> Iterator[str]:
    begun, logged = 0, 0
    for number, told in _told(connection, "bookings"):
        begun, logged = begun or told["first"], logged + told["entries"]
        column = entries.c
        where = (column.book == told["book"], column.session == date.fromisoformat(told["session"]))
        held = read_entries(connection, *where, column.sequence.between(told["first"], told["last"]))
        if bookings_digest(held) != told["sha256"]:
            span = f"entries {told['first']} to {told['last']} of book {told['book']}, session {told['session']}"
            yield f"{span}, are not those of audit entry {number}"
    there = connection.scalar(select(func.count()).where(entries.c.sequence >= begun)) if begun else 0
    if there != logged:
        yield f"{there} ledger entries from number {begun} on, {logged} in the log"


def _orders(connection: Connection) -> Iterator[str]:
    held = {order.client_order_id: order for order in read_orders(connection)}
    logged: set[str] = set()
    for number, told in _told(connection, "intents"):
        for row in told["rows"]:
            logged.add(row[0])
            order = held.get(row[0])
            if order is None or not _same(order, told["columns"], row):
                yield f"order {row[0]} is {'gone' if order is None else 'not the one'} of audit entry {number}"
    first = select(func.min(audit.c.recorded_at)).where(audit.c.kind == "intents").scalar_subquery()
    later = select(orders.c.client_order_id).where(orders.c.recorded_at >= first)
    since = {str(name) for name in connection.scalars(later)}  # none if the log tells of no order: nothing is later than null
    yield from (f"order {name} is not in the log" for name in sorted(since - logged))


def _same(order: Order, columns: Sequence[str], row: Sequence[object]) -> bool:
    made = dict(zip(INTENT, cast("Sequence[object]", plain(intent_row(order))), strict=True))
    return all(_number(made[name]) == _number(value) for name, value in zip(columns, row, strict=True) if name in made)


def _number(value: object) -> object:
    """Exact numbers are text, with as many zeros as whoever wrote them liked."""
    return value.rstrip("0").rstrip(".") if isinstance(value, str) and "." in value else value


def _champions(connection: Connection) -> Iterator[str]:
    column = champion_history.c
    rows = connection.execute(select(column.strategy, column.effective_session, column.version, column.recorded_at)).all()
    held = {(row.strategy, row.effective_session.isoformat(), row.version) for row in rows}
    told = {(p["strategy"], p["effective_session"], p["version"]): number for number, p in _told(connection, "promotion")}
    yield from (f"the promotion of audit entry {number} is gone" for key, number in told.items() if key not in held)
    if told:
        first = connection.scalar(select(func.min(audit.c.recorded_at)).where(audit.c.kind == "promotion"))
        since = {(row.strategy, row.effective_session.isoformat(), row.version) for row in rows if first and row.recorded_at >= first}
        yield from (
            f"champion {version} of {strategy} from {day} on is not in the log" for strategy, day, version in sorted(since - set(told))
        )
