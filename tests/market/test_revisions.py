"""What changed in rows that were known, and which decisions were made on the old values."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.calendar import exchange_calendar
from quant.market.as_of import bars_as_of
from quant.market.revisions import REVISIONS, decisions_reaching, of_rows, revisions, worth_telling
from quant.tables import TABLES

XNYS = exchange_calendar()
DAYS = XNYS.sessions(date(2013, 1, 2), date(2013, 2, 28))
OHLCV = ("open", "high", "low", "close", "volume")


def at(day: int, hour: int = 21) -> datetime:
    """UTC hour of a day's date; 21 is the close."""
    return datetime.combine(DAYS[day], datetime.min.time(), UTC) + timedelta(hours=hour)


def bar(day: int, close: float, known_at: datetime, *, symbol: str = "A", assumed: bool = False) -> dict[str, object]:
    row = {"session": DAYS[day], "symbol": symbol, "source": "s", **dict.fromkeys(OHLCV, 10.0), "close": close, "vwap": None}
    clocks = {"known_at": known_at, "received_at": known_at, "known_at_assumed": assumed, "digest": f"{symbol}{close}"}
    return {**row, **clocks, "origin_digest": None}


def action(day: int, kind: str, value: float, known_at: datetime) -> dict[str, object]:
    row = {"ex_date": DAYS[day], "symbol": "A", "kind": kind, "value": value, "pay_date": None, "new_symbol": None, "source": "s"}
    clocks = {"known_at": known_at, "received_at": known_at, "known_at_assumed": False, "digest": f"{kind}{value}"}
    return {**row, **clocks, "origin_digest": None}


def decided(*days: int, book: str = "paper", reach: int = 3) -> pl.DataFrame:
    """Decisions at 22:00 of their days."""
    rows = pl.DataFrame({"book": book, "session": [DAYS[n] for n in days], "known_by": [at(n, 22) for n in days]})
    return decisions_reaching(rows.cast({"known_by": pl.Datetime("us", "UTC")}), XNYS, reach)


def changes(rows: list[dict[str, object]], decisions: pl.DataFrame, table: str = "raw_bars", since: datetime | None = None) -> pl.DataFrame:
    judged = (lambda day: at(DAYS.index(day), 22)) if table == "raw_bars" else None
    found = revisions(pl.DataFrame(rows, schema=TABLES[table].schema), table, decisions, judged_at=judged, since=since)
    assert found.schema == REVISIONS
    return found


def used(found: pl.DataFrame) -> list[tuple[str, int]]:
    return [(use["book"], DAYS.index(use["session"])) for use in found["used_by"][0]]


def test_a_restated_close_is_one_change_used_by_every_decision_that_looks_back_at_what_was_accepted():
    rows = [bar(5, 10.0, at(5)), bar(5, 10.5, at(7)), bar(6, 11.0, at(6))]
    found = changes(rows, decided(4, 5, 6, 8, 9))
    assert found.drop("used_by").rows() == [("raw_bars", "A", DAYS[5], None, "s", at(7), "close", "10.0", "10.5")]
    # 4 was before it, 9 does not look back so far; 8 knew the new value, but what the gate accepted of session 5 is the old one
    assert used(found) == [("paper", 5), ("paper", 6), ("paper", 8)]


def test_a_revision_before_any_decision_was_used_by_none():
    found = changes([bar(5, 10.0, at(5)), bar(5, 10.5, at(5, 21) + timedelta(minutes=5))], decided(5, 6))
    assert found["used_by"].to_list() == [[]]


def test_of_three_versions_of_a_dividend_each_decision_used_the_one_in_force():
    rows = [action(5, "dividend", value, at(day)) for day, value in ((4, 0.5), (6, 0.6), (7, 0.5))]
    found = changes(rows, decided(4, 5, 6, 7), "corporate_actions")
    assert found.select("old", "new").rows() == [("0.5", "0.6"), ("0.6", "0.5")]
    assert [[DAYS.index(use["session"]) for use in uses] for uses in found["used_by"]] == [[4, 5], [6]]


