"""Orders of one name and side at once: those before it in the set and those still at the broker; a doubled close is no close."""

from __future__ import annotations

from quant.risk.limit import OrderLimit

LIMIT = OrderLimit(
    name="duplicate_orders",
    unit="orders of one name and side at once",
    allowed=lambda settings: settings.max_same_orders,
    observe=lambda exposure, order: float(1 + exposure.live.get((order.symbol, order.side), 0)),
    binds_reducing=True,
)
