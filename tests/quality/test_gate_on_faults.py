"""The gate on the embedded real bars: as they are, and with faults put into them at random (benchmarks/gate.py measures larger ones)."""

from __future__ import annotations

from functools import cache

import polars as pl
import pytest

from adapters.sources.sample import SampleSource
from benchmarks.gate import FEEDS, ROWS, SPLITS, Market, collateral, market_of, measure, recall
from quant.quality.gate import GateResult, reasons, rules
from tests.conftest import REPOSITORY

NOT_KEPT_OUT = (
    "open and close swapped",
    "row repeated",
    "row repeated for 5 sessions",
    "missed split 3:2",
    "missed split 4:3",
    "missed split 5:4",
)


@cache
def market() -> Market:
    return market_of(SampleSource())


@cache
def shares() -> tuple[GateResult, dict[str, tuple[float, float]], tuple[int, int]]:
    clean, seen = measure(market(), seeds=[0], each=25)
    told = {fault: (kept_out, found) for fault, _, kept_out, found, _ in recall(seen).iter_rows()}
    return clean, told, collateral(clean, seen)


def test_a_real_crash_passes_with_a_warning_and_nothing_of_the_sample_is_quarantined():
    clean, _, _ = shares()
    assert clean.quarantined.is_empty()
    assert clean.findings.select(pl.col("session").cast(pl.String), "symbol", "rule", "severity").rows() == [
        ("2000-09-29", "AAPL", "r13_unexplained_jump", "warn"),
        ("2000-09-29", "AAPL", "r17_volume_outlier", "warn"),
        ("2003-01-29", "AAPL", "r12_row_repeated", "warn"),
        ("2006-04-28", "MSFT", "r17_volume_outlier", "warn"),
    ]


def test_a_recorded_split_is_no_finding_and_the_same_split_unrecorded_is_quarantined():
    known = market().actions
    splits = known.filter(pl.col("kind") == "split")
    assert splits.height == 3
    forgotten = market().judged(market().bars, known.filter(pl.col("kind") != "split"))
    suspects = forgotten.findings.filter(pl.col("rule") == "r16_split_suspect")
    assert suspects.join(splits, left_on=["session", "symbol"], right_on=["ex_date", "symbol"], how="semi").height == 3


@pytest.mark.parametrize("fault", [fault for fault in (*ROWS, *FEEDS) if fault not in NOT_KEPT_OUT])
def test_a_fault_is_kept_out(fault: str):
    kept_out, _ = shares()[1][fault]
    assert kept_out == 1.0


@pytest.mark.parametrize(
    ("fault", "kept_out", "found"), [("row repeated", 0.0, 1.0), ("missed split 3:2", 0.8, 0.8), ("missed split 4:3", 0.7, 0.7)]
)
def test_a_fault_that_looks_like_a_market_is_found_as_far_as_it_can_be(fault: str, kept_out: float, found: float):
    at_least = shares()[1][fault]
    assert at_least[0] >= kept_out
    assert at_least[1] >= found


def test_sound_rows_are_quarantined_beside_faults_only_where_two_of_five_symbols_stop_a_session():
    beside, in_stopped = shares()[2]
    assert beside == in_stopped


def test_the_page_on_the_gate_has_a_line_for_every_rule_and_every_fault():
    page = (REPOSITORY / "docs" / "quality-gate.md").read_text()
    for rule, reason in zip(rules(), reasons().values(), strict=True):
        assert f"| {rule.id} | {rule.severity} | {reason} |" in page
    for fault in (*ROWS, *SPLITS, *FEEDS):
        assert f"\n| {fault} | " in page
