"""A simulated exchange with an account: it takes orders, holds auctions and remembers. Deterministic: no clock, instants are given; what is
left to chance is drawn from the order's id and a seed.

The embedded broker of the chain (adapters.brokers.simulated) executes by the same function, quant.trading.execution.execute, without the
memory; this one is what stands behind the loopback server that speaks Alpaca's protocol.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import ROUND_DOWN, Decimal
from typing import TYPE_CHECKING

from quant.trading.brokerage import BrokerAsset, BrokerFill, BrokerOrder, BrokerPosition
from quant.trading.execution import Bar, execute
from quant.trading.orders import Execution, OrderState, OrderType, Side
from quant.units import ZERO, cents

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date, datetime

    from quant.trading.execution import CostSettings
    from quant.trading.orders import Order

BUYING_POWER_MARGIN = Decimal("1.03")  # a market buy is held against so many times the last price
SESSIONS_PER_YEAR = 252
_AT_OPEN = (OrderType.MARKET_ON_OPEN, OrderType.MARKET)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why the exchange does not take an order, in the words that its clients know."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One thing that happened to an order, in the order in which it did: ``fill`` if something executed."""

    order: BrokerOrder
    event: str  # Alpaca's: new, partial_fill, fill, canceled, expired, rejected
    at: datetime
    fill: BrokerFill | None = None
    position: Decimal = ZERO


