"""The end of every run: an anchor, its copy, and a warning when one of the two does not work."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg

from adapters.clock import FixedClock
from adapters.ledger import open_ledger
from adapters.notary import FileNotary
from assets.audit import ANCHORED, audit_anchor

CLOCK = FixedClock(datetime(2013, 3, 1, 22, tzinfo=UTC))


def run(folder: Path, notary: FileNotary) -> tuple[bool, dict[str, Any]]:
    """Whether the check passed, and what it saw."""
    made = audit_anchor(chain=SimpleNamespace(clock=CLOCK), ledger=open_ledger(url(folder), CLOCK), notary=notary)
    assert isinstance(made, dg.MaterializeResult)
    (check,) = made.check_results or ()
    assert (check.check_name, check.severity) == (ANCHORED, dg.AssetCheckSeverity.WARN)
    return check.passed, {name: value.value for name, value in check.metadata.items()}


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'ledger.sqlite'}"


def test_a_run_ends_with_an_anchor_and_its_copy_and_one_without_entries_with_none(tmp_path: Path) -> None:
    notary = FileNotary(tmp_path / "audit", copies=tmp_path / "elsewhere")
    assert run(tmp_path, notary) == (True, {"fault": "none", "copied": 0})
    open_ledger(url(tmp_path), CLOCK).record("halt", {"reason": "drawdown"})
    passed, seen = run(tmp_path, notary)
    assert (passed, seen["fault"], seen["anchor"], seen["entries"], seen["last_entry"], seen["copied"]) == (True, "none", 1, 1, 1, 1)
    assert seen["root"] == notary.anchors()[0].days[0].root


def test_a_copy_that_cannot_be_written_is_a_warning_and_the_anchor_stands(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("a file where the folder should be")
    open_ledger(url(tmp_path), CLOCK).record("halt", {"reason": "drawdown"})
    passed, seen = run(tmp_path, notary := FileNotary(tmp_path / "audit", copies=tmp_path / "elsewhere"))
    assert not passed
    assert "the next run brings it up to date" in seen["fault"]
    assert len(notary.anchors()) == 1


def test_a_log_that_was_changed_since_the_last_anchor_is_a_warning_and_is_not_signed(tmp_path: Path) -> None:
    notary, ledger = FileNotary(tmp_path / "audit"), open_ledger(url(tmp_path), CLOCK)
    ledger.record("halt", {"reason": "drawdown"})
    run(tmp_path, notary)
    ledger.record("resume", {"reason": "looked into it"})
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)) as database:
        database.execute("DROP TRIGGER audit_no_update")
        database.execute("UPDATE audit SET payload = '{}' WHERE sequence = 2")
    passed, seen = run(tmp_path, notary)
    assert not passed
    assert "expected entry 2 as it was recorded" in seen["fault"]
    assert len(notary.anchors()) == 1
