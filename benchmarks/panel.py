"""Bars made up for benchmarks: late and early listings, missing sessions, stale halts without volume, ties, zero-range bars."""

import struct
from pathlib import Path

import numpy as np
import polars as pl

from quant.calendar import exchange_calendar

FIELDS = ("open", "high", "low", "close", "volume", "vwap")


def panel(symbols: int, sessions: int, seed: int) -> pl.DataFrame:
    """A factor panel: session, symbol and the six fields, null rows for sessions missed between a symbol's first and last bar.

    Every value is exact in float32, the only type that Qlib stores. 15 % of the symbols list late, 5 % end early, 4 % miss some sessions,
    2 % stand still for a while with no volume.
    """
    rng = np.random.default_rng(seed)
    bars = _bars(rng, symbols, sessions)
    present = np.ones((symbols, sessions), bool)
    order = rng.permutation(symbols)
    late, early = order[: symbols * 15 // 100], order[symbols * 15 // 100 : symbols * 20 // 100]
    for symbol in late:
        present[symbol, : rng.integers(1, max(2, sessions * 4 // 5))] = False
    for symbol in early:
        present[symbol, rng.integers(sessions // 2, sessions - 1) :] = False
    known = present.copy()
    for symbol in rng.choice(symbols, max(1, symbols * 4 // 100), replace=False):
        for first in rng.integers(1, sessions - 26, 3):
            known[symbol, first : first + rng.integers(1, 25)] = False
    for symbol in rng.choice(symbols, max(1, symbols * 2 // 100), replace=False):
        first = int(rng.integers(1, sessions - 75))
        halt = slice(first, first + int(rng.integers(3, 70)))
        for name in FIELDS:
            bars[name][symbol, halt] = 0.0 if name == "volume" else bars["close"][symbol, first - 1]
    days = exchange_calendar().days[-sessions - 1 : -1]
    at, on = np.nonzero(present)
    first, last = known.argmax(axis=1), sessions - 1 - known[:, ::-1].argmax(axis=1)
    inside = (on >= first[at]) & (on <= last[at])
    at, on = at[inside], on[inside]
    names = np.array([f"S{number:05}" for number in range(symbols)])
    columns = {name: np.where(known[at, on], values[at, on], np.nan) for name, values in bars.items()}
    frame = pl.DataFrame({"session": np.array(days, "datetime64[D]")[on], "symbol": names[at], **columns})
    return frame.with_columns(pl.col("session").cast(pl.Date), pl.col(*FIELDS).fill_nan(None))


def _bars(rng: np.random.Generator, symbols: int, sessions: int) -> dict[str, np.ndarray]:
    volatility = rng.uniform(0.008, 0.035, (symbols, 1))
    market = rng.normal(0.0003, 0.009, sessions) * rng.uniform(0.4, 1.6, (symbols, 1))
    returns = np.clip(market + rng.standard_t(4, (symbols, sessions)) / np.sqrt(2.0) * volatility, -0.35, 0.35)
    first = np.exp(rng.uniform(np.log(3), np.log(400), (symbols, 1)))
    close = first * np.exp(np.cumsum(returns - 0.5 * volatility**2, axis=1))
    opened = np.hstack([first, close[:, :-1]]) * np.exp(rng.normal(0, 0.35, close.shape) * volatility)
    high = np.maximum(opened, close) * np.exp(np.abs(rng.normal(0, 0.5, close.shape)) * volatility)
    low = np.minimum(opened, close) * np.exp(-np.abs(rng.normal(0, 0.5, close.shape)) * volatility)
    level = rng.uniform(np.log(2e5), np.log(2e7), (symbols, 1))
    volume = np.round(np.exp(level + rng.normal(0, 0.35, close.shape) + 8 * np.abs(returns)))
    opened, high, low, close = (np.maximum(np.round(values, 2), 0.01) for values in (opened, high, low, close))
    high, low = np.maximum(high, np.maximum(opened, close)), np.minimum(low, np.minimum(opened, close))
    bars = {"open": opened, "high": high, "low": low, "close": close, "volume": volume, "vwap": (opened + high + low + close) / 4}
    return {name: values.astype(np.float32).astype(np.float64) for name, values in bars.items()}


def write_qlib(frame: pl.DataFrame, root: Path) -> None:
    """The panel as a Qlib data folder: a calendar, one list of instruments, one file of float32 a symbol and field."""
    days = frame["session"].unique().sort()
    place = {day: number for number, day in enumerate(days)}
    for folder in ("calendars", "instruments", "features"):
        (root / folder).mkdir(parents=True)
    (root / "calendars" / "day.txt").write_text("".join(f"{day}\n" for day in days))
    listed: list[str] = []
    for (symbol,), rows in frame.group_by("symbol", maintain_order=True):
        folder = root / "features" / str(symbol).lower()
        folder.mkdir()
        listed.append(f"{symbol}\t{rows['session'][0]}\t{rows['session'][-1]}\n")
        for name in FIELDS:
            values = rows[name].fill_null(float("nan")).to_numpy().astype("<f4")
            (folder / f"{name}.day.bin").write_bytes(struct.pack("<f", place[rows["session"][0]]) + values.tobytes())
    (root / "instruments" / "all.txt").write_text("".join(listed))
