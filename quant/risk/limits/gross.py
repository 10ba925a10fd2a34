"""Sum of absolute weights of the resulting portfolio."""

from __future__ import annotations

from quant.risk.limit import Limit

LIMIT = Limit(
    name="gross_exposure",
    unit="of net asset value",
    on_portfolio=True,
    allowed=lambda settings: settings.max_gross_ratio,
    observe=lambda exposure, order: sum(abs(weight) for weight in exposure.weights.values()),
)
