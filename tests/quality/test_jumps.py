"""What explains a jump of the close, and what it is when nothing does. Each case is the last sessions of a small market."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from itertools import count

import polars as pl
import pytest

from quant.quality.gate import GateResult, gate
from quant.quality.rule import Beside, GateSettings
from tests.quality.rows import XNYS, Row, actions, bar, raw, sound_bars, times

WED, THU, FRI = "2013-02-27", "2013-02-28", "2013-03-01"
BEFORE = sound_bars("A", before=THU, sessions=8)
CRASH = {"open": 6.2, "high": 6.5, "low": 5.9, "close": 6.0}
WARNED, BLOCKED = [("r13_unexplained_jump", "warn")], [("r13_unexplained_jump", "block")]


def judged(rows: list[Row], beside: Beside | None = None, thresholds: GateSettings | None = None) -> GateResult:
    return gate(
        raw(*rows),
        first=XNYS.sessions(date(2013, 1, 2), date(2013, 1, 2))[0],
        last=date(2013, 3, 1),
        context=raw(),
        calendar=XNYS,
        settings=thresholds or GateSettings(market_min_symbols=3),
        absent=frozenset({"vwap"}),
        last_closed_session=date(2013, 3, 1),
        beside=beside,
    )


@dataclass(frozen=True, kw_only=True)
class Jump:
    """``rows`` beside eight sound sessions of A; ``finds``: rule and severity of A's findings, by session."""

    rows: list[Row]
    finds: dict[str, list[tuple[str, str]]]
    beside: Beside = field(default_factory=Beside)
    says: str = ""


JUMPS = {
    "a move within the threshold needs no reason": Jump(rows=[bar(THU, open=8.4, high=8.5, low=7.3, close=7.5)], finds={}),
    "a recorded split explains it": Jump(
        rows=[times(bar(THU), 0.5, 2)], beside=Beside(actions=actions((THU, "A", "split", 2.0))), finds={}
    ),
    "a recorded split explains it in the next bar if its own session has none": Jump(
        rows=[times(bar(FRI), 0.5, 2)],
        beside=Beside(actions=actions((THU, "A", "split", 2.0))),
        finds={THU: [("r09_missing_session", "block")]},
    ),
    "a large recorded dividend explains it": Jump(
        rows=[bar(THU, **CRASH)], beside=Beside(actions=actions((THU, "A", "dividend", 4.5))), finds={}
    ),
    "a recorded spin-off of its value explains it": Jump(
        rows=[bar(THU, **CRASH)], beside=Beside(actions=actions((THU, "A", "spinoff", 4.5))), finds={}
    ),
    "an action of another symbol explains nothing": Jump(
        rows=[bar(THU, **CRASH)], beside=Beside(actions=actions((THU, "B", "dividend", 4.5))), finds={THU: BLOCKED}
    ),
    "an action of a later session explains nothing": Jump(
        rows=[bar(THU, **CRASH)], beside=Beside(actions=actions((FRI, "A", "dividend", 4.5))), finds={THU: BLOCKED}
    ),
    "nothing explains it": Jump(rows=[bar(THU, **CRASH)], finds={THU: BLOCKED}, says="nothing explains it"),
    "a crash has its volume": Jump(rows=[bar(THU, volume=3000.0, **CRASH)], finds={THU: WARNED}, says="volume of a crash"),
    "a little less than the volume of a crash explains nothing": Jump(rows=[bar(THU, volume=2999.0, **CRASH)], finds={THU: BLOCKED}),
    "a crash at a split's ratio has far more than its volume": Jump(
        rows=[bar(THU, open=5.3, high=5.5, low=5.0, close=5.1, volume=22_000.0)],
        finds={THU: [*WARNED, ("r17_volume_outlier", "warn")]},
        says="volume of a crash",
    ),
    "a session that trades there from the old price is believed": Jump(
        rows=[bar(THU, open=10.0, high=10.1, low=5.9, close=6.0)], finds={THU: WARNED}, says="traded all the way"
    ),
    "it is back in the next session": Jump(
        rows=[bar(THU, **CRASH), bar(FRI)], finds={THU: BLOCKED, FRI: WARNED}, says="nothing explains it"
    ),
    "2:1 is a split suspect, and held while the price stays": Jump(
        rows=[times(bar(THU), 0.51, 2), times(bar(FRI), 0.5, 2)],
        finds={THU: [("r16_split_suspect", "block")], FRI: [("r16_split_suspect", "block")]},
        says="jump like 2:1",
    ),
    "a split suspect whose split is recorded late is held no more": Jump(
        rows=[times(bar(THU), 0.51, 2), times(bar(FRI), 0.5, 2)], beside=Beside(actions=actions((THU, "A", "split", 2.0))), finds={}
    ),
    "a split suspect goes back": Jump(
        rows=[times(bar(THU), 0.51, 2), bar(FRI)], finds={THU: [("r16_split_suspect", "block")], FRI: WARNED}
    ),
    "1:10 is a split suspect": Jump(
        rows=[times(bar(THU), 10.4, 0.2)], finds={THU: [("r16_split_suspect", "block")]}, says="jump like 1:10"
    ),
    "3:2 is a split suspect for one session": Jump(
        rows=[times(bar(THU, open=10.5), 0.66, 1.4), times(bar(FRI), 0.67, 1.5)],
        finds={THU: [("r16_split_suspect", "block")]},
    ),
    "a fall of a quarter with much volume is news": Jump(rows=[times(bar(THU), 0.75, 4)], finds={}),
    "a hundredfold is a mix-up whatever its volume, and held": Jump(
        rows=[times(bar(THU), 97, 5), times(bar(FRI), 104)],
        finds={THU: [("r14_unit_mix_up", "block")], FRI: [("r14_unit_mix_up", "block")]},
    ),
    "a hundredth is back in the next session": Jump(
        rows=[times(bar(THU), 0.0103), bar(FRI)], finds={THU: [("r14_unit_mix_up", "block")], FRI: WARNED}
    ),
    "a split that the price does not follow": Jump(
        rows=[bar(THU)], beside=Beside(actions=actions((THU, "A", "split", 3.0))), finds={THU: [("r15_split_not_seen", "block")]}
    ),
}


