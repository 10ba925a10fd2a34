"""The readable back end: every operator by its textbook definition, in plain Polars, a column for every part of an expression.

It is slow and holds every window as a list; what it is for is to say what the compiled engine has to compute (tests hold the two to
each other on random expressions) and to be there where there is no numba. Missing is null throughout. The conventions are Qlib's, see
quant.factors.plan.Mode for where the modes differ.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import polars as pl

from quant.factors.cross_section import cross_section
from quant.factors.expression import CrossSection, Elementwise, Feature, Number, Rolling, Shift, children
from quant.factors.kernels import FLAT
from quant.factors.plan import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from quant.factors.expression import Node

LISTING, EARLIER, LATER = "#listing", "#earlier", "#later"  # of a row: number of its listing, and how many rows that has on either side


def reference(nodes: Mapping[str, Node], panel: pl.DataFrame, mode: Mode, *, unbounded_ema: bool = False) -> pl.DataFrame:
    """session, symbol and one Float64 column per name for every row of ``panel``, which is as quant.factors.compile.compute describes it.

    ``unbounded_ema``: an EMA reads all earlier rows of the listing and repeats its last value where a row is missing, as Qlib's own does;
    for comparisons only, because such a value depends on how much history happens to be stored.
    """
    frame = _with_rows_around(panel)
    names: dict[Node, str] = {}
    for part in (part for node in nodes.values() for part in _inside_out(node)):
        if part not in names:
            names[part] = f"#{len(names)}"
            arguments = [names[child] for child in children(part)]
            column = _column(part, frame, [pl.col(name) for name in arguments], mode, unbounded_ema=unbounded_ema)
            frame = frame.with_columns(column.alias(names[part]))
    return frame.select("session", "symbol", *(pl.col(names[node]).alias(name) for name, node in nodes.items()))


def _with_rows_around(panel: pl.DataFrame) -> pl.DataFrame:
    keys = ["symbol", "listing"] if "listing" in panel.columns else ["symbol"]
    row = pl.int_range(pl.len())
    return panel.with_columns(pl.struct(keys).rle_id().alias(LISTING)).with_columns(
        row.over(LISTING).alias(EARLIER), (pl.len().over(LISTING) - 1 - row.over(LISTING)).alias(LATER)
    )


def _inside_out(node: Node) -> Iterator[Node]:
    """Everything below ``node``, then itself."""
    for child in children(node):
        yield from _inside_out(child)
    yield node


def _column(node: Node, frame: pl.DataFrame, args: list[pl.Expr], mode: Mode, *, unbounded_ema: bool) -> pl.Expr:
    match node:
        case Feature(name=name):
            return pl.col(name).fill_nan(None)
        case Number(value=value):
            return pl.lit(value, pl.Float64)
        case Elementwise(op=op):
            return _elementwise(op, args, mode).fill_nan(None)
        case Shift(by=by):
            return _ago(args[0], by)
        case Rolling(op="EMA", window=window) if unbounded_ema:
            return _known(args[0]).ewm_mean(span=window, ignore_nulls=False).forward_fill().over(LISTING)
        case Rolling():
            return pl.lit(_rolling(node, frame, args, mode))
        case CrossSection(op=op, group=group):
            return cross_section(op, args[0], group)


def _ago(x: pl.Expr, rows: int) -> pl.Expr:
    """The value some rows earlier in the listing (later if negative), null where there is no such row."""
    there = pl.col(EARLIER) >= rows if rows >= 0 else pl.col(LATER) >= -rows
    return pl.when(there).then(x.shift(rows))


def _known(x: pl.Expr) -> pl.Expr:
    """What a window sees of a series: infinite values are missing."""
    return pl.when(x.is_finite()).then(x)


# -- values of the same row ----------------------------------------------------------------------------------------------------------------
def _elementwise(op: str, args: list[pl.Expr], mode: Mode) -> pl.Expr:
    if op in _COMPARISONS:
        truth = _COMPARISONS[op](*args).cast(pl.Float64)
        return truth if mode is Mode.STRICT else truth.fill_null(1.0 if op == "Ne" else 0.0)
    if op == "If":
        return _if(*args)
    return _PAIRWISE[op](*args) if op in _PAIRWISE else _SINGLE[op](*args)


def _both(a: pl.Expr, b: pl.Expr, result: pl.Expr) -> pl.Expr:
    return pl.when(a.is_not_null() & b.is_not_null()).then(result)


def _greater(a: pl.Expr, b: pl.Expr) -> pl.Expr:
    return _both(a, b, pl.max_horizontal(a, b))


def _less(a: pl.Expr, b: pl.Expr) -> pl.Expr:
    return _both(a, b, pl.min_horizontal(a, b))


def _power(a: pl.Expr, b: pl.Expr) -> pl.Expr:
    """IEEE 754: anything to the power of 0 is 1, and so is 1 to any power, a missing one too."""
    return pl.when((b == 0) | (a == 1)).then(1.0).otherwise(a.pow(b))


def _if(condition: pl.Expr, a: pl.Expr, b: pl.Expr) -> pl.Expr:
    return pl.when(condition.is_not_null()).then(pl.when(condition != 0).then(a).otherwise(b))


_COMPARISONS: Mapping[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "Gt": lambda a, b: a > b,
    "Ge": lambda a, b: a >= b,
    "Lt": lambda a, b: a < b,
    "Le": lambda a, b: a <= b,
    "Eq": lambda a, b: a == b,
    "Ne": lambda a, b: a != b,
}
_PAIRWISE: Mapping[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a / b,
    "Power": _power,
    "Greater": _greater,
    "Less": _less,
    "And": _less,  # a comparison is 0 or 1
    "Or": _greater,
}
_SINGLE: Mapping[str, Callable[[pl.Expr], pl.Expr]] = {
    "Not": lambda a: 1.0 - a,
    "Abs": lambda a: a.abs(),
    "Sign": lambda a: a.cast(pl.Float32).sign().cast(pl.Float64),  # Qlib's cast: what is below float32's range has no sign
    "Log": lambda a: a.log(),
}


# -- windows -------------------------------------------------------------------------------------------------------------------------------
X, Y = pl.col("x"), pl.col("y")
"""The window of either series: a list of its rows, oldest first, null where the row does not exist or its value is missing."""


def _rolling(node: Rolling, frame: pl.DataFrame, args: list[pl.Expr], mode: Mode) -> pl.Series:
    counted = node.op == "Count" and mode is Mode.QLIB  # Qlib counts infinite values, too
    windows = [
        pl.concat_list([_ago(arg if counted else _known(arg), rows) for rows in reversed(range(node.rows))]).alias(name)
        for name, arg in zip(("x", "y"), args, strict=False)
    ]
    existing = pl.min_horizontal(pl.col(EARLIER) + 1, node.rows).cast(pl.Float64).alias("rows")
    seen = frame.select(existing, *windows)
    n = _number(X) if len(args) == 1 else _number(_paired(X, Y))
    least = node.rows if mode is Mode.STRICT else 0 if node.op == "Count" else 1
    return seen.select(pl.when(n >= least).then(_ROLLING[node.op](node).fill_nan(None))).to_series()


def _number(x: pl.Expr) -> pl.Expr:
    return x.list.drop_nulls().list.len().cast(pl.Float64)


def _paired(x: pl.Expr, y: pl.Expr) -> pl.Expr:
    """The values of ``x`` where ``y`` is known, too."""
    return x + y * 0.0


def _weights(values: list[float]) -> pl.Expr:
    """The same list for every row."""
    return pl.lit(pl.Series([values], dtype=pl.List(pl.Float64)))


def _deviations(x: pl.Expr) -> pl.Expr:
    """From the mean, taken of differences to the first value: so those of a constant are exactly 0."""
    moved = x - x.list.drop_nulls().list.first()
    return moved - moved.list.mean()


def _squares(x: pl.Expr) -> pl.Expr:
    return _products(x, x)


def _products(x: pl.Expr, y: pl.Expr) -> pl.Expr:
    """Sum of the products of the deviations."""
    return (_deviations(x) * _deviations(y)).list.sum()


def _sample(total: pl.Expr, n: pl.Expr) -> pl.Expr:
    return pl.when(n > 1).then(total / (n - 1))


def _variance(x: pl.Expr) -> pl.Expr:
    return _sample(_squares(x), _number(x))


def _covariance(node: Rolling) -> pl.Expr:  # noqa: ARG001
    x, y = _paired(X, Y), _paired(Y, X)
    return _sample(_products(x, y), _number(x))


def _varied(x: pl.Expr) -> pl.Expr:
    return _squares(x) > FLAT * FLAT * (_number(x) - 1)


def _correlation(node: Rolling) -> pl.Expr:  # noqa: ARG001
    """Of the pairs; but whether a series is flat is asked of all of its values, as in Qlib."""
    x, y = _paired(X, Y), _paired(Y, X)
    return pl.when(_varied(X) & _varied(Y)).then(_products(x, y) / (_squares(x) * _squares(y)).sqrt())


def _positions(rows: int) -> pl.Expr:
    """Of the known values in the window, 0 at its last row."""
    return _paired(_weights([float(row - rows + 1) for row in range(rows)]), X)


def _slope(node: Rolling) -> pl.Expr:
    position = _positions(node.window)
    return _products(position, X) / _squares(position)


def _rsquare(node: Rolling) -> pl.Expr:
    position = _positions(node.window)
    return pl.when(_varied(X)).then(_products(position, X) ** 2 / (_squares(position) * _squares(X)))


def _residual(node: Rolling) -> pl.Expr:
    """Of the last row."""
    return X.list.last() - (X.list.mean() - _slope(node) * _positions(node.window).list.mean())


def _quantile(node: Rolling) -> pl.Expr:
    """Linear between the two values around the level."""
    ordered, last = X.list.drop_nulls().list.sort(), _number(X) - 1
    place = last * (node.level or 0.0)
    low = place.floor()
    below, above = (ordered.list.get(index.cast(pl.Int64), null_on_oob=True) for index in (low, pl.min_horizontal(low + 1, last)))
    return below + (above - below) * (place - low)


def _place(node: Rolling) -> pl.Expr:
    """Counted from 1 at the first row that exists; a missing value wins, and of several the earliest."""
    existing = X.list.tail(pl.col("rows").cast(pl.Int64))
    if node.op == "IdxMin":
        place = existing.list.eval(pl.element().fill_null(-math.inf)).list.arg_min()
    else:
        place = existing.list.eval(pl.element().fill_null(math.inf)).list.arg_max()
    return place.cast(pl.Float64) + 1


def _skew(node: Rolling) -> pl.Expr:  # noqa: ARG001
    """Unbiased, as pandas has it; 0 for a constant, missing for what nearly is one."""
    n, d = _number(X), _deviations(X)
    square, cube = (d * d).list.sum() / n, (d * d * d).list.sum() / n
    skew = (n * (n - 1)).sqrt() / (n - 2) * cube / square**1.5
    return _shape(square, n >= 3, 0.0, skew)


def _kurt(node: Rolling) -> pl.Expr:  # noqa: ARG001
    """Unbiased excess, as pandas has it; -3 for a constant, missing for what nearly is one."""
    n, d = _number(X), _deviations(X)
    square, fourth = (d * d).list.sum() / n, (d * d * d * d).list.sum() / n
    kurt = ((n * n - 1) * fourth / square**2 - 3 * (n - 1) ** 2) / ((n - 2) * (n - 3))
    return _shape(square, n >= 4, -3.0, kurt)


def _shape(square: pl.Expr, enough: pl.Expr, constant: float, value: pl.Expr) -> pl.Expr:
    return pl.when(enough & (square == 0)).then(constant).when(enough & (square > 1e-14)).then(value)


def _exponential(node: Rolling) -> pl.Expr:
    """Weights fall by (N - 1) / (N + 1) a row, over the known ones of expression.EMA_SPANS times N rows."""
    kept = 1 - 2 / (node.window + 1)
    weights = _weights([kept ** (node.rows - 1 - row) for row in range(node.rows)])
    return (X * weights).list.sum() / _paired(weights, X).list.sum()


def _weighted(node: Rolling) -> pl.Expr:
    """Qlib's WMA: the mean, not the sum, of values times weights 1, 2, ... over the existing rows, divided by the weights' sum."""
    rows = pl.col("rows")
    weights = _weights([float(row + 1) for row in range(node.window)]) - (node.window - rows)
    return (X * weights).list.sum() / (rows * (rows + 1) / 2) / _number(X)


_ROLLING: Mapping[str, Callable[[Rolling], pl.Expr]] = {
    "Count": lambda node: _number(X),
    "Sum": lambda node: X.list.sum(),
    "Mean": lambda node: X.list.sum() / _number(X),
    "Max": lambda node: X.list.max(),
    "Min": lambda node: X.list.min(),
    "Var": lambda node: _variance(X),
    "Std": lambda node: _variance(X).sqrt(),
    "Mad": lambda node: _deviations(X).list.eval(pl.element().abs()).list.sum() / _number(X),
    "IdxMax": _place,
    "IdxMin": _place,
    "Quantile": _quantile,
    "Rank": lambda node: X.list.eval(pl.element().rank("average")).list.last() / _number(X),
    "Slope": _slope,
    "Rsquare": _rsquare,
    "Resi": _residual,
    "Skew": _skew,
    "Kurt": _kurt,
    "EMA": _exponential,
    "WMA": _weighted,
    "Corr": _correlation,
    "Cov": _covariance,
}
