"""Whether a factor depends on the level of prices: what is stored may not, or every split and dividend would change it.

Found by trying: some bars, made by a formula, and the same with each symbol's prices times a factor of its own. Two kinds of bars: smooth
ones, from where windows are full on, times any factor; and ones with everything that a condition can ask for (an open that is the
close, a bar without a range, a halt, a missing bar, a price that stands still, jumps), from the first session on, times powers of four:
these are exact, so that nothing but the level can change a value, however degenerate. Volume keeps its level: a factor may depend on that
(Corr with a log of volume does). What no trial finds is a level that none has, such as an equality with one price.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from quant.errors import FactorError, expected
from quant.factors.compile import compute
from quant.factors.expression import groups, parse
from quant.factors.reach import reach

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Values = NDArray[np.float64]

PRICES = ("open", "high", "low", "close", "vwap")
TOLERANCE = 1e-5
"""Relative. Rounding and the 1e-12 that Qlib adds to denominators stay below it."""
NOISE = 1e-12
"""Values this small count as zero: what rounding leaves of a difference that is none."""
_LEVELS = (31.7, 47.3, 64.9, 83.1, 112.7, 149.3)  # of the symbols' prices
_SCALES = (  # the greatest and the least threshold that a comparison with a price can hide behind, and other orders of the symbols
    (1733.0, 311.0, 61.7, 7.31, 0.37, 0.0137),
    (0.0293, 911.0, 0.61, 173.0, 3.7, 23.9),
)
_EXACT_SCALES = (
    (4096.0, 256.0, 16.0, 0.25, 0.0625, 0.015625),
    (0.015625, 0.0625, 64.0, 1024.0, 4.0, 4096.0),
)
_EVENTS = 48  # sessions in which things happen
_SESSIONS = 16  # compared, beyond those that a factor reaches back to
_MOST_SESSIONS = 6000  # for factors that reach back further, whatever their unfilled windows give is compared
_TOGETHER = 100  # factors a run: bounds memory


def refuse_scale(name: str, expression: str) -> None:
    """Raises FactorError if the factor depends on the level of prices, or is missing on ordinary bars, where nobody could tell."""
    for fault in scale_faults({name: expression}).values():
        raise fault


def scale_faults(expressions: Mapping[str, str]) -> Mapping[str, FactorError]:
    """``refuse_scale`` for many factors at once: the errors of those that are to be refused. All must be in the language."""
    past = {name: reach(parse(text)).past for name, text in expressions.items()}
    names = sorted(expressions, key=lambda name: past[name])  # a run has the sessions for the farthest of its factors
    faults: dict[str, FactorError] = {}
    for first in range(0, len(names), _TOGETHER):
        faults.update(_faults({name: expressions[name] for name in names[first : first + _TOGETHER]}, past))
    return {name: faults[name] for name in expressions if name in faults}


def volume_matters(expression: str) -> bool:
    """Whether the factor depends on the level of volume, which splits change: allowed, but worth to know."""
    node = parse(expression)
    sessions = min(reach(node).past, _MOST_SESSIONS) + _SESSIONS
    labels = sorted(groups(node))
    for bars, every in ((_bars(sessions), _SCALES), (_eventful_bars(sessions + _EVENTS), _EXACT_SCALES)):
        plain, *scaled = (
            _by_symbol(_computed({"": expression}, bars, scales, labels, ("volume",)), "") for scales in ((1.0,) * len(_LEVELS), *every)
        )
        if any(_differ(plain, values).any() for values in scaled):
            return True
    return False


def _faults(expressions: Mapping[str, str], past: Mapping[str, int]) -> Iterator[tuple[str, FactorError]]:
    sessions = min(max(past[name] for name in expressions), _MOST_SESSIONS) + _SESSIONS
    group_columns = sorted(frozenset[str]().union(*(groups(parse(text)) for text in expressions.values())))
    trials = [
        (every, [_computed(expressions, bars, scales, group_columns) for scales in ((1.0,) * len(_LEVELS), *every)])
        for bars, every in ((_bars(sessions), _SCALES), (_eventful_bars(sessions + _EVENTS), _EXACT_SCALES))
    ]
    for name in expressions:
        full = past[name] if past[name] + _SESSIONS <= sessions else 0
        for (every, frames), first in zip(trials, (full, 0), strict=True):
            fault = _fault(name, every, *(_by_symbol(frame, name)[:, first:] for frame in frames))
            if fault:
                yield name, fault
                break


def _fault(name: str, every: Sequence[Sequence[float]], before: Values, *rescaled: Values) -> FactorError | None:
    """What is wrong with a factor's values at the plain prices and at ``every`` scale of them: one row a symbol, one column a session."""
    if np.isnan(before).all():
        return _missing(name)
    for after, scales in zip(rescaled, every, strict=True):
        changed: list[list[int]] = np.argwhere(_differ(before, after)).tolist()
        for symbol, column in changed[:1]:
            return _dependent(name, scales[symbol], before.item(symbol, column), after.item(symbol, column))
    return None


