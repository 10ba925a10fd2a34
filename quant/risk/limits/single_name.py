"""Absolute weight that the order's name would have."""

from __future__ import annotations

from quant.risk.limit import OrderLimit

LIMIT = OrderLimit(
    name="single_name",
    unit="of net asset value",
    allowed=lambda settings: settings.max_name_ratio,
    observe=lambda exposure, order: abs(
        exposure.ratio(order.symbol, exposure.quantities.get(order.symbol, 0.0) + float(order.signed_quantity))
    ),
)
