"""What the session lost of its opening value, flows added; beyond it the book becomes REDUCING (quant.risk.state)."""

from __future__ import annotations

from quant.risk.limit import OrderLimit

LIMIT = OrderLimit(
    name="daily_loss",
    unit="of the opening value",
    allowed=lambda settings: settings.max_daily_loss_ratio,
    observe=lambda exposure, order: exposure.watermark.loss,
)
