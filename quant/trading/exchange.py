"""A simulated exchange with an account: orders wait in it, auctions and sessions execute them, an account keeps what came of it.

Pure: time comes in with every call, chance from the seed and the order's id. The embedded exchange of the daily chain has no memory and
shares only the matching (quant.trading.execution.match).
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from decimal import ROUND_DOWN, Decimal
from enum import StrEnum
from typing import TYPE_CHECKING

from quant.trading.execution import CostSettings, Match, match
from quant.trading.orders import OrderType, Side
from quant.trading.splits import after_split, exact_ratio
from quant.units import CASH_QUANTUM, ZERO, cents, to_decimal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from quant.calendar import ExchangeCalendar

_OPENING_CUTOFF, _QUEUES_AGAIN = time(9, 28), time(19)
_CLOSING_CUTOFF = timedelta(minutes=10)
_SESSIONS_A_YEAR = 252
_MARKET_BUFFER = Decimal("1.03")  # market orders are valued 2.5-4 % above the market
_LEAST_EQUITY_TO_SHORT = Decimal(2_000)


class Status(StrEnum):
    """Of an order at the exchange."""

    ACCEPTED = "accepted"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"

    @property
    def open(self) -> bool:
        """True while it may still execute."""
        return self in {Status.ACCEPTED, Status.PARTIALLY_FILLED}


class RefusalKind(StrEnum):
    """Why the exchange does not take an order."""

    DUPLICATE = "client_order_id must be unique"
    INVALID = "invalid order"
    UNKNOWN_ASSET = "asset not found"
    NOT_TRADABLE = "asset is not tradable"
    NOT_SHORTABLE = "asset cannot be sold short"
    NOT_FRACTIONABLE = "asset is not fractionable"
    INSUFFICIENT_QUANTITY = "insufficient qty available for order"
    OPPOSITE_SIDE = "opposite side order exists"
    BUYING_POWER = "insufficient buying power"
    TOO_LATE = "orders of this time in force are not accepted now"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An order that was not taken, and what to tell."""

    kind: RefusalKind
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What may be done with a symbol. A halted one takes orders and executes none; a delisted one is not tradable for ever."""

    symbol: str
    tradable: bool = True
    halted: bool = False
    shortable: bool = True
    easy_to_borrow: bool = True
    fractionable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A symbol's session: USD per share, shares. ``prior_median_volume``, where known, is what sizes the opening auction."""

    open: float
    high: float
    low: float
    close: float
    volume: float
    prior_median_volume: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRules:
    """``latency_seconds``: an order takes part in what begins so much after it was placed. ``pieces_ratio``: chance of two executions for a
    fill. ``multiplier``: buying power over equity.
    """

    costs: CostSettings = field(default_factory=CostSettings)
    seed: int = 1
    deposit: Decimal = Decimal(100_000)
    multiplier: int = 2
    latency_seconds: float = 0.0
    pieces_ratio: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """An order as it is sent: shares, USD per share."""

    client_order_id: str
    symbol: str
    side: Side
    order_type: OrderType
    quantity: Decimal
    limit_price: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An order that the exchange took, as it is now."""

    order_id: str
    ticket: Ticket
    placed_at: datetime
    updated_at: datetime
    session: date  # in which it executes or expires
    status: Status = Status.ACCEPTED
    filled: Decimal = ZERO
    average_price: Decimal | None = None

    @property
    def left(self) -> Decimal:
        """Shares that did not execute."""
        return self.ticket.quantity - self.filled


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """One execution. ``cumulative`` are the shares of the order executed with it, ``position`` the signed holding after it."""

    execution_id: str
    order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    commission: Decimal
    cumulative: Decimal
    position: Decimal
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One thing that happened: ``event`` in Alpaca's words, the order right after it, its execution if it is one."""

    event: str
    order: Placed
    at: datetime
    filled: Filled | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A holding: signed shares and their signed cost in USD."""

    quantity: Decimal
    cost: Decimal


class SimulatedAccountExchange:
    """One account and its orders. Equal calls in equal order have equal results, ids included."""

    def __init__(self, calendar: ExchangeCalendar, rules: ExchangeRules, listings: Iterable[Listing] = ()) -> None:
        self.rules, self._calendar = rules, calendar
        self.listings = {listing.symbol: listing for listing in listings}
        self._resets = 0
        self._begin()

    def _begin(self) -> None:
        self.account_number = f"PA{int(self._digest('account', str(self._resets))[:9], 16):010d}"
        self.cash = self.rules.deposit
        self.last_equity = self.rules.deposit
        self.orders: dict[str, Placed] = {}
        self.by_client_id: dict[str, str] = {}
        self.positions: dict[str, Position] = {}
        self.marks: dict[str, Decimal] = {}
        self.fills: list[Filled] = []
        self.happenings: list[Happening] = []
        self._taken: dict[tuple[date, str, str, Side], Decimal] = {}

    def reset(self) -> None:
        """A new account in the place of the old one: as Alpaca does, with a new number, without orders or positions."""
        self._resets += 1
        self._begin()

    # --- orders ---------------------------------------------------------------------------------------------------------------------

    def place(self, ticket: Ticket, at: datetime) -> Placed | Refusal:
        """Take an order or refuse it; a refused one leaves nothing behind."""
        refusal = self._refusal(ticket, at)
        if refusal is not None:
            return refusal
        order_id = str(uuid.UUID(self._digest("order", str(self._resets), ticket.client_order_id)[:32]))
        placed = Placed(order_id=order_id, ticket=ticket, placed_at=at, updated_at=at, session=self._session_of(ticket.order_type, at))
        self.by_client_id[ticket.client_order_id] = order_id
        self._note("new", placed, at)
        return placed

    def cancel(self, order_id: str, at: datetime) -> bool:
        """End an order that is open; False if it is not."""
        order = self.orders.get(order_id)
        if order is None or not order.status.open:
            return False
        self._note("canceled", replace(order, status=Status.CANCELED, updated_at=at), at)
        return True

    def open_orders(self) -> list[Placed]:
        """Those that may still execute, oldest first."""
        return [order for order in self.orders.values() if order.status.open]

    def list(self, listing: Listing, at: datetime) -> None:
        """Change what may be done with a symbol. What it no longer allows of the open orders is cancelled: all of a symbol that is not
        tradable any more, and short sales of one that became hard to borrow.
        """
        self.listings[listing.symbol] = listing
        short = not (listing.shortable and listing.easy_to_borrow)
        for order in self.open_orders():
            sells_short = order.ticket.side is Side.SELL and self.held(listing.symbol) <= 0
            if order.ticket.symbol == listing.symbol and (not listing.tradable or (short and sells_short)):
                self.cancel(order.order_id, at)

    # --- the day --------------------------------------------------------------------------------------------------------------------

    def open(self, session: date, bars: Mapping[str, Bar]) -> None:
        """The opening auction: market-on-open orders execute or expire, market orders that waited for it execute as far as it goes."""
        at = self._calendar.open_at(session)
        for order in self._taking_part(session, at):
            terms = order.ticket
            bar = self._bar(bars, terms.symbol)
            if terms.order_type in {OrderType.MARKET_ON_OPEN, OrderType.MARKET}:
                if bar is not None:
                    volume = bar.volume if bar.prior_median_volume is None else bar.prior_median_volume
                    self._execute(order, "open", bar.open, volume * self.rules.costs.auction_share_ratio, at, session)
                if terms.order_type is OrderType.MARKET_ON_OPEN:
                    self._expire(order.order_id, at)

    def close(self, session: date, bars: Mapping[str, Bar]) -> None:
        """The rest of the session and the closing auction, then the end of every order of the session; borrow fees of the night."""
        at = self._calendar.close_at(session)
        for order in self._taking_part(session, at):
            bar, terms = self._bar(bars, order.ticket.symbol), order.ticket
            if bar is None:
                continue
            share = self.rules.costs.auction_share_ratio
            if terms.order_type is OrderType.MARKET_ON_CLOSE:
                self._execute(order, "close", bar.close, bar.volume * share, at, session)
            elif terms.order_type is OrderType.MARKET:
                self._execute(order, "day", bar.close, bar.volume, at, session)
            elif terms.limit_price is not None:
                limit = float(terms.limit_price)
                reached = bar.low <= limit if terms.side is Side.BUY else bar.high >= limit
                best = min(bar.open, limit) if terms.side is Side.BUY else max(bar.open, limit)
                if reached:
                    self._execute(order, "day", best, bar.volume, at, session)
        for order in self.open_orders():
            if order.session <= session:
                self._expire(order.order_id, at)
        for symbol, bar in bars.items():
            self.marks[symbol] = to_decimal(bar.close, quantum=CASH_QUANTUM, where=f"close of {symbol}")
        self.cash -= self._borrow()
        self.last_equity = self.equity

    def trade_elsewhere(self, symbol: str, quantity: Decimal, price: Decimal) -> None:
        """A trade of the account that no order of ours made; signed shares."""
        self._hold(symbol, quantity, price)
        self.cash -= quantity * price

    def split(self, symbol: str, ratio: Decimal) -> None:
        """New shares per old: quantity changes, cost does not. A fraction is paid in cash at the last price; open orders stay as they are.

        A ratio is the one of whole numbers that it names: by 0.3333333333333333, 300 shares become 100.
        """
        held = self.positions.get(symbol)
        mark = self.marks.get(symbol)
        exact = exact_ratio(float(ratio))
        if mark is not None:
            self.marks[symbol] = mark = (mark * exact.denominator / exact.numerator).quantize(CASH_QUANTUM)
        if held is not None:
            whole, rest = after_split(held.quantity, exact)
            self.cash += cents(rest * (mark or ZERO))
            self.positions[symbol] = Position(quantity=whole, cost=held.cost)
            if not whole:
                del self.positions[symbol]

    # --- the account ----------------------------------------------------------------------------------------------------------------

    def held(self, symbol: str) -> Decimal:
        """Signed shares."""
        position = self.positions.get(symbol)
        return position.quantity if position else ZERO

    def worth(self, symbol: str) -> Decimal:
        """Signed market value, USD: by the last close, else by cost."""
        position = self.positions[symbol]
        return position.quantity * self.marks[symbol] if symbol in self.marks else position.cost

    @property
    def equity(self) -> Decimal:
        """Cash and holdings, USD."""
        return self.cash + sum((self.worth(symbol) for symbol in self.positions), ZERO)

    @property
    def buying_power(self) -> Decimal:
        """What may still be opened, USD: equity x multiplier less holdings and open orders that open; open sells of a long give nothing."""
        gross = sum((abs(self.worth(symbol)) for symbol in self.positions), ZERO)
        waiting = sum((self._opens(order.ticket, order.left) for order in self.open_orders()), ZERO)
        return max(ZERO, self.equity * self.rules.multiplier - gross - waiting)

    # --- inside ---------------------------------------------------------------------------------------------------------------------

    def _digest(self, *parts: str) -> str:
        return hashlib.sha256("|".join([str(self.rules.seed), *parts]).encode()).hexdigest()

    def _session_of(self, order_type: OrderType, at: datetime) -> date:
        local = at.astimezone(self._calendar.zone)
        session = self._calendar.on_or_after(local.date())
        if session != local.date():
            return session
        opens, closes = self._calendar.open_at(session), self._calendar.close_at(session)
        over = at >= (opens if order_type is OrderType.MARKET_ON_OPEN else closes)
        return self._calendar.next(session) if over else session

    def _taking_part(self, session: date, at: datetime) -> list[Placed]:
        latest = at - timedelta(seconds=self.rules.latency_seconds)
        return [order for order in self.open_orders() if order.session <= session and order.placed_at <= latest]

    def _bar(self, bars: Mapping[str, Bar], symbol: str) -> Bar | None:
        listing = self.listings.get(symbol)
        return None if listing is None or listing.halted or not listing.tradable else bars.get(symbol)

    def _refusal(self, ticket: Ticket, at: datetime) -> Refusal | None:
        listing = self.listings.get(ticket.symbol)
        kind: RefusalKind | None = None
        if ticket.client_order_id in self.by_client_id:
            kind = RefusalKind.DUPLICATE
        elif not ticket.quantity.is_finite() or ticket.quantity <= 0 or len(ticket.client_order_id) > 128:
            kind = RefusalKind.INVALID
        elif listing is None:
            kind = RefusalKind.UNKNOWN_ASSET
        elif not listing.tradable:
            kind = RefusalKind.NOT_TRADABLE
        elif self._too_late(ticket.order_type, at):
            kind = RefusalKind.TOO_LATE
        else:
            kind = self._against_holdings(ticket, listing)
        return None if kind is None else Refusal(kind=kind, message=f"{kind.value}: {ticket.symbol}" if listing else kind.value)

    def _too_late(self, order_type: OrderType, at: datetime) -> bool:
        local = at.astimezone(self._calendar.zone)
        if not self._calendar.is_session(local.date()) or local.time() >= _QUEUES_AGAIN:
            return False
        if order_type is OrderType.MARKET_ON_CLOSE:
            return at >= self._calendar.close_at(local.date()) - _CLOSING_CUTOFF
        return order_type is OrderType.MARKET_ON_OPEN and local.time() >= _OPENING_CUTOFF

    def _against_holdings(self, ticket: Ticket, listing: Listing) -> RefusalKind | None:
        held = self.held(ticket.symbol)
        waiting = [order for order in self.open_orders() if order.ticket.symbol == ticket.symbol]
        same = sum((order.left for order in waiting if order.ticket.side is ticket.side), ZERO)
        closes = held * ticket.side.sign < 0
        fractional = ticket.quantity % 1 != 0
        if any(order.ticket.side is not ticket.side for order in waiting):
            return RefusalKind.OPPOSITE_SIDE
        if closes and same + ticket.quantity > abs(held):
            return RefusalKind.INSUFFICIENT_QUANTITY  # a position cannot be flipped in one order
        opens_short = ticket.side is Side.SELL and not closes
        if fractional and (opens_short or not listing.fractionable or ticket.order_type not in {OrderType.MARKET, OrderType.LIMIT}):
            return RefusalKind.NOT_FRACTIONABLE
        if opens_short and not (listing.shortable and listing.easy_to_borrow and self.equity >= _LEAST_EQUITY_TO_SHORT):
            return RefusalKind.NOT_SHORTABLE
        return None if self._opens(ticket, ticket.quantity) <= self.buying_power else RefusalKind.BUYING_POWER

    def _opens(self, ticket: Ticket, quantity: Decimal) -> Decimal:
        """USD that an order would open: none if it closes, or while the symbol has no price."""
        if self.held(ticket.symbol) * ticket.side.sign < 0:
            return ZERO
        price = ticket.limit_price or self.marks.get(ticket.symbol, ZERO) * _MARKET_BUFFER
        return quantity * price

    def _execute(self, order: Placed, market: str, price: float, volume: float, at: datetime, session: date) -> None:
        terms = order.ticket
        key = (session, terms.symbol, market, terms.side)
        taken = self._taken.get(key, ZERO)
        where = f"{market} of {terms.symbol} in {session}"
        matched = match(
            symbol=terms.symbol,
            side=terms.side,
            quantity=order.left,
            price=price,
            volume=volume,
            costs=self.rules.costs,
            where=where,
            taken=taken,
            limit_price=terms.limit_price,
        )
        if isinstance(matched, Match):
            self._taken[key] = taken + matched.quantity
            self.cash -= matched.commission
            for quantity, commission in self._pieces(order, matched):
                self._fill(order.order_id, quantity, matched.price, commission, at)

    def _pieces(self, order: Placed, matched: Match) -> list[tuple[Decimal, Decimal]]:
        """The executions that a match comes in, with the commission on the first: chance by the seed and the order."""
        chance = int(self._digest("pieces", order.order_id)[:8], 16) / 2**32
        half = (matched.quantity / 2).quantize(Decimal(1), rounding=ROUND_DOWN)
        if chance >= self.rules.pieces_ratio or not half:
            return [(matched.quantity, matched.commission)]
        return [(half, matched.commission), (matched.quantity - half, ZERO)]

    def _fill(self, order_id: str, quantity: Decimal, price: Decimal, commission: Decimal, at: datetime) -> None:
        order = self.orders[order_id]
        terms, cumulative = order.ticket, order.filled + quantity
        self._hold(terms.symbol, quantity * terms.side.sign, price)
        self.cash -= quantity * terms.side.sign * price
        whole = cumulative == terms.quantity
        average = ((order.average_price or ZERO) * order.filled + price * quantity) / cumulative
        status = Status.FILLED if whole else Status.PARTIALLY_FILLED
        after = replace(order, filled=cumulative, average_price=average.quantize(CASH_QUANTUM), status=status, updated_at=at)
        filled = Filled(
            execution_id=str(uuid.UUID(self._digest("execution", order_id, f"{cumulative.normalize():f}")[:32])),
            order_id=order_id,
            symbol=terms.symbol,
            side=terms.side,
            quantity=quantity,
            price=price,
            commission=commission,
            cumulative=cumulative,
            position=self.held(terms.symbol),
            at=at,
        )
        self.fills.append(filled)
        self._note("fill" if whole else "partial_fill", after, at, filled)

    def _hold(self, symbol: str, quantity: Decimal, price: Decimal) -> None:
        before = self.positions.get(symbol, Position(quantity=ZERO, cost=ZERO))
        after = before.quantity + quantity
        if before.quantity * quantity >= 0:
            cost = before.cost + quantity * price
        else:  # towards zero at the average cost; beyond it at the price
            cost = before.cost * after / before.quantity if before.quantity * after >= 0 else after * price
        self.marks.setdefault(symbol, price)
        self.positions[symbol] = Position(quantity=after, cost=cost.quantize(CASH_QUANTUM))
        if not after:
            del self.positions[symbol]

    def _expire(self, order_id: str, at: datetime) -> None:
        order = self.orders[order_id]
        if order.status.open:
            self._note("expired", replace(order, status=Status.EXPIRED, updated_at=at), at)

    def _note(self, event: str, order: Placed, at: datetime, filled: Filled | None = None) -> None:
        self.orders[order.order_id] = order
        self.happenings.append(Happening(event=event, order=order, at=at, filled=filled))

    def _borrow(self) -> Decimal:
        rate = Decimal(repr(self.rules.costs.borrow_rate_annual)) / _SESSIONS_A_YEAR
        return sum((cents(-self.worth(s) * rate) for s, held in self.positions.items() if held.quantity < 0), ZERO)
