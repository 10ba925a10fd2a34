"""Faulty rows leave the chain and stay visible; a faulty feed stops the session; one changed bar reaches the report."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from adapters.sources.sample import SampleSource
from orchestration.definitions import alerting_of
from quant.alerts.alert import Alert, AlertKind, AlertSeverity
from quant.errors import AftercloseError
from tests.chain.conftest import Root, files_source, settings_of

FIRST, LAST = date(2009, 1, 2), date(2013, 1, 4)
PAPER = date(2013, 1, 2)
Change = Callable[[pl.DataFrame], pl.DataFrame]


def root_with(folder: Path, instance: dg.DagsterInstance, change: Change) -> Root:
    """A data root on the sample's bars as files, after ``change``."""
    folder.mkdir(parents=True)
    source = SampleSource()
    change(source.bars(FIRST, LAST).drop("vwap")).write_parquet(folder / "bars.parquet")
    source.actions(FIRST, LAST).write_parquet(folder / "actions.parquet")
    described = files_source(folder, convention="ex_date_close")
    return Root.make(folder / "data", settings_of(paper_start=str(PAPER), end=str(LAST), source=described), instance)


def at(symbol: str, session: date) -> pl.Expr:
    return (pl.col("symbol") == symbol) & (pl.col("session") == session)


def set_close(symbol: str, session: date, factor: float) -> Change:
    def change(bars: pl.DataFrame) -> pl.DataFrame:
        return bars.with_columns(close=pl.when(at(symbol, session)).then(pl.col("close") * factor).otherwise("close"))

    return change


def alerts(root: Root, instance: dg.DagsterInstance) -> list[Alert]:
    """What stands after a look at the runs."""
    alerting = alerting_of(root.defs)
    alerting.look_at_runs(instance)
    return [change.alert for _, change in alerting.outbox().standing()]


def figures(root: Root) -> pl.DataFrame:
    return root.table("performance").select("book", "session", "figure", "value")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory):
    with dg.DagsterInstance.ephemeral() as instance:
        root = root_with(tmp_path_factory.mktemp("clean") / "root", instance, lambda bars: bars)
        root.history()
        root.days([PAPER])
        yield root


@pytest.mark.parametrize(
    ("price", "moved_figures"),
    [
        ("close", {"total_return", "sharpe_ratio", "annualised_volatility", "max_drawdown"}),
        ("open", {"total_return", "sharpe_ratio", "annualised_volatility", "max_drawdown", "ic_mean", "ic_t_statistic"}),  # of the label
    ],
)
def test_one_changed_bar_moves_the_figures_of_the_report(clean: Root, tmp_path: Path, price: str, moved_figures: set[str]):
    def change(bars: pl.DataFrame) -> pl.DataFrame:
        widest = at(
            "GOOG", date(2012, 10, 18)
        )  # results came out early: 10 % from open to low, so the low is a lawful open that moves ranks
        return bars.with_columns(pl.when(widest).then("low").otherwise(price).alias(price))

    with dg.DagsterInstance.ephemeral() as instance:
        root = root_with(tmp_path / "root", instance, change)
        root.history()
        moved = figures(clean).join(figures(root), on=["book", "session", "figure"], how="full", coalesce=True)
    backtest = moved.filter(pl.col("book") == "backtest", pl.col("value") != pl.col("value_right"))["figure"].to_list()
    assert moved_figures <= set(backtest)


def test_a_bad_row_in_a_session_is_quarantined_and_the_rest_of_the_session_trades(tmp_path: Path):
    def change(bars: pl.DataFrame) -> pl.DataFrame:
        busy = pl.when(at("IBM", PAPER)).then(pl.col("volume") * 20).otherwise("volume")
        return set_close("MSFT", PAPER, -1.0)(bars).with_columns(volume=busy)

    with dg.DagsterInstance.ephemeral() as instance:
        root = root_with(tmp_path / "root", instance, change)
        root.history()
        failed = root.days([PAPER])[PAPER]
        told = alerts(root, instance)
    (row,) = (alert for alert in told if alert.symbol == "MSFT" and alert.rule == "r05_prices_positive")
    assert (row.kind, row.severity, row.session) == (AlertKind.FINDING, AlertSeverity.WARNING, PAPER)
    assert "close -" in row.observed
    assert row.path == "/assets/quarantined_bars?view=checks&checkDetail=nothing_is_quarantined"
    assert not [alert for alert in told if alert.kind is AlertKind.RUN]
    assert {(c.check, c.severity) for c in failed} >= {("nothing_is_quarantined", "WARN")}
    assert root.lake.read("quarantined_bars", first=PAPER, last=PAPER)["symbol"].to_list() == ["MSFT"]
    for table in ("accepted_bars", "adjusted_bars", "alpha158", "scores"):
        assert "MSFT" not in root.lake.read(table, first=PAPER, last=PAPER, columns=["symbol"])["symbol"]
        assert root.lake.read(table, first=PAPER, last=PAPER, columns=["symbol"]).height == 4
    assert root.lake.read("orders", first=PAPER, last=PAPER, where={"book": "paper"}).height > 0
    findings = root.lake.read("bar_findings", first=PAPER, last=PAPER)
    assert findings.select("symbol", "rule").rows() == [
        ("IBM", "r17_volume_outlier"),  # by the volumes of the history
        ("MSFT", "r04_low_is_lowest"),
        ("MSFT", "r05_prices_positive"),
    ]


def test_a_feed_fault_stops_the_session_before_anything_is_decided(tmp_path: Path):
    def change(bars: pl.DataFrame) -> pl.DataFrame:
        return bars.with_columns(close=pl.when(pl.col("session") == PAPER).then(-1.0).otherwise("close"))

    with dg.DagsterInstance.ephemeral() as instance:
        root = root_with(tmp_path / "root", instance, change)
        root.history()
        with pytest.raises(AftercloseError, match="was stopped by: feed_is_sound of accepted_bars"):
            root.days([PAPER])
        told = alerts(root, instance)
    (run,) = (alert for alert in told if alert.kind is AlertKind.RUN)
    assert (run.rule, run.session) == ("run of daily", PAPER)
    assert "feed_is_sound" in run.observed
    (stop,) = (alert for alert in told if alert.rule == "r21_feed_fault")
    assert (stop.severity, stop.symbol, stop.observed) == (AlertSeverity.ERROR, "*", "5 of 5 faulty (100.0 %)")
    assert root.ledger.orders("paper") == []
    assert root.ledger.decision("paper", PAPER) is None
    assert root.lake.read("accepted_bars", first=PAPER, last=PAPER).is_empty()
    assert root.lake.read("quarantined_bars", first=PAPER, last=PAPER).height == 5
