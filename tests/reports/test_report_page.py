"""The page says what the tables say, fetches nothing, and reads well for every length of book."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
from collections.abc import Callable, Mapping
from datetime import date
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from adapters.report.charts import TEMPLATE
from adapters.report.figures import figures_table, number, percent, usd
from adapters.report.html import render_report
from quant.reports.model import ReportModel, report_model
from quant.tables import TABLES

Tables = Mapping[str, pl.DataFrame]
LAST = date(2013, 3, 1)


class Page(HTMLParser):
    """Tags, tiles, tables and embedded scripts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tiles: dict[str, str] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.scripts: dict[str, str] = {}
        self.text, self._open, self._buffer = "", "", ""
        self._script = self._caption = self._label = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._buffer = ""
        if tag == "script":
            self._script = dict(attrs).get("id") or "page"
        if tag == "tr":
            self.tables[self._caption].append([])

    def handle_data(self, data: str) -> None:
        self._buffer += data
        if not self._script:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        said = self._buffer.strip()
        if tag == "script":
            self.scripts[self._script], self._script = self._buffer, ""
        elif tag == "caption":
            self._caption = said
            self.tables[said] = []
        elif tag in ("td", "th"):
            self.tables[self._caption][-1].append(said)
        elif tag == "span" and self.tags[-1][1].get("class") == "label":
            self._label = said
        elif tag == "b":
            self.tiles[self._label] = said


def model_of(tables: Tables, book: str = "paper", profile: str = "sample") -> ReportModel:
    return report_model(tables, book=book, session=LAST, profile=profile, source="sample")


def value(text: str) -> float:
    """The number a cell shows; percentages as ratios."""
    plain = float(re.sub(r"[$,%+]", "", text))
    return plain / 100 if text.endswith("%") else plain


@pytest.fixture(scope="module")
def model(book_tables: Callable[..., Tables]) -> ReportModel:
    return model_of(book_tables(300, flows={50: 200_000}))


@pytest.fixture(scope="module")
def young(book_tables: Callable[..., Tables]) -> ReportModel:
    return model_of(book_tables(3))


@pytest.fixture(scope="module")
def page(model: ReportModel) -> Page:
    return Page(render_report(model))


def test_key_figures_are_those_of_the_performance_table(model: ReportModel, page: Page) -> None:
    table = dict(model.figures.select("figure", "value").rows())
    shown = {
        "Net asset value": ("closing_nav_usd", 0.005),
        "Total return": ("total_return", 5e-5),
        "Annualised return": ("annualised_return", 5e-5),
        "Annualised volatility": ("annualised_volatility", 5e-5),
        "Sharpe ratio": ("sharpe_ratio", 0.005),
        "Maximum drawdown": ("max_drawdown", 5e-5),
        "Turnover a session": ("turnover_daily", 5e-4),
        "Costs": ("costs_usd", 0.005),
        "Information coefficient": ("ic_mean", 5e-5),
    }
    assert set(page.tiles) == {*shown, "Equal-weight universe"}
    for label, (figure, rounding) in shown.items():
        assert value(page.tiles[label]) == pytest.approx(table[figure], abs=rounding * 1.0001), label
    assert value(page.tiles["Equal-weight universe"]) == pytest.approx(model.daily["universe_index"][-1] - 1, abs=5.001e-5)


@pytest.mark.parametrize(
    ("caption", "frame", "column", "heading"),
    [
        ("Positions at the close, largest first", "positions", "weight", "Weight"),
        ("Positions at the close, largest first", "positions", "pnl_to_date", "P&L, to date"),
        ("P&L by name to date", "contributions", "pnl", "P&L after costs"),
        ("Fills of the session", "fills", "notional", "Notional"),
        ("Fills of the session", "fills", "slippage_bps", "Slippage, bps"),
        ("From opening to closing net asset value", "bridge", "to_date_usd", "To date"),
        ("Findings by rule", "finding_counts", "to_date", "To date"),
        ("Orders by outcome of the risk review", "order_counts", "to_date", "To date"),
    ],
)
def test_tables_show_their_frames(model: ReportModel, page: Page, caption: str, frame: str, column: str, heading: str) -> None:
    header, *rows = page.tables[caption]
    want: list[float] = getattr(model, frame)[column].to_list()
    assert want
    assert [value(row[header.index(heading)]) for row in rows] == pytest.approx(want, abs=0.0501 if "bps" in heading else 0.00501)


