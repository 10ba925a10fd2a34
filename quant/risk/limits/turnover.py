"""Notional of all orders at once. Those that shrink a holding count and are never denied for it."""

from __future__ import annotations

from quant.risk.limit import PortfolioLimit

LIMIT = PortfolioLimit(
    name="turnover",
    unit="of net asset value",
    allowed=lambda settings: settings.max_turnover_ratio,
    base=lambda exposure: {"": 0.0},
    part=lambda exposure, order, reducing: ("", exposure.traded(order)),
)
