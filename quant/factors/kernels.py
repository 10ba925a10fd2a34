"""Qlib's operators on columns.

A column holds several symbols back to back, each after a pad of rows that do not exist. Missing values are NaN; a row that does not exist
is NaN too, and ``exists`` tells the two apart, because Qlib's windows count missing rows of a symbol but not those before its first.

A value depends on the rows of its window only, bit for bit, however many rows surround them: there are no running sums; a window's
statistic is merged from those of two adjacent blocks, split by the window's length alone, and the leaves are elementwise. Moments merge by
Chan, Golub and LeVeque (1979), which is as exact as two passes over the window and gives exactly 0 for the deviation of a constant.

Conventions (pandas' rolling with min_periods 1, Qlib's data/ops.py): infinities count as missing inside windows; deviations use n - 1;
Slope, Rsquare and Resi regress on the row's position and skip missing ones; Rsquare and Corr are NaN where a deviation is at most 2e-5;
Quantile is linear; Rank is the average rank over n; IdxMax and IdxMin count from 1 at the window's first existing row, the first missing
value wins, ties go to the earliest; a comparison with NaN is 0.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Operand = Floats | float

FLAT = 2e-5  # Qlib: a deviation at most this big is none


class Moments(NamedTuple):
    """Of a block: number of values, their mean, sum of squared deviations from it."""

    n: Floats
    mean: Floats
    square: Floats


class Comoments(NamedTuple):
    """Of a block of pairs: number, means of x and y, sums of squared deviations, sum of their products."""

    n: Floats
    x: Floats
    y: Floats
    xx: Floats
    yy: Floats
    xy: Floats


class Peak(NamedTuple):
    """Of a block: its greatest value and how many rows before the block's last one it is, the earliest if tied."""

    value: Floats
    age: Floats


T = TypeVar("T")


class Blocks(Generic[T]):
    """A statistic of the last ``window`` rows at every row of a column, built from windows of one row (``leaf``)."""

    def __init__(self, leaf: T, merge: Callable[[T, T, int], T]) -> None:
        self._windows = {1: leaf}
        self._merge = merge

    def over(self, window: int) -> T:
        """The statistic at every row; windows that a symbol's first row cuts short hold what there is."""
        if window not in self._windows:
            newer = window // 2 if window % 2 == 0 else window - 1  # a function of the window alone: see the module's text
            self._windows[window] = self._merge(self.over(newer), self.over(window - newer), newer)
        return self._windows[window]


def _older(values: Floats, lag: int, fill: float = 0.0) -> Floats:
    shifted = np.full_like(values, fill)
    shifted[lag:] = values[:-lag]
    return shifted


def _add(newer: Floats, older: Floats, lag: int) -> Floats:
    return newer + _older(older, lag)


def _greatest(newer: Floats, older: Floats, lag: int) -> Floats:
    return np.fmax(newer, _older(older, lag, np.nan))


def _least(newer: Floats, older: Floats, lag: int) -> Floats:
    return np.fmin(newer, _older(older, lag, np.nan))


def _higher(newer: Peak, older: Peak, lag: int) -> Peak:
    value, age = _older(older.value, lag, -np.inf), _older(older.age, lag) + lag
    earlier = value >= newer.value
    return Peak(np.where(earlier, value, newer.value), np.where(earlier, age, newer.age))


def _moments(newer: Moments, older: Moments, lag: int) -> Moments:
    added = _older(older.n, lag)
    n = newer.n + added
    share = added / np.maximum(n, 1.0)
    step = _older(older.mean, lag) - newer.mean
    square = newer.square + _older(older.square, lag) + step * step * (newer.n * share)
    return Moments(n, newer.mean + step * share, square)


def _comoments(newer: Comoments, older: Comoments, lag: int, drift: float = 0.0) -> Comoments:
    """``drift`` is what x falls by per row back, where x is measured from each block's last row."""
    added = _older(older.n, lag)
    n = newer.n + added
    share = added / np.maximum(n, 1.0)
    weight = newer.n * share
    x = _older(older.x, lag) - drift * lag - newer.x
    y = _older(older.y, lag) - newer.y
    return Comoments(
        n,
        newer.x + x * share,
        newer.y + y * share,
        newer.xx + _older(older.xx, lag) + x * x * weight,
        newer.yy + _older(older.yy, lag) + y * y * weight,
        newer.xy + _older(older.xy, lag) + x * y * weight,
    )


