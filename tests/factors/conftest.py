"""Panels with everything that makes windows hard: ties, flat and missing bars, halts with zero volume, late listings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from quant.calendar import exchange_calendar
from quant.factors.expression import ROLLING

if TYPE_CHECKING:
    from collections.abc import Callable

SESSIONS = exchange_calendar().days[2600:]


def _symbol_bars(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    close = np.round(60 * np.exp(np.cumsum(rng.normal(0, 0.012, rows))), 1)
    opened = np.round(close * (1 + rng.normal(0, 0.006, rows)), 1)
    spread = rng.choice([0.0, 0.1, 0.4, 1.0], rows)
    volume = np.round(np.exp(rng.normal(13, 0.6, rows)))
    halt = int(rng.integers(0, rows))
    stale = slice(halt, halt + int(rng.integers(0, 30)))
    for prices in (close, opened):
        prices[stale] = prices[halt]
    spread[stale] = 0.0
    volume[stale] = 0.0
    high, low = np.round(np.maximum(close, opened) + spread, 1), np.round(np.minimum(close, opened) - spread, 1)
    return {"open": opened, "high": high, "low": low, "close": close, "volume": volume, "vwap": (high + low + close) / 3}


def _panel(seed: int, *, symbols: int = 3, rows: int = 150, missing: float = 0.3) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    frames: list[pl.DataFrame] = []
    for number in range(symbols):
        length = int(rng.integers(1, rows)) if number else rows
        frame = pl.DataFrame(_symbol_bars(rng, length))
        blank = pl.Series(rng.random(length) < rng.choice([0.0, missing / 10, missing]))
        blanked = frame.select(pl.when(~blank).then(pl.col(name)).alias(name) for name in frame.columns)
        dated = pl.DataFrame({"session": SESSIONS[rows - length : rows], "symbol": [f"S{number:02}"] * length})
        frames.append(pl.concat([dated, blanked], how="horizontal"))
    return pl.concat(frames)


@pytest.fixture(scope="session")
def make_panel() -> Callable[..., pl.DataFrame]:
    """make_panel(seed, symbols=3, rows=150, missing=0.3): a panel as quant.factors.panel makes them, at most that share of its bars
    missing; every symbol ends on the same session.
    """
    return _panel


@pytest.fixture(scope="session")
def every_operator() -> dict[str, str]:
    """Expressions over all operators, nested, with odd windows."""
    close, log_volume = "$close", "Log($volume+1)"
    single = [name for name, series in ROLLING.items() if series == 1 and name != "Quantile"] + ["Med", "Ref", "Delta"]
    rolling = {
        f"{op}_{window}": f"{op}({close},{window})" for op in single for window in (1, 2, 7, 33) if window > 3 or op not in ("Skew", "Kurt")
    }
    return {
        **rolling,
        "Quantile": f"Quantile({close}/Ref({close},1)-1,13,0.37)",
        "Corr": f"Corr({close}/Ref({close},1)-1,{log_volume},9)",
        "Cov": f"Cov({close},{log_volume},9)",
        "nested": f"Mean(Corr(Rank(Delta({close},2),9),Mean({log_volume},3),12),30)",
        "infinite": "Mean(Ref($volume,1)/$volume,5)",
        "If": "If(($close>$open)&($volume>Mean($volume,5))|($low==$high),$close/Ref($close,1)-1,0)",
        "Not": "Mean(If(Not($close>=$open),1,0),10)",
        "counts": "Mean($close!=$open,20)-Mean($close<=Ref($close,1),20)",
        "Sign": "Sign($close-$open)*Abs($close-$open)",
        "Power": "Power($close,2)/($close**1.5)",
        "spread": "Greater($open,$close)-Less($open,$close)",
    }
