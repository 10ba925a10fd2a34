"""How well each of many factors orders the names of a session, in one pass over the rows: only coefficients are kept.

Sources: information coefficient as in quant.modelling.information_coefficient; how many of many t-statistics chance alone makes large:
Harvey, Liu and Zhu, "... and the Cross-Section of Expected Returns", Review of Financial Studies 29 (2016).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from quant.modelling.information_coefficient import MINIMUM_NAMES, summarise_ic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

CELLS = 4_000_000  # rows x factors taken at a time: half a dozen matrices of this size are in memory at once, 32 MB each


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorMeasures:
    """``statistics``: one row per factor, in the order given (factor, ic_mean ... nearest_correlation as in table factor_statistics).

    ``ic_sessions``: session and, per factor, the session's information coefficient, null where it is undefined.
    ``rows`` is how many rows were measured.
    """

    statistics: pl.DataFrame
    ic_sessions: pl.DataFrame
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """What t-statistics of ``factors`` factors without any foresight look like: ``expected`` of them are beyond ``usual`` in size; with
    ``threshold`` (Bonferroni) one beyond it has a probability of 5 % at most. ``beyond_usual`` and ``beyond_threshold`` were found.
    """

    factors: int
    usual: float
    expected: float
    threshold: float
    beyond_usual: int
    beyond_threshold: int


def chance(t_statistics: pl.Series, *, usual: float = 2.0, level: float = 0.05) -> Chance:
    """What chance makes of so many t-statistics (normal, two-sided, whether they are independent or not: expectations add up anyway)."""
    normal, found = NormalDist(), t_statistics.drop_nulls().abs()
    factors = found.len()
    threshold = normal.inv_cdf(1 - level / (2 * max(factors, 1)))
    return Chance(
        factors=factors,
        usual=usual,
        expected=factors * 2 * (1 - normal.cdf(usual)),
        threshold=threshold,
        beyond_usual=int((found > usual).sum()),
        beyond_threshold=int((found > threshold).sum()),
    )


def factor_statistics(parts: Iterable[pl.DataFrame], factors: Sequence[str]) -> FactorMeasures:
    """Measure ``factors`` over ``parts``: frames of session, symbol, label (null where it is not known) and the factor columns, sorted by
    session and symbol, each of whole sessions, in order.

    The information coefficient of a session is that of quant.modelling.information_coefficient. Correlations of a factor with itself one
    session earlier, and with another one, are means over sessions of rank correlations in which a name that lacks one of the two
    values counts as middling.
    """
    size = len(factors)
    days: list[object] = []
    coefficients, names, moved = ([np.empty((0, size))] for _ in range(3))
    products, shared, finite, rows = np.zeros((size, size)), np.zeros((size, size)), np.zeros(size), 0
    before: pl.DataFrame | None = None
    for part in _chunks(parts, size):
        held = (
            part if before is None else pl.concat([before, part], rechunk=False)
        )  # with the session that the part's first is compared with
        old = held.height - part.height
        starts = _starts(held)
        units, known = _unit_ranks(held, factors, starts)
        finite += known[old:].sum(axis=0)
        rows += part.height
        spread = np.add.reduceat(units * units, starts[:-1]) > 0.5
        products += units[old:].T @ units[old:]
        new = spread[0 if before is None else 1 :].astype(float)
        shared += new.T @ new
        moved.append(_autocorrelation(held, units, starts, spread))
        ic, count = _coefficients(part, factors)
        days.extend(part["session"].unique(maintain_order=True))
        coefficients.append(ic)
        names.append(count)
        before = part.filter(pl.col("session") == part["session"][-1])
    ic, count = np.concatenate(coefficients), np.concatenate(names)
    return FactorMeasures(
        statistics=_summary(factors, ic, count, np.concatenate(moved), finite / max(rows, 1), _ratio(products, shared)),
        ic_sessions=pl.DataFrame({"session": days}, schema={"session": pl.Date}).hstack(_columns(factors, ic)),
        rows=rows,
    )


def _chunks(parts: Iterable[pl.DataFrame], factors: int) -> Iterator[pl.DataFrame]:
    """The parts cut between sessions, so that each has about CELLS values."""
    most = max(CELLS // max(factors, 1), 1)
    for part in parts:
        if part.is_empty():
            continue
        starts, cuts = _starts(part).tolist(), [0]
        for start, end in pairwise(starts):
            if end - cuts[-1] > most and start > cuts[-1]:
                cuts.append(start)
        for first, last in pairwise([*cuts, part.height]):
            yield part[first:last]


def _starts(rows: pl.DataFrame) -> Integers:
    """First row of every session, then the number of rows."""
    return np.concatenate([[0], np.cumsum(rows["session"].rle().struct.field("len").to_numpy())]).astype(np.int64)


def _matrix(rows: pl.DataFrame) -> Floats:
    return np.column_stack([column.to_numpy() for column in rows.iter_columns()]).astype(float, copy=False)


def _centred(ranks: Floats, starts: Integers) -> tuple[Floats, Integers]:
    """Ranks less their mean over the session, 0 where there is none; and how many there are in each session."""
    known = np.isfinite(ranks)
    count = np.add.reduceat(known.astype(np.int64), starts[:-1])
    middle = np.repeat((count + 1) / 2, np.diff(starts), axis=0)
    return np.where(known, ranks - middle, 0.0), count


def _unit_ranks(rows: pl.DataFrame, factors: Sequence[str], starts: Integers) -> tuple[Floats, NDArray[np.bool_]]:
    """Per session and factor a vector of length 1 (0 without spread), whose products are rank correlations; and what is finite."""
    ranks = _matrix(rows.select(_finite(name).rank("average").over("session") for name in factors))
    centred, _ = _centred(ranks, starts)
    length = np.sqrt(np.add.reduceat(centred * centred, starts[:-1]))
    return centred / np.repeat(np.where(length > 0, length, 1.0), np.diff(starts), axis=0), np.isfinite(ranks)


def _coefficients(rows: pl.DataFrame, factors: Sequence[str]) -> tuple[Floats, Floats]:
    """Information coefficient and number of names by session and factor, NaN where there is none."""
    starts = _starts(rows)
    label = _finite("label")
    both = {name: _finite(name).is_not_null() & label.is_not_null() for name in factors}
    scores = _matrix(rows.select(pl.when(both[name]).then(name).rank("average").over("session").alias(name) for name in factors))
    labels = _matrix(rows.select(pl.when(both[name]).then(label).rank("average").over("session").alias(name) for name in factors))
    (x, count), (y, _) = _centred(scores, starts), _centred(labels, starts)
    product, square_x, square_y = (np.add.reduceat(values, starts[:-1]) for values in (x * y, x * x, y * y))
    defined = (count >= MINIMUM_NAMES) & (square_x > 0) & (square_y > 0)
    ic = _ratio(product, np.where(defined, np.sqrt(square_x * square_y), 0.0)).clip(-1.0, 1.0)
    return ic, np.where(defined, count, np.nan)


def _autocorrelation(rows: pl.DataFrame, units: Floats, starts: Integers, spread: NDArray[np.bool_]) -> Floats:
    """Rank correlation of every session but the first with the one before it, by factor; NaN where one of the two has no spread."""
    at = pl.Series("at", np.repeat(np.arange(len(starts) - 1), np.diff(starts)))
    keyed = rows.select("symbol", at).with_row_index("row")
    earlier = keyed.select("symbol", pl.col("at") + 1, pl.col("row").alias("earlier"))
    pairs = keyed.join(earlier, on=["symbol", "at"], maintain_order="left")
    sums = np.zeros((len(starts) - 1, units.shape[1]))
    if pairs.height:
        runs = pairs["at"].rle().struct.unnest()
        lengths = runs["len"].to_numpy().astype(np.int64)
        products = units[pairs["row"].to_numpy()] * units[pairs["earlier"].to_numpy()]
        sums[runs["value"].to_numpy()] = np.add.reduceat(products, np.cumsum(lengths) - lengths)
    return np.where(spread[1:] & spread[:-1], sums[1:], np.nan)


def _finite(name: str) -> pl.Expr:
    return pl.when(pl.col(name).is_finite()).then(pl.col(name))


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


def _columns(factors: Sequence[str], values: Floats) -> pl.DataFrame:
    return pl.DataFrame([pl.Series(name, column, nan_to_null=True) for name, column in zip(factors, values.T, strict=True)])


def _summary(factors: Sequence[str], ic: Floats, names: Floats, moved: Floats, coverage: Floats, alike: Floats) -> pl.DataFrame:
    """One row per factor."""
    others = np.where(np.isnan(alike) | np.eye(len(factors), dtype=bool), 0.0, np.abs(alike))
    rows: list[dict[str, object]] = []
    for at, name in enumerate(factors):
        known = np.isfinite(ic[:, at])
        judged = summarise_ic(pl.DataFrame({"ic": ic[known, at], "names": names[known, at]}))
        turns = moved[np.isfinite(moved[:, at]), at]
        near = int(others[at].argmax()) if len(factors) > 1 and others[at].max() > 0 else None
        rows.append(
            {
                "factor": name,
                "ic_mean": judged and judged.mean,
                "ic_names": judged and judged.names,
                "ic_sessions": judged.sessions if judged else 0,
                "ic_standard_deviation": judged and judged.standard_deviation,
                "t_statistic": judged and judged.t_statistic,
                "positive_share": float((ic[known, at] > 0).mean()) if judged else None,
                "coverage": float(coverage[at]),
                "rank_autocorrelation": float(turns.mean()) if turns.size else None,
                "nearest": None if near is None else factors[near],
                "nearest_correlation": None if near is None else float(alike[at, near]),
            }
        )
    return pl.DataFrame(rows, schema=_SCHEMA)


_SCHEMA = {
    "factor": pl.String,
    "ic_mean": pl.Float64,
    "ic_names": pl.Float64,
    "ic_sessions": pl.Int64,
    "ic_standard_deviation": pl.Float64,
    "t_statistic": pl.Float64,
    "positive_share": pl.Float64,
    "coverage": pl.Float64,
    "rank_autocorrelation": pl.Float64,
    "nearest": pl.String,
    "nearest_correlation": pl.Float64,
}
