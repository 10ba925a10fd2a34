"""Halting and resuming the book and skipping a session, from the command line, on a feed that breaks for a day."""

from __future__ import annotations

import subprocess
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from adapters.clock import SystemClock
from adapters.lake import open_lake
from adapters.ledger import open_ledger
from adapters.sources.sample import SampleSource
from quant.risk.state import TradingState
from tests.chain.command_line import PROFILE, afterclose
from tests.chain.conftest import files_source

START, BAD, LAST = date(2011, 1, 3), date(2013, 2, 27), date(2013, 2, 28)


def said(root: Path, *words: str, profile: Path, code: int = 0) -> str:
    done: subprocess.CompletedProcess[str] = afterclose(root, *words, profile=profile)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_session_that_cannot_be_gated_is_skipped_and_a_halt_holds_until_the_resume(tmp_path: Path):
    source = SampleSource()
    bars = source.bars(START, LAST).drop("vwap")
    faulty = (pl.col("session") == BAD) & (pl.col("symbol") != "AAPL")
    bars.with_columns(close=pl.when(faulty).then(-1.0).otherwise("close")).write_parquet(tmp_path / "bars.parquet")
    source.actions(START, LAST).write_parquet(tmp_path / "actions.parquet")
    profile, root = tmp_path / "profile.toml", tmp_path / "data"
    profile.write_text(PROFILE.replace('[source]\nkind = "sample"\n', files_source(tmp_path, convention="ex_date_close")))

    def run(*words: str, code: int = 0) -> str:
        return said(root, *words, code=code, profile=profile)

    run("history")
    run("paper-run", "--session", "2013-02-26")
    stopped = run("paper-run", "--session", str(BAD), code=1)
    assert "feed_is_sound" in stopped
    typed = f"afterclose --profile {profile} --data {root}"
    assert f'`{typed} quarantine show {BAD} "*"`' in stopped
    assert f"`{typed} session skip {BAD} --reason TEXT`" in stopped
    shown = run("quarantine", "show", str(BAD), "*")
    assert "FB r05_prices_positive" in shown, "the findings of its symbols are the session's"
    assert "expected a reason" in run("session", "skip", str(BAD), "--reason", " ", code=2)
    assert "2013-02-27: skipped" in run("session", "skip", str(BAD), "--reason", "the vendor was down")
    assert "2013-02-27: skipped" in run("session", "skip", str(BAD), "--reason", "again")
    assert "found a decision" in run("session", "skip", "2013-02-26", "--reason", "no", code=2)

    ledger, lake = open_ledger(f"sqlite:///{root / 'ledger.sqlite'}", SystemClock()), open_lake(root)
    assert [row[3]["reason"] for row in ledger.audit("session_skipped")] == ["the vendor was down"]
    assert ledger.decision("paper", BAD) is not None
    assert list(ledger.orders("paper", decided=BAD)) == []
    assert {str(o.state) for o in ledger.orders("paper", decided=date(2013, 2, 26))} == {"expired"}
    assert lake.read("daily_nav", first=BAD, last=BAD, where={"book": "paper"}).height == 1

    assert "active -> halted" in run("halt", "--reason", "a look at the fills")
    assert "resume it first" in run("halt", "--reducing", "--reason", "let closings through", code=2)
    assert "trading    halted since 2013-02-27 by command: a look at the fills" in run("status")
    assert "trading state of book paper" in run("alerts", "list")
    passed = run("backfill", "--from", str(BAD), "--to", str(LAST))
    assert f"{BAD}: was skipped (the vendor was down)" in passed
    orders = ledger.orders("paper", decided=LAST)
    assert orders
    assert {o.denial.limit for o in orders if o.denial} == {"halted"}
    assert "halted -> active" in run("resume", "--reason", "all is well")
    assert "active already" in run("resume", "--reason", "all is well")
    assert [c.state for c in ledger.state_changes("paper")] == [TradingState.HALTED, TradingState.ACTIVE]
    assert [row[3]["reason"] for row in ledger.audit("trading_state")] == ["a look at the fills", "all is well"]
    assert "trading state" not in run("alerts", "list", "--notices", "0")
