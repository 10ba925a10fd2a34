"""Expectations of a session's batch as Great Expectations evaluates them, from the broken bar to the page and the alert."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from adapters.clock import SystemClock
from adapters.expectations import DataDocs
from adapters.sources.sample import SampleSource
from orchestration.definitions import alerting_of, build_definitions
from quant.alerts.alert import Alert, AlertKind, AlertSeverity
from quant.ports import BatchReviewer
from quant.quality.expectations import ExpectationSettings, session_batch, session_suite
from quant.tables import TABLES
from tests.chain.conftest import Root, files_source, settings_of

FIRST, SESSION = date(2012, 12, 3), date(2013, 1, 4)
BARS = (
    SampleSource().bars(FIRST, SESSION).with_columns(vwap=pl.mean_horizontal("high", "low")).select(list(TABLES["accepted_bars"].columns))
)
BEFORE = BARS.filter(pl.col("session") < SESSION)
BATCH = session_batch(BARS, BEFORE, SESSION)
SUITE = session_suite(BATCH, BEFORE, SESSION, absent=(), settings=ExpectationSettings())
AAPL = pl.col("symbol") == "AAPL"


@pytest.fixture
def docs(tmp_path: Path) -> DataDocs:
    return DataDocs(tmp_path / "data-docs", pages=2)


def set_to(column: str, value: object) -> pl.DataFrame:
    return BATCH.with_columns(pl.when(AAPL).then(pl.lit(value)).otherwise(column).alias(column))


BROKEN: dict[str, tuple[pl.DataFrame, dict[str, str]]] = {
    "nothing": (BATCH, {}),
    "a column too many": (
        BATCH.with_columns(note=1.0),
        {"e01_columns": "['close', 'high', 'low', 'move', 'note', 'open', 'session', 'symbol', 'volume', 'vwap']"},
    ),
    "whole numbers": (BATCH.with_columns(pl.col("volume").cast(pl.Int64)), {"e02_type_of_volume": "int64"}),
    "a row of another session": (set_to("session", "2013-01-03"), {"e03_one_session": "1 of 5 rows: AAPL session 2013-01-03"}),
    "a symbol twice": (
        pl.concat([BATCH, BATCH.filter(AAPL)]),
        {"e04_symbol_unique": "2 of 6 rows: AAPL session 2013-01-04, AAPL session 2013-01-04"},
    ),
    "no volume": (set_to("volume", None), {"e05_volume_there": "1 of 5 rows: AAPL volume None"}),
    "no average price": (set_to("vwap", None), {"e05_vwap_there": "1 of 5 rows: AAPL vwap None"}),
    "an open beyond both ends": (
        set_to("open", 1.0),
        {"e06_low_not_above_open": "1 of 5 rows: AAPL open 1 low 525.8286"},
    ),
    "a price in other units": (
        BATCH.with_columns((pl.col(name) * 10_000).alias(name) for name in ("open", "high", "low", "close")),
        {"e07_price_range": "3 of 5 rows: AAPL close 5,270,000, GOOG close 7,379,700, IBM close 1,939,900"},
    ),
    "a negative volume": (set_to("volume", -1.0), {"e08_volume_range": "1 of 5 rows: AAPL volume -1"}),
    "a cut feed": (
        BATCH.head(3),
        {"e09_row_count": "3"},
    ),
    "a stranger": (set_to("symbol", "<b>X</b>"), {"e10_symbols_known": "1 of 5 rows: <b>X</b>"}),
    "volume of five sessions": (BATCH.with_columns(pl.col("volume") * 5), {"e11_volume_sum": "776,821,500"}),
    "a market that jumps": (BATCH.with_columns(move=pl.lit(-0.2)), {"e12_median_move": "-0.2"}),
    "yesterday's closes": (
        BATCH.with_columns(move=pl.lit(0.0)),
        {"e13_closes_change": "5 of 5 rows: AAPL move 0, FB move 0, GOOG move 0, ..."},
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_each_fault_fails_its_expectation_and_no_other(docs: DataDocs, fault: str):
    assert isinstance(docs, BatchReviewer)
    batch, failures = BROKEN[fault]
    outcomes = docs.review(batch, SUITE, SESSION).outcomes
    assert [outcome.expectation for outcome in outcomes] == list(SUITE)
    assert {outcome.expectation.id: outcome.observed for outcome in outcomes if not outcome.passed} == failures


def test_what_cannot_be_evaluated_has_failed_and_says_why(docs: DataDocs):
    failed = {o.expectation.id: o.observed for o in docs.review(BATCH.drop("vwap"), SUITE, SESSION).outcomes if not o.passed}
    assert set(failed) == {"e01_columns", "e05_vwap_there"}
    assert failed["e05_vwap_there"].startswith('it could not be evaluated: Error: The column "vwap" in BatchData does not exist.')


def test_an_empty_session_fails_by_its_rows_and_sums(docs: DataDocs):
    failed = {o.expectation.id: o.observed for o in docs.review(BATCH.head(0), SUITE, SESSION).outcomes if not o.passed}
    assert failed == {"e09_row_count": "0", "e11_volume_sum": "0", "e12_median_move": "None"}


def test_the_page_shows_what_failed_asks_for_nothing_and_takes_no_markup_from_a_symbol(docs: DataDocs):
    page = Path(docs.review(set_to("symbol", "<b>X</b>"), SUITE, SESSION).page)
    assert page.name == "2013-01-04.html"
    text = page.read_text()
    assert "1 failed" in text
    assert "<td>one of the 5 symbols of 22 sessions before</td><td>1 of 5 rows: &lt;b&gt;X&lt;/b&gt;</td>" in text
    assert "Values in <span" in text  # of Data Docs
    assert text.count("&lt;b&gt;X&lt;/b&gt;") == 2
    assert not [foreign for foreign in ("<b>X", "<script", "<img", "<link", "http:", "https:", " src=") if foreign in text]
    assert "default-src 'none'" in text


def test_a_session_has_one_page_and_only_the_newest_are_kept(docs: DataDocs, tmp_path: Path):
    days = [SESSION + timedelta(days=n) for n in (0, 1, 2, 2)]
    pages = [docs.review(BATCH, SUITE, day).page for day in days]
    assert sorted((tmp_path / "data-docs").iterdir()) == sorted({*(Path(page) for page in pages[1:]), tmp_path / "data-docs/index.html"})
    assert "all met" in Path(pages[-1]).read_text()
    failing = docs.review(BATCH.head(0), SUITE, days[1]).page
    index = (tmp_path / "data-docs" / "index.html").read_text()
    assert index.index(Path(pages[-1]).name) < index.index(Path(failing).name), "the newest first"
    assert f"1 of {len(set(pages[1:]))} with a failure" in index
    assert f"{len(SUITE) - 3} of {len(SUITE)}</td>" in index


# From a broken bar to the alert.

MARKET = ("raw_bars", "corporate_actions", "bar_findings", "accepted_bars", "quarantined_bars")
BUSY, SOUND = date(2013, 1, 2), date(2013, 1, 3)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """A data root with a market history, on the sample's bars as files; in BUSY all volumes are six times as large."""
    folder = tmp_path_factory.mktemp("expectations")
    source, first = SampleSource(), date(2009, 1, 2)
    busy = pl.when(pl.col("session") == BUSY).then(pl.col("volume") * 6).otherwise("volume")
    source.bars(first, SESSION).drop("vwap").with_columns(volume=busy).write_parquet(folder / "bars.parquet")
    source.actions(first, SESSION).write_parquet(folder / "actions.parquet")
    described = files_source(folder, convention="ex_date_close")
    settings = settings_of(paper_start=str(BUSY), end=str(SESSION), source=described, expectations=True)
    with dg.DagsterInstance.ephemeral() as instance:
        root = Root.make(folder / "data", settings, instance)
        assert run(root, "history", ["market_history"], None).success
        yield root


