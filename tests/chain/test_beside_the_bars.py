"""What the gate is given beside the bars, in a history and in daily sessions alike: listing dates and the closes of a second source."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import stamina

from adapters.clock import SystemClock
from adapters.sources.sample import SampleSource
from assets.market import gate_bars
from orchestration.definitions import alerting_of, bar_source, build_chain
from quant.calendar import exchange_calendar
from quant.errors import InputError
from quant.ports import SessionStart
from tests.chain.conftest import Root, files_source, settings_of
from tests.fakes.alpaca_server import KEY_ID, SECRET, AlpacaServer, Fault

FIRST, END = date(2011, 1, 3), date(2013, 1, 4)
D1, D2, D3 = date(2013, 1, 2), date(2013, 1, 3), date(2013, 1, 4)
BARS = SampleSource().bars(FIRST, END)
ACTIONS = SampleSource().actions(FIRST, END).with_columns(new_symbol=pl.lit(None, pl.String))
JUDGED = ("bar_findings", "accepted_bars", "quarantined_bars")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def put(folder: Path, bars: pl.DataFrame = BARS, actions: pl.DataFrame = ACTIONS) -> Path:
    """A folder for files_source."""
    folder.mkdir(exist_ok=True)
    bars.write_parquet(folder / "bars.parquet")
    actions.write_parquet(folder / "actions.parquet")
    return folder


def root_of(data: Path, files: Path, instance: dg.DagsterInstance, *, paper_start: date, extra: str = "") -> Root:
    source = files_source(files, convention="ex_date_close")
    return Root.make(data, settings_of(start=str(FIRST), paper_start=str(paper_start), end=str(END), source=source, extra=extra), instance)


def ingest_and_judge(root: Root, *sessions: date) -> list[dg.ExecuteInProcessResult]:
    """The history's first step, then the daily steps up to the gate of some sessions."""
    names = {key.to_user_string() for key in root.defs.resolve_asset_graph().get_all_asset_keys()}
    steps = {dg.AssetKey(name) for name in ("raw_bars", "corporate_actions", "peer_bars", *JUDGED) if name in names}
    history = root.defs.resolve_job_def("history").get_subset(asset_selection={dg.AssetKey("market_history")})
    daily = root.defs.resolve_job_def("daily").get_subset(asset_selection=steps)
    runs = [history.execute_in_process(instance=root.instance)]
    runs += [daily.execute_in_process(instance=root.instance, partition_key=str(session)) for session in sessions]
    assert all(run.success for run in runs)
    return runs


PEER = """
[cross_check]
kind = "files"
[cross_check.files]
bars = "{folder}/bars.parquet"
absent = ["vwap"]
publish_delay_minutes = 45
"""
GONE = {"ex_date": D2, "symbol": "FB", "kind": "delisting", "value": 26.0, "pay_date": None, "new_symbol": None}


def moved(bars: pl.DataFrame, session: date, symbol: str, ratio: float) -> pl.DataFrame:
    """``bars`` with one close moved."""
    here = (pl.col("session") == session) & (pl.col("symbol") == symbol)
    return bars.with_columns(close=pl.when(here).then(pl.col("close") * ratio).otherwise("close"))


def found(root: Root, rule: str) -> list[tuple[date, str, str]]:
    """session, symbol, severity of what a rule found."""
    return root.table("bar_findings").filter(pl.col("rule") == rule).select("session", "symbol", "severity").rows()


def warned(run: dg.ExecuteInProcessResult, check: str) -> list[tuple[bool, str]]:
    """Whether a check of a run passed, and what it observed."""
    made = [e for e in run.get_asset_check_evaluations() if e.check_name == check]
    return [(e.passed, str(e.metadata["observed"].value)) for e in made]


def test_closes_of_two_sources_and_listing_dates_are_judged_alike_at_once_and_by_session(tmp_path: Path, instance: dg.DagsterInstance):
    actions = pl.concat([ACTIONS, pl.DataFrame([GONE], schema=ACTIONS.schema)])
    files = put(tmp_path / "files", actions=actions)
    peers = moved(moved(moved(BARS, D1, "IBM", 1.01), D2, "AAPL", 1.06), D2, "GOOG", 1.004)
    extra = PEER.format(folder=put(tmp_path / "peer", bars=peers))
    at_once = root_of(tmp_path / "history", files, instance, paper_start=D3, extra=extra)
    ingest_and_judge(at_once)
    daily = root_of(tmp_path / "daily", files, instance, paper_start=D1, extra=extra)
    for run in ingest_and_judge(daily, D1, D2)[1:]:
        assert warned(run, "second_source_answered") == [(True, "bars of 5 symbols")]
    for table in ("peer_bars", *JUDGED):
        assert daily.lake.digest(table) == at_once.lake.digest(table), table

    assert found(daily, "r19_sources_differ") == [(D1, "IBM", "warn"), (D2, "AAPL", "block")]
    assert daily.table("quarantined_bars").filter(pl.col("session") >= D1).select("session", "symbol", "rules").rows() == [
        (D2, "AAPL", "r19_sources_differ")
    ]
    assert found(daily, "r24_not_listed") == [(D2, "FB", "warn")]
    assert daily.lake.read("accepted_bars", first=D2, last=D2)["symbol"].to_list() == ["FB", "GOOG", "IBM", "MSFT"]
    assert daily.table("raw_bars")["symbol"].len() == BARS.filter(pl.col("session") <= D2).height

    # A correction that comes later is another version, and the session is judged as of its instant.
    judged = daily.lake.digest("bar_findings")
    late = daily.table("peer_bars").filter(pl.col("session") == D2, pl.col("symbol") == "AAPL")
    daily.lake.append_new("peer_bars", late.with_columns(pl.col("known_at").dt.offset_by("1d"), close=pl.col("close") / 1.06))
    chain = build_chain(daily.settings, bar_source(daily.settings, exchange_calendar()), SystemClock())
    gate_bars(chain, daily.lake, daily.ledger, D2, D2, late["known_at"].item())
    assert daily.lake.digest("bar_findings") == judged
    gate_bars(chain, daily.lake, daily.ledger, D2, D2, chain.instant(daily.lake, daily.ledger, D2))
    assert found(daily, "r19_sources_differ") == [(D1, "IBM", "warn")]


