"""Two data roots, one filled session by session, the other by history and backfill with another paper start, hold the same tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from adapters.clock import SystemClock
from adapters.sources.sample import SampleSource
from assets.features import model_features
from orchestration.definitions import build_chain
from orchestration.runs import run_job
from orchestration.settings import Settings
from quant.calendar import exchange_calendar
from quant.modelling.information_coefficient import information_coefficient, summarise_ic
from quant.tables import TABLES
from strategies.alpha_baseline.model import feature_digests
from tests.chain.conftest import Root, settings_of

DAYS = exchange_calendar()
MAY_BE_EMPTY = ("reconciliations", "broker_positions", "peer_bars", "bar_findings", "quarantined_bars", "factor_statistics")


@dataclass(frozen=True, kw_only=True)
class Window:
    """What lies between ``daily_from`` and ``history_to`` is done by daily sessions in one root and by the history in the other.

    Paper book and backtest cover the same sessions in both.
    """

    start: str
    backtest: tuple[str, str]
    daily_from: date
    history_to: date
    end: date
    extra: str = ""

    def settings(self, paper_start: date) -> Settings:
        first, last = self.backtest
        return settings_of(
            start=self.start,
            paper_start=str(paper_start),
            end=str(self.end),
            paper=f"start = {self.history_to}",
            backtest=f"start = {first}\nend = {last}",
            extra=self.extra,
        )


# The model of 2013 is trained by the daily chain in one root and by the history in the other, on factors of a library, too.
TURN_OF_A_YEAR = Window(
    start="2010-01-04",
    backtest=("2012-06-01", "2012-12-10"),
    daily_from=date(2012, 12, 31),
    history_to=date(2013, 1, 4),
    end=date(2013, 1, 7),
    extra=f'\n[strategy]\nfactors = "{Path(__file__).parent}/library.toml"\n',
)
# AAPL splits 2:1 on 2005-02-28.
SPLIT = Window(
    start="2003-01-02",
    backtest=("2005-01-03", "2005-02-18"),
    daily_from=date(2005, 2, 25),
    history_to=date(2005, 3, 2),
    end=date(2005, 3, 3),
)


@dataclass(frozen=True, kw_only=True)
class TwoWays:
    """The two roots of a window."""

    window: Window
    daily: Root
    history: Root

    def __iter__(self) -> Iterator[Root]:
        return iter((self.daily, self.history))


@pytest.fixture(
    scope="module",
    params=[pytest.param(TURN_OF_A_YEAR, id="turn of a year"), pytest.param(SPLIT, id="split", marks=pytest.mark.slow)],
)
def ways(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoWays]:
    window: Window = request.param
    folder = tmp_path_factory.mktemp("two-ways")
    with dg.DagsterInstance.ephemeral() as one, dg.instance_for_test() as two:
        daily = Root.make(folder / "daily", window.settings(window.daily_from), one)
        daily.history()
        for session in DAYS.sessions(window.daily_from, window.end):
            daily.days([session])
        history = Root.make(folder / "history", window.settings(window.history_to), two)
        history.history()
        history.days(DAYS.sessions(window.history_to, window.end))
        yield TwoWays(window=window, daily=daily, history=history)


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_the_same_digest(ways: TwoWays, table: str):
    empty = (*MAY_BE_EMPTY, *(() if ways.window.extra else ("user_factors",)))
    assert ways.daily.table(table).height > 0 or table in empty
    assert ways.daily.lake.digest(table) == ways.history.lake.digest(table)


def test_the_model_of_a_year_is_trained_before_its_first_score_whoever_asks_first(ways: TwoWays):
    crowned = [root.ledger.champion("alpha_baseline", ways.window.end) for root in ways]
    assert crowned[0] == crowned[1]
    assert crowned[0] is not None
    first, version = crowned[0]
    assert first == DAYS.on_or_after(date(ways.window.end.year, 1, 1))
    assert ways.daily.ledger.champion("alpha_baseline", DAYS.previous(first)) != crowned[0]
    assert ways.history.table("scores").filter(pl.col("session") >= first)["model_version"].unique().to_list() == [version]


def test_the_model_reads_the_factors_of_the_library_and_a_score_has_the_digest_of_all_its_columns(ways: TwoWays):
    if not ways.window.extra:
        return
    chain = build_chain(ways.history.settings, SampleSource(), SystemClock())
    last = ways.window.end
    rows = model_features(chain, ways.history.lake, last, last)
    assert rows.columns[-3:] == ["busy", "reversal", "steady"]
    assert rows.width == 2 + 158 + 3
    scored = ways.history.lake.read("scores", first=last, last=last)
    assert scored["feature_digest"].to_list() == list(feature_digests(rows))


def test_running_a_finished_session_again_changes_no_table(ways: TwoWays):
    before = {table: ways.history.lake.digest(table) for table in TABLES}
    entries = ways.history.ledger.entries("paper")
    ways.history.days([ways.window.history_to])
    assert {table: ways.history.lake.digest(table) for table in TABLES} == before
    assert ways.history.ledger.entries("paper") == entries


def test_the_paper_book_traded_and_its_parts_sum_to_its_value(ways: TwoWays):
    nav = ways.daily.table("daily_nav").filter(pl.col("book") == "paper")
    assert nav["session"].to_list() == DAYS.sessions(ways.window.history_to, ways.window.end)
    assert ways.daily.table("fills").filter(pl.col("book") == "paper").height > 0
    gap = nav.select(
        pl.col("opening_nav")
        + pl.sum_horizontal("price_pnl", "dividends", "cash_in_lieu", "write_offs", "interest", "external_flows")
        - pl.sum_horizontal("commissions", "regulatory_fees", "borrow")
        - pl.col("closing_nav")
    ).to_series()
    assert gap.abs().max() == 0


def test_every_decision_used_only_rows_known_at_its_instant(ways: TwoWays):
    for root in ways:
        for session in DAYS.sessions(ways.window.history_to, ways.window.end):
            decision, start = root.ledger.decision("paper", session), root.ledger.begun("paper", through=session)
            assert decision is not None
            assert start is not None
            assert (start.session, start.decision_at) == (session, decision.decision_at)
            used = root.lake.read("raw_bars", last=session)
            assert used["known_at"].max() <= decision.decision_at  # type: ignore[operator]
            assert decision.table_versions.keys() >= {"raw_bars", "alpha158", "scores"}


def test_the_report_on_factors_measures_what_was_known_before_the_paper_start(ways: TwoWays):
    root, last = ways.history, DAYS.previous(ways.window.history_to)
    run_job(root.defs, root.instance, "factors", partition=None, watch=lambda step, done, note: None)
    told = root.table("factor_statistics")
    assert told["session"].unique().to_list() == [last]
    labels = root.lake.read("forward_returns", last=last)
    for table, factor in (("alpha158", "KMID"), ("scores", "score")):
        scores = root.lake.read(table, last=last, columns=["session", "symbol", factor]).rename({factor: "score"}, strict=False)
        alone = summarise_ic(information_coefficient(scores, labels))
        row = told.row(by_predicate=pl.col("factor") == factor, named=True)
        assert alone is not None
        assert (row["origin"], row["ic_sessions"]) == (table, alone.sessions)
        assert (row["ic_mean"], row["t_statistic"]) == pytest.approx((alone.mean, alone.t_statistic))
    assert (root.path / "reports" / "factor-report" / f"{last}.html").exists()


def test_the_commit_of_a_table_names_the_run_that_made_it(ways: TwoWays):
    from deltalake import DeltaTable

    commits = DeltaTable(str(ways.daily.path / "lake" / "scores")).history()
    runs = {run.run_id for run in ways.daily.instance.get_runs()}
    assert {commit["run_id"] for commit in commits} <= runs
    assert all(len(commit["digest"]) == 64 for commit in commits)


def test_a_split_between_the_two_paper_starts_moves_the_index_and_no_label(ways: TwoWays):
    first, last = DAYS.shift(ways.window.daily_from, -3), ways.window.end
    around = ways.daily.table("forward_returns").filter(pl.col("session").is_between(first, last))
    assert set(around["symbol"]) > {"AAPL"}
    assert around["label"].abs().max() < 0.15  # type: ignore[operator]
    assert ways.daily.table("quarantined_bars").is_empty()
    levels = ways.daily.lake.read("adjusted_bars", first=first, last=last).filter(pl.col("symbol") == "AAPL")["split_index"]
    assert levels.unique().len() == (2 if ways.window is SPLIT else 1)
