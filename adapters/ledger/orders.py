"""Orders and what happened to them, to rows and back."""

from __future__ import annotations

from itertools import groupby
from math import isfinite, nan
from types import MappingProxyType
from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select

from adapters.ledger.audit import record_audit
from adapters.ledger.schema import order_events, orders
from quant.errors import LedgerError, expected
from quant.ports import OrderStep
from quant.trading.orders import Denial, Leg, Order, OrderEvent, OrderState, OrderType, Side, next_state

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Row

IDS_A_QUERY = 10_000  # SQLite takes 32,766 parameters
INTENT = (
    "client_order_id", "symbol", "leg", "generation", "side", "quantity", "reference_price",
    "denial_limit", "denial_observed", "denial_allowed", "denial_unit", "order_type", "limit_price",
)  # fmt: skip
FIRST_EVENT = {OrderState.PENDING_NEW: OrderEvent.INTEND, OrderState.DENIED: OrderEvent.DENY}


def read_orders(connection: Connection, *where: ColumnElement[bool]) -> list[Order]:
    """Orders that satisfy ``where`` (conditions on orders and on their newest event), sorted by (session, symbol, leg, generation)."""
    newest = select(func.max(order_events.c.sequence)).where(order_events.c.client_order_id == orders.c.client_order_id).correlate(orders)
    query = select(orders, order_events.c.state).join(order_events, order_events.c.sequence == newest.scalar_subquery())
    columns = orders.c["session", "symbol", "leg", "generation"]
    return [_order(row) for row in connection.execute(query.where(*where).order_by(*columns))]


def intend_orders(connection: Connection, wanted: Sequence[Order], recorded_at: datetime) -> list[Order]:
    """Insert what is new of ``wanted`` with its first event; what is stored then, in the order given."""
    stored = _by_id(connection, [order.client_order_id for order in wanted])
    new: dict[str, Order] = {}
    for order in wanted:
        if order.client_order_id not in stored:
            new.setdefault(order.client_order_id, order)
    events = {order_id: _first_event(order) for order_id, order in new.items()}
    if new:
        connection.execute(insert(orders), [{**_order_row(order), "recorded_at": recorded_at} for order in new.values()])
        _audit_intents(connection, list(new.values()), recorded_at)
        _append(connection, {order_id: (event, OrderState.PROPOSED) for order_id, event in events.items()}, recorded_at)
    return [stored.get(order.client_order_id) or new[order.client_order_id] for order in wanted]


def advance_orders(
    connection: Connection, book: str, events: Mapping[str, OrderEvent], notes: Mapping[str, str], recorded_at: datetime
) -> None:
    """Append one event to each order; LedgerError for an unknown order, another book's, or an event its state does not allow."""
    stored = _by_id(connection, list(events))
    for order_id in events:
        if order_id not in stored or stored[order_id].book != book:
            raise LedgerError(expected("an order of this book", found=order_id, where=f"book {book}", do="intend it before sending it"))
    if events:
        _append(connection, {order_id: (event, stored[order_id].state) for order_id, event in events.items()}, recorded_at, notes)


def read_steps(connection: Connection, client_order_id: str) -> list[OrderStep]:
    """What happened to an order, oldest first."""
    query = select(order_events).where(order_events.c.client_order_id == client_order_id).order_by(order_events.c.sequence)
    return [
        OrderStep(recorded_at=row.recorded_at, event=OrderEvent(row.event), state=OrderState(row.state), note=row.note)
        for row in connection.execute(query)
    ]


def _append(
    connection: Connection,
    events: Mapping[str, tuple[OrderEvent, OrderState]],
    recorded_at: datetime,
    notes: Mapping[str, str] = MappingProxyType({}),
) -> None:
    rows = [
        {
            "recorded_at": recorded_at,
            "client_order_id": order_id,
            "event": event.value,
            "state": next_state(state, event, order=order_id).value,
            "note": notes.get(order_id),
        }
        for order_id, (event, state) in events.items()
    ]
    connection.execute(insert(order_events), rows)
    record_audit(
        connection, "order_events", {"events": {row["client_order_id"]: [row["event"], row["state"]] for row in rows}}, recorded_at
    )


def _audit_intents(connection: Connection, new: Sequence[Order], recorded_at: datetime) -> None:
    """One entry a book and session: the orders as reviewed, denied ones with what the limit saw."""
    for (book, session), group in groupby(sorted(new, key=lambda o: (o.book, o.session)), key=lambda o: (o.book, o.session)):
        rows = [intent_row(order) for order in group]
        record_audit(connection, "intents", {"book": book, "session": session, "columns": INTENT, "rows": rows}, recorded_at)


def intent_row(order: Order) -> list[object]:
    """The columns INTENT of an order, as the audit log has them."""
    row = _order_row(order)
    return [_audited(row[name]) for name in INTENT]


def _audited(value: object) -> object:
    """A number that a limit did not see is none."""
    return None if isinstance(value, float) and not isfinite(value) else value


def _by_id(connection: Connection, ids: Sequence[str]) -> dict[str, Order]:
    found: dict[str, Order] = {}
    for start in range(0, len(ids), IDS_A_QUERY):
        some = read_orders(connection, orders.c.client_order_id.in_(ids[start : start + IDS_A_QUERY]))
        found.update((order.client_order_id, order) for order in some)
    return found


def of_book(book: str, states: Collection[str] | None) -> list[ColumnElement[bool]]:
    """Conditions for read_orders."""
    return [orders.c.book == book] + ([] if states is None else [order_events.c.state.in_(sorted(states))])


def _first_event(order: Order) -> OrderEvent:
    try:
        return FIRST_EVENT[order.state]
    except KeyError:
        raise LedgerError(
            expected(
                f"an order in state {' or '.join(FIRST_EVENT)}",
                found=order.state,
                where=f"order {order.client_order_id}",
                do="review it first",
            )
        ) from None


def _order_row(order: Order) -> dict[str, object]:
    denial = order.denial
    return {
        "client_order_id": order.client_order_id,
        "book": order.book,
        "session": order.session,
        "symbol": order.symbol,
        "leg": order.leg.value,
        "generation": order.generation,
        "side": order.side.value,
        "quantity": order.quantity,
        "reference_price": order.reference_price,
        "denial_limit": denial and denial.limit,
        "denial_observed": denial and denial.observed,
        "denial_allowed": denial and denial.allowed,
        "denial_unit": denial and denial.unit,
        "order_type": order.order_type.value,
        "limit_price": order.limit_price,
    }


def _order(row: Row[tuple[object, ...]]) -> Order:
    return Order(
        book=row.book,
        session=row.session,
        symbol=row.symbol,
        leg=Leg(row.leg),
        side=Side(row.side),
        quantity=row.quantity,
        reference_price=row.reference_price,
        generation=row.generation,
        state=OrderState(row.state),
        denial=None if row.denial_limit is None else _denial(row),
        order_type=OrderType(row.order_type),
        limit_price=row.limit_price,
    )


def _denial(row: Row[tuple[object, ...]]) -> Denial:
    # SQLite stores NaN as null: a limit that had nothing to observe.
    observed, allowed = (nan if number is None else number for number in (row.denial_observed, row.denial_allowed))
    return Denial(limit=row.denial_limit, observed=observed, allowed=allowed, unit=row.denial_unit)
