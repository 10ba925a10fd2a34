"""Two data roots, one filled session by session, the other by history and backfill with another paper start, hold the same tables."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from quant.calendar import exchange_calendar
from quant.tables import TABLES
from tests.chain.conftest import Root, settings_of

END = date(2013, 1, 11)
BOOK_START = date(2013, 1, 8)
# Paper book and backtest cover the same sessions in both roots; the boundary between history and daily chain does not.
BOOKS = {"paper": "start = 2013-01-08", "backtest": "start = 2012-06-01\nend = 2012-12-10"}


pytestmark = pytest.mark.xdist_group("two_ways")  # the data roots are filled once


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Root, Root]]:
    folder = tmp_path_factory.mktemp("two-ways")
    with dg.instance_for_test() as one, dg.instance_for_test() as two:
        daily = Root.make(folder / "daily", settings_of(paper_start="2012-12-20", end=str(END), **BOOKS), one)
        daily.history()
        for session in exchange_calendar().sessions(date(2012, 12, 20), END):
            daily.days([session])
        history = Root.make(folder / "history", settings_of(paper_start="2013-01-08", end=str(END), **BOOKS), two)
        history.history()
        history.days(exchange_calendar().sessions(date(2013, 1, 8), END))
        yield daily, history


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_the_same_digest(roots: tuple[Root, Root], table: str):
    daily, history = roots
    assert daily.table(table).height > 0 or table in ("bar_findings", "quarantined_bars")
    assert daily.lake.digest(table) == history.lake.digest(table)


def test_the_model_of_a_new_year_is_trained_before_its_first_score_whoever_asks_first(roots: tuple[Root, Root]):
    daily, history = roots
    crowned = [root.ledger.champion("alpha_baseline", END) for root in roots]
    assert crowned[0] == crowned[1]
    assert crowned[0] is not None
    assert crowned[0][0] == date(2013, 1, 2)
    assert daily.ledger.champion("alpha_baseline", date(2012, 12, 31)) != crowned[0]
    assert history.table("scores").filter(pl.col("session") >= date(2013, 1, 2))["model_version"].unique().to_list() == [crowned[0][1]]


def test_running_a_finished_session_again_changes_no_table(roots: tuple[Root, Root]):
    _, history = roots
    before = {table: history.lake.digest(table) for table in TABLES}
    entries = history.ledger.entries("paper")
    history.days([date(2013, 1, 9)])
    assert {table: history.lake.digest(table) for table in TABLES} == before
    assert history.ledger.entries("paper") == entries


def test_the_paper_book_traded_and_its_parts_sum_to_its_value(roots: tuple[Root, Root]):
    nav = roots[0].table("daily_nav").filter(pl.col("book") == "paper")
    assert nav["session"].to_list() == exchange_calendar().sessions(BOOK_START, END)
    assert roots[0].table("fills").filter(pl.col("book") == "paper").height > 0
    gap = nav.select(
        pl.col("opening_nav")
        + pl.sum_horizontal("price_pnl", "dividends", "cash_in_lieu", "external_flows")
        - pl.sum_horizontal("commissions", "borrow")
        - pl.col("closing_nav")
    ).to_series()
    assert gap.abs().max() == 0


def test_every_decision_used_only_rows_known_at_its_instant(roots: tuple[Root, Root]):
    for root in roots:
        for session in exchange_calendar().sessions(BOOK_START, END):
            decision = root.ledger.decision("paper", session)
            assert decision is not None
            used = root.lake.read("raw_bars", last=session)
            assert used["known_at"].max() <= decision.decision_at  # type: ignore[operator]
            assert decision.table_versions.keys() >= {"raw_bars", "alpha158", "scores"}


def test_the_commit_of_a_table_names_the_run_that_made_it(roots: tuple[Root, Root], tmp_path: Path):
    from deltalake import DeltaTable

    commits = DeltaTable(str(roots[0].path / "lake" / "scores")).history()
    runs = {run.run_id for run in roots[0].instance.get_runs()}
    assert {commit["run_id"] for commit in commits} <= runs
    assert all(len(commit["digest"]) == 64 for commit in commits)