def test_a_second_source_that_does_not_answer_is_an_alert_and_no_failure(tmp_path: Path, instance: dg.DagsterInstance):
    files = put(tmp_path / "files")
    plain = root_of(tmp_path / "plain", files, instance, paper_start=D1)
    ingest_and_judge(plain, D1)
    root = root_of(tmp_path / "data", files, instance, paper_start=D1, extra=PEER.format(folder=tmp_path / "peer"))
    history, daily = ingest_and_judge(root, D1)
    ((passed, told),) = warned(daily, "second_source_answered")
    assert (passed, "found nothing" in told, str(tmp_path / "peer") in told) == (False, True, True)
    ((passed, told),) = warned(history, "history_is_cross_checked")
    assert (passed, told.startswith("none in 502 of 502 sessions, 2011-01-03 to 2012-12-31")) == (False, True)
    for table in ("raw_bars", *JUDGED):
        assert root.lake.digest(table) == plain.lake.digest(table), table
    alerting = alerting_of(root.defs)
    alerting.look_at_runs(instance)
    rules = {change.alert.rule for _, change in alerting.outbox().standing()}
    assert rules >= {"second_source_answered of peer_bars", "history_is_cross_checked of market_history"}


def test_without_the_section_there_is_no_second_source_and_a_booked_session_keeps_to_it(tmp_path: Path, instance: dg.DagsterInstance):
    plain = root_of(tmp_path / "data", put(tmp_path / "files"), instance, paper_start=D1)
    assert dg.AssetKey("peer_bars") not in plain.defs.resolve_asset_graph().get_all_asset_keys()
    checked = root_of(tmp_path / "data", tmp_path / "files", instance, paper_start=D1, extra=PEER.format(folder=tmp_path / "files"))
    one, two = (build_chain(root.settings, bar_source(root.settings, exchange_calendar()), SystemClock()) for root in (plain, checked))
    older = {key: value for key, value in one.rules_in_force.items() if key != "[cross_check] kind"}  # booked before there was one
    start = SessionStart(book="paper", session=D1, decision_at=datetime(2013, 1, 3, tzinfo=UTC), rules=json.dumps(older))
    assert one.begun(plain.ledger, D1) is None
    plain.ledger.begin(start)
    assert one.begun(plain.ledger, D1) == start
    with pytest.raises(InputError, match=r"\[cross_check\] kind = none in session .*, found \[cross_check\] kind = files"):
        two.begun(plain.ledger, D1)


ALPACA_PEER = """
[cross_check]
kind = "alpaca"
universe = ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
[cross_check.alpaca]
asof = 2013-01-04
first_session = 2011-01-03
data_url = "{url}"
"""


@pytest.mark.slow
def test_alpaca_is_the_second_source_of_files_and_its_outage_costs_a_warning(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("APCA_API_KEY_ID", KEY_ID)
    monkeypatch.setenv("APCA_API_SECRET_KEY", SECRET)
    peers = moved(moved(BARS, D1, "IBM", 1.01), D1, "AAPL", 1.06).with_columns(vwap=pl.col("close"))
    with AlpacaServer(bars=peers) as server, stamina.set_testing(True, attempts=2):
        root = root_of(tmp_path / "data", put(tmp_path / "files"), instance, paper_start=D1, extra=ALPACA_PEER.format(url=server.url))
        _, answered = ingest_and_judge(root, D1)
        server.faults.extend([Fault.BROKEN] * 20)
        _, silent = ingest_and_judge(root, D2)
    assert warned(answered, "second_source_answered") == [(True, "bars of 5 symbols")]
    assert found(root, "r19_sources_differ") == [(D1, "AAPL", "block"), (D1, "IBM", "warn")]
    assert root.table("peer_bars")["source"].unique().to_list() == ["alpaca"]
    ((passed, told),) = warned(silent, "second_source_answered")
    assert (passed, "500 internal server error" in told) == (False, True)
    assert root.lake.read("accepted_bars", first=D2, last=D2).height == 5