@dataclass(kw_only=True)
class Exchange:
    """One account. ``last`` are the prices that buying power is held against; ``halted`` symbols execute nothing, ``delisted`` ones are
    taken no orders of, ``hard_to_borrow`` ones cannot be sold short. ``latency`` is the most that an order takes to reach the auctions, and
    ``partial_share`` the share of executions that stop at a random part.
    """

    costs: CostSettings
    cash: Decimal
    account_id: str = "SIM-1"
    seed: int = 0
    leverage: Decimal = Decimal(2)
    latency: timedelta = timedelta(0)
    partial_share: float = 0.0
    last: dict[str, Decimal] = field(default_factory=dict[str, Decimal])
    halted: set[str] = field(default_factory=set[str])
    delisted: set[str] = field(default_factory=set[str])
    hard_to_borrow: set[str] = field(default_factory=set[str])
    holdings: dict[str, tuple[Decimal, Decimal]] = field(default_factory=dict[str, tuple[Decimal, Decimal]])  # shares, cost a share
    taken: dict[str, tuple[Order, BrokerOrder, datetime]] = field(default_factory=dict[str, "tuple[Order, BrokerOrder, datetime]"])
    reports: list[Report] = field(default_factory=list[Report])

    def submit(self, order: Order, at: datetime) -> BrokerOrder | Refusal:
        """Take an order, or say why not. The same client_order_id is refused for ever, whatever became of the first."""
        name = order.client_order_id
        if name in self.taken:
            return Refusal(reason="client_order_id must be unique")
        if (refusal := self._refusal(order)) is not None:
            return refusal
        held = BrokerOrder(
            client_order_id=name,
            broker_order_id=self._draw(name, "order")[:32],
            symbol=order.symbol,
            side=order.side,
            order_type=order.order_type,
            quantity=order.quantity,
            filled_quantity=ZERO,
            average_price=None,
            state=OrderState.NEW,
            updated_at=at,
        )
        self._note(order, held, "new", at, since=at)
        return held

    def cancel(self, client_order_id: str, at: datetime) -> bool:
        """End an order, if it is still open; False if not."""
        order, held, since = self.taken[client_order_id]
        if held.state.terminal:
            return False
        self._note(order, replace(held, state=OrderState.CANCELED, updated_at=at), "canceled", at, since=since)
        return True

    def hold_session(self, session: date, bars: Mapping[str, Bar], *, opens: datetime, closes: datetime) -> None:
        """One session: the opening auction, the day, the closing auction, the fee on shorts; what is left of its orders expires."""
        waiting = [name for name, (_, held, _) in self.taken.items() if not held.state.terminal]
        shorts = [(symbol, shares) for symbol, (shares, _) in self.holdings.items() if shares < 0]
        auctions: dict[tuple[str, Side, bool], Decimal] = {}
        for kinds, at in ((_AT_OPEN, opens), ((OrderType.LIMIT,), opens), ((OrderType.MARKET_ON_CLOSE,), closes)):
            for name in waiting:
                order, held, since = self.taken[name]
                if order.order_type in kinds and not held.state.terminal and since + self._delay(name) < at:
                    self._execute(name, session, bars.get(order.symbol), at, auctions)
        for symbol, bar in bars.items():
            self.last[symbol] = Decimal(repr(bar.close))
        rate = Decimal(repr(self.costs.borrow_rate_annual)) / SESSIONS_PER_YEAR
        for symbol, shares in shorts:
            self.cash -= cents(-shares * self.last.get(symbol, ZERO) * rate)
        for name in waiting:
            order, held, since = self.taken[name]
            if not held.state.terminal and since + self._delay(name) < closes:
                self._note(order, replace(held, state=OrderState.EXPIRED, updated_at=closes), "expired", closes, since=since)

    def split(self, symbol: str, ratio: Decimal) -> None:
        """New shares per old; fractions go, as they do where nobody pays them."""
        if symbol in self.holdings:
            shares, cost = self.holdings[symbol]
            self.holdings[symbol] = ((shares * ratio).quantize(Decimal(1), rounding=ROUND_DOWN), cost / ratio)
        if symbol in self.last:
            self.last[symbol] /= ratio

    def move(self, symbol: str, shares: Decimal, price: Decimal) -> None:
        """A trade that none of our orders made: somebody used the account, or the broker booked something."""
        self._book(symbol, shares, price)

    @property
    def orders(self) -> Sequence[BrokerOrder]:
        """Every order taken, in the order in which they came."""
        return [held for _, held, _ in self.taken.values()]

    @property
    def positions(self) -> Sequence[BrokerPosition]:
        """Every holding."""
        return [BrokerPosition(symbol=s, quantity=q, average_entry_price=cost) for s, (q, cost) in sorted(self.holdings.items())]

    @property
    def fills(self) -> Sequence[BrokerFill]:
        """Every execution, oldest first."""
        return [report.fill for report in self.reports if report.fill is not None]

    @property
    def equity(self) -> Decimal:
        """Cash and holdings at the last prices, USD."""
        return self.cash + sum((shares * self.last.get(s, cost) for s, (shares, cost) in self.holdings.items()), ZERO)

    @property
    def buying_power(self) -> Decimal:
        """What new openings may cost, USD: leverage x equity less what is held and what open buys and short sales are held against. Open
        sells of holdings give nothing back.
        """
        gross = sum((abs(shares) * self.last.get(s, cost) for s, (shares, cost) in self.holdings.items()), ZERO)
        reserved = sum((self._reserve(order) for order, held, _ in self.taken.values() if not held.state.terminal), ZERO)
        return max(self.leverage * self.equity - gross - reserved, ZERO)

    def asset(self, symbol: str) -> BrokerAsset:
        """What may be done with a symbol now."""
        there = symbol not in self.delisted
        return BrokerAsset(symbol=symbol, tradable=there, shortable=there and symbol not in self.hard_to_borrow, fractionable=False)

    def _refusal(self, order: Order) -> Refusal | None:
        held, price = self.holdings.get(order.symbol, (ZERO, ZERO))[0], self.last.get(order.symbol, order.reference_price)
        working = [o for o, b, _ in self.taken.values() if not b.state.terminal and o.symbol == order.symbol]
        after = held + sum((o.signed_quantity for o in working if o.side is order.side), ZERO) + order.signed_quantity
        if order.symbol in self.delisted:
            return Refusal(reason=f"asset {order.symbol} is not active")
        if any(o.side is not order.side for o in working):
            return Refusal(reason="opposite side order open")
        if held > 0 > after or held < 0 < after:
            return Refusal(reason=f"insufficient qty available for order (requested: {order.quantity}, available: {abs(held)})")
        if after < 0 and order.side is Side.SELL and order.symbol in self.hard_to_borrow:
            return Refusal(reason=f'asset "{order.symbol}" cannot be sold short')
        opens = abs(after) > abs(held)
        if opens and order.quantity * price * BUYING_POWER_MARGIN > self.buying_power:
            return Refusal(reason="insufficient buying power")
        return None

    def _reserve(self, order: Order) -> Decimal:
        held = self.holdings.get(order.symbol, (ZERO, ZERO))[0]
        opens = held * order.signed_quantity >= 0
        return order.quantity * self.last.get(order.symbol, order.reference_price) * BUYING_POWER_MARGIN if opens else ZERO

    def _execute(self, name: str, session: date, bar: Bar | None, at: datetime, auctions: dict[tuple[str, Side, bool], Decimal]) -> None:
        order, held, since = self.taken[name]
        auction = (order.symbol, order.side, order.order_type is OrderType.MARKET_ON_CLOSE)
        done = execute(
            order, session, bar=None if order.symbol in self.halted else bar, costs=self.costs, taken=auctions.get(auction, ZERO)
        )
        if not isinstance(done, Execution):
            return
        quantity = self._part(name, done.quantity)
        auctions[auction] = auctions.get(auction, ZERO) + quantity
        whole = quantity == held.quantity
        after = replace(
            held,
            filled_quantity=quantity,
            average_price=done.price,
            state=OrderState.FILLED if whole else OrderState.PARTIALLY_FILLED,
            updated_at=at,
        )
        number = len(self.fills) + 1
        fill = BrokerFill(
            execution_id=done.execution_id,
            broker_order_id=held.broker_order_id,
            client_order_id=name,
            symbol=order.symbol,
            side=order.side,
            quantity=quantity,
            price=done.price,
            executed_at=at,
            cursor=f"{at:%Y%m%d%H%M%S}000::{number:08}",
        )
        self._book(order.symbol, quantity * order.side.sign, done.price)
        self.cash -= done.commission
        self._note(order, after, "fill" if whole else "partial_fill", at, since=since, fill=fill)

    def _book(self, symbol: str, shares: Decimal, price: Decimal) -> None:
        held, cost = self.holdings.get(symbol, (ZERO, ZERO))
        after = held + shares
        self.cash -= shares * price
        if after == 0:
            self.holdings.pop(symbol, None)
        elif abs(after) > abs(held):
            self.holdings[symbol] = (after, (held * cost + shares * price) / after)
        else:
            self.holdings[symbol] = (after, cost)

    def _note(self, order: Order, held: BrokerOrder, event: str, at: datetime, *, since: datetime, fill: BrokerFill | None = None) -> None:
        self.taken[order.client_order_id] = (order, held, since)
        self.reports.append(Report(order=held, event=event, at=at, fill=fill, position=self.holdings.get(order.symbol, (ZERO, ZERO))[0]))

    def _delay(self, name: str) -> timedelta:
        return self.latency * self._chance(name, "latency")

    def _part(self, name: str, quantity: Decimal) -> Decimal:
        if self._chance(name, "partial") >= self.partial_share:
            return quantity
        part = Decimal(repr(self._chance(name, "part"))) * quantity
        return max(part.quantize(Decimal(1), rounding=ROUND_DOWN), Decimal(1))

    def _chance(self, name: str, what: str) -> float:
        """In [0, 1), the same for the same order and seed."""
        return int(self._draw(name, what)[:13], 16) / 16**13

    def _draw(self, name: str, what: str) -> str:
        return hashlib.sha256(f"{self.seed}|{what}|{name}".encode()).hexdigest()
