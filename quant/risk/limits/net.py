"""Absolute sum of weights of the resulting portfolio. Where one side is denied, the other is cut in proportion: openings to within the
limit, and after them orders that shrink a holding, as far as they would make or widen a breach.
"""

from __future__ import annotations

from quant.risk.limit import PortfolioLimit

LIMIT = PortfolioLimit(
    name="net_exposure",
    unit="of net asset value",
    allowed=lambda settings: settings.max_net_ratio,
    base=lambda exposure: {"": sum(exposure.weights.values())},
    part=lambda exposure, order, reducing: ("", order.side.sign * exposure.traded(order)),
    shrinks=True,
    cuts_reducing=True,
)
