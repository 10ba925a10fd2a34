"""The report page: one self-contained HTML file, readable without a network."""

from __future__ import annotations

import base64
import gzip
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from adapters.report import tables
from adapters.report.charts import CONFIG, TEMPLATE, charts, columns
from adapters.report.figures import Figure, figures, figures_table, percent
from quant.reports.model import report_tables

if TYPE_CHECKING:
    from quant.reports.model import ReportModel

__all__ = ["figures_table", "render_report"]


def render_report(model: ReportModel) -> str:
    """The page of one book at one session as HTML text. It holds its charts' data and library, and its policy forbids it every request."""
    drawn = charts(model)
    page = environment().get_template("page.html.jinja")
    return page.render(
        model=model,
        figures=_tiles(model),
        charts=drawn,
        chart_data={"charts": {name: chart.spec for name, chart in drawn.items()}, "template": TEMPLATE, "config": CONFIG},
        columns=columns(model) if drawn else {},
        library=plotly() if drawn else "",
        months=tables.MONTHS,
        heat_map=tables.heat_map(model),
        bridge=tables.bridge(model),
        positions=tables.positions(model),
        contributions=tables.table("P&L by name to date", tables.best_and_worst(model.contributions), tables.CONTRIBUTIONS),
        fills=tables.table("Fills of the session", model.fills, tables.FILLS),
        denied=tables.table("Orders denied at this session's decision", model.orders_denied, tables.DENIED),
        order_counts=tables.table("Orders by outcome of the risk review", model.order_counts, tables.ORDER_COUNTS),
        finding_counts=tables.table("Findings by rule", model.finding_counts, tables.FINDING_COUNTS),
        findings=tables.table("Worst findings: by severity, then newest", model.findings, tables.FINDINGS, limit=12),
        parquet=sorted(report_tables(model)),
    )


def _tiles(model: ReportModel) -> list[Figure]:
    """The key figures without the number of sessions, which the header has; the universe's return beside the book's."""
    if model.performance is None:
        return []
    universe = model.daily["universe_index"][-1]
    beside = Figure(
        label="Equal-weight universe",
        value=percent(None if universe is None else universe - 1.0, signed=True),
        note="total return of all names, before costs",
    )
    _sessions, nav, total, *others = figures(model.performance)
    return [nav, total, beside, *others]


@cache
def environment() -> Environment:
    """Of the page's templates."""
    made = Environment(
        loader=PackageLoader("adapters", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return made


@cache
def plotly() -> str:
    """plotly.js, gzip and base64: 2.0 MB in the page instead of 4.8; the browser inflates it."""
    source = (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(source, compresslevel=6, mtime=0)).decode()
