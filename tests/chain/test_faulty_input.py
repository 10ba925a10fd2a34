"""Faulty rows leave the chain and stay visible; a faulty feed stops the session; one changed bar reaches the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from adapters.sources.sample import SampleSource
from orchestration.definitions import alerting_of
from quant.alerts.alert import Alert, AlertKind, AlertSeverity
from quant.errors import AftercloseError
from tests.chain.conftest import Root, files_source, settings_of
from tests.fakes.alpaca_server import KEY_ID, SECRET, AlpacaServer

FIRST, LAST = date(2009, 1, 2), date(2013, 1, 4)
PAPER, LATER = date(2013, 1, 2), date(2013, 1, 18)
ALPACA = """[source]
kind = "alpaca"
universe = ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
[source.alpaca]
asof = 2013-01-04
first_session = 2009-01-02
data_url = "{url}"
trading_url = "{url}"
"""
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


@pytest.mark.slow
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


ONE_A_SESSION = {
    date(2013, 1, 3): ("MSFT", {"r14_unit_mix_up"}),
    date(2013, 1, 4): ("GOOG", {"r03_high_is_highest", "r04_low_is_lowest"}),
    date(2013, 1, 7): ("IBM", {"r05_prices_positive"}),
    date(2013, 1, 8): ("AAPL", {"r01_key_unique"}),
    date(2013, 1, 9): ("FB", {"r09_missing_session"}),
    date(2013, 1, 10): ("GOOG", {"r01_key_unique"}),  # a row that was dated too late met the one of that day
    date(2013, 1, 11): ("IBM", {"r16_split_suspect"}),
}
HALF = date(2013, 1, 14)


def with_a_fault_a_session(bars: pl.DataFrame) -> pl.DataFrame:
    """Every fault of ONE_A_SESSION, and half the feed of HALF missing."""
    prices = ["open", "high", "low", "close"]
    scaled = pl.when(at("MSFT", date(2013, 1, 3))).then(100.0).when(at("IBM", date(2013, 1, 7))).then(0.0).otherwise(1.0)
    unsplit = (pl.col("symbol") == "IBM") & (pl.col("session") >= date(2013, 1, 11))
    swapped = at("GOOG", date(2013, 1, 4))
    faulty = bars.with_columns(
        pl.col(*prices, "vwap") * scaled * pl.when(unsplit).then(0.5).otherwise(1.0),
        volume=pl.when(unsplit).then(pl.col("volume") * 2).otherwise("volume"),
    ).with_columns(high=pl.when(swapped).then("low").otherwise("high"), low=pl.when(swapped).then("high").otherwise("low"))
    twin = bars.filter(at("AAPL", date(2013, 1, 8))).with_columns(close="low")
    misdated = bars.filter(at("GOOG", date(2013, 1, 9))).with_columns(session=date(2013, 1, 10))
    half = (pl.col("session") == HALF) & pl.col("symbol").is_in(["AAPL", "FB", "GOOG"])
    return pl.concat([faulty.filter(~at("FB", date(2013, 1, 9)), ~half), twin, misdated])


@contextmanager
def files_of(folder: Path, bars: pl.DataFrame) -> Iterator[tuple[str, Callable[[pl.DataFrame], None]]]:
    """A [source] section of files with these bars, and what puts others in their place."""
    bars.write_parquet(folder / "bars.parquet")
    SampleSource().actions(FIRST, LATER).write_parquet(folder / "actions.parquet")
    yield (
        files_source(folder, convention="ex_date_close").replace('absent = ["vwap"]\n', ""),
        lambda other: other.write_parquet(folder / "bars.parquet"),
    )


@contextmanager
def alpaca_of(folder: Path, bars: pl.DataFrame) -> Iterator[tuple[str, Callable[[pl.DataFrame], None]]]:
    """The same from a server on the loopback."""
    with AlpacaServer(bars=bars, actions=SampleSource().actions(FIRST, LATER)) as server:
        yield ALPACA.format(url=server.url), server.serve


@pytest.mark.slow
@pytest.mark.parametrize("served", [files_of, alpaca_of])
def test_a_fault_a_session_costs_one_symbol_and_a_feed_cut_short_one_session_until_it_comes_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: Callable[..., Any]
):
    monkeypatch.setenv("APCA_API_KEY_ID", KEY_ID)
    monkeypatch.setenv("APCA_API_SECRET_KEY", SECRET)
    clean = SampleSource().bars(FIRST, LATER).with_columns(vwap=(pl.col("high") + pl.col("low")) / 2)
    faulty = with_a_fault_a_session(clean)
    with served(tmp_path, faulty) as (source, serve), dg.DagsterInstance.ephemeral() as instance:
        root = Root.make(tmp_path / "data", settings_of(paper_start=str(PAPER), end=str(LATER), source=source), instance)
        root.history()
        root.days([PAPER, *ONE_A_SESSION])
        with pytest.raises(AftercloseError, match="was stopped by: feed_is_sound of accepted_bars"):
            root.days([HALF])
        halved = root.lake.read("accepted_bars", first=HALF, last=HALF)
        serve(pl.concat([faulty, clean.filter(pl.col("session") == HALF, pl.col("symbol").is_in(["AAPL", "FB", "GOOG"]))]))
        root.days([HALF])
    blocked = root.lake.read("bar_findings", first=PAPER, last=date(2013, 1, 11)).filter(pl.col("severity") == "block")
    found = {day: (rows["symbol"].unique().item(), set(rows["rule"])) for (day,), rows in blocked.group_by("session")}
    assert found == ONE_A_SESSION
    accepted = root.lake.read("accepted_bars", first=PAPER, last=HALF)
    assert accepted.group_by("session").len().sort("session").rows() == [(PAPER, 5), *((day, 4) for day in (*ONE_A_SESSION, HALF))]
    for table in ("adjusted_bars", "alpha158", "scores"):
        own = root.lake.read(table, first=PAPER, last=HALF, columns=["session", "symbol"])
        assert own.sort("session", "symbol").equals(accepted.select("session", "symbol").sort("session", "symbol")), table
    assert halved.is_empty()
    assert set(root.lake.read("orders", first=PAPER, last=HALF, where={"book": "paper"})["session"]) == {PAPER, *ONE_A_SESSION, HALF}
