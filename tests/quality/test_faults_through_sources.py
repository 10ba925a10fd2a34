"""Each kind of fault as a source delivers it: from files and from Alpaca's wire, over the content digests, to the verdict of the gate.

The embedded sample is what it is and cannot be handed a fault; benchmarks/gate.py puts them into its rows at random.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import polars as pl
import pytest

from adapters.sources.sample import SampleSource
from quant.calendar import exchange_calendar
from quant.market.delivery import action_rows, raw_bar_rows
from quant.quality.gate import GateResult, gate, stopped_sessions
from quant.quality.rule import PRICES, Beside, GateSettings
from tests.contract.test_bar_sources import FED, Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from quant.ports import BarSource
    from tests.contract.test_bar_sources import Make

XNYS = exchange_calendar()
FIRST, LAST = date(2012, 11, 1), date(2013, 2, 28)
DAY, NEXT, FUTURE = date(2013, 2, 27), date(2013, 2, 28), date(2013, 3, 4)  # the Monday after; the sources' clock says March 2
STALE = XNYS.sessions(date(2013, 2, 20), DAY)[-5:]
RECEIVED = datetime(2013, 3, 2, 12, tzinfo=UTC)
CLEAN = SampleSource().bars(FIRST, LAST).with_columns(vwap=(pl.col("high") + pl.col("low")) / 2)
IBM, ON_DAY = pl.col("symbol") == "IBM", pl.col("session") == DAY
PRICED = (*PRICES, "vwap")


def times(prices: float, volume: float = 1.0, *, where: pl.Expr) -> pl.DataFrame:
    """CLEAN with prices and volume multiplied where an expression says."""
    scaled = [*(pl.col(name) * prices for name in PRICED), pl.col("volume") * volume]
    return CLEAN.with_columns(pl.when(where).then(new).otherwise(new.meta.output_name()).alias(new.meta.output_name()) for new in scaled)


def exchanged(one: str, other: str) -> pl.DataFrame:
    """CLEAN with two columns of one row swapped."""
    return CLEAN.with_columns(
        pl.when(IBM & ON_DAY).then(pl.col(theirs)).otherwise(ours).alias(ours) for ours, theirs in ((one, other), (other, one))
    )


def repeated(symbols: pl.Expr, days: list[date]) -> pl.DataFrame:
    """CLEAN with the rows of the session before ``days`` in the place of theirs."""
    old = CLEAN.filter(symbols, pl.col("session") == XNYS.previous(days[0])).drop("session")
    kept = CLEAN.filter(~(symbols & pl.col("session").is_in(days)))
    return pl.concat([kept, *(old.select(pl.lit(day).alias("session"), *old.columns) for day in days)])


def more(**changes: pl.Expr | float) -> pl.DataFrame:
    """CLEAN and a second row like that of IBM on DAY, with changes."""
    return pl.concat([CLEAN, CLEAN.filter(IBM, ON_DAY).with_columns(**changes)])


@dataclass(frozen=True, kw_only=True)
class Case:
    """``bars``: what the source has. ``kept_out``: (session, symbol) of quarantined rows and of missing ones; ``told``: rules that find it.
    ``stopped``: DAY has no accepted row.
    """

    bars: pl.DataFrame
    told: set[str]
    kept_out: set[tuple[date, str]]
    stopped: bool = False


BACK = "r13_unexplained_jump"  # a warning on the sound row after a wrong one
THE_ROW = {(DAY, "IBM")}
HELD = {(DAY, "IBM"), (NEXT, "IBM")}
EVERY = {(DAY, symbol) for symbol in ("AAPL", "FB", "GOOG", "IBM", "MSFT")}
CASES = {
    "no fault": Case(bars=CLEAN, told=set(), kept_out=set()),
    "prices x 100": Case(bars=times(100.0, where=IBM & ON_DAY), told={"r14_unit_mix_up", BACK}, kept_out=THE_ROW),
    "prices x 0.01": Case(bars=times(0.01, where=IBM & ON_DAY), told={"r14_unit_mix_up", BACK}, kept_out=THE_ROW),
    "missed split 2:1": Case(bars=times(0.5, 2.0, where=IBM & (pl.col("session") >= DAY)), told={"r16_split_suspect"}, kept_out=HELD),
    "missed reverse split 1:10": Case(
        bars=times(10.0, 0.1, where=IBM & (pl.col("session") >= DAY)), told={"r16_split_suspect"}, kept_out=HELD
    ),
    "high and low swapped": Case(
        bars=exchanged("high", "low"), told={"r03_high_is_highest", "r04_low_is_lowest", "r18_vwap_outside"}, kept_out=THE_ROW
    ),
    "close and volume swapped": Case(bars=exchanged("close", "volume"), told={"r03_high_is_highest"}, kept_out=THE_ROW),
    "row repeated for 5 sessions": Case(bars=repeated(IBM, STALE), told={"r11_close_unchanged", "r12_row_repeated"}, kept_out=set()),
    "session repeated": Case(
        bars=repeated(pl.col("symbol").is_not_null(), [DAY]), told={"r12_row_repeated", "r21_feed_fault"}, kept_out=EVERY, stopped=True
    ),
    "row dropped": Case(bars=CLEAN.filter(~(IBM & ON_DAY)), told={"r09_missing_session"}, kept_out=set()),
    "session dropped": Case(
        bars=CLEAN.filter(~ON_DAY), told={"r09_missing_session", "r20_universe_shrinks", "r21_feed_fault"}, kept_out=set(), stopped=True
    ),
    "row twice": Case(bars=more(), told=set(), kept_out=set()),  # equal rows are one row, by their digest
    "row duplicated, other close": Case(bars=more(close=(pl.col("high") + pl.col("low")) / 2), told={"r01_key_unique"}, kept_out=THE_ROW),
    "row dated in the future": Case(bars=more(session=FUTURE), told={"r08_no_future_session"}, kept_out={(FUTURE, "IBM")}),
    "row dated on a Saturday": Case(
        bars=more(session=date(2013, 2, 23)), told={"r07_session_in_calendar"}, kept_out={(date(2013, 2, 23), "IBM")}
    ),
    "prices of zero": Case(bars=times(0.0, where=IBM & ON_DAY), told={"r05_prices_positive"}, kept_out=THE_ROW),
    "two tickers swapped": Case(
        bars=CLEAN.with_columns(symbol=pl.when(ON_DAY).then(pl.col("symbol").replace({"IBM": "MSFT", "MSFT": "IBM"})).otherwise("symbol")),
        told={"r13_unexplained_jump", "r17_volume_outlier", "r21_feed_fault"},
        kept_out=EVERY,
        stopped=True,
    ),
    "half the feed missing": Case(
        bars=CLEAN.filter(~(ON_DAY & pl.col("symbol").is_in(["AAPL", "FB", "GOOG"]))),
        told={"r09_missing_session", "r20_universe_shrinks", "r21_feed_fault"},
        kept_out={(DAY, "IBM"), (DAY, "MSFT")},
        stopped=True,
    ),
}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(tmp_path, stack)


def judged(source: BarSource, first: date, last: date, closed: date) -> GateResult:
    """What the gate says of first..last as ``source`` delivers it and everything before."""
    facts = source.facts
    rows = raw_bar_rows(source.bars(FIRST, last), facts=facts, calendar=XNYS, received_at=RECEIVED)
    actions = action_rows(source.actions(FIRST, last), facts=facts, calendar=XNYS, received_at=RECEIVED)
    return gate(
        rows,
        first=first,
        last=last,
        context=rows,
        calendar=XNYS,
        settings=GateSettings(),
        absent=facts.absent,
        last_closed_session=closed,
        beside=Beside(actions=actions),
    )


@pytest.mark.parametrize("fault", CASES)
@pytest.mark.parametrize("make", FED, ids=lambda make: make.__name__)
def test_a_fault_is_found_whatever_source_delivers_it(make: Make, place: Place, fault: str):
    case = CASES[fault]
    result = judged(make(place, None, case.bars), STALE[0], FUTURE, closed=LAST)
    assert set(result.findings["rule"]) == case.told
    assert set(result.quarantined.select("session", "symbol").rows()) == case.kept_out
    assert stopped_sessions(result.findings) == ([DAY] if case.stopped else [])