def test_a_bar_that_came_after_a_decision_is_news_and_one_that_came_in_time_is_none():
    found = changes([bar(5, 10.0, at(6, 23)), bar(6, 11.0, at(6), symbol="B")], decided(5, 6, 7))
    assert found.filter(pl.col("column") == "close").select("symbol", "old", "new").rows() == [("A", None, "10.0")]
    assert used(found) == [("paper", 5), ("paper", 6), ("paper", 7)]


def test_rows_of_a_history_load_are_no_news_and_since_leaves_out_what_was_known_before():
    rows = [bar(5, 10.0, at(5), assumed=True), bar(5, 10.5, at(9)), bar(6, 11.0, at(6), assumed=True), bar(6, 11.5, at(8))]
    assert changes(rows, decided(6))["new"].to_list() == ["11.5", "10.5"]
    assert changes(rows, decided(6), since=at(9))["new"].to_list() == ["10.5"]
    assert changes(rows, decided(6), since=at(10)).is_empty()


def test_a_late_split_was_missed_by_the_decision_before_its_ex_date_too():
    found = changes([action(5, "split", 2.0, at(7, 23))], decided(3, 4, 7, 8), "corporate_actions")
    assert found.select("session", "kind", "column", "old", "new").rows() == [(DAYS[5], "split", "value", None, "2.0")]
    assert used(found) == [("paper", 4), ("paper", 7)]


def test_two_rows_of_one_version_are_told_together():
    found = changes([bar(5, 10.0, at(5)), bar(5, 10.0, at(7)), bar(5, 11.0, at(7))], decided(5))
    assert found.select("old", "new").rows() == [("10.0", "10.0 and 11.0")]


def test_a_record_has_all_columns_of_a_row_and_is_json():
    rows = [bar(5, 10.0, at(5)), {**bar(5, 10.5, at(7)), "volume": 12.0}]
    both = pl.concat([decided(5, 6, 9), decided(6, book="backtest")])
    (record,) = of_rows(changes(rows, both))
    assert record["changes"] == [
        {"column": "close", "old": "10.0", "new": "10.5"},
        {"column": "volume", "old": "10.0", "new": "12.0"},
    ]
    assert record["used_by"] == [
        {"book": "backtest", "sessions": [str(DAYS[6])]},
        {"book": "paper", "sessions": [str(DAYS[5]), str(DAYS[6])]},
    ]
    assert json.loads(json.dumps(record)) == record


versions = st.lists(st.tuples(st.integers(0, 8), st.sampled_from([10.0, 10.5, 11.0])), min_size=1, max_size=5, unique_by=lambda v: v[0])


@pytest.mark.scenario(21)
@given(known=versions, day=st.integers(0, 8))
def test_a_decision_used_an_old_value_if_and_only_if_what_was_known_then_is_not_what_is_known_now(known: list[tuple[int, float]], day: int):
    rows = [bar(0, close, at(n)) for n, close in sorted(known)]
    frame = pl.DataFrame(rows, schema=TABLES["raw_bars"].schema)
    found = revisions(frame, "raw_bars", decided(8, reach=20), judged_at=lambda _: at(day, 22))
    then = bars_as_of(frame, at(day, 22))["close"].to_list()
    following = [close for n, close in sorted(known) if n > day][:1]
    using = found.filter(pl.col("used_by").list.len() > 0, pl.col("column") == "close")
    expected = [(str(then[0]) if then else None, str(following[0]))] if following and following != then else []
    assert using.select("old", "new").rows() == expected


def test_a_volume_that_is_counted_again_is_not_told_and_a_price_is():
    def record(*changes: tuple[str, str | None, str | None]) -> dict[str, object]:
        return {"changes": [{"column": column, "old": old, "new": new} for column, old, new in changes]}

    small = record(("volume", "1000.0", "1009.0"), ("vwap", "10.0", "10.01"))
    told = [
        record(("volume", "1000.0", "1011.0")),
        record(("volume", None, "1000.0")),
        record(("close", "10.0", "10.001")),
        record(("volume", "1000.0", "1001.0"), ("close", "10.0", "10.001")),
    ]
    assert worth_telling([small, *told], 0.01) == told
    assert worth_telling([small], 0.0) == [small]
