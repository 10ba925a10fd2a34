"""What is held and what is opened, against a multiple of net asset value. Closing orders free nothing before they execute, and openings are
valued 5 % above the close, as brokers do: so openings fit whether or not anything closes, and are cut in proportion where they do not.
"""

from __future__ import annotations

from quant.risk.limit import BUFFER_RATIO, PortfolioLimit

LIMIT = PortfolioLimit(
    name="buying_power",
    unit="of net asset value",
    allowed=lambda settings: settings.buying_power_multiple,
    base=lambda exposure: {"": exposure.gross},
    part=lambda exposure, order, reducing: ("", 0.0 if reducing else exposure.traded(order) * (1 + BUFFER_RATIO)),
    shrinks=True,
)
