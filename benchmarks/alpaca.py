"""Loading daily bars through source alpaca from a server on the loopback, against alpaca-py's own get_stock_bars: seconds, memory, ratio.

python -m benchmarks.alpaca [--symbols 500] [--years 5]

The server runs in a process of its own and has every page ready; what it needs is in the seconds of both, and in the CPU of neither.
"""

import argparse
import multiprocessing as mp
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from multiprocessing.connection import Connection

import numpy as np
import polars as pl

from adapters.clock import FixedClock
from adapters.sources.alpaca import AlpacaKeys, AlpacaSource
from benchmarks.measure import MemoryPeak
from quant.calendar import exchange_calendar
from quant.ports import AdjustmentConvention
from tests.fakes.alpaca_server import KEY_ID, SECRET, AlpacaServer, Asked

LAST = date(2023, 12, 29)
NOW = datetime(2024, 1, 2, tzinfo=UTC)


class Ready(AlpacaServer):
    """Keeps what it answered once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._answers: dict[tuple[tuple[str, str], ...], tuple[int, object]] = {}

    def reply(self, asked: Asked) -> tuple[int, object]:
        key = tuple(sorted({**asked.query, "path": asked.path}.items()))
        if key not in self._answers:
            self._answers[key] = super().reply(asked)
        return self._answers[key]


def universe(symbols: int) -> list[str]:
    return [f"S{n:04}" for n in range(symbols)]


def rows(symbols: int, sessions: list[date]) -> pl.DataFrame:
    """Random walks with the digits that prices have."""
    rng = np.random.default_rng(7)
    shape = (symbols, len(sessions))
    close = np.round(50 * np.exp(np.cumsum(rng.normal(0, 0.015, shape), axis=1)), 2).ravel()
    prices = {name: np.round(close * by, 2) for name, by in (("open", 0.998), ("high", 1.01), ("low", 0.99), ("close", 1.0))}
    names = np.repeat(np.array(universe(symbols)), len(sessions))
    volume = rng.integers(100_000, 100_000_000, close.size).astype(float)
    frame = pl.DataFrame({"symbol": names, **prices, "volume": volume, "vwap": np.round(close * 1.0001, 6)})
    return frame.with_columns(session=pl.Series(sessions * symbols))


def serve(symbols: int, sessions: list[date], pipe: Connection) -> None:
    with Ready(bars=rows(symbols, sessions)) as server:
        pipe.send(server.url)
        pipe.recv()


def measured(what: str, load: Callable[[], int]) -> float:
    """Print rows, seconds, CPU and memory of ``load``; returns its CPU seconds."""
    memory = MemoryPeak()
    memory.reset()
    before, began, cpu = memory.peak_gb(), time.perf_counter(), time.process_time()
    count = load()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(
        f"{what:<34} {count:>9,} rows {seconds:7.1f} s  {cpu:6.1f} s CPU  {memory.peak_gb() - before:6.2f} GB more at the peak", flush=True
    )
    return cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=500)
    parser.add_argument("--years", type=int, default=5)
    chosen = parser.parse_args()
    sessions = exchange_calendar().sessions(date(LAST.year - chosen.years + 1, 1, 1), LAST)
    spawn = mp.get_context("spawn")
    ours, theirs = spawn.Pipe()
    server = spawn.Process(target=serve, args=(chosen.symbols, sessions, theirs), daemon=True)
    server.start()
    url = ours.recv()

    def source() -> int:
        made = AlpacaSource(
            universe=universe(chosen.symbols),
            keys=lambda: AlpacaKeys(key_id=KEY_ID, secret=SECRET),
            calendar=exchange_calendar(),
            clock=FixedClock(NOW),
            asof=LAST,
            first_session=sessions[0],
            convention=AdjustmentConvention.PREVIOUS_CLOSE,
            publish_delay_minutes=30,
            data_url=url,
        )
        return made.bars(sessions[0], sessions[-1]).height

    def peer() -> int:
        from alpaca.common.enums import Sort
        from alpaca.data.enums import Adjustment, DataFeed
        from alpaca.data.historical.stock import StockHistoricalDataClient
        from alpaca.data.requests import StockBarsRequest
        from alpaca.data.timeframe import TimeFrame

        client = StockHistoricalDataClient(KEY_ID, SECRET, url_override=url)
        request = StockBarsRequest(
            symbol_or_symbols=universe(chosen.symbols),
            timeframe=TimeFrame.Day,  # type: ignore[arg-type]
            start=datetime(sessions[0].year, 1, 1, tzinfo=UTC),
            end=NOW,
            feed=DataFeed.SIP,
            adjustment=Adjustment.RAW,
            asof=str(LAST),
            sort=Sort.ASC,
        )
        return len(client.get_stock_bars(request).df)  # type: ignore[union-attr]

    print(f"{chosen.symbols} symbols, {len(sessions)} sessions, pages of 10,000 bars")
    loads = (("source alpaca", source), ("alpaca-py get_stock_bars(...).df", peer))
    for _, load in loads:  # imports, and every page made once
        load()
    mine, other = (measured(what, load) for what, load in loads)
    print(f"the client's own way takes {other / mine:.1f} times the CPU")
    ours.send("done")
    server.join(timeout=10)


if __name__ == "__main__":
    main()
