"""Shares short that would result, beyond what can be borrowed of the name (0 if it is not shortable, no bound if none is given)."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from quant.risk.limit import Exposure, OrderLimit

if TYPE_CHECKING:
    from quant.trading.orders import Order


def _unborrowed(exposure: Exposure, order: Order) -> float:
    short = -(exposure.quantities.get(order.symbol, 0.0) + float(order.signed_quantity))
    return max(0.0, short - exposure.borrow_shares.get(order.symbol, inf)) if short > 0 else 0.0


LIMIT = OrderLimit(name="short_availability", unit="shares beyond what can be borrowed", allowed=lambda settings: 0.0, observe=_unborrowed)
