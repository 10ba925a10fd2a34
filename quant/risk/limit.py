"""What a risk limit is, and the portfolio it looks at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from quant.risk.settings import RiskSettings
from quant.risk.state import TradingState, Watermark
from quant.trading.orders import Order, Side

BUFFER_RATIO = 0.05
"""So much above the close an opening is valued against buying power."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """Net asset value (USD), signed shares, prices (USD per share) and 20-session median volumes (shares) on the next session's basis.

    ``prices`` has a mark for every holding; ``stale`` are the names without an accepted close in the session. ``borrow_shares`` bounds
    shorts by name, where there is a bound. ``live`` counts orders still at the broker by name and side.
    """

    nav: float
    quantities: Mapping[str, float]
    prices: Mapping[str, float]
    median_volume: Mapping[str, float]
    sectors: Mapping[str, str] = field(default_factory=dict[str, str])
    borrow_shares: Mapping[str, float] = field(default_factory=dict[str, float])
    stale: frozenset[str] = frozenset()
    live: Mapping[tuple[str, Side], int] = field(default_factory=dict[tuple[str, Side], int])
    watermark: Watermark = field(default_factory=Watermark)
    state: TradingState = TradingState.ACTIVE

    def after(self, orders: Sequence[Order]) -> Exposure:
        """The exposure if ``orders`` executed in full."""
        quantities = dict(self.quantities)
        for order in orders:
            quantities[order.symbol] = quantities.get(order.symbol, 0.0) + float(order.signed_quantity)
        return replace(self, quantities=quantities)

    def ratio(self, symbol: str, quantity: float) -> float:
        """Signed share of net asset value; infinite where a price or the net asset value is missing, so that limits fail closed."""
        if quantity == 0:
            return 0.0
        if self.nav <= 0 or not self.prices.get(symbol, 0.0) > 0:
            return inf
        return quantity * self.prices[symbol] / self.nav

    def weight(self, symbol: str) -> float:
        """The holding's signed share of net asset value."""
        return self.ratio(symbol, self.quantities.get(symbol, 0.0))

    def traded(self, order: Order) -> float:
        """The order's share of net asset value, positive."""
        return self.ratio(order.symbol, float(order.quantity))

    @property
    def weights(self) -> Mapping[str, float]:
        """Signed weights of all names."""
        return {symbol: self.weight(symbol) for symbol in self.quantities}

    @property
    def gross(self) -> float:
        """Sum of absolute weights."""
        return sum(abs(weight) for weight in self.weights.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderLimit:
    """A limit on one order: what ``observe`` sees of it, given the opening holding of its name, may not be beyond ``allowed``. Orders that
    only shrink a holding pass, unless ``binds_reducing``.
    """

    name: str
    unit: str
    allowed: Callable[[RiskSettings], float]
    observe: Callable[[Exposure, Order], float]
    binds_reducing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PortfolioLimit:
    """A limit on the portfolio that would result, by group of names: ``base`` before the orders, plus ``part`` of each one (its group and
    change, given whether it only shrinks a holding). The absolute sum may not be beyond ``allowed``.

    While it is, openings that add to it are denied, the largest first, or, if it ``shrinks``, all of them cut in proportion.
    ``cuts_reducing``: what openings leave of a breach wider than ``base`` is taken from orders that shrink a holding.
    """

    name: str
    unit: str
    allowed: Callable[[RiskSettings], float]
    base: Callable[[Exposure], Mapping[str, float]]
    part: Callable[[Exposure, Order, bool], tuple[str, float]]
    shrinks: bool = False
    cuts_reducing: bool = False


Limit = OrderLimit | PortfolioLimit
