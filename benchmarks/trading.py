"""How long the risk review of a large book takes: half of it closes, half of it opens."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from time import perf_counter

from quant.risk.limit import Exposure, RiskSettings
from quant.risk.review import review
from quant.trading.orders import Leg, Order, Side

GOAL_SECONDS = 1.0


def reviewed_seconds(names: int) -> tuple[float, int]:
    """Seconds of one review of ``names`` orders, and how many were accepted."""
    symbols = [f"S{i:04d}" for i in range(names)]
    held = {s: 100.0 * (1 if i % 4 else -1) for i, s in enumerate(symbols) if i % 2}
    exposure = Exposure(
        nav=100.0 * 100 * names,
        quantities=held,
        prices=dict.fromkeys(symbols, 100.0),
        median_volume=dict.fromkeys(symbols, 1e6),
        sectors={s: f"sector {i % 11}" for i, s in enumerate(symbols)},
    )
    orders = [
        Order(
            book="bench",
            session=date(2020, 1, 3),
            symbol=s,
            leg=Leg.CLOSE if s in held else Leg.OPEN,
            side=Side.SELL if held.get(s, -1.0 if i % 3 else 1.0) > 0 else Side.BUY,
            quantity=Decimal(100),
            reference_price=Decimal(100),
        )
        for i, s in enumerate(symbols)
    ]
    begin = perf_counter()
    done = review(orders, exposure, RiskSettings())
    return perf_counter() - begin, sum(order.denial is None for order in done.orders)


def main() -> None:
    """Print a line a size."""
    for names in (500, 1000, 5000):
        seconds, accepted = min(reviewed_seconds(names) for _ in range(3))
        print(f"risk review   {names:5d} orders   {seconds * 1000:8.1f} ms   {accepted} accepted   (goal {GOAL_SECONDS:g} s for 500)")


if __name__ == "__main__":
    main()