def run(root: Root, job: str, assets: Sequence[str], session: date | None) -> dg.ExecuteInProcessResult:
    """Some assets of a job."""
    keys = [dg.AssetKey(name) for name in assets]
    partition = session.isoformat() if session else None
    return root.defs.resolve_job_def(job).execute_in_process(instance=root.instance, asset_selection=keys, partition_key=partition)


def standing(root: Root, session: date) -> dict[str, Alert]:
    """Alerts of the suite on a session that stand after a look at the runs, by rule."""
    alerting = alerting_of(root.defs)
    alerting.look_at_runs(root.instance)
    alerts = [change.alert for _, change in alerting.outbox().standing() if change.alert.session == session]
    return {alert.rule: alert for alert in alerts if alert.rule.startswith(("e0", "e1", "expectations_are_met"))}


def test_a_failing_expectation_is_a_failed_check_with_its_page_and_an_alert_and_stops_nothing(root: Root):
    done = run(root, "daily", MARKET, BUSY)
    assert done.success
    (check,) = (e for e in done.get_asset_check_evaluations() if e.check_name == "expectations_are_met")
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    page = root.path / "reports" / "data-docs" / f"{BUSY}.html"
    made = {made.label: made.metadata for made in done.asset_materializations_for_node("gated_bars")}
    for metadata in (check.metadata, made["accepted_bars"]):
        linked = [value.path for value in metadata.values() if isinstance(value, dg.PathMetadataValue)]
        assert linked == [str(page), str(page.with_name("index.html"))]
    assert "e11_volume_sum" in page.read_text()
    told = standing(root, BUSY)
    assert set(told) == {"e11_volume_sum", "expectations_are_met of accepted_bars"}
    finding, accepted = told["e11_volume_sum"], root.lake.read("accepted_bars", first=BUSY, last=BUSY)
    assert (finding.kind, finding.severity, finding.session, finding.symbol) == (AlertKind.FINDING, AlertSeverity.WARNING, BUSY, "*")
    assert "shares in all, after a median of" in finding.expected
    assert int(finding.observed.replace(",", "")) == accepted["volume"].sum()
    assert finding.path == "/assets/accepted_bars?view=checks&checkDetail=expectations_are_met"
    assert accepted.height == 5


def test_a_sound_session_passes_and_a_reviewer_that_breaks_is_told_and_stops_nothing(root: Root):
    run(root, "daily", MARKET, BUSY)  # whichever test comes first
    assert run(root, "daily", MARKET, SOUND).success
    assert standing(root, SOUND) == {}
    docs = root.path / "reports" / "data-docs"
    docs.rename(docs.with_name("moved"))
    docs.write_text("no folder")
    assert run(root, "daily", MARKET, SOUND).success
    told = standing(root, SOUND)
    assert set(told) == {"e00_evaluated", "expectations_are_met of accepted_bars"}
    assert told["e00_evaluated"].observed.startswith("FileExistsError: ")
    assert told["expectations_are_met of accepted_bars"].severity is AlertSeverity.ERROR


def test_without_the_suite_there_is_no_check_of_it(tmp_path: Path):
    settings = settings_of(paper_start="2013-01-02", end="2013-01-04")
    assert not settings.expectations.enabled
    defs = build_definitions(settings, tmp_path, SystemClock())
    assert "expectations_are_met" not in {key.name for key in defs.resolve_asset_graph().asset_check_keys}
