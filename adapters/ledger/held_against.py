"""The ledger's own rows held against the audit log: bookings, orders, sessions, decisions, trading states and champions that were changed
behind its back.
"""

from __future__ import annotations

from datetime import date, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import func, select

from adapters.ledger.audit import read_audit
from adapters.ledger.entries import bookings_digest, read_entries
from adapters.ledger.orders import INTENT, intent_row, read_orders
from adapters.ledger.records import STATE_COLUMNS
from adapters.ledger.schema import audit, champion_history, decisions, entries, orders, session_starts, trading_states
from adapters.ledger.states import untrue_states
from quant.audit.canonical import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection, RowMapping

    from quant.trading.orders import Order


def unlike_the_log(connection: Connection) -> list[str]:
    """What the tables have otherwise than the log tells, in words; rows from before the log told of them are left alone."""
    of_books = (*_states(connection), *_decisions(connection), *_starts(connection))
    cached = (
        f"the state of book {book} that is kept of session {day} is not what its entries say" for book, day in untrue_states(connection)
    )
    return [*_bookings(connection), *_orders(connection), *of_books, *_champions(connection), *cached]


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


def _states(connection: Connection) -> Iterator[str]:
    """Changes of trading states in their order, of which the newest holds."""
    told = [(number, {name: p[name] for name in STATE_COLUMNS}) for number, p in _told(connection, "trading_state")]
    column = trading_states.c
    first = select(func.min(audit.c.recorded_at)).scalar_subquery()  # the log told of these from its beginning
    rows = connection.execute(select(trading_states).where(column.recorded_at >= first).order_by(column.sequence)).mappings()
    held = [{name: plain(row[name]) for name in STATE_COLUMNS} for row in rows]
    yield from (f"the trading state of audit entry {number} is gone" for number, change in told if change not in held)
    logged = [change for _, change in told]
    yield from (f"trading state {c['state']} of book {c['book']} ({c['key']}) is not in the log" for c in held if c not in logged)
    if held != logged and sorted(map(str, held)) == sorted(map(str, logged)):
        yield "trading states are not in the order of the log"


def _decisions(connection: Connection) -> Iterator[str]:
    rows = connection.execute(select(decisions)).mappings()
    held = {(row["book"], row["session"].isoformat()): _facts(row, _DECISION) for row in rows}
    told = [(number, p) for number, p in _told(connection, "decision") if set(_DECISION) <= set(p)]
    yield from _by_session("decision", held, [(number, _facts(p, _DECISION)) for number, p in told])


def _starts(connection: Connection) -> Iterator[str]:
    rows = connection.execute(select(session_starts)).mappings()
    made: list[dict[str, Any]] = [{**row, "rules_sha256": sha256(row["rules"].encode()).hexdigest()} for row in rows]
    held = {(str(row["book"]), row["session"].isoformat()): _facts(row, _START) for row in made}
    yield from _by_session("start", held, [(number, _facts(p, _START)) for number, p in _told(connection, "session")])


_DECISION = ("book", "session", "decision_at", "model_version", "table_versions")
_START = ("book", "session", "decision_at", "rules_sha256")


def _facts(row: Mapping[str, Any] | RowMapping, names: Sequence[str]) -> dict[str, object]:
    """As the log has them; instants, which it has in two ways, as such."""
    facts = {name: plain(row[name]) for name in names}
    at = row["decision_at"]
    return {**facts, "decision_at": datetime.fromisoformat(at) if isinstance(at, str) else at}


def _by_session(
    what: str, held: Mapping[tuple[str, str], Mapping[str, object]], told: Sequence[tuple[int, Mapping[str, object]]]
) -> Iterator[str]:
    """Rows that a book has one of for a session; those of sessions before the log told of any are left alone."""
    logged = {(str(facts["book"]), str(facts["session"])): (number, facts) for number, facts in told}
    for (book, session), (number, facts) in logged.items():
        if (row := held.get((book, session))) != facts:
            found = "gone:" if row is None else "not the one of"
            yield f"the {what} of book {book}, session {session}, is {found} audit entry {number}"
    first = {book: min(day for of, day in logged if of == book) for book, _ in logged}
    later = sorted(key for key in held if key not in logged and key[0] in first and key[1] > first[key[0]])
    yield from (f"the {what} of book {book}, session {session}, is not in the log" for book, session in later)


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
