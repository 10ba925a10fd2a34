"""Computes factor expressions over a panel: parsed, checked for reach, evaluated one chunk of symbols after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from quant.errors import ContractError, expected
from quant.factors.expression import Elementwise, Feature, Number, Rolling, Shift, features, parse, walk
from quant.factors.kernels import ELEMENTWISE, PAIRED, ROLLING, Series, quantile, shift
from quant.factors.reach import refuse_lookahead

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from quant.factors.expression import Node
    from quant.factors.kernels import Flags, Floats

    Integers = NDArray[np.int64]

CHUNK_ROWS = 16_384  # a few hundred columns of this length are alive at a time; longer ones leave the cache


def compute(
    expressions: Mapping[str, str],
    panel: pl.DataFrame,
    *,
    dtype: type[pl.Float32] | type[pl.Float64] = pl.Float32,
    allow_future: bool = False,
) -> pl.DataFrame:
    """session, symbol and one column per expression for every row of ``panel``, in its order.

    ``panel`` has session, symbol and the Float64 fields that the expressions read, sorted by symbol and session, a null row for every
    session that a symbol misses (quant.factors.panel makes it). A column ``listing``, if there, starts a symbol afresh where it changes.
    Values are computed in float64 and depend on the rows of their reach only. Null: missing (Qlib's NaN); infinite where Qlib
    divides by zero. Raises FactorError for a bad expression, LookaheadError for one that reaches forward unless ``allow_future``,
    ContractError for a panel that is not as described.
    """
    chunks = list(evaluate(expressions, panel, dtype=dtype, allow_future=allow_future))
    return pl.concat(chunks, rechunk=False)


def evaluate(
    expressions: Mapping[str, str],
    panel: pl.DataFrame,
    *,
    dtype: type[pl.Float32] | type[pl.Float64] = pl.Float32,
    allow_future: bool = False,
    chunk_rows: int = CHUNK_ROWS,
) -> Iterator[pl.DataFrame]:
    """``compute`` as a stream of frames, each of whole symbols: for callers that drop rows before they keep the rest.

    The first frame is empty, so that an empty panel has its columns too. How the rows are cut into frames changes no value.
    """
    nodes = {name: parse(text) for name, text in expressions.items()}
    if not allow_future:
        for name, node in nodes.items():
            refuse_lookahead(name, node)
    starts = _starts(panel, sorted(frozenset[str]().union(*(features(node) for node in nodes.values()))))
    yield panel.select("session", "symbol", *(pl.lit(None, dtype).alias(name) for name in nodes)).clear()
    for first, last in _cuts(starts, chunk_rows):
        rows = panel[int(starts[first]) : int(starts[last])]
        yield _frame(nodes, rows, np.diff(starts[first : last + 1]), dtype)


def _starts(panel: pl.DataFrame, fields: Sequence[str]) -> Integers:
    """First row of every listing, then the number of rows. Raises ContractError if the panel is not what ``compute`` describes."""
    needed = {"session": pl.Date, "symbol": pl.String, **dict.fromkeys(fields, pl.Float64)}
    for name, dtype in needed.items():
        if panel.schema.get(name) != dtype:
            found = panel.schema.get(name, "no such column")
            raise ContractError(expected(f"column {name} of {dtype}", found=found, where="a factor panel", do="use quant.factors.panel"))
    same = pl.col("symbol") == pl.col("symbol").shift()
    misplaced = (pl.col("symbol") < pl.col("symbol").shift()) | (same & (pl.col("session") <= pl.col("session").shift()))
    wrong = panel.filter(misplaced).select("symbol", "session").head(1)
    if wrong.height:
        found = "{} {}".format(*wrong.row(0)) + " out of order or twice"
        raise ContractError(expected("rows sorted by symbol and session", found=found, where="a factor panel", do="sort it"))
    if "listing" in panel.columns:
        same = same & (pl.col("listing") == pl.col("listing").shift())
    first = panel.select((~same).fill_null(value=True)).to_series()
    return np.append(first.arg_true().to_numpy(), panel.height).astype(np.int64)


def _cuts(starts: Integers, chunk_rows: int) -> Iterator[tuple[int, int]]:
    """Ranges of listings, each the shortest with at least ``chunk_rows`` rows."""
    first = 0
    for last in range(1, len(starts)):
        if starts[last] - starts[first] >= chunk_rows or last == len(starts) - 1:
            yield first, last
            first = last


def _frame(nodes: Mapping[str, Node], rows: pl.DataFrame, lengths: Integers, dtype: type[pl.Float32 | pl.Float64]) -> pl.DataFrame:
    chunk = _Chunk(rows, lengths, pad=max((_stride(part) for node in nodes.values() for part in walk(node)), default=0))
    target = np.float32 if dtype is pl.Float32 else np.float64
    with np.errstate(all="ignore"):  # NaN and infinities are values here
        columns = {name: chunk.series(node).values[chunk.exists].astype(target) for name, node in nodes.items()}
    values = [pl.Series(name, column, nan_to_null=True) for name, column in columns.items()]
    return rows.select("session", "symbol").with_columns(values)


def _stride(node: Node) -> int:
    """Rows between a value of ``node`` and the farthest one it reads directly: what keeps a symbol from seeing its neighbour."""
    match node:
        case Shift(by=by):
            return abs(by)
        case Rolling(window=window):
            return window - 1
        case _:
            return 0


class _Chunk:
    """Some symbols back to back, a pad before each and after the last, with every node computed so far."""

    def __init__(self, rows: pl.DataFrame, lengths: Integers, pad: int) -> None:
        self._rows = rows
        padded = [part for length in lengths for part in (np.zeros(pad, np.bool_), np.ones(length, np.bool_))]
        self.exists: Flags = np.concatenate([*padded, np.zeros(pad, np.bool_)])
        self._done: dict[Node, Series] = {}

    def series(self, node: Node) -> Series:
        """The column of ``node``, NaN on the pads whatever its operator makes of them."""
        if node not in self._done:
            self._done[node] = Series(np.where(self.exists, self._values(node), np.nan), self.exists)
        return self._done[node]

    def _values(self, node: Node) -> Floats | Flags | float:
        match node:
            case Feature():
                return self._field(node.name)
            case Number():
                return node.value
            case Elementwise():
                return ELEMENTWISE[node.op](*(self._operand(arg) for arg in node.args))
            case Shift():
                return shift(self.series(node.arg), node.by)
            case Rolling():
                return self._rolling(node)

    def _field(self, name: str) -> Floats:
        values = np.full(len(self.exists), np.nan)
        values[self.exists] = self._rows[name].to_numpy()
        return values

    def _operand(self, node: Node) -> Floats | float:
        return node.value if isinstance(node, Number) else self.series(node).values

    def _rolling(self, node: Rolling) -> Floats:
        args = [self.series(arg) for arg in node.args]
        if node.level is not None:
            return quantile(args[0], node.window, node.level)
        if node.op in PAIRED:
            return PAIRED[node.op](args[0], args[1], node.window)
        return ROLLING[node.op](args[0], node.window)
