"""The suite is data: what it says of a session follows from the session, the ones before it and the settings."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from quant.market.contracts import checked
from quant.quality.expectations import (
    Expectation,
    ExpectationOutcome,
    ExpectationSettings,
    expectation_findings,
    session_batch,
    session_suite,
)
from quant.tables import TABLES
from tests.quality.rows import raw, sound_bars

SESSION = date(2013, 2, 28)
SYMBOLS = ("A", "B", "C")


def accepted(symbols: tuple[str, ...] = SYMBOLS, *, sessions: int = 4) -> pl.DataFrame:
    """Accepted bars of SESSION and the sessions before it."""
    rows = [row for symbol in symbols for row in sound_bars(symbol, before="2013-03-01", sessions=sessions)]
    return raw(*rows).select(list(TABLES["accepted_bars"].columns))


def suite_of(bars: pl.DataFrame, *, absent: tuple[str, ...] = (), settings: ExpectationSettings | None = None) -> dict[str, Expectation]:
    before = bars.filter(pl.col("session") < SESSION)
    batch = session_batch(bars, before, SESSION)
    made = session_suite(batch, before, SESSION, absent=absent, settings=settings or ExpectationSettings())
    by_id = {expectation.id: expectation for expectation in made}
    assert len(by_id) == len(made)
    return by_id


def test_a_batch_is_the_session_with_moves_since_the_last_close_of_each_symbol():
    bars = accepted().with_columns(close=pl.when(pl.col("session") == SESSION).then(10.71).otherwise("close"))
    gap = bars.filter(~((pl.col("symbol") == "B") & (pl.col("session") == date(2013, 2, 27))))  # its last close is a session older
    new = gap.filter(~((pl.col("symbol") == "C") & (pl.col("session") < SESSION)))
    batch = session_batch(new, new.filter(pl.col("session") < SESSION), SESSION)
    assert batch["session"].to_list() == ["2013-02-28"] * 3
    assert batch["symbol"].to_list() == list(SYMBOLS)
    assert batch["move"].to_list() == [pytest.approx(0.02), pytest.approx(0.02), None]


def test_thresholds_come_from_the_sessions_before_and_the_settings():
    suite = suite_of(accepted(), settings=ExpectationSettings(rows_ratio=0.5, volume_multiple=2.0, median_move_ratio=0.2))
    assert suite["e09_row_count"].arguments == {"min_value": 1, "max_value": 5}
    assert suite["e09_row_count"].expected == "1 to 5 rows, after a median of 3 of 3 sessions before"
    assert suite["e10_symbols_known"].arguments["value_set"] == list(SYMBOLS)
    assert suite["e11_volume_sum"].arguments == {"column": "volume", "min_value": 1500.0, "max_value": 6000.0}
    assert suite["e12_median_move"].arguments == {"column": "move", "min_value": -0.2, "max_value": 0.2}


@pytest.mark.parametrize(("symbols", "changed"), [(1, 0.0), (3, 2 / 3), (4, 0.75), (8, 0.75)])
def test_a_quarter_of_the_closes_may_stand_still_and_always_one(symbols: int, changed: float):
    suite = suite_of(accepted(tuple("ABCDEFGH"[:symbols])))
    assert suite["e13_closes_change"].arguments["mostly"] == changed


def test_a_first_session_is_compared_with_nothing():
    suite = suite_of(accepted(sessions=1))
    assert {name for name in suite if name >= "e09"} == set()
    assert "e06_open_not_above_high" in suite


def test_a_column_that_the_source_never_has_is_not_expected():
    assert "e05_vwap_there" in suite_of(accepted())
    assert "e05_vwap_there" not in suite_of(accepted(), absent=("vwap",))


@pytest.mark.parametrize(("symbols", "symbol"), [((), "*"), (("A",), "A"), (("A", "B"), "*")])
def test_a_failure_is_a_finding_of_the_symbol_at_fault_or_of_the_session(symbols: tuple[str, ...], symbol: str):
    expectation = suite_of(accepted())["e06_open_not_above_high"]
    outcomes = [
        ExpectationOutcome(expectation=expectation, passed=passed, observed="high 1 open 2", symbols=symbols) for passed in (True, False)
    ]
    found = checked(expectation_findings(outcomes, SESSION), TABLES["bar_findings"])
    told = ("e06_open_not_above_high", "warn", "high >= open", "high 1 open 2", "the session's accepted bars")
    assert found.rows() == [(SESSION, symbol, *told)]