@pytest.mark.parametrize("what", JUMPS)
def test_a_jump_is_explained_before_it_is_condemned(what: str):
    case = JUMPS[what]
    own = judged([*BEFORE, *case.rows], case.beside).findings.filter(pl.col("session") >= date(2013, 2, 28), pl.col("symbol") == "A")
    own = own.filter(pl.col("rule") != "r11_close_unchanged")
    found: dict[str, list[tuple[str, str]]] = {}
    for session, rule, severity in own.select("session", "rule", "severity").iter_rows():
        found.setdefault(str(session), []).append((rule, severity))
    missing = {} if any(row["session"] == date(2013, 3, 1) for row in case.rows) else {FRI: [("r09_missing_session", "block")]}
    assert found == {**case.finds, **missing}
    assert case.says in " ".join((own["expected"] + own["observed"]).to_list())


def test_only_a_blocking_finding_of_a_rule_that_also_warns_quarantines():
    result = judged([*BEFORE, bar(THU, volume=3000.0, **CRASH), bar(FRI, **CRASH)])
    assert result.quarantined.is_empty()
    result = judged([*BEFORE, bar(THU, volume=2000.0, **CRASH)])
    assert result.quarantined["rules"].to_list() == ["r13_unexplained_jump"]


def test_a_released_row_holds_none_of_the_sessions_after_it_but_those_that_were_decided_without_it():
    suspect = [*BEFORE, times(bar(THU), 0.5, 2), times(bar(FRI), 0.5, 2)]
    thursday, friday = date(2013, 2, 28), date(2013, 3, 1)

    def kept_out(decided_through: date | None) -> list[date]:
        row = (thursday, "A", decided_through)
        released = pl.DataFrame([row], schema={"session": pl.Date, "symbol": pl.String, "decided_through": pl.Date}, orient="row")
        return judged(suspect, Beside(released=released)).quarantined["session"].to_list()

    assert judged(suspect).quarantined["session"].to_list() == [thursday, friday]
    assert kept_out(None) == kept_out(thursday) == [thursday]  # what becomes of it, others decide
    assert kept_out(friday) == [thursday, friday]


