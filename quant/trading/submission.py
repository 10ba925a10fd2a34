"""An order reaches a broker exactly once, through crashes, silence and retries.

1. The intent is in the ledger, quantity frozen, before this begins (Ledger.intend).
2. SENT is committed, then the order is posted, under an id that is made of what the order is for, so that the broker refuses a second one.
3. A definite answer is recorded. Everything else is unknown: the order is looked up by its id, and posted again under the same id only if
   the broker says that it has none. Silence is never a rejection.
4. What a run that was killed left SENT is unknown, too, and begins with the look.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quant.errors import BrokerError, InputError, LedgerError, expected
from quant.trading.brokerage import Answer
from quant.trading.orders import Leg, Order, OrderEvent, OrderState, OrderType, Side, reported

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from quant.ports import Broker, Clock, Ledger
    from quant.trading.brokerage import BrokerOrder

MOST_TRIES = 5
FIRST_WAIT_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What became of one order: the event that the ledger gets, and a note for people."""

    event: OrderEvent
    note: str = ""


def submit(orders: Sequence[Order], *, book: str, ledger: Ledger, broker: Broker, clock: Clock) -> None:
    """Send those of ``orders`` (of one book and session, as the ledger has them) that wait, and find out about those that a run before left
    unknown. What became of each is in the ledger when this returns; calling it again sends nothing twice.

    Orders towards zero go first, sells before buys: they need no buying power. BrokerError, after everything else was done, if an order's
    fate could not be found out: it stays SENT. LedgerError if the broker has another order under one of the ids.
    """
    waiting = [order for order in orders if order.state is OrderState.PENDING_NEW]
    lost = [order for order in orders if order.state is OrderState.SENT]
    ledger.advance(book, {order.client_order_id: OrderEvent.SEND for order in waiting})
    fates: dict[str, Fate] = {}
    open_questions: list[str] = []
    try:
        for order in sorted([*lost, *waiting], key=_sending_order):
            try:
                fates[order.client_order_id] = _sent(order, broker, clock, look_first=order in lost)
            except BrokerError as error:
                open_questions.append(f"{order.client_order_id}: {error}")
    finally:  # what is known is kept, whatever the rest does; a kill before it costs a look at each
        ledger.advance(book, {i: f.event for i, f in fates.items()}, notes={i: f.note for i, f in fates.items() if f.note})
    if open_questions:
        found = f"{len(open_questions)} of unknown fate, the first {open_questions[0]}"
        raise BrokerError(
            expected("an answer to every order", found=found, where=f"book {book}", do="run the session again: they are looked up")
        )


def find_out(orders: Sequence[Order], *, book: str, ledger: Ledger, broker: Broker, why: str = "not sent in time") -> None:
    """As submit, for orders that are not to be sent any more: one that never arrived, or was never sent, is missed, and ``why``."""
    fates: dict[str, Fate] = {}
    for order in orders:
        held = _held(order, broker) if order.state is OrderState.SENT else None
        fates[order.client_order_id] = Fate(event=OrderEvent.MISS, note=why) if held is None else _acknowledged(held)
    ledger.advance(book, {i: f.event for i, f in fates.items()}, notes={i: f.note for i, f in fates.items() if f.note})


def residual(order: Order, filled: Decimal) -> Order:
    """The next generation of an order that ended with ``filled`` shares executed: the only way to trade again under its key.

    InputError while the order may still execute, or if nothing is left of it.
    """
    left = order.quantity - filled
    if not order.state.terminal or left <= 0:
        found = f"{order.state} with {left} of {order.quantity} shares left"
        raise InputError(
            expected("an order that ended with shares left", found=found, where=f"order {order.client_order_id}", do="leave it")
        )
    return replace(order, quantity=left, generation=order.generation + 1, state=OrderState.PROPOSED, denial=None)


def _sending_order(order: Order) -> tuple[bool, bool, str, int]:
    return order.leg is Leg.OPEN, order.side is Side.BUY, order.symbol, order.generation


def _sent(order: Order, broker: Broker, clock: Clock, *, look_first: bool) -> Fate:
    """Post one order until its fate is known, MOST_TRIES times at most."""
    if look_first and (held := _held(order, broker)) is not None:
        return _acknowledged(held)
    told = ""
    for attempt in range(MOST_TRIES):
        if attempt:
            clock.wait(FIRST_WAIT_SECONDS * 2 ** (attempt - 1))
        said = broker.submit(order)
        told = f"{said.answer}: {said.reason}"
        if said.answer is Answer.ACCEPTED:
            return Fate(event=OrderEvent.ACCEPT, note=said.broker_order_id or "")
        if said.answer is Answer.REJECTED:
            return Fate(event=OrderEvent.REJECT, note=said.reason)
        if said.answer is Answer.UNKNOWN and (held := _held(order, broker)) is not None:
            return _acknowledged(held)
    where = f"order {order.client_order_id}"
    raise BrokerError(expected("an answer", found=f"{told}, {MOST_TRIES} times", where=where, do="run the session again: it is looked up"))


def _held(order: Order, broker: Broker) -> BrokerOrder | None:
    """The broker's order of this id, if it is this order; LedgerError if it is another one."""
    held = broker.find(order.client_order_id)
    if held is None:
        return None
    ours, theirs = (_terms(one.symbol, one.side, one.quantity, one.order_type) for one in (order, held))
    if ours != theirs:
        where, do = f"order {order.client_order_id} at the broker", "do not trade; find out who sent it"
        raise LedgerError(expected(f"{ours}, as it was intended", found=theirs, where=where, do=do))
    return held


def _terms(symbol: str, side: Side, quantity: Decimal, order_type: OrderType) -> str:
    """What an order is, as far as every broker keeps it: one for the open may be queued as a market order of the day."""
    return f"{side} {quantity.normalize():f} {symbol} at {'a limit' if order_type is OrderType.LIMIT else 'the market'}"


def _acknowledged(held: BrokerOrder) -> Fate:
    """The broker has it. What executed of it is booked from its executions, not from here: until then it is an accepted order."""
    event = reported(held.state)
    refused = event is OrderEvent.REJECT
    return Fate(event=event if refused else OrderEvent.ACCEPT, note="" if refused else held.broker_order_id)
