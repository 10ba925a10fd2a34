"""What a broker says, in the product's own words: answers to orders, its view of an order, account, positions and fills.

Quantities are shares (Decimal, at most 9 places), prices USD per share, instants aware and in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime, time
    from decimal import Decimal

    from quant.trading.orders import OrderState, OrderType, Side


class Answer(StrEnum):
    """What became of one attempt to submit an order, as far as the attempt itself tells."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"  # definite: 400, 401, 403, 404, 422; nothing was or will be executed of it
    THROTTLED = "throttled"  # definite: not taken now (429); the same id may be sent again
    UNKNOWN = "unknown"  # anything else: silence, 5xx, an empty or half reply. It is looked up, never guessed


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """The answer to one submission. ``broker_order_id`` is the broker's own id, if it told one; ``reason`` is for people."""

    answer: Answer
    broker_order_id: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerOrder:
    """The broker's view of one order. ``average_price`` is None until something executed."""

    client_order_id: str
    broker_order_id: str
    symbol: str
    side: Side
    order_type: OrderType
    quantity: Decimal
    filled_quantity: Decimal
    average_price: Decimal | None
    state: OrderState
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFill:
    """One execution as the broker reports it. ``execution_id`` is unique for ever: the same one twice is one fill.
    ``client_order_id`` is None where the report names only the broker's own id of the order.
    """

    execution_id: str
    broker_order_id: str
    client_order_id: str | None
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    executed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerPosition:
    """A holding as the broker reports it; ``quantity`` is signed."""

    symbol: str
    quantity: Decimal
    average_entry_price: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAccount:
    """The account. ``active`` is False where the broker blocks trading; ``buying_power`` is what it would let us open with, USD."""

    account_id: str
    active: bool
    cash: Decimal
    equity: Decimal
    buying_power: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAsset:
    """What may be done with a symbol at the broker now."""

    symbol: str
    tradable: bool
    shortable: bool
    fractionable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerCapabilities:
    """What a broker is and is not able to do.

    ``embedded``: it executes from the lake's own bars and has no memory beyond the ledger, so there is nothing apart to reconcile with and
    no wall clock to beat. ``never_books``: kinds of ledger entries that it never books (Alpaca paper: dividends, regulatory fees ...); what
    the ledger books of them goes beside its cash, not against it. ``opening_cutoff``: local exchange time on the day of execution after
    which an order for the open is not sent any more.
    """

    name: str
    embedded: bool
    order_types: frozenset[OrderType]
    fractional: bool
    never_books: frozenset[str] = frozenset()
    opening_cutoff: time | None = None
