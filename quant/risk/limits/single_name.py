"""Absolute weight of the order's name in the resulting portfolio."""

from __future__ import annotations

from quant.risk.limit import Limit

LIMIT = Limit(
    name="single_name",
    unit="of net asset value",
    allowed=lambda settings: settings.max_name_ratio,
    observe=lambda exposure, order: abs(exposure.weight(order.symbol)),
)
