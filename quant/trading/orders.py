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
    """Where an order is in its life: in our words until it was acknowledged, in the broker's (Alpaca's) from then on."""

    PROPOSED = "proposed"
    DENIED = "denied"
    PENDING_NEW = "pending_new"  # written down, not sent yet
    MISSED = "missed"  # too late to send
    DRY_RUN = "dry_run"  # recorded instead of sent
    SENT = "sent"  # on its way: whether it arrived is not known
    ACCEPTED = "accepted"
    NEW = "new"
    ACCEPTED_FOR_BIDDING = "accepted_for_bidding"
    PENDING_REVIEW = "pending_review"
    HELD = "held"
    STOPPED = "stopped"  # a price is guaranteed, the trade is not reported yet
    SUSPENDED = "suspended"
    CALCULATED = "calculated"
    DONE_FOR_DAY = "done_for_day"
    PENDING_CANCEL = "pending_cancel"
    PENDING_REPLACE = "pending_replace"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REPLACED = "replaced"
    REJECTED = "rejected"

    @property
    def terminal(self) -> bool:
        """True if the order asks for nothing any more. A fill that was under way may still be reported for a cancelled or expired one."""
        return self in TERMINAL

    @property
    def at_broker(self) -> bool:
        """True if the broker has taken the order and it may execute."""
        return self in _WORKING


class OrderEvent(StrEnum):
    """What can happen to an order."""

    DENY = "deny"
    INTEND = "intend"  # written to the ledger before anything is sent
    MISS = "miss"
    SKIP = "skip"  # in a dry run
    SEND = "send"  # about to be sent: written before the first byte leaves
    ACCEPT = "accept"
    OPEN = "open"
    BID = "bid"
    REVIEW = "review"
    HOLD = "hold"
    STOP = "stop"
    SUSPEND = "suspend"
    CALCULATE = "calculate"
    END_DAY = "end_day"
    ASK_CANCEL = "ask_cancel"
    ASK_REPLACE = "ask_replace"
    PARTIAL_FILL = "partial_fill"
    FILL = "fill"
    CANCEL = "cancel"
    EXPIRE = "expire"
    REPLACE = "replace"
    REJECT = "reject"


_REPORTED = {
    OrderEvent.ACCEPT: OrderState.ACCEPTED,
    OrderEvent.OPEN: OrderState.NEW,
    OrderEvent.BID: OrderState.ACCEPTED_FOR_BIDDING,
    OrderEvent.REVIEW: OrderState.PENDING_REVIEW,
    OrderEvent.HOLD: OrderState.HELD,
    OrderEvent.STOP: OrderState.STOPPED,
    OrderEvent.SUSPEND: OrderState.SUSPENDED,
    OrderEvent.CALCULATE: OrderState.CALCULATED,
    OrderEvent.END_DAY: OrderState.DONE_FOR_DAY,
    OrderEvent.ASK_CANCEL: OrderState.PENDING_CANCEL,
    OrderEvent.ASK_REPLACE: OrderState.PENDING_REPLACE,
}  # what a broker says of an order of which nothing executed yet
_ENDED = {
    OrderEvent.FILL: OrderState.FILLED,
    OrderEvent.CANCEL: OrderState.CANCELED,
    OrderEvent.EXPIRE: OrderState.EXPIRED,
    OrderEvent.REPLACE: OrderState.REPLACED,
}
_WORKING = frozenset({*_REPORTED.values(), OrderState.PARTIALLY_FILLED})
_UNDER_WAY = (OrderState.CANCELED, OrderState.EXPIRED, OrderState.REPLACED)
TERMINAL = frozenset({OrderState.DENIED, OrderState.MISSED, OrderState.DRY_RUN, OrderState.REJECTED, *_ENDED.values()})
ORDER_LIFE: dict[tuple[OrderState, OrderEvent], OrderState] = {
    (OrderState.PROPOSED, OrderEvent.DENY): OrderState.DENIED,
    (OrderState.PROPOSED, OrderEvent.INTEND): OrderState.PENDING_NEW,
    (OrderState.PENDING_NEW, OrderEvent.SEND): OrderState.SENT,
    (OrderState.PENDING_NEW, OrderEvent.MISS): OrderState.MISSED,
    (OrderState.PENDING_NEW, OrderEvent.SKIP): OrderState.DRY_RUN,
    # Whatever is reported of an order that was sent is the acknowledgement; one that never arrived is missed once it is too late.
    (OrderState.SENT, OrderEvent.MISS): OrderState.MISSED,
    (OrderState.SENT, OrderEvent.REJECT): OrderState.REJECTED,
    (OrderState.SENT, OrderEvent.PARTIAL_FILL): OrderState.PARTIALLY_FILLED,
    **{(OrderState.SENT, event): state for event, state in {**_REPORTED, **_ENDED}.items()},
    # Brokers publish no order of these: reports come late and out of it. Any of them may follow any other while nothing has executed.
    **{(state, event): after for state in _REPORTED.values() for event, after in {**_REPORTED, **_ENDED}.items()},
    **{(state, OrderEvent.PARTIAL_FILL): OrderState.PARTIALLY_FILLED for state in _REPORTED.values()},
    **{(state, OrderEvent.REJECT): OrderState.REJECTED for state in _REPORTED.values()},
    # What has executed is never taken back by a late report of a state before it.
    **{(OrderState.PARTIALLY_FILLED, event): OrderState.PARTIALLY_FILLED for event in (*_REPORTED, OrderEvent.PARTIAL_FILL)},
    **{(OrderState.PARTIALLY_FILLED, event): state for event, state in _ENDED.items()},
    # A fill can overtake a cancellation: it is booked, and told.
    **{(state, OrderEvent.PARTIAL_FILL): state for state in _UNDER_WAY},
    **{(state, OrderEvent.FILL): OrderState.FILLED for state in _UNDER_WAY},
}
_EVENTS = {state: event for event, state in {**_REPORTED, **_ENDED}.items()} | {
    OrderState.PARTIALLY_FILLED: OrderEvent.PARTIAL_FILL,
    OrderState.REJECTED: OrderEvent.REJECT,
    OrderState.PENDING_NEW: OrderEvent.ACCEPT,  # the broker has it, its exchange not yet
}


def reported(status: OrderState) -> OrderEvent:
    """The event that a broker's report of ``status`` is; LedgerError for a state that no broker reports."""
    try:
        return _EVENTS[status]
    except KeyError:
        do = "correct the broker's adapter"
        raise LedgerError(expected("a state that a broker reports", found=status, where="an order's report", do=do)) from None


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
