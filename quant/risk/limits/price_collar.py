"""Distance of the price that sized the order from the last close."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from quant.risk.limit import Exposure, OrderLimit

if TYPE_CHECKING:
    from quant.trading.orders import Order


def _distance(exposure: Exposure, order: Order) -> float:
    close = exposure.prices.get(order.symbol, 0.0)
    return abs(float(order.reference_price) / close - 1) if close > 0 else inf


LIMIT = OrderLimit(
    name="price_collar",
    unit="of the last close",
    allowed=lambda settings: settings.max_collar_ratio,
    observe=_distance,
)
