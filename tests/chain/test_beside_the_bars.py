"""What the gate is given beside the bars, in a history and in daily sessions alike: listing dates and the closes of a second source."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from adapters.sources.sample import SampleSource
from tests.chain.conftest import Root, files_source, settings_of

FIRST, END = date(2010, 1, 4), date(2013, 1, 4)
D1, D2, D3 = date(2012, 12, 28), date(2012, 12, 31), date(2013, 1, 2)
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


def both_ways(tmp_path: Path, files: Path, instance: dg.DagsterInstance, *, extra: str = "") -> Root:
    """D1 and D2 judged as history and as daily sessions, with the same result; returns one of the roots."""
    at_once = root_of(tmp_path / "history", files, instance, paper_start=D3, extra=extra)
    ingest_and_judge(at_once)
    daily = root_of(tmp_path / "daily", files, instance, paper_start=D1, extra=extra)
    ingest_and_judge(daily, D1, D2)
    for table in JUDGED:
        assert daily.lake.digest(table) == at_once.lake.digest(table), table
    return daily


def test_bars_after_a_delisting_are_told_and_pass(tmp_path: Path, instance: dg.DagsterInstance):
    gone = {"ex_date": D2, "symbol": "IBM", "kind": "delisting", "value": 190.0, "pay_date": None, "new_symbol": None}
    files = put(tmp_path / "files", actions=pl.concat([ACTIONS, pl.DataFrame([gone], schema=ACTIONS.schema)]))
    root = both_ways(tmp_path, files, instance)
    (finding,) = root.table("bar_findings").filter(pl.col("rule") == "r24_not_listed").iter_rows(named=True)
    assert (finding["session"], finding["symbol"], finding["severity"]) == (D2, "IBM", "warn")
    assert (finding["expected"], finding["observed"]) == (f"a session to {D1}", str(D2))
    assert root.lake.read("accepted_bars", first=D2, last=D2, where={"symbol": "IBM"}).height == 1
