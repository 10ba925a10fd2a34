"""Information coefficient: how well scores order the names of a session by what they returned afterwards.

Source: Grinold and Kahn, Active Portfolio Management, 2nd edition, chapter 6; rank form as in Qlib's ``rank_ic``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Literal

import polars as pl

from quant.errors import ContractError, expected

MINIMUM_NAMES = 3
KEY = ["session", "symbol"]
_ROUNDING = 1e-12  # a standard deviation below it is rounding of equal coefficients


@dataclass(frozen=True, slots=True, kw_only=True)
class IcSummary:
    """An information coefficient with what it takes to judge it.

    ``mean`` and ``standard_deviation`` (sample, ddof 1) are over ``sessions``, ``names`` is the mean number of names a session.
    ``t_statistic`` is mean / standard_deviation x sqrt(sessions) and takes sessions as independent, which holds as long as labels do not
    overlap. The last two are None where one session, or no dispersion over sessions, leaves them undefined.
    """

    mean: float
    sessions: int
    names: float
    standard_deviation: float | None
    t_statistic: float | None


def information_coefficient(
    scores: pl.DataFrame, forward_returns: pl.DataFrame, method: Literal["spearman", "pearson"] = "spearman"
) -> pl.DataFrame:
    """session, ic, names: the correlation of ``score`` and ``label`` over the names of a session that have both, finite.

    One row per session with at least 3 such names and some spread in both; other sessions have no row. "spearman" ranks with average
    ties (scipy.stats.spearmanr). Rows are keyed by session and symbol: a second score for a key is a ContractError. The order of the rows
    does not matter, to the last bit.
    """
    paired = _one_per_key(scores, "score").join(_one_per_key(forward_returns, "label"), on=KEY).sort(KEY)
    score, label = (pl.col(name).rank("average") if method == "spearman" else pl.col(name) for name in ("score", "label"))
    spread = pl.min_horizontal(pl.col("score").n_unique(), pl.col("label").n_unique())
    return (
        paired.group_by("session", maintain_order=True)
        .agg(ic=pl.corr(score, label).clip(-1.0, 1.0), names=pl.len().cast(pl.Int64), spread=spread)
        .filter(pl.col("names") >= MINIMUM_NAMES, pl.col("spread") > 1)
        .select("session", "ic", "names")
    )


def summarise_ic(per_session: pl.DataFrame) -> IcSummary | None:
    """The summary of ``information_coefficient``'s rows; None while there are none."""
    sessions = per_session.height
    if not sessions:
        return None
    values, names = (per_session[name].cast(pl.Float64).to_numpy() for name in ("ic", "names"))
    mean = float(values.mean())
    deviation = float(values.std(ddof=1)) if sessions > 1 else None
    return IcSummary(
        mean=mean,
        sessions=sessions,
        names=float(names.mean()),
        standard_deviation=deviation,
        t_statistic=mean / deviation * sqrt(sessions) if deviation is not None and deviation > _ROUNDING else None,
    )


def _one_per_key(frame: pl.DataFrame, value: str) -> pl.DataFrame:
    if repeated := frame.height - frame.select(KEY).n_unique():
        raise ContractError(
            expected(
                "one row per session and symbol",
                found=f"{repeated} more",
                where=f"the rows that hold {value}",
                do="pass the rows of the model in force only",
            )
        )
    return frame.filter(pl.col(value).is_finite()).select(*KEY, value)
