"""Notional of one order at its reference price."""

from __future__ import annotations

from quant.risk.limit import OrderLimit

LIMIT = OrderLimit(
    name="order_notional",
    unit="USD",
    allowed=lambda settings: settings.max_order_notional_usd,
    observe=lambda exposure, order: float(order.quantity * order.reference_price),
)
