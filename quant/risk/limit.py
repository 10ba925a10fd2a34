"""What a risk limit is, and the portfolio it looks at: the one that would result if every order still standing executed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from pydantic import BaseModel, Field

from quant.trading.orders import Leg, Order


class RiskSettings(BaseModel, frozen=True, extra="forbid"):
    """Pre-trade limits. Ratios are of net asset value unless said otherwise."""

    max_gross_ratio: float = Field(default=1.1, gt=0)
    max_net_ratio: float = Field(default=0.3, ge=0)
    max_name_ratio: float = Field(default=0.35, gt=0)
    max_order_notional_usd: float = Field(default=1_000_000, gt=0)
    max_volume_ratio: float = Field(default=0.05, gt=0, le=1)  # of the 20-session median volume


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """Net asset value (USD), signed shares, prices (USD per share) and 20-session median volumes (shares) on the next session's basis."""

    nav: float
    quantities: Mapping[str, float]
    prices: Mapping[str, float]
    median_volume: Mapping[str, float]

    def after(self, orders: Sequence[Order]) -> Exposure:
        """The exposure if ``orders`` executed in full."""
        quantities = dict(self.quantities)
        for order in orders:
            quantities[order.symbol] = quantities.get(order.symbol, 0.0) + float(order.signed_quantity)
        return Exposure(nav=self.nav, quantities=quantities, prices=self.prices, median_volume=self.median_volume)

    def weight(self, symbol: str) -> float:
        """Signed share of net asset value; infinite where a price or the net asset value is missing, so that limits fail closed."""
        quantity = self.quantities.get(symbol, 0.0)
        if quantity == 0:
            return 0.0
        if self.nav <= 0 or symbol not in self.prices:
            return inf
        return quantity * self.prices[symbol] / self.nav

    @property
    def weights(self) -> Mapping[str, float]:
        """Signed weights of all names."""
        return {symbol: self.weight(symbol) for symbol in self.quantities}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One limit: ``observe`` is what it sees for an order in the resulting exposure; ``contributes``: denying the order could help."""

    name: str
    unit: str
    allowed: Callable[[RiskSettings], float]
    observe: Callable[[Exposure, Order], float]
    on_portfolio: bool = False
    contributes: Callable[[Exposure, Order], bool] = lambda exposure, order: order.leg is Leg.OPEN
