"""The page's charts as Plotly specifications.

Specifications stay small and themeable: a string "=name" stands for a column, which the page holds once, and "@name" for a colour of the
page's style sheet; the page's script puts both in before it draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import polars as pl

from adapters.report.figures import number, percent, usd
from quant.reports.performance import COST_KINDS

if TYPE_CHECKING:
    from quant.reports.model import ReportModel

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"

SHORT_AXIS_ROWS = 60  # up to here sessions are drawn as equal steps with a marker each, beyond it along a calendar
_LOGARITHMIC_FROM = 3.0  # highest over lowest index from which equal steps should be equal returns
_PERCENT = {
    "drawdown": -pl.col("drawdown"),
    "universe_drawdown": -pl.col("universe_drawdown"),
    "long": pl.col("long_ratio"),
    "short": pl.col("short_ratio"),
    "net": pl.col("net_ratio"),
    "turnover": pl.col("turnover_ratio"),
    "turnover_mean": pl.col("turnover_mean"),
}

TEMPLATE: Json = {
    "layout": {
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "@muted"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 62, "r": 12, "t": 32, "b": 32},
        "hovermode": "x unified",
        "hoverlabel": {"bgcolor": "@card", "bordercolor": "@line", "font": {"color": "@ink"}},
        "legend": {"orientation": "h", "x": 0, "y": 1.03, "yanchor": "bottom", "font": {"color": "@ink"}},
        "xaxis": {
            "showgrid": False,
            "zeroline": False,
            "linecolor": "@line",
            "ticks": "outside",
            "tickcolor": "@line",
            "automargin": True,
        },
        "yaxis": {"gridcolor": "@line", "zerolinecolor": "@muted", "zerolinewidth": 1, "title": {"standoff": 8}, "automargin": True},
    }
}
CONFIG: Json = {"responsive": True, "displayModeBar": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One chart: heading, a line of explanation, a text that says what the picture shows, and the Plotly specification."""

    id: str
    title: str
    explanation: str
    alternative: str
    spec: Mapping[str, Json]


def columns(model: ReportModel) -> dict[str, list[Json]]:
    """The drawn columns, rounded to what a screen can show: indices start at 100, ratios are in percent, costs in USD."""
    daily = model.daily.select(
        pl.col("session").dt.to_string("%Y-%m-%d"),
        book=(pl.col("index") * 100).round(2),
        universe=(pl.col("universe_index") * 100).round(2),
        **{name: (ratio * 100).round(2) + 0.0 for name, ratio in _PERCENT.items()},
        **{cost: pl.col(f"{cost}_to_date").round(0) for cost in COST_KINDS},
    )
    months = model.ic_months.select(
        month=pl.date("year", "month", 1).dt.to_string("%Y-%m"),
        ic=pl.col("ic").round(4),
        cumulative_ic=pl.col("cumulative_ic").round(4),
        ic_basis=pl.format("{} sessions, {} names", "sessions", pl.col("names").round(1)),
    )
    return {**daily.to_dict(as_series=False), **months.to_dict(as_series=False)}


def charts(model: ReportModel) -> dict[str, Chart]:
    """Every chart that has something to show, by id."""
    if model.daily.is_empty():
        return {}
    drawn = [_equity(model), _drawdown(model), _exposure(model), _turnover(model), _costs(model)]
    if model.ic_months.height:
        drawn.append(_information_coefficient(model))
    return {chart.id: chart for chart in drawn}


def _equity(model: ReportModel) -> Chart:
    daily = model.daily
    indices = pl.concat([daily["index"], daily["universe_index"].drop_nulls()])
    lowest, highest = float(indices.to_numpy().min()), float(indices.to_numpy().max())
    logarithmic = lowest > 0 and highest / lowest > _LOGARITHMIC_FROM
    book, universe = (_last(daily, name) for name in ("index", "universe_index"))
    return Chart(
        id="equity",
        title="Equity curve: growth of 100",
        explanation="The book after all costs, deposits and withdrawals taken out, against all accepted names of the universe in equal "
        "weights: rebalanced at every close, dividends in, no costs.",
        alternative=f"Line chart from {daily['session'][0]} to {daily['session'][-1]}: of 100 the book makes {number(_times(book, 100))}, "
        f"the equal-weight universe {number(_times(universe, 100))}.",
        spec=_spec(
            model,
            [
                _line(model, "book", f"Book {model.book}", "@blue", width=2),
                _line(model, "universe", "Equal-weight universe", "@grey", width=1.5, dash="dot"),
            ],
            y=_log_axis(lowest, highest) if logarithmic else {"title": {"text": "Index, start = 100"}, "hoverformat": ",.2f"},
        ),
    )


def _drawdown(model: ReportModel) -> Chart:
    depth = model.performance.max_drawdown if model.performance else None
    return Chart(
        id="drawdown",
        title="Drawdown",
        explanation="How far each stands below its highest point so far.",
        alternative=f"Area chart of the loss from the highest point so far; the book's deepest is {percent(depth)}.",
        spec=_spec(
            model,
            [
                _line(model, "drawdown", f"Book {model.book}", "@blue", width=1.5, fill="tozeroy", fillcolor="@blue-soft"),
                _line(model, "universe_drawdown", "Equal-weight universe", "@grey", width=1.2, dash="dot"),
            ],
            y={"title": {"text": "Below the peak, %"}, "rangemode": "tozero", "hoverformat": ".2f"},
        ),
    )


