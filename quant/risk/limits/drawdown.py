"""What the book lost from its peak since the start or the last resume; beyond it the book becomes HALTED (quant.risk.state)."""

from __future__ import annotations

from quant.risk.limit import OrderLimit

LIMIT = OrderLimit(
    name="drawdown",
    unit="of the peak",
    allowed=lambda settings: settings.max_drawdown_ratio,
    observe=lambda exposure, order: exposure.watermark.drawdown,
)