def _trend(newer: Comoments, older: Comoments, lag: int) -> Comoments:
    return _comoments(newer, older, lag, drift=1.0)


class Series:
    """One column of a chunk. It keeps the window statistics computed so far, so that factors over the same column share them."""

    def __init__(self, values: Floats, exists: Flags) -> None:
        self.values = values
        self.exists = exists
        self._pairs: dict[Series, Blocks[Comoments]] = {}
        self._sorted: dict[int, Floats] = {}

    @cached_property
    def known(self) -> Flags:
        """Rows that windows count: neither missing nor infinite."""
        return np.isfinite(self.values)

    @cached_property
    def clean(self) -> Floats:
        """Values, NaN where not known."""
        return np.where(self.known, self.values, np.nan)

    @cached_property
    def filled(self) -> Floats:
        """Values, 0 where not known."""
        return np.where(self.known, self.values, 0.0)

    @cached_property
    def rows(self) -> Blocks[Floats]:
        """Existing rows, missing values included."""
        return Blocks(self.exists.astype(np.float64), _add)

    @cached_property
    def counts(self) -> Blocks[Floats]:
        """Known values."""
        return Blocks(self.known.astype(np.float64), _add)

    @cached_property
    def totals(self) -> Blocks[Floats]:
        """Sums of the known values."""
        return Blocks(self.filled, _add)

    @cached_property
    def highs(self) -> Blocks[Floats]:
        """Greatest known values."""
        return Blocks(self.clean, _greatest)

    @cached_property
    def lows(self) -> Blocks[Floats]:
        """Least known values."""
        return Blocks(self.clean, _least)

    @cached_property
    def peaks(self) -> Blocks[Peak]:
        """Greatest values and where."""
        return Blocks(self._peak(self.values), _higher)

    @cached_property
    def troughs(self) -> Blocks[Peak]:
        """Least values, negated, and where."""
        return Blocks(self._peak(-self.values), _higher)

    @cached_property
    def moments(self) -> Blocks[Moments]:
        """Means and squared deviations of the known values."""
        return Blocks(Moments(self.counts.over(1), self.filled, np.zeros_like(self.values)), _moments)

    @cached_property
    def trends(self) -> Blocks[Comoments]:
        """Pairs of the row's position, 0 at the window's last row, and the value."""
        zero = np.zeros_like(self.values)
        return Blocks(Comoments(self.counts.over(1), zero, self.filled, zero, zero, zero), _trend)

    def pairs(self, other: Series) -> Blocks[Comoments]:
        """Pairs of a value and the other column's value, where both are known."""
        if other not in self._pairs:
            both, zero = self.known & other.known, np.zeros_like(self.values)
            x, y = np.where(both, self.values, 0.0), np.where(both, other.values, 0.0)
            self._pairs[other] = Blocks(Comoments(both.astype(np.float64), x, y, zero, zero, zero), _comoments)
        return self._pairs[other]

    def ordered(self, window: int) -> Floats:
        """Rows x window: every window's known values in ascending order, NaN after them."""
        if window not in self._sorted:
            before = np.concatenate([np.full(window - 1, np.nan), self.clean])
            self._sorted[window] = np.sort(sliding_window_view(before, window), axis=1)
        return self._sorted[window]

    def _peak(self, values: Floats) -> Peak:
        absent = np.where(self.exists, np.inf, -np.inf)  # a missing value beats any other, a row that does not exist none
        return Peak(np.where(self.known, values, absent), np.zeros_like(values))


def shift(x: Series, by: int) -> Floats:
    """The value ``by`` rows earlier, later if negative; NaN where there is no such row."""
    shifted = np.full_like(x.values, np.nan)
    if by > 0:
        shifted[by:] = x.values[:-by]
    else:
        shifted[:by] = x.values[-by:]
    return shifted


def _total(x: Series, window: int) -> Floats:
    return np.where(x.counts.over(window) > 0, x.totals.over(window), np.nan)


def _mean(x: Series, window: int) -> Floats:
    return x.totals.over(window) / x.counts.over(window)


def _variance(x: Series, window: int) -> Floats:
    moments = x.moments.over(window)
    return np.where(moments.n > 1, moments.square / (moments.n - 1), np.nan)


