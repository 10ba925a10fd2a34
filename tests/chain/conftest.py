"""Data roots for the tests of the whole chain: a profile, a source, and Dagster on a temporary instance."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from adapters.clock import SystemClock
from adapters.lake import DeltaLake, open_lake
from adapters.ledger import open_ledger
from orchestration.settings import Settings

if TYPE_CHECKING:
    import dagster as dg

    from orchestration.runs import FailedCheck
    from quant.ports import Ledger

PROFILE = """
name = "test"
[source]
kind = "sample"
[calendar]
start = {start}
paper_start = {paper_start}
end = {end}
[model]
train_years = 1
rounds = 30
early_stopping_rounds = 10
threads = 1
[paper]
{paper}
[backtest]
{backtest}
[expectations]
enabled = false
"""


FILES = """[source]
kind = "files"
[source.files]
bars = "{folder}/bars.parquet"
actions = "{folder}/actions.parquet"
convention = "{convention}"
absent = ["vwap"]
bad_rows = "quarantine"
"""


def files_source(folder: Path, *, convention: str) -> str:
    """A [source] section that reads bars.parquet and actions.parquet of a folder."""
    return FILES.format(folder=folder, convention=convention)


def settings_of(
    *,
    paper_start: str,
    end: str,
    start: str = "2009-01-02",
    paper: str = "",
    backtest: str = "",
    extra: str = "",
    source: str = "",
    expectations: bool = False,  # importing what evaluates them costs seconds: tests/chain/test_expectations.py does
) -> Settings:
    """Settings of a test profile. ``source`` replaces the [source] section."""
    text = PROFILE.format(start=start, paper_start=paper_start, end=end, paper=paper, backtest=backtest) + extra
    if expectations:
        text = text.replace("[expectations]\nenabled = false\n", "")
    if source:
        text = text.replace('[source]\nkind = "sample"\n', source)
    return Settings(**tomllib.loads(text))


@dataclass(frozen=True, kw_only=True)
class Root:
    """A data root that a test runs jobs in."""

    path: Path
    settings: Settings
    defs: dg.Definitions
    instance: dg.DagsterInstance

    @classmethod
    def make(cls, path: Path, settings: Settings, instance: dg.DagsterInstance) -> Root:
        from orchestration.definitions import build_definitions

        path.mkdir(parents=True, exist_ok=True)
        return cls(path=path, settings=settings, defs=build_definitions(settings, path, SystemClock()), instance=instance)

    @property
    def lake(self) -> DeltaLake:
        from orchestration.definitions import user_library

        return open_lake(self.path, library=user_library(self.settings))

    @property
    def ledger(self) -> Ledger:
        return open_ledger(f"sqlite:///{self.path / 'ledger.sqlite'}", SystemClock())

    def history(self) -> list[FailedCheck]:
        from orchestration.runs import run_job

        return run_job(self.defs, self.instance, "history", partition=None, watch=lambda step, done, note: None)

    def days(self, sessions: Sequence[date]) -> dict[date, list[FailedCheck]]:
        from orchestration.runs import run_sessions

        return dict(run_sessions(self.defs, self.instance, sessions, lambda session, step: None))

    def table(self, name: str) -> pl.DataFrame:
        return self.lake.read(name)
