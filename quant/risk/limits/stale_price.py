"""No opening on a price that is older than the session."""

from __future__ import annotations

from quant.risk.limit import OrderLimit

LIMIT = OrderLimit(
    name="stale_price",
    unit="(1: no accepted close in the session)",
    allowed=lambda settings: 0.0,
    observe=lambda exposure, order: float(order.symbol in exposure.stale or order.symbol not in exposure.prices),
)