def _deviation(x: Series, window: int) -> Floats:
    return np.sqrt(_variance(x, window))


def _position(x: Series, peaks: Blocks[Peak], window: int) -> Floats:
    position = x.rows.over(window) - peaks.over(window).age
    return np.where(x.counts.over(window) > 0, position, np.nan)


def _rank(x: Series, window: int) -> Floats:
    below, upto = np.zeros(len(x.values), np.int32), np.zeros(len(x.values), np.int32)
    for lag in range(window):
        earlier = x.clean[: len(x.clean) - lag]
        below[lag:] += earlier < x.clean[lag:]
        upto[lag:] += earlier <= x.clean[lag:]
    return np.where(x.known, (below + upto + 1) * 0.5 / x.counts.over(window), np.nan)


def _slope(x: Series, window: int) -> Floats:
    trend = x.trends.over(window)
    return trend.xy / trend.xx


def _rsquare(x: Series, window: int) -> Floats:
    trend = x.trends.over(window)
    rsquare = trend.xy * trend.xy / (trend.xx * trend.yy)
    return np.where(_deviation(x, window) <= FLAT, np.nan, rsquare)


def _residual(x: Series, window: int) -> Floats:
    trend = x.trends.over(window)
    return x.clean - (trend.y - _slope(x, window) * trend.x)


def quantile(x: Series, window: int, level: float) -> Floats:
    """Linear between the two known values around position ``level`` x (n - 1)."""
    ordered, n = x.ordered(window), x.counts.over(window)
    place = level * (n - 1)
    lower = np.maximum(np.floor(place), 0.0).astype(np.intp)
    upper = np.minimum(lower + 1, np.maximum(n.astype(np.intp) - 1, 0))
    row = np.arange(len(ordered))
    low, high = ordered[row, lower], ordered[row, upper]
    return low + (high - low) * (place - lower)


def _covariance(x: Series, y: Series, window: int) -> Floats:
    pairs = x.pairs(y).over(window)
    return np.where(pairs.n > 1, pairs.xy / (pairs.n - 1), np.nan)


def _correlation(x: Series, y: Series, window: int) -> Floats:
    pairs = x.pairs(y).over(window)
    flat = (_deviation(x, window) <= FLAT) | (_deviation(y, window) <= FLAT)  # each series' own, as in Qlib, not the pairs'
    return np.where(flat, np.nan, pairs.xy / np.sqrt(pairs.xx * pairs.yy))


ROLLING: Mapping[str, Callable[[Series, int], Floats]] = {
    "Mean": _mean,
    "Sum": _total,
    "Count": lambda x, window: x.counts.over(window),
    "Std": _deviation,
    "Var": _variance,
    "Max": lambda x, window: x.highs.over(window),
    "Min": lambda x, window: x.lows.over(window),
    "IdxMax": lambda x, window: _position(x, x.peaks, window),
    "IdxMin": lambda x, window: _position(x, x.troughs, window),
    "Rank": _rank,
    "Slope": _slope,
    "Rsquare": _rsquare,
    "Resi": _residual,
}
PAIRED: Mapping[str, Callable[[Series, Series, int], Floats]] = {"Corr": _correlation, "Cov": _covariance}


def _sign(x: Operand) -> Floats:
    return np.sign(np.asarray(x, np.float32)).astype(np.float64)  # Qlib's cast: what is below float32's range has no sign


def _not(x: Operand) -> Operand:
    return 1.0 - x


def _if(condition: Operand, then: Operand, otherwise: Operand) -> Floats:
    return np.where(np.asarray(condition) != 0, then, otherwise)


ELEMENTWISE: Mapping[str, Callable[..., Floats | Flags | float]] = {  # a comparison is 0 or 1, so And and Or are its least and greatest
    "Abs": np.abs,
    "Log": np.log,
    "Sign": _sign,
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Power": np.power,
    "Greater": np.maximum,
    "Less": np.minimum,
    "Gt": np.greater,
    "Ge": np.greater_equal,
    "Lt": np.less,
    "Le": np.less_equal,
    "Eq": np.equal,
    "Ne": np.not_equal,
    "And": np.minimum,
    "Or": np.maximum,
    "Not": _not,
    "If": _if,
}
