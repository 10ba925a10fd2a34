"""An order that would turn a holding from long to short or back: a flip is a close in one session and an open in the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quant.risk.limit import Exposure, OrderLimit

if TYPE_CHECKING:
    from quant.trading.orders import Order


def _held_against(exposure: Exposure, order: Order) -> float:
    return max(0.0, -order.side.sign * exposure.quantities.get(order.symbol, 0.0))


LIMIT = OrderLimit(name="flip", unit="shares held on the other side", allowed=lambda settings: 0.0, observe=_held_against)
