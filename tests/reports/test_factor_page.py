"""The page on factors says what its table says, warns of chance, and fetches nothing."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from adapters.report.factors import render_factor_report
from adapters.report.figures import number
from adapters.report.publisher import ReportFolder
from quant.calendar import exchange_calendar
from quant.market.contracts import checked
from quant.modelling.factor_statistics import factor_statistics
from quant.reports.factors import FactorReport, factor_report_model
from quant.tables import TABLES
from tests.reports.test_report_page import Page

DAYS = exchange_calendar().sessions(date(2011, 1, 3), date(2011, 6, 30))
FACTORS = {
    "KMID": ("alpha158", "($close-$open)/$open"),
    "VWAP0": ("alpha158", "$vwap/$close"),
    "mine<b>": ("user_factors", "Mean($close, 5) < $open"),
    "score": ("scores", "a model"),
}


def report_of(sessions: int) -> FactorReport:
    rng = np.random.default_rng(5)
    rows = 4 * sessions
    label = rng.normal(size=rows)
    frame = pl.DataFrame(
        {
            "session": [day for day in DAYS[:sessions] for _ in range(4)],
            "symbol": list("ABCD") * sessions,
            "label": label,
            "KMID": rng.normal(size=rows),
            "VWAP0": [None] * rows,
            "mine<b>": label + rng.normal(size=rows),
            "score": -label,
        },
        schema_overrides={"session": pl.Date, "VWAP0": pl.Float64},
    )
    measures = factor_statistics([frame], list(FACTORS))
    return factor_report_model(
        measures, FACTORS, first=DAYS[0], session=DAYS[sessions], profile="test", source="sample", label="open_to_open"
    )


def test_the_page_has_every_factor_with_the_numbers_of_its_table_strongest_first():
    report = report_of(100)
    checked(report.figures, TABLES["factor_statistics"])
    header, *rows = Page(render_factor_report(report)).tables["Every factor, largest t-statistic by size first"]
    assert [row[0] for row in rows] == ["mine<b>", "KMID", "VWAP0", "score"] == report.figures["factor"].to_list()
    told = dict(zip(header, rows[0], strict=True))
    best = report.figures.row(0, named=True)
    assert best["t_statistic"] > 4
    assert (told["t-statistic"], told["Mean IC"]) == (number(best["t_statistic"]), number(best["ic_mean"], 4))
    assert (told["Names"], told["Sessions"], told["From"]) == ("4.0", "100", "library")


def test_the_page_says_what_chance_would_make_of_so_many():
    report = report_of(100)
    page = Page(render_factor_report(report))
    assert report.chance.factors == 2  # VWAP0 has no values, and a score that is always right has no dispersion
    assert page.tiles["Beyond 2 in size"] == "1"
    assert f"Only beyond {number(report.chance.threshold)} (Bonferroni" in page.text


def test_the_page_fetches_nothing_and_draws_the_course_of_the_strongest():
    page = Page(render_factor_report(report_of(100)))
    assert not [attrs for _, attrs in page.tags if any((attrs.get(name) or "").startswith(("http", "//")) for name in ("src", "href"))]
    columns = json.loads(page.scripts["columns"])
    charts = json.loads(page.scripts["charts"])["charts"]
    assert [trace["name"] for trace in charts["course"]["data"]] == ["mine<b>", "KMID"]
    assert columns["session"][-1] == str(DAYS[99])
    assert sum(columns["found"]) == 2


@pytest.mark.parametrize("sessions", [0, 1, 2])
def test_a_window_too_short_to_judge_makes_a_page_too(tmp_path: Path, sessions: int):
    page = Path(ReportFolder(tmp_path).publish_factors(report_of(sessions)))
    assert page.exists()
    assert pl.read_parquet(page.with_suffix("") / "factor_statistics.parquet").height == len(FACTORS)
