"""A halted book sends nothing."""

from __future__ import annotations

from quant.risk.limit import OrderLimit
from quant.risk.state import TradingState

LIMIT = OrderLimit(
    name="halted",
    unit="(1: halted)",
    allowed=lambda settings: 0.0,
    observe=lambda exposure, order: float(exposure.state is TradingState.HALTED),
    binds_reducing=True,
)
