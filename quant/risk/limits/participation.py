"""Shares of one order against the median volume of the last 20 sessions; an unknown volume is none."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from quant.risk.limit import Exposure, OrderLimit

if TYPE_CHECKING:
    from quant.trading.orders import Order


def _participation(exposure: Exposure, order: Order) -> float:
    volume = exposure.median_volume.get(order.symbol, 0.0)
    return float(order.quantity) / volume if volume > 0 else inf


LIMIT = OrderLimit(
    name="participation",
    unit="of 20-session median volume",
    allowed=lambda settings: settings.max_volume_ratio,
    observe=_participation,
)
