"""Orders: their identity, their life, and what a broker reports of them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from quant.errors import InputError, LedgerError, expected

if TYPE_CHECKING:
    from datetime import date
    from decimal import Decimal


class Side(StrEnum):
    """Direction of an order."""

    BUY = "buy"
    SELL = "sell"

    @property
    def sign(self) -> int:
        """+1 for a buy, -1 for a sell."""
        return 1 if self is Side.BUY else -1


class Leg(StrEnum):
    """Towards zero or away from it: a flip from long to short is a close and an open."""

    CLOSE = "close"
    OPEN = "open"


class OrderType(StrEnum):
    """How and when an order wants to execute."""

    MARKET = "market"  # during the session, at once
    LIMIT = "limit"  # during the session, at its limit price or better
    MARKET_ON_OPEN = "market_on_open"  # in the opening auction
    MARKET_ON_CLOSE = "market_on_close"  # in the closing auction


class OrderState(StrEnum):
    """Where an order is in its life; the broker's own words where it has one."""

    PROPOSED = "proposed"
    DENIED = "denied"
    PENDING_NEW = "pending_new"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        """True if nothing can happen to the order any more."""
        return self not in {event_from for event_from, _ in ORDER_LIFE}


class OrderEvent(StrEnum):
    """What can happen to an order."""

    DENY = "deny"
    INTEND = "intend"  # written to the ledger before anything is sent
    ACCEPT = "accept"
    REJECT = "reject"
    PARTIAL_FILL = "partial_fill"
    FILL = "fill"
    EXPIRE = "expire"


ORDER_LIFE: dict[tuple[OrderState, OrderEvent], OrderState] = {
    (OrderState.PROPOSED, OrderEvent.DENY): OrderState.DENIED,
    (OrderState.PROPOSED, OrderEvent.INTEND): OrderState.PENDING_NEW,
    (OrderState.PENDING_NEW, OrderEvent.ACCEPT): OrderState.ACCEPTED,
    (OrderState.PENDING_NEW, OrderEvent.REJECT): OrderState.REJECTED,
    (OrderState.ACCEPTED, OrderEvent.PARTIAL_FILL): OrderState.PARTIALLY_FILLED,
    (OrderState.ACCEPTED, OrderEvent.FILL): OrderState.FILLED,
    (OrderState.ACCEPTED, OrderEvent.EXPIRE): OrderState.EXPIRED,
    (OrderState.PARTIALLY_FILLED, OrderEvent.PARTIAL_FILL): OrderState.PARTIALLY_FILLED,
    (OrderState.PARTIALLY_FILLED, OrderEvent.FILL): OrderState.FILLED,
    (OrderState.PARTIALLY_FILLED, OrderEvent.EXPIRE): OrderState.EXPIRED,
}


def next_state(state: OrderState, event: OrderEvent, *, order: str) -> OrderState:
    """The state after ``event``; a pair that ORDER_LIFE does not hold is a LedgerError."""
    try:
        return ORDER_LIFE[state, event]
    except KeyError:
        allowed = ", ".join(e for s, e in ORDER_LIFE if s is state) or "nothing (terminal)"
        raise LedgerError(
            expected(f"one of: {allowed} in state {state}", found=event, where=f"order {order}", do="reconcile before trading")
        ) from None


_BOOK_NAME = re.compile(r"[a-z0-9]{1,14}")


def client_order_id(book: str, session: date, symbol: str, leg: Leg, generation: int) -> str:
    """At most 48 characters, unique per key. Quantity and price stay out: a rerun on revised data must not trade twice."""
    if not _BOOK_NAME.fullmatch(book):
        raise InputError(expected("a book name of 1-14 characters a-z, 0-9", found=book, where="[paper] book", do="rename the book"))
    key = f"{book}|{session.isoformat()}|{symbol}|{leg}|{generation}"
    return f"{book}-{session:%Y%m%d}-{hashlib.sha256(key.encode()).hexdigest()[:24]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """Why the risk review denied an order: what the limit saw and what it allows."""

    limit: str
    observed: float
    allowed: float
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One order for the session after ``session`` (the session of the decision), by default for its open.

    ``quantity`` is positive whole shares and ``reference_price`` the close that sized it (USD per share), both on the share
    basis of the next session as far as splits were known at the decision. ``limit_price`` (USD per share) is set on LIMIT orders only.
    """

    book: str
    session: date
    symbol: str
    leg: Leg
    side: Side
    quantity: Decimal
    reference_price: Decimal
    generation: int = 1
    state: OrderState = OrderState.PROPOSED
    denial: Denial | None = None
    order_type: OrderType = OrderType.MARKET_ON_OPEN
    limit_price: Decimal | None = None

    def __post_init__(self) -> None:
        if (self.order_type is OrderType.LIMIT) != (self.limit_price is not None):
            found = f"{self.order_type} with limit_price {self.limit_price}"
            raise LedgerError(
                expected("a limit price on limit orders only", found=found, where=f"order of {self.symbol}", do="set both or none")
            )

    @property
    def client_order_id(self) -> str:
        """The order's id everywhere."""
        return client_order_id(self.book, self.session, self.symbol, self.leg, self.generation)

    @property
    def signed_quantity(self) -> Decimal:
        """Shares, negative for a sell."""
        return self.quantity * self.side.sign


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One fill. ``price`` includes slippage and impact; ``reference_price`` is the auction price without them (USD per share);
    ``unfilled`` is what expired of the order with this report; ``commission`` is USD.
    """

    execution_id: str
    order: Order
    session: date
    quantity: Decimal
    price: Decimal
    reference_price: Decimal
    commission: Decimal
    unfilled: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """An order that ended in ``session`` without any execution, and why."""

    order: Order
    session: date
    reason: str
