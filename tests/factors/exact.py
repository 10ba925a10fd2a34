"""Factors by their definitions in extended precision: every window's statistic in two passes over long doubles.

What a window reads are doubles, as in the engine (a return's own rounding is not the statistic's); from there on all is long double, whose
rounding is 2000 times finer, so the difference to it is the engine's own error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from quant.factors.expression import Elementwise, Feature, Number, Rolling, Shift

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl
    from numpy.typing import NDArray

    from quant.factors.expression import Node

    Wide = NDArray[np.floating]  # double before the first window, long double after

FLAT = 2e-5


def exact(nodes: Mapping[str, Node], panel: pl.DataFrame) -> dict[str, Wide]:
    """A column per name over the panel's rows, NaN where missing: operators of Alpha158 and relatives of theirs, mode qlib."""
    parts = [_Symbol(part).columns(nodes) for part in panel.partition_by("symbol", maintain_order=True)]
    return {name: np.concatenate([part[name] for part in parts]) for name in nodes}


class _Symbol:
    def __init__(self, bars: pl.DataFrame) -> None:
        self._bars = bars
        self._known: dict[Node, Wide] = {}

    def columns(self, nodes: Mapping[str, Node]) -> dict[str, Wide]:
        with np.errstate(all="ignore"):
            return {name: self.value(node) for name, node in nodes.items()}

    def value(self, node: Node) -> Wide:
        if node not in self._known:
            self._known[node] = self._value(node)
        return self._known[node]

    def _value(self, node: Node) -> Wide:
        rows = self._bars.height
        match node:
            case Feature(name=name):
                return self._bars[name].cast(float).fill_null(np.nan).to_numpy()
            case Number(value=value):
                return np.full(rows, value)
            case Elementwise(op=op, args=args):
                return _ELEMENTWISE[op](*(self.value(arg) for arg in args))
            case Shift(arg=arg, by=by):
                return np.concatenate([np.full(min(by, rows), np.nan), self.value(arg)[: max(rows - by, 0)]])
            case Rolling(args=args, window=window):
                windows = [_windows(self.value(arg), window) for arg in args]
                existing = np.minimum(np.arange(rows) + 1, window)
                return _rolling(node, windows, existing)
            case _:
                raise TypeError(node)


def _windows(x: Wide, window: int) -> Wide:
    """A row for every row: its last values, the current one last, NaN where there is none or it is infinite."""
    clean = np.where(np.isfinite(x), x, np.nan)
    return sliding_window_view(np.concatenate([np.full(window - 1, np.nan, np.longdouble), clean]), window)


def _rolling(node: Rolling, windows: list[Wide], existing: NDArray[np.int64]) -> Wide:
    x = windows[0]
    if node.op == "IdxMax" or node.op == "IdxMin":
        sign = 1 if node.op == "IdxMax" else -1
        hidden = np.arange(node.window) < node.window - existing[:, None]
        ordered = np.where(hidden, -np.inf, np.where(np.isnan(x), np.inf, sign * x))
        place = (ordered.argmax(axis=1) - (node.window - existing) + 1).astype(np.longdouble)
        return np.where(np.isnan(x).all(axis=1), np.nan, place)
    if node.op == "Corr":
        y = windows[1]
        varied = (_square(x) > FLAT**2 * (_count(x) - 1)) & (_square(y) > FLAT**2 * (_count(y) - 1))
        both = np.isnan(x) | np.isnan(y)
        a, b = np.where(both, np.nan, x), np.where(both, np.nan, y)
        return np.where(varied, _product(a, b) / np.sqrt(_square(a) * _square(b)), np.nan)
    n = _count(x)
    return np.where(n > 0, _STATISTICS[node.op](x, n, node), np.nan)


def _count(x: Wide) -> Wide:
    return (~np.isnan(x)).sum(axis=1).astype(np.longdouble)


def _mean(x: Wide) -> Wide:
    return np.nansum(x, axis=1) / _count(x)


def _off(x: Wide) -> Wide:
    return x - _mean(x)[:, None]


def _product(x: Wide, y: Wide) -> Wide:
    return np.nansum(_off(x) * _off(y), axis=1)


def _square(x: Wide) -> Wide:
    constant = np.nanmax(np.where(np.isnan(x), -np.inf, x), axis=1) == np.nanmin(np.where(np.isnan(x), np.inf, x), axis=1)
    return np.where(constant, 0, _product(x, x))


def _positions(x: Wide) -> Wide:
    return np.where(np.isnan(x), np.nan, np.arange(x.shape[1]) - (x.shape[1] - 1))


def _slope(x: Wide) -> Wide:
    at = _positions(x)
    return _product(at, x) / _square(at)


def _rsquare(x: Wide, n: Wide, _: Rolling) -> Wide:
    at = _positions(x)
    return np.where(_square(x) > FLAT**2 * (n - 1), _product(at, x) ** 2 / (_square(at) * _square(x)), np.nan)


def _residual(x: Wide, _: Wide, __: Rolling) -> Wide:
    return x[:, -1] - (_mean(x) - _slope(x) * _mean(_positions(x)))


def _rank(x: Wide, n: Wide, _: Rolling) -> Wide:
    current = x[:, -1:]
    rank = (x < current).sum(axis=1) + ((x == current).sum(axis=1) + 1) / np.longdouble(2)
    return np.where(np.isnan(current[:, 0]), np.nan, rank / n)


def _quantile(x: Wide, n: Wide, node: Rolling) -> Wide:
    ordered = np.sort(x, axis=1)  # NaN last
    place = np.longdouble(node.level or 0) * (n - 1)
    low = np.floor(place).astype(np.int64).clip(0)
    high = np.minimum(low + 1, n.astype(np.int64) - 1).clip(0)
    rows = np.arange(len(x))
    return ordered[rows, low] + (ordered[rows, high] - ordered[rows, low]) * (place - low)


def _variance(x: Wide, n: Wide) -> Wide:
    return np.where(n > 1, _square(x) / (n - 1), np.nan)


_STATISTICS = {
    "Sum": lambda x, n, node: np.nansum(x, axis=1),
    "Mean": lambda x, n, node: _mean(x),
    "Var": lambda x, n, node: _variance(x, n),
    "Std": lambda x, n, node: np.sqrt(_variance(x, n)),
    "Max": lambda x, n, node: np.where(np.isnan(x), -np.inf, x).max(axis=1),
    "Min": lambda x, n, node: np.where(np.isnan(x), np.inf, x).min(axis=1),
    "Slope": lambda x, n, node: _slope(x),
    "Rsquare": _rsquare,
    "Resi": _residual,
    "Rank": _rank,
    "Quantile": _quantile,
}
_ELEMENTWISE = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Abs": np.abs,
    "Log": np.log,
    "Greater": np.maximum,
    "Less": np.minimum,
    "Gt": lambda a, b: (a > b).astype(float),
    "Lt": lambda a, b: (a < b).astype(float),
}
