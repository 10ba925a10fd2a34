"""A book that is reducing only shrinks what it holds."""

from __future__ import annotations

from quant.risk.limit import OrderLimit
from quant.risk.state import TradingState

LIMIT = OrderLimit(
    name="reducing",
    unit="(1: reducing)",
    allowed=lambda settings: 0.0,
    observe=lambda exposure, order: float(exposure.state is TradingState.REDUCING),
)
