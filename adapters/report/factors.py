"""The page on factors: one self-contained HTML file that looks and is made like that of a book."""

from __future__ import annotations

from functools import partial
from math import exp, pi, sqrt
from typing import TYPE_CHECKING

import polars as pl

from adapters.report.charts import CONFIG, TEMPLATE, Chart, Json
from adapters.report.figures import Figure, number, percent
from adapters.report.html import environment, plotly
from adapters.report.tables import Field, Table, table

if TYPE_CHECKING:
    from quant.reports.factors import FactorReport

_COLOURS = ("@blue", "@orange", "@purple", "@ink", "@sky", "@grey")
_BIN = 0.5  # of t-statistics
_ORIGINS = {"alpha158": "Alpha158", "user_factors": "library", "scores": "model"}
_RATIO, _SHARE = partial(number, decimals=3), partial(percent, decimals=1)

FIELDS = (
    Field(label="Factor", column="factor"),
    Field(label="From", column="from"),
    Field(label="t-statistic", column="t_statistic", text=number),
    Field(label="Mean IC", column="ic_mean", text=partial(number, decimals=4)),
    Field(label="IC st. dev.", column="ic_standard_deviation", text=_RATIO),
    Field(label="Sessions", column="ic_sessions", text=partial(number, decimals=0)),
    Field(label="Names", column="ic_names", text=partial(number, decimals=1)),
    Field(label="IC above 0", column="positive_share", text=_SHARE),
    Field(label="Coverage", column="coverage", text=_SHARE),
    Field(label="Rank autocorr.", column="rank_autocorrelation", text=_RATIO),
    Field(label="Nearest factor", column="nearest"),
    Field(label="Correlation", column="nearest_correlation", text=partial(number, decimals=2)),
)
OWN = (FIELDS[0], *FIELDS[2:4], *FIELDS[5:7], *FIELDS[8:10], Field(label="Computed by", column="expression"))


def render_factor_report(report: FactorReport) -> str:
    """The page as HTML text."""
    drawn = {chart.id: chart for chart in ([_course(report), _spread(report)] if report.course.width > 1 else [])}
    own = report.figures.filter(pl.col("origin") != "alpha158")
    page = environment().get_template("factors.html.jinja")
    return page.render(
        report=report,
        figures=_tiles(report),
        beyond=number(report.chance.expected, 1),
        threshold=number(report.chance.threshold),
        charts=drawn,
        chart_data={"charts": {name: chart.spec for name, chart in drawn.items()}, "template": TEMPLATE, "config": CONFIG},
        columns=_columns(report),
        library=plotly() if drawn else "",
        statistics=_statistics(report),
        expressions=dict(report.figures.select("factor", "expression").iter_rows()),
        own=table("Your library and the model", own, OWN, limit=1000),
    )


def _tiles(report: FactorReport) -> list[Figure]:
    told, best = report.chance, report.figures.drop_nulls("t_statistic").head(1).to_dicts()
    strongest, judged = "none", ""
    if best:
        row = best[0]
        strongest = f"t {number(row['t_statistic'])}"
        judged = f"{row['factor']}, IC {number(row['ic_mean'], 4)}, {number(row['ic_names'], 1)} names, {row['ic_sessions']:,} sessions"
    return [
        Figure(label="Factors", value=f"{report.figures.height:,}", note=f"{told.factors:,} with a t-statistic"),
        Figure(label="Strongest", value=strongest, note=judged),
        Figure(label="Beyond 2 in size", value=f"{told.beyond_usual}", note=f"chance alone: {number(told.expected, 1)}"),
        Figure(label="Beyond the bound", value=f"{told.beyond_threshold}", note=f"{number(told.threshold)} (Bonferroni), 5% over all"),
        Figure(label="Rows", value=f"{report.rows:,}", note=f"{report.first_session} to {report.session}"),
    ]


def _statistics(report: FactorReport) -> Table:
    named = report.figures.with_columns(pl.col("origin").replace_strict(_ORIGINS).alias("from"))
    return table("Every factor, largest t-statistic by size first", named, FIELDS, limit=1000)


def _columns(report: FactorReport) -> dict[str, list[Json]]:
    dates = report.course.select(pl.col("session").dt.to_string("%Y-%m-%d"))
    course = report.course.select(pl.col(name).round(2).alias(f"c{at}") for at, name in enumerate(report.course.columns[1:]))
    centres, found, expected = _bins(report)
    return {
        **dates.to_dict(as_series=False),
        **course.to_dict(as_series=False),
        "t": list(centres),
        "found": list(found),
        "expected": [round(value, 2) for value in expected],
    }


def _bins(report: FactorReport) -> tuple[list[float], list[int], list[float]]:
    """Middle of every bin of t-statistics, how many are in it, and how many of a standard normal variable would be."""
    known = report.figures["t_statistic"].drop_nulls()
    places = (known / _BIN).round(0).cast(pl.Int64)
    reach = max(6, *(abs(place) for place in places)) if known.len() else 6
    counts = dict(places.value_counts().iter_rows())
    centres = [place * _BIN for place in range(-reach, reach + 1)]
    expected = [known.len() * _BIN * exp(-(t**2) / 2) / sqrt(2 * pi) for t in centres]
    return centres, [counts.get(place, 0) for place in range(-reach, reach + 1)], expected


def _course(report: FactorReport) -> Chart:
    names = report.course.columns[1:]
    traces: list[Json] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": "=session",
            "y": f"=c{at}",
            "line": {"color": _COLOURS[at % len(_COLOURS)], "width": 1.8},
        }
        for at, name in enumerate(names)
    ]
    return Chart(
        id="course",
        title="The strongest factors: information coefficients added up",
        explanation="A steady slope is a factor that worked all along; one that rises and stays flat worked once. Chosen by hindsight: the "
        "strongest of many on the very window they are drawn over.",
        alternative=f"Line chart of the running sums of {', '.join(names)}, by month.",
        spec={
            "data": traces,
            "layout": {
                "xaxis": {"type": "date", "hoverformat": "%Y-%m-%d"},
                "yaxis": {"title": {"text": "Sum of IC"}, "hoverformat": ".1f"},
            },
        },
    )


def _spread(report: FactorReport) -> Chart:
    bars: Json = {
        "type": "bar",
        "name": "Factors",
        "x": "=t",
        "y": "=found",
        "marker": {"color": "@sky", "line": {"width": 0}},
        "hovertemplate": "%{y}",
    }
    line: Json = {
        "type": "scatter",
        "mode": "lines",
        "name": "Chance alone",
        "x": "=t",
        "y": "=expected",
        "line": {"color": "@orange", "width": 2, "shape": "spline"},
        "hovertemplate": "%{y:.1f}",
    }
    return Chart(
        id="spread",
        title="All t-statistics against chance",
        explanation="Factors without foresight would fill the curve. Many factors of a library are alike, so its bars come in clumps.",
        alternative=f"Histogram of {report.chance.factors} t-statistics with the normal curve; {report.chance.beyond_usual} are beyond 2.",
        spec={
            "data": [bars, line],
            "layout": {"xaxis": {"title": {"text": "t-statistic"}}, "yaxis": {"title": {"text": "Factors"}}, "bargap": 0.1},
        },
    )
