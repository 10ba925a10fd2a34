"""What the report on factors shows: every factor's statistics, what chance would make of so many, and the best ones' course."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from quant.modelling.factor_statistics import Chance, FactorMeasures, chance
from quant.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

SHOWN = 6  # factors whose course is drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorReport:
    """The page on the factors of one profile, measured over ``first_session`` to ``session`` with labels known at ``session``'s close.

    - figures: rows of table ``factor_statistics``, largest t-statistic by size first, factors without one last.
    - chance: what t-statistics of so many factors without foresight look like.
    - course: session (a month's last one) and, for the SHOWN first rows of figures in their order, the sum of coefficients so far.
    - ic_sessions: session and every factor's coefficient.
    """

    profile: str
    source: str
    label: str
    first_session: date
    session: date
    rows: int
    figures: pl.DataFrame
    chance: Chance
    course: pl.DataFrame
    ic_sessions: pl.DataFrame


def factor_report_model(
    measures: FactorMeasures,
    expressions: Mapping[str, tuple[str, str]],
    *,
    first: date,
    session: date,
    profile: str,
    source: str,
    label: str,
) -> FactorReport:
    """The report on ``measures``; ``expressions`` has (origin, expression) of every factor in it."""
    told = pl.DataFrame(
        [(name, origin, text) for name, (origin, text) in expressions.items()], schema=["factor", "origin", "expression"], orient="row"
    )
    figures = (
        measures.statistics.join(told, on="factor", how="left", validate="1:1")
        .with_columns(pl.lit(session).alias("session"))
        .select(list(TABLES["factor_statistics"].columns))
        .sort(pl.col("t_statistic").abs(), "origin", "factor", descending=[True, False, False], nulls_last=True)
    )
    best = figures.filter(pl.col("t_statistic").is_not_null())["factor"].head(SHOWN).to_list()
    return FactorReport(
        profile=profile,
        source=source,
        label=label,
        first_session=first,
        session=session,
        rows=measures.rows,
        figures=figures,
        chance=chance(figures["t_statistic"]),
        course=_course(measures.ic_sessions.select("session", *best)),
        ic_sessions=measures.ic_sessions,
    )


def factor_tables(report: FactorReport) -> dict[str, pl.DataFrame]:
    """Every frame behind the page by its name; figures go by their table's name."""
    return {"factor_statistics": report.figures, "course": report.course, "ic_sessions": report.ic_sessions}


def _course(ic: pl.DataFrame) -> pl.DataFrame:
    summed = ic.with_columns(pl.exclude("session").fill_null(0.0).cum_sum())
    return summed.group_by(pl.col("session").dt.truncate("1mo").alias("month"), maintain_order=True).last().drop("month")
