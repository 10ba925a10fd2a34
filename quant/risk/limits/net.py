"""Absolute sum of weights of the resulting portfolio; only orders in the direction of the excess can widen it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quant.risk.limit import Exposure, Limit

if TYPE_CHECKING:
    from quant.trading.orders import Order


def _net(exposure: Exposure) -> float:
    return sum(exposure.weights.values())


def _widens(exposure: Exposure, order: Order) -> bool:
    # Closing a short widens a long excess, yet it always reduces risk by name: only openings are ever denied.
    return order.leg == "open" and order.side.sign * _net(exposure) > 0


LIMIT = Limit(
    name="net_exposure",
    unit="of net asset value",
    on_portfolio=True,
    allowed=lambda settings: settings.max_net_ratio,
    observe=lambda exposure, order: abs(_net(exposure)),
    contributes=_widens,
)
