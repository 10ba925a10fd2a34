"""What a broker reported of orders, and what became of them: a fold that no repetition, delay or order of arrival changes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from quant.errors import BrokerError, expected
from quant.trading.orders import Execution, Expiry
from quant.units import ZERO

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date, datetime
    from decimal import Decimal

    from quant.trading.orders import Order

ENDED = frozenset({"filled", "canceled", "expired", "rejected", "replaced"})


class Channel(StrEnum):
    """How a report arrived."""

    POLL = "poll"
    STREAM = "stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerEvent:
    """One report. ``cumulative`` are the shares of the order executed so far. An execution has ``quantity`` (shares) and ``price`` (USD per
    share), a report of the order's state has ``status`` in the broker's words; the others are None.

    ``event_id`` says what is reported, not how: the same execution seen by polling and on the stream has one.
    """

    account: str
    event_id: str
    broker_order_id: str
    client_order_id: str | None
    symbol: str
    at: datetime
    channel: Channel
    cumulative: Decimal
    quantity: Decimal | None = None
    price: Decimal | None = None
    status: str | None = None


def execution_key(broker_order_id: str, cumulative: Decimal) -> str:
    """The id of an execution. Alpaca names one differently on its channels; the order and what had executed of it by then are the same on
    all of them.
    """
    return f"{broker_order_id}:{cumulative.normalize():f}"


def state_key(broker_order_id: str, status: str, cumulative: Decimal) -> str:
    """The id of a report of an order's state."""
    return f"{broker_order_id}:{status}:{cumulative.normalize():f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """All that was reported of one order: its executions by what had executed with them, and how it ended (None: not yet, or not told).

    ``executed`` is what the reports say has executed in all; the executions may still miss some of it.
    """

    executions: Sequence[BrokerEvent]
    ended: str | None
    executed: Decimal

    @property
    def complete(self) -> bool:
        """True if the order ended and every execution is there."""
        return self.ended is not None and sum((e.quantity or ZERO for e in self.executions), ZERO) == self.executed


def told(events: Iterable[BrokerEvent]) -> Told:
    """What the events of one order say together."""
    executions: dict[str, BrokerEvent] = {}
    ended: set[str] = set()
    executed = ZERO
    for event in events:
        executed = max(executed, event.cumulative)
        if event.quantity is not None:
            executions.setdefault(event.event_id, event)
        elif event.status in ENDED:
            ended.add(event.status)
    end = "filled" if "filled" in ended else min(ended, default=None)
    return Told(executions=sorted(executions.values(), key=lambda event: event.cumulative), ended=end, executed=executed)


def outcomes(session: date, orders: Sequence[Order], events: Mapping[str, Sequence[BrokerEvent]]) -> list[Execution | Expiry]:
    """What became of ``orders`` by the events of each (by client_order_id), in the order given: its executions, the last of which says
    what of it expired; or its expiry.

    The broker tells neither a price apart from its own nor a commission: reference_price is the price, commission zero. BrokerError
    while an order is open, or while executions are missing of what has executed.
    """
    found: list[Execution | Expiry] = []
    for order in orders:
        said = told(events.get(order.client_order_id, ()))
        if not said.complete:
            seen = sum((e.quantity or ZERO for e in said.executions), ZERO)
            state = f"{said.ended or 'no end'}, executions of {seen.normalize():f} of {said.executed.normalize():f} executed shares"
            where = f"order {order.client_order_id} in {session}"
            do = "run this again later"
            if not events.get(order.client_order_id):
                do += "; if it was sent to another broker, take up that one again or begin a new data root"
            raise BrokerError(expected("an order that ended, with all its executions", found=state, where=where, do=do))
        left = order.quantity
        for event in said.executions:
            assert event.quantity is not None
            assert event.price is not None
            left -= event.quantity
            last = event is said.executions[-1]
            found.append(
                Execution(
                    execution_id=event.event_id,
                    order=order,
                    session=session,
                    quantity=event.quantity,
                    price=event.price,
                    reference_price=event.price,
                    commission=ZERO,
                    unfilled=left if last else ZERO,
                )
            )
        if not said.executions:
            found.append(Expiry(order=order, session=session, reason=f"{said.ended} at the broker"))
    return found