def _differ(before: Values, after: Values) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):  # an infinite value less itself
        apart = np.abs(before - after)
        larger = np.maximum(np.abs(before), np.abs(after))
        same = (
            (before == after)
            | (np.isnan(before) & np.isnan(after))
            | (apart <= np.maximum(TOLERANCE * larger, NOISE)) & np.isfinite(larger)
        )
    return ~same


def _by_symbol(frame: pl.DataFrame, name: str) -> Values:
    return frame[f"factor {name}"].fill_null(float("nan")).to_numpy().reshape(len(_LEVELS), -1)


def _computed(
    expressions: Mapping[str, str],
    bars: pl.DataFrame,
    scales: Sequence[float],
    group_columns: Sequence[str],
    rescaled: Sequence[str] = PRICES,
) -> pl.DataFrame:
    symbol = pl.col("symbol")
    scale = symbol.replace_strict(list(_symbols()), list(scales), return_dtype=pl.Float64)
    halves = symbol.replace_strict(list(_symbols()), ["odd", "even"] * (len(_LEVELS) // 2))
    panel = bars.with_columns(
        *(pl.col(name) * scale for name in rescaled), *(halves.alias(name) for name in group_columns if name not in bars.columns)
    )
    columns = {f"factor {name}": text for name, text in expressions.items()}  # whatever the names, not those of keys
    return compute(columns, panel, dtype=pl.Float64, allow_future=True, threads=1)


def _symbols() -> tuple[str, ...]:
    return tuple(f"S{number}" for number in range(len(_LEVELS)))


@lru_cache(maxsize=8)
def _bars(sessions: int) -> pl.DataFrame:
    """Bars without ties and flat stretches, where a rounding could decide a comparison: sums of waves of unrelated lengths."""
    days = pl.Series("session", [date(2000, 1, 3) + timedelta(days=day) for day in range(sessions)])
    at = np.arange(sessions, dtype=np.float64)
    frames = [
        _symbol_bars(days, symbol, level, at, number + 1.0) for number, (symbol, level) in enumerate(zip(_symbols(), _LEVELS, strict=True))
    ]
    return pl.concat(frames)


@lru_cache(maxsize=8)
def _eventful_bars(sessions: int) -> pl.DataFrame:
    """_bars whose last _EVENTS sessions have what ordinary bars have not, each symbol's a session later than those of the one before."""
    frames = _bars(sessions).partition_by("symbol", maintain_order=True)
    return pl.concat([_with_events(frame, sessions - _EVENTS + number) for number, frame in enumerate(frames)])


def _with_events(bars: pl.DataFrame, first: int) -> pl.DataFrame:
    at = pl.int_range(pl.len()) - first
    level = pl.when(at < 26).then(1.0).when(at < 34).then(2.5).otherwise(0.75)  # jumps by 150 % and by -70 %
    bars = bars.with_columns(pl.when(at == 18).then(pl.col(name).shift(1)).otherwise(pl.col(name)).alias(name) for name in PRICES)
    still, halt = at == 5, at.is_between(9, 14)
    before = pl.col("close").gather(first + 8)
    return bars.with_columns(
        *(
            pl.when(at == 22)
            .then(None)
            .when(halt)
            .then(before)
            .when(still if name != "open" else still | (at == 2))
            .then(pl.col("close"))
            .otherwise(pl.col(name) * level)
            .alias(name)
            for name in PRICES
        ),
        pl.when(at == 22).then(None).when(halt).then(0.0).otherwise(pl.col("volume")).alias("volume"),
    )


def _symbol_bars(days: pl.Series, symbol: str, level: float, at: Values, phase: float) -> pl.DataFrame:
    def wave(size: float, turn: float) -> Values:
        return size * np.sin(turn * at + 1.7 * turn * phase + phase)

    close = level * np.exp(wave(0.06, 0.11) + wave(0.03, 0.71) + wave(0.02, 1.93) + wave(0.013, 2.67))
    opened = close * np.exp(wave(0.009, 1.37) + wave(0.006, 2.21))
    high = np.maximum(close, opened) * (1.004 + wave(0.003, 2.87))
    low = np.minimum(close, opened) * (0.995 + wave(0.003, 1.61))
    return pl.DataFrame(
        {
            "session": days,
            "symbol": [symbol] * len(at),
            "open": opened,
            "high": high,
            "low": low,
            "close": close,
            "vwap": (opened + high + low + 2 * close) / 5,
            "volume": np.round(1e6 * phase * np.exp(wave(0.4, 0.83) + wave(0.3, 2.39))),
        }
    )


def _missing(name: str) -> FactorError:
    do = "look for a logarithm or a root of something negative, or a shorter reach"
    return FactorError(expected("a value on ordinary bars", found="none at all", where=f"factor {name}", do=do))


def _dependent(name: str, scale: float, before: float, after: float) -> FactorError:
    found = f"{before:.6g} that becomes {after:.6g} where prices are {scale:g} times as high"
    do = "divide by $close, or take a ratio, a rank or a logarithm of a ratio: splits and dividends change the level"
    return FactorError(expected("a value that does not depend on the level of prices", found=found, where=f"factor {name}", do=do))
