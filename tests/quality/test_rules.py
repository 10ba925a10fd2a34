"""Each rule by one bad table and one good one. A new rule needs an entry in CASES."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path

import polars as pl
import pytest

import quant.quality.rules
from quant.calendar import exchange_calendar
from quant.quality.gate import gate, rules
from quant.quality.rule import GateSettings
from tests.quality.rows import Row, bar, raw

NAN, INF = float("nan"), float("inf")
WED, THU, FRI, SAT = "2013-02-27", "2013-02-28", "2013-03-01", "2013-03-02"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """``bad`` gives exactly the findings ``finds`` of the rule: session, symbol, expected, observed; ``good`` gives none of any rule."""

    bad: list[Row]
    finds: list[tuple[str, str, str, str]]
    good: list[Row]
    first: str = THU


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
        good=[bar(THU, high=10.5), bar(FRI, open=7.0, high=7.0, low=7.0, close=7.0)],
    ),
    "r04_low_is_lowest": Case(
        bad=[bar(THU, low=10.1), bar(FRI)],
        finds=[(THU, "A", "low <= min(open, close, high) = 10.0", "low 10.1")],
        good=[bar(THU, low=10.0), bar(FRI, open=7.0, high=7.0, low=7.0, close=7.0)],
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
        good=[bar(THU, volume=0.0), bar(FRI)],
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
    "r21_feed_fault": Case(
        bad=[*(bar(THU, s, low=low) for s, low in zip("ABCDE", (9.0, 9.0, 9.0, -1.0, -1.0), strict=True)), *(bar(FRI, s) for s in "ABCDE")],
        finds=[(THU, "*", "at most 20% of the symbols blocked, or fewer than 2", "2 of 5 blocked (40.0 %)")],
        good=[bar(day, s) for day, s in product((THU, FRI), "ABCDE")],
    ),
}  # fmt: skip


def findings(rows: list[Row], first: str) -> pl.DataFrame:
    return gate(
        raw(*rows),
        first=date.fromisoformat(first),
        last=date(2013, 3, 5),
        context=raw().select("session", "symbol"),
        calendar=exchange_calendar(),
        settings=GateSettings(),
        absent=frozenset(),
        last_closed_session=date(2013, 3, 1),
    ).findings


def test_every_rule_has_a_bad_and_a_good_table():
    assert list(CASES) == [rule.id for rule in rules()]


def test_a_rule_is_the_file_of_its_name():
    (folder,) = quant.quality.rules.__path__
    assert [rule.id for rule in rules()] == sorted(path.stem for path in Path(folder).glob("r*.py"))


@pytest.mark.parametrize("rule", CASES)
def test_the_bad_table_gives_the_findings_with_numbers(rule: str):
    found = findings(CASES[rule].bad, CASES[rule].first).filter(pl.col("rule") == rule)
    assert found.select(pl.col("session").cast(pl.String), "symbol", "expected", "observed").rows() == sorted(CASES[rule].finds)


@pytest.mark.parametrize("rule", CASES)
def test_the_good_table_gives_no_finding(rule: str):
    assert findings(CASES[rule].good, CASES[rule].first).rows() == []


def test_two_bad_rows_of_one_key_are_one_finding_of_a_rule():
    found = findings([bar(THU, volume=-1.0), bar(THU, volume=-2.0), bar(FRI)], THU)
    assert found.select("rule", "observed").rows() == [
        ("r01_key_unique", "2 rows with close 10.5, 10.5"),
        ("r06_volume_not_negative", "volume -1.0"),
    ]