def test_the_heat_map_holds_every_month_and_year(model: ReportModel, page: Page) -> None:
    header, *rows = page.tables["Monthly returns of the book"]
    months = {(int(row[0]), m): value(row[m]) for row in rows for m in range(1, 13) if row[m]}
    assert months == {(y, m): pytest.approx(r, abs=5.001e-4) for y, m, r, _ in model.months.rows()}
    assert [value(row[header.index("Total")]) for row in reversed(rows)] == pytest.approx(model.years["return"].to_list(), abs=5.001e-4)


def test_charts_draw_the_frames_columns(model: ReportModel, page: Page) -> None:
    drawn = json.loads(page.scripts["columns"])
    assert drawn["session"] == [str(day) for day in model.daily["session"]]
    for column, source in {"book": model.daily["index"] * 100, "drawdown": model.daily["drawdown"] * -100}.items():
        assert drawn[column] == pytest.approx(source.to_list(), abs=0.00501)
    assert drawn["slippage"] == pytest.approx(model.daily["slippage_to_date"].to_list(), abs=0.501)
    assert drawn["ic"] == pytest.approx(model.ic_months["ic"].to_list(), abs=5.001e-5)
    assert max(len(str(x)) for name, xs in drawn.items() if name not in ("session", "month", "ic_basis") for x in xs) < 12


def resolved(page: Page, spec: Any) -> Any:
    """A specification as the page's script completes it; a name that the page does not hold is a KeyError."""
    columns = json.loads(page.scripts["columns"])
    if isinstance(spec, str) and spec[:1] == "=":
        return columns[spec[1:]]
    if isinstance(spec, str) and spec[:1] == "@":
        return "#123456"
    if isinstance(spec, dict):
        return {key: resolved(page, item) for key, item in spec.items()}
    return [resolved(page, item) for item in spec] if isinstance(spec, list) else spec


@pytest.mark.parametrize("length", ["model", "young"])
def test_charts_are_valid_for_plotly_and_name_only_colours_the_page_has(length: str, request: pytest.FixtureRequest) -> None:
    import plotly.graph_objects as go

    html = render_report(request.getfixturevalue(length))
    page = Page(html)
    specs = json.loads(page.scripts["charts"])
    assert set(specs["charts"]) == {"equity", "drawdown", "exposure", "turnover", "costs", "ic"}
    for name, spec in specs["charts"].items():
        full = resolved(page, spec)
        go.Figure(data=full["data"], layout={**full["layout"], "template": resolved(page, TEMPLATE)})
        assert spec["layout"]["yaxis"]["title"]["text"], name
    colours = set(re.findall(r'"@([a-z-]+)"', page.scripts["charts"]))
    assert colours
    assert all(f"--{colour}:" in html for colour in colours)