def test_two_symbols_that_swap_places_are_quarantined_whatever_their_volumes():
    other = [times(row, 2.2, 50) for row in sound_bars("B", before=THU, sessions=8)]
    swapped = [times(bar(THU, "A"), 2.2, 50), bar(THU, "B")]
    result = judged([*BEFORE, *other, *swapped, *market_of(1.0), *(bar(day, name) for day in (WED, THU) for name in "CDEFG")])
    assert result.quarantined.select("symbol", "rules").rows() == [("A", "r13_unexplained_jump"), ("B", "r13_unexplained_jump")]
    observed = result.findings.filter(pl.col("severity") == "block", pl.col("session") == date(2013, 2, 28))["observed"].to_list()
    assert observed[0].endswith("the price of B in the session before, and the reverse")
    assert observed[1].endswith("the price of A in the session before, and the reverse")


def market_of(fall: float) -> list[Row]:
    """Four symbols over nine sessions, the last of them ``fall`` of the one before."""
    names = [f"M{n}" for n, _ in zip(count(), range(4), strict=False)]
    return [row for name in names for row in (*sound_bars(name, before=THU, sessions=8), times(bar(THU, name), fall))]


def test_a_market_that_falls_as_well_explains_a_fall_of_four_times_its_own():
    crash = bar(THU, **CRASH)
    severity = {
        fall: judged([*BEFORE, crash, *market_of(fall)]).findings.filter(pl.col("rule") == "r13_unexplained_jump")["severity"].to_list()
        for fall in (0.86, 0.88, 1.0, 1.16)
    }
    assert severity == {0.86: ["warn"], 0.88: ["block"], 1.0: ["block"], 1.16: ["block"]}


def test_rows_that_repeat_the_session_before_stop_the_session_if_there_are_many():
    stale = [row for name in "ABC" for row in (bar(THU, name), bar(FRI, name, open=10.0))]
    fresh = [row for name in "DEFGHIJKL" for row in (bar(THU, name), bar(FRI, name))]
    result = judged([*stale, *fresh])
    assert result.findings.filter(pl.col("severity") == "stop")["observed"].to_list() == ["3 of 12 faulty (25.0 %)"]
    assert judged([*stale[:4], *fresh]).quarantined.is_empty()


@pytest.mark.parametrize(("left", "severity"), [(99, None), (97, "warn"), (90, "warn"), (89, "stop")])
def test_a_universe_that_shrinks_warns_and_stops(left: int, severity: str | None):
    rows = [bar(THU, f"S{n:03}") for n in range(100)] + [bar(FRI, f"S{n:03}") for n in range(left)]
    found = judged(rows).findings.filter(pl.col("rule") == "r20_universe_shrinks")["severity"].to_list()
    assert found == ([severity] if severity else [])


def test_symbols_that_were_delisted_are_not_missed_by_the_universe():
    rows = [bar(THU, f"S{n:03}") for n in range(100)] + [bar(FRI, f"S{n:03}") for n in range(89)]

    def found(*gone: int) -> list[str]:
        known = Beside(actions=actions(*((FRI, f"S{n:03}", "delisting", 1.0) for n in gone)))
        return judged(rows, known).findings.filter(pl.col("rule") == "r20_universe_shrinks")["severity"].to_list()

    assert (found(), found(98, 99), found(*range(89, 100))) == (["stop"], ["warn"], [])


@pytest.mark.parametrize(("peer", "severity"), [(10.46, None), (10.4, "warn"), (9.9, "block"), (11.2, "block"), (0.0, None)])
def test_another_sources_close_warns_and_blocks_by_its_distance(peer: float, severity: str | None):
    closes = pl.DataFrame({"session": [date(2013, 2, 28)], "symbol": ["A"], "close": [peer]})
    found = judged([bar(THU)], Beside(peer_closes=closes)).findings.filter(pl.col("rule") == "r19_sources_differ")["severity"].to_list()
    assert found == ([severity] if severity else [])


def test_the_thresholds_of_jumps_are_settings():
    crash = [*BEFORE, bar(THU, volume=2000.0, **CRASH)]
    assert judged(crash, thresholds=GateSettings(crash_volume_multiple=2.0)).quarantined.is_empty()
    assert judged(crash, thresholds=GateSettings(jump_ratio=0.5)).quarantined.is_empty()
    suspect = [*BEFORE, times(bar(THU), 0.5, 2), times(bar(FRI), 0.5, 2)]
    assert judged(suspect, thresholds=GateSettings(hold_sessions=0)).quarantined["session"].to_list() == [date(2013, 2, 28)]
