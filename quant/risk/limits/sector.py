"""Sum of absolute weights of a sector in the resulting portfolio; a name without a sector is one of its own."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from quant.risk.limit import Exposure, PortfolioLimit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quant.trading.orders import Order


def _sector(exposure: Exposure, symbol: str) -> str:
    return f"sector {exposure.sectors[symbol]}" if symbol in exposure.sectors else f"name {symbol}"


def _held(exposure: Exposure) -> Mapping[str, float]:
    held: defaultdict[str, float] = defaultdict(float)
    for symbol, weight in exposure.weights.items():
        held[_sector(exposure, symbol)] += abs(weight)
    return held


def _change(exposure: Exposure, order: Order, reducing: bool) -> tuple[str, float]:
    return _sector(exposure, order.symbol), -exposure.traded(order) if reducing else exposure.traded(order)


LIMIT = PortfolioLimit(
    name="sector_exposure",
    unit="of net asset value",
    allowed=lambda settings: settings.max_sector_ratio,
    base=_held,
    part=_change,
)