def _exposure(model: ReportModel) -> Chart:
    sides = {name: percent(_last(model.daily, f"{name}_ratio")) for name in ("long", "short", "net")}
    return Chart(
        id="exposure",
        title="Exposure",
        explanation="Market value of longs, shorts and their sum at each close.",
        alternative="Line chart of exposure in percent of net asset value; at the last close "
        + ", ".join(f"{k} {v}" for k, v in sides.items()),
        spec=_spec(
            model,
            [
                _line(model, "long", "Long", "@blue", width=1.5),
                _line(model, "short", "Short", "@orange", width=1.5),
                _line(model, "net", "Net", "@ink", width=1),
            ],
            y={"title": {"text": "Share of NAV, %"}, "hoverformat": ".1f"},
        ),
    )


def _turnover(model: ReportModel) -> Chart:
    mean = model.performance.turnover_daily if model.performance else None
    bars = _bars("turnover", "Session", "@sky")
    smooth = [] if _short(model) else [_line(model, "turnover_mean", "Mean of 21 sessions", "@blue", width=1.8)]
    return Chart(
        id="turnover",
        title="Turnover",
        explanation="Notional bought plus sold in a session over opening net asset value; replacing the whole book by another reads 200%.",
        alternative=f"Bar chart of turnover a session; the mean is {percent(mean, 1)} of net asset value.",
        spec=_spec(model, [bars, *smooth], y={"title": {"text": "Traded, % of NAV"}, "rangemode": "tozero", "hoverformat": ".1f"}),
    )


def _costs(model: ReportModel) -> Chart:
    kinds = {"slippage": "@orange", "commissions": "@blue", "borrow": "@purple", "regulatory_fees": "@grey"}
    short = _short(model)
    traces = [
        _bars(kind, _spoken(kind).capitalize(), colour)
        if short
        else {**_line(model, kind, _spoken(kind).capitalize(), colour, width=0.5), "stackgroup": "costs", "fillcolor": colour}
        for kind, colour in kinds.items()
    ]
    paid = ", ".join(f"{_spoken(kind)} {usd(_last(model.daily, f'{kind}_to_date'))}" for kind in kinds)
    return Chart(
        id="costs",
        title="Costs",
        explanation="Added up since the first session, by kind. Slippage and market impact are inside the fill prices.",
        alternative=f"Stacked chart of costs to date: {paid}.",
        spec=_spec(
            model, traces, y={"title": {"text": "Paid to date, USD"}, "rangemode": "tozero", "hoverformat": ",.0f"}, barmode="stack"
        ),
    )


def _spoken(kind: str) -> str:
    return kind.replace("_", " ")


def _information_coefficient(model: ReportModel) -> Chart:
    rows = model.ic_months.height
    x = {"type": "category", "nticks": 10} if rows <= SHORT_AXIS_ROWS else {"type": "date"}
    bars = {**_bars("ic", "Month", "@sky"), "x": "=month", "customdata": "=ic_basis", "hovertemplate": "%{y:.4f} (%{customdata})"}
    mean: Json = {
        "type": "scatter",
        "mode": "lines+markers" if rows <= 24 else "lines",
        "name": "Mean so far",
        "x": "=month",
        "y": "=cumulative_ic",
        "line": {"color": "@blue", "width": 2},
        "hovertemplate": "%{y:.4f}",
    }
    return Chart(
        id="ic",
        title="Information coefficient",
        explanation="Rank correlation of a session's scores with the returns that followed, averaged over the sessions of each month; "
        "0 is no foresight, and with few names single months say little.",
        alternative=f"Bar chart by month; the mean so far is {number(_last(model.ic_months, 'cumulative_ic'), 4)}.",
        spec={
            "data": [bars, mean],
            "layout": {
                "xaxis": x,
                "yaxis": {"title": {"text": "Rank correlation"}},
                "bargap": _few(rows),
            },
        },
    )


def _log_axis(lowest: float, highest: float) -> Json:
    ticks = [mantissa * 10**power for power in range(-2, 9) for mantissa in (1, 2, 5)]
    shown = [tick for tick in ticks if 50 * lowest <= tick <= 200 * highest]
    labels: dict[str, Json] = {"tickvals": shown, "ticktext": [f"{tick:,g}" for tick in shown]}
    return {"title": {"text": "Index, start = 100, log scale"}, "type": "log", "hoverformat": ",.2f", **labels}


def _few(bars: int) -> float:
    """Gap between bars: a handful stays slim."""
    return max(0.15, 1.0 - 0.08 * bars)


def _short(model: ReportModel) -> bool:
    return model.daily.height <= SHORT_AXIS_ROWS


def _spec(model: ReportModel, traces: Sequence[Json], *, y: Json, **layout: Json) -> dict[str, Json]:
    x: Json = {"type": "category", "nticks": 5} if _short(model) else {"type": "date", "hoverformat": "%a %Y-%m-%d"}
    return {"data": traces, "layout": {"xaxis": x, "yaxis": y, "bargap": _few(model.daily.height), **layout}}


def _line(model: ReportModel, column: str, name: str, colour: str, *, width: float, dash: str = "solid", **more: Json) -> dict[str, Json]:
    mode = "lines+markers" if _short(model) else "lines"
    line: Json = {"color": colour, "width": width, "dash": dash}
    return {"type": "scatter", "mode": mode, "name": name, "x": "=session", "y": f"={column}", "line": line, **more}


def _bars(column: str, name: str, colour: str) -> dict[str, Json]:
    return {"type": "bar", "name": name, "x": "=session", "y": f"={column}", "marker": {"color": colour, "line": {"width": 0}}}


def _last(frame: pl.DataFrame, column: str) -> float | None:
    value = frame[column][-1]
    return None if value is None else float(value)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
