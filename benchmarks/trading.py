"""Risk review, intents and submission of a session's orders on the simulated exchange, wall and processor time.

python -m benchmarks.trading [--names 500]
"""

import argparse
import tempfile
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl

from adapters.brokers.simulated import SimulatedExchange
from adapters.clock import SystemClock
from adapters.ledger import open_ledger
from quant.calendar import exchange_calendar
from quant.ports import AdjustmentConvention
from quant.risk.settings import RiskSettings
from quant.trading.desk import Desk
from quant.trading.execution import CostSettings
from quant.trading.market import SessionMarket
from quant.trading.rules import BookRules

DAY = date(2013, 2, 28)
ROUNDS = 3


def once(names: int, folder: Path) -> tuple[float, float, int]:
    """Wall and processor seconds of Desk.decide, and the orders that were submitted."""
    prices = {f"S{number:04}": 20.0 + number % 80 for number in range(names)}
    volumes = dict.fromkeys(prices, 5_000_000.0)
    market = SessionMarket(session=DAY, opens=prices, closes=prices, median_volume=volumes, prior_median_volume=volumes)
    costs = CostSettings()
    desk = Desk(
        book="paper",
        first_session=DAY,
        deposit=Decimal(100_000_000),
        rules=BookRules(costs=costs, risk=RiskSettings(), convention=AdjustmentConvention.PREVIOUS_CLOSE),
        calendar=exchange_calendar(),
        ledger=open_ledger(f"sqlite:///{folder / 'ledger.sqlite'}", SystemClock()),
        broker=SimulatedExchange({DAY: market}.__getitem__, costs),
        clock=SystemClock(),
    )
    desk.settle(market)
    weights = [(1 if number % 2 else -1) / names for number in range(names)]
    targets = pl.DataFrame({"symbol": list(prices), "target_weight": weights})
    wall, processor = time.monotonic(), time.process_time()
    orders = desk.decide(market, targets, decision_at=datetime(2013, 3, 1, tzinfo=UTC), model_version="m", table_versions={})
    return time.monotonic() - wall, time.process_time() - processor, sum(order.denial is None for order in orders)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=int, default=500)
    names = parser.parse_args().names
    rounds: list[tuple[float, float, int]] = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="afterclose-benchmark-") as folder:
            rounds.append(once(names, Path(folder)))
    wall, processor, sent = min(rounds)
    print(
        f"{names} names: {sent} orders reviewed, written and submitted in {wall:.3f} s wall, {processor:.3f} s processor (best of {ROUNDS})"
    )


if __name__ == "__main__":
    main()