def test_the_page_fetches_nothing(page: Page) -> None:
    addresses = [value for _, attrs in page.tags for name, value in attrs.items() if name in ("src", "href", "srcset", "action", "data")]
    assert addresses
    assert all(value and value.startswith(("#", "data:")) for value in addresses)
    targets = {attrs.get("id") for _, attrs in page.tags}
    assert {value[1:] for value in addresses if value and value.startswith("#")} <= targets
    policy = next(attrs["content"] for tag, attrs in page.tags if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_the_chart_library_inside_is_plotlys_own(page: Page) -> None:
    inside = gzip.decompress(base64.b64decode(page.scripts["library"]))
    assert inside == (files("plotly") / "package_data" / "plotly.min.js").read_bytes()


def test_text_from_outside_cannot_become_markup(book_tables: Callable[..., Tables]) -> None:
    bad = "</script><img src=x onerror=alert(1)>"
    tables = dict(book_tables(5))
    finding = {"session": LAST, "symbol": bad, "rule": bad, "severity": "warn", "expected": bad, "observed": bad}
    tables["bar_findings"] = pl.DataFrame([finding], schema=TABLES["bar_findings"].schema)
    page = Page(render_report(model_of(tables, profile=bad)))
    assert "img" not in {tag for tag, _ in page.tags}
    assert page.tables["Worst findings: by severity, then newest"][1][1] == bad
    assert bad in page.text


def test_charts_say_in_words_what_they_show_and_tables_have_headers(page: Page) -> None:
    charts = [attrs for _, attrs in page.tags if attrs.get("role") == "img"]
    assert len(charts) == 6
    assert all(len(attrs.get("aria-label") or "") > 30 for attrs in charts)
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs in page.tags if tag == "th")
    assert sum(tag == "caption" for tag, _ in page.tags) == sum(tag == "table" for tag, _ in page.tags)


def test_annualised_figures_of_a_short_history_are_marked(model: ReportModel, young: ReportModel) -> None:
    assert young.performance
    assert model.performance
    marked = {label for label, text in figures_table(young.performance) if "short history" in text}
    assert marked == {"Annualised return", "Annualised volatility", "Sharpe ratio", "Turnover a session", "Costs"}
    assert not any("short history" in text for _, text in figures_table(model.performance))
    assert render_report(young).count('class="doubtful"') == 3
    assert 'class="doubtful"' not in render_report(model)


@pytest.mark.parametrize("sessions", [1, 2])
def test_a_book_without_a_known_label_says_so(book_tables: Callable[..., Tables], sessions: int) -> None:
    page = Page(render_report(model_of(book_tables(sessions))))
    assert page.tiles["Information coefficient"] == "not yet known"
    assert "The information coefficient is not yet known" in page.text


def test_a_book_without_sessions_has_a_small_page_that_says_so(book_tables: Callable[..., Tables]) -> None:
    html = render_report(model_of(book_tables(2), book="nobody"))
    assert len(html) < 20_000
    assert "The book has no session up to 2013-03-01" in Page(html).text


def test_the_labels_for_a_terminal_line_up_between_books(model: ReportModel, young: ReportModel) -> None:
    assert model.performance
    assert young.performance
    assert [label for label, _ in figures_table(model.performance)] == [label for label, _ in figures_table(young.performance)]
    ic = dict(figures_table(model.performance))["Information coefficient"]
    assert re.fullmatch(r"-?\d\.\d{4} \(5\.0 names, 298 sessions, t-statistic -?\d+\.\d\d\)", ic)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (percent(-0.00001), "0.00%"),
        (percent(0.1234, signed=True), "+12.34%"),
        (percent(None), "not yet known"),
        (usd(-1234567.891), "-$1,234,567.89"),
        (usd(-0.001), "$0.00"),
        (number(-1234.5, 0), "-1,234"),
    ],
)
def test_numbers_read_the_same_everywhere(text: str, want: str) -> None:
    assert text == want


@pytest.mark.browser
def test_a_browser_draws_every_chart_and_asks_for_nothing(model: ReportModel, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    (tmp_path / "report.html").write_text(render_report(model))
    said: list[str] = []
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=[*quiet, "--disable-component-update", "--disable-sync"])
        tab = browser.new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: None if request.url.startswith("file:") else said.append(request.url))
        tab.goto((tmp_path / "report.html").as_uri())
        tab.wait_for_function("document.querySelectorAll('.chart .main-svg').length >= 6")
        drawn = tab.eval_on_selector_all(".chart.js-plotly-plot", "charts => charts.map(chart => chart.id)")
        browser.close()
    assert sorted(drawn) == ["costs", "drawdown", "equity", "exposure", "ic", "turnover"]
    assert said == []
