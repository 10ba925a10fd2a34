"""Sum of absolute weights of the resulting portfolio."""

from __future__ import annotations

from quant.risk.limit import PortfolioLimit

LIMIT = PortfolioLimit(
    name="gross_exposure",
    unit="of net asset value",
    allowed=lambda settings: settings.max_gross_ratio,
    base=lambda exposure: {"": exposure.gross},
    part=lambda exposure, order, reducing: ("", -exposure.traded(order) if reducing else exposure.traded(order)),
)
