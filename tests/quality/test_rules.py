"""Each rule by one bad table and one good one. A new rule needs an entry in CASES."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import date
from itertools import product
from pathlib import Path

import polars as pl
import pytest

import quant.quality.rules
from quant.calendar import exchange_calendar
from quant.quality.gate import gate, rules
from quant.quality.rule import Beside, GateSettings
from tests.quality.rows import Row, actions, bar, raw, sound_bars, times

NAN, INF = float("nan"), float("inf")
WED, THU, FRI, SAT = "2013-02-27", "2013-02-28", "2013-03-01", "2013-03-02"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """``bad`` gives exactly the findings ``finds`` of the rule: session, symbol, expected, observed; ``good`` gives none of any rule."""

    bad: list[Row]
    finds: list[tuple[str, str, str, str]]
    good: list[Row]
    first: str = THU
    beside: Beside = field(default_factory=Beside)
    good_beside: Beside | None = None


def _flat(price: float) -> dict[str, float]:
    return dict.fromkeys(("open", "high", "low", "close", "vwap"), price)


def _of(column: str, *rows: tuple[str, str, float]) -> pl.DataFrame:
    schema = {"session": pl.Date, "symbol": pl.String, column: pl.Float64}
    return pl.DataFrame([(date.fromisoformat(day), symbol, value) for day, symbol, value in rows], schema=schema, orient="row")


def _listed(*rows: tuple[str, str | None, str | None]) -> pl.DataFrame:
    schema = {"symbol": pl.String, "listed": pl.String, "delisted": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(pl.col("listed", "delisted").str.to_date())


CASES = {
    "r01_key_unique": Case(
        bad=[bar(THU), bar(FRI), bar(FRI, close=10.6), bar(FRI, "B")],
        finds=[(FRI, "A", "1 row", "2 rows with close 10.5, 10.6")],
        good=[bar(THU, "A"), bar(THU, "B"), bar(FRI, "A"), bar(FRI, "B")],
    ),
    "r02_no_nulls": Case(
        bad=[bar(THU, close=None, vwap=None), bar(FRI)],
        finds=[
            (
                THU,
                "A",
                "values in all 6 of open, high, low, close, volume, vwap",
                "open 10.0, high 11.0, low 9.0, close null, volume 1000.0, vwap null",
            )
        ],
        good=[bar(THU), bar(FRI)],
    ),
    "r03_high_is_highest": Case(
        bad=[bar(THU, high=10.4), bar(FRI)],
        finds=[(THU, "A", "high >= max(open, close, low) = 10.5", "high 10.4")],
        good=[bar(THU, high=10.5), bar(FRI, open=10.0, high=10.0, low=10.0, close=10.0, vwap=10.0)],
    ),
    "r04_low_is_lowest": Case(
        bad=[bar(THU, low=10.1), bar(FRI)],
        finds=[(THU, "A", "low <= min(open, close, high) = 10.0", "low 10.1")],
        good=[bar(THU, low=10.0), bar(FRI, open=10.0, high=10.0, low=10.0, close=10.0, vwap=10.0)],
    ),
    "r05_prices_positive": Case(
        bad=[bar(THU, low=-9.0), bar(THU, "B", low=0.0), bar(THU, "C", high=INF), bar(THU, "D", high=NAN)],
        finds=[
            (THU, "A", "prices > 0 and finite", "open 10.0, high 11.0, low -9.0, close 10.5, vwap 10.2"),
            (THU, "B", "prices > 0 and finite", "open 10.0, high 11.0, low 0.0, close 10.5, vwap 10.2"),
            (THU, "C", "prices > 0 and finite", "open 10.0, high inf, low 9.0, close 10.5, vwap 10.2"),
            (THU, "D", "prices > 0 and finite", "open 10.0, high NaN, low 9.0, close 10.5, vwap 10.2"),
        ],
        good=[bar(THU, low=0.0001), bar(FRI, high=715_000.0)],
    ),
    "r06_volume_not_negative": Case(
        bad=[bar(THU, volume=-1.0), bar(THU, "B", volume=NAN)],
        finds=[(THU, "A", "volume >= 0 and finite", "volume -1.0"), (THU, "B", "volume >= 0 and finite", "volume NaN")],
        good=[bar(THU, volume=1.0), bar(FRI)],
    ),
    "r07_session_in_calendar": Case(
        bad=[bar(FRI), bar(SAT)],
        finds=[(SAT, "A", "a session of XNYS", "2013-03-02 (Saturday)")],
        good=[bar(THU), bar(FRI)],
    ),
    "r08_no_future_session": Case(
        bad=[bar(FRI), bar("2013-03-04"), bar("2013-03-05", "B")],
        finds=[
            ("2013-03-04", "A", "a session up to 2013-03-01", "2013-03-04"),
            ("2013-03-05", "B", "a session up to 2013-03-01", "2013-03-05"),
        ],
        good=[bar(THU), bar(FRI)],
    ),
    "r09_missing_session": Case(
        bad=[bar("2013-02-19", "B"), bar("2013-02-19", "A"), bar("2013-02-20", "A"), bar(THU, "A"), bar(FRI, "A")],
        finds=[
            *((f"2013-02-{day}", "A", "a row: the symbol had one in the 5 sessions before", "no row, the last one is of 2013-02-20")
              for day in (21, 22, 25, 26, 27)),
            *((f"2013-02-{day}", "B", "a row: the symbol had one in the 5 sessions before", "no row, the last one is of 2013-02-19")
              for day in (20, 21, 22, 25, 26)),
        ],
        good=[bar(WED), bar(THU), bar(FRI), bar(FRI, "NEW")],
        first="2013-02-19",
    ),
    "r10_zero_volume": Case(
        bad=[bar(THU, volume=0.0), bar(FRI)],
        finds=[
            (
                THU,
                "A",
                "a volume above 0, or low, high and close at the close before, unknown",
                "volume 0, low 9.0, high 11.0, close 10.5",
            )
        ],
        good=[bar(THU), bar(FRI, open=10.5, high=10.5, low=10.5, close=10.5, vwap=10.5, volume=0.0)],
    ),
    "r11_close_unchanged": Case(
        bad=[*sound_bars("A", before=FRI, sessions=4), bar(FRI)],
        finds=[(FRI, "A", "a close that changes within 5 sessions", "close 10.5 in each of the last 5 sessions")],
        good=[*sound_bars("A", before=FRI, sessions=4), bar(FRI, close=10.6)],
        first="2013-02-25",
    ),
    "r12_row_repeated": Case(
        bad=[bar(THU), bar(FRI, open=10.0)],
        finds=[(FRI, "A", "other prices than those of 2013-02-28", "open 10.0, high 11.0, low 9.0, close 10.5, volume 1000.0")],
        good=[bar(THU, **_flat(10.5)), bar(FRI, volume=1100.0, **_flat(10.5))],
    ),
    "r13_unexplained_jump": Case(
        bad=[*sound_bars("A", before=FRI), bar(FRI, open=6.2, high=6.5, low=5.9, close=6.0, volume=1500.0)],
        finds=[
            (
                FRI,
                "A",
                "a close within 30% of 10.5 (2013-02-28), or a reason",
                "close 6.0 (-42.9 %), open 6.2 (-41.0 %), volume 1.5 x its median, market unknown: nothing explains it",
            )
        ],
        good=[bar(THU), bar(FRI, open=7.6, high=7.7, low=7.3, close=7.5, vwap=7.5)],
        first="2013-02-20",
    ),
    "r14_unit_mix_up": Case(
        bad=[bar(THU), bar(FRI, open=1000.0, high=1100.0, low=900.0, close=1050.0)],
        finds=[(FRI, "A", "a close not within 20% of 100 or 0.01 times 10.5 (2013-02-28)", "open 1000.0, close 1050.0: 100.0 times")],
        good=[bar(THU), times(bar(FRI), 100, 0.01)],
        good_beside=Beside(actions=actions((FRI, "A", "split", 0.01))),
    ),
    "r15_split_not_seen": Case(
        bad=[bar(THU), bar(FRI)],
        finds=[
            (
                FRI,
                "A",
                "an open or close within 15% of 10.5 (2013-02-28) / 2.0 new shares per old, dividends of 0.25 allowed for",
                "open 10.001, close 10.5: +92.9 % and +102.4 % from it",
            )
        ],
        beside=Beside(actions=actions((FRI, "A", "split", 2.0), (FRI, "A", "dividend", 0.25))),
        good=[bar(THU), times(bar(FRI), 0.5, 2)],
        good_beside=Beside(actions=actions((FRI, "A", "split", 2.0), (FRI, "A", "dividend", 0.25))),
    ),
    "r16_split_suspect": Case(
        bad=[*sound_bars("A", before=FRI), bar(FRI, open=5.2, high=5.5, low=5.0, close=5.25, volume=2000.0)],
        finds=[
            (
                FRI,
                "A",
                "a recorded split, or no jump like 2:1 from 10.5 (2013-02-28)",
                "no split; open 5.2, close 5.25: 0.5 times, volume 2.0 x its median",
            )
        ],
        good=[*sound_bars("A", before=FRI, sessions=3), bar(FRI, open=5.2, high=5.5, low=5.0, close=5.25, vwap=5.2, volume=2000.0)],
        good_beside=Beside(actions=actions((FRI, "A", "split", 2.0))),
        first="2013-02-20",
    ),
    "r17_volume_outlier": Case(
        bad=[*sound_bars("A", before=FRI), bar(FRI, volume=12_000.0)],
        finds=[(FRI, "A", "a volume of at most 10 x its median of 20 sessions", "volume 12000.0: 12.0 x")],
        good=[*sound_bars("A", before=THU, sessions=3), bar(THU, close=10.4), bar(FRI, volume=10_000.0)],
        first="2013-02-20",
    ),
    "r18_vwap_outside": Case(
        bad=[bar(THU, vwap=11.5), bar(FRI, vwap=8.9)],
        finds=[(THU, "A", "a vwap from 9.0 to 11.0", "vwap 11.5"), (FRI, "A", "a vwap from 9.0 to 11.0", "vwap 8.9")],
        good=[bar(THU, vwap=11.0), bar(FRI, vwap=9.0)],
    ),
    "r19_sources_differ": Case(
        bad=[bar(FRI), bar(FRI, "B"), bar(FRI, "C")],
        finds=[
            (FRI, "A", "a close within 0.50% of the other source's 10.4", "close 10.5: 0.96 % apart"),
            (FRI, "B", "a close within 0.50% of the other source's 9.0", "close 10.5: 16.67 % apart"),
        ],
        beside=Beside(peer_closes=_of("close", (FRI, "A", 10.4), (FRI, "B", 9.0), (FRI, "C", 10.46), (THU, "C", 5.0))),
        good=[bar(THU), bar(FRI), *(bar(day, symbol) for day in (THU, FRI) for symbol in "DE")],
        good_beside=Beside(peer_closes=_of("close", (FRI, "A", 10.46), (THU, "Z", 99.0), (FRI, "D", math.nan), (FRI, "E", 0.0))),
        first=FRI,
    ),
    "r20_universe_shrinks": Case(
        bad=[*(bar(THU, symbol) for symbol in "ABCDE"), *(bar(FRI, symbol) for symbol in "ABC")],
        finds=[(FRI, "*", "at most 2% fewer symbols than the 5 of the session before, or less than 2", "3 symbols, 40.0 % fewer")],
        good=[*(bar(THU, symbol) for symbol in "ABC"), *(bar(FRI, symbol) for symbol in "ABCDE")],
    ),
    "r21_feed_fault": Case(
        bad=[*(bar(THU, s, low=low) for s, low in zip("ABCDE", (9.0, 9.0, 9.0, -1.0, -1.0), strict=True)), *(bar(FRI, s) for s in "ABCDE")],
        finds=[(THU, "*", "at most 20% of the symbols faulty, or fewer than 2", "2 of 5 faulty (40.0 %)")],
        good=[bar(day, s) for day, s in product((THU, FRI), "ABCDE")],
    ),
    "r23_adjusted_close_differs": Case(
        bad=[bar(THU), bar(FRI, close=10.6, adjusted_return=1.02)],
        finds=[
            (
                FRI,
                "A",
                "an adjusted return of +1.0 %, split 1.0, dividend 0.0",
                "+2.0 % of the adjusted close that the source publishes",
            )
        ],
        good=[
            bar(THU),
            bar(THU, "B"),
            times(bar(FRI, adjusted_return=5.25 / (10.5 / 2 * 5.25 / 5.75)), 0.5, 2),  # C / (C + D)
            bar(FRI, "B", adjusted_return=10.5 / (10.5 * (1 - 0.5 / 10.5))),  # 1 - D / the close before
        ],
        good_beside=Beside(actions=actions((FRI, "A", "split", 2.0), (FRI, "A", "dividend", 0.5), (FRI, "B", "dividend", 0.5))),
    ),
    "r24_not_listed": Case(
        bad=[bar(THU), bar(FRI), bar(THU, "B"), bar(FRI, "B"), bar(THU, "C"), bar(THU, "D"), bar(FRI, "D")],
        finds=[
            (THU, "A", "a session from 2013-03-01 to now", "2013-02-28"),
            (FRI, "B", "a session from 2004-08-19 to 2013-02-28", "2013-03-01"),
            (FRI, "D", "a session to 2013-02-28", "2013-03-01"),
        ],
        beside=Beside(listings=_listed(("A", FRI, None), ("B", "2004-08-19", THU), ("D", None, THU), ("D", "2013-03-04", None))),
        good=[bar(THU), bar(FRI), bar(THU, "B"), bar(FRI, "B")],
        good_beside=Beside(listings=_listed(("A", THU, FRI), ("B", None, THU), ("B", FRI, None))),
    ),
}  # fmt: skip


def findings(rows: list[Row], first: str, beside: Beside | None = None) -> pl.DataFrame:
    return gate(
        raw(*rows),
        first=date.fromisoformat(first),
        last=date(2013, 3, 5),
        context=raw(),
        calendar=exchange_calendar(),
        settings=GateSettings(),
        absent=frozenset(),
        last_closed_session=date(2013, 3, 1),
        beside=beside,
    ).findings


def test_every_rule_has_a_bad_and_a_good_table():
    assert list(CASES) == [rule.id for rule in rules()]


def test_a_rule_is_the_file_of_its_name():
    (folder,) = quant.quality.rules.__path__
    assert [rule.id for rule in rules()] == sorted(path.stem for path in Path(folder).glob("r*.py"))


@pytest.mark.parametrize("rule", CASES)
def test_the_bad_table_gives_the_findings_with_numbers(rule: str):
    found = findings(CASES[rule].bad, CASES[rule].first, CASES[rule].beside).filter(pl.col("rule") == rule)
    assert found.select(pl.col("session").cast(pl.String), "symbol", "expected", "observed").rows() == sorted(CASES[rule].finds)


@pytest.mark.parametrize("rule", CASES)
def test_the_good_table_gives_no_finding(rule: str):
    assert findings(CASES[rule].good, CASES[rule].first, CASES[rule].good_beside).rows() == []


def test_two_bad_rows_of_one_key_are_one_finding_of_a_rule():
    found = findings([bar(THU, volume=-1.0), bar(THU, volume=-2.0), bar(FRI)], THU)
    assert found.select("rule", "observed").rows() == [
        ("r01_key_unique", "2 rows with close 10.5, 10.5"),
        ("r06_volume_not_negative", "volume -1.0"),
    ]
