"""One security keeps its rows through renames, and a symbol that is used again is another one."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant.calendar import exchange_calendar
from quant.errors import InputError
from quant.market.contracts import checked
from quant.market.securities import actions_by_security, as_traded, by_security, endings, instruments, listings
from quant.tables import TABLES

DAYS = exchange_calendar().sessions(date(2013, 1, 2), date(2013, 1, 31))


def bars(**spans: tuple[int, int]) -> pl.DataFrame:
    """A row for each day first..last of each symbol, in its own order of days."""
    rows = [(DAYS[n], symbol, float(n)) for symbol, (first, last) in spans.items() for n in range(first, last + 1)]
    return pl.DataFrame(rows, schema={"session": pl.Date, "symbol": pl.String, "close": pl.Float64}, orient="row")


def ends(*rows: tuple[int, str, str | None]) -> pl.DataFrame:
    """(day, symbol, new symbol; None: delisted)."""
    made = [(DAYS[n], symbol, "rename" if new else "delisting", 1.0, new) for n, symbol, new in rows]
    schema = {"ex_date": pl.Date, "symbol": pl.String, "kind": pl.String, "value": pl.Float64, "new_symbol": pl.String}
    return endings(pl.DataFrame(made, schema=schema, orient="row"))


def securities(rows: pl.DataFrame, known: pl.DataFrame) -> dict[str, list[int]]:
    """Security -> its days."""
    named = by_security(rows, known).sort("session")
    return {name: [int(n) for n in part["close"]] for (name,), part in named.group_by("symbol", maintain_order=True)}


def test_without_endings_rows_are_as_they_were():
    rows = bars(A=(0, 3))
    assert by_security(rows, ends()) is rows
    assert as_traded(rows, rows) is rows


def test_a_renamed_security_has_one_name_and_each_row_the_symbol_it_traded_under():
    rows, known = bars(FB=(0, 2), META=(3, 5)), ends((3, "FB", "META"))
    named = by_security(rows, known)
    assert named["symbol"].unique().to_list() == ["META"]
    assert_frame_equal(as_traded(named, named), rows.sort("session", "symbol"))


@pytest.mark.parametrize("order", [1, -1])
def test_what_is_renamed_and_delisted_on_one_day_is_delisted_in_whatever_order_that_is_told(order: int):
    known = ends(*[(3, "A", "B"), (3, "A", None)][::order])
    assert securities(bars(A=(0, 2), B=(3, 4)), known) == {f"A until {DAYS[3]}": [0, 1, 2], "B": [3, 4]}
    checked(instruments(bars(A=(0, 2), B=(3, 4)), known, exchange_calendar()), TABLES["instruments"])


def test_renames_follow_each_other():
    assert securities(bars(A=(0, 1), B=(2, 3), C=(4, 4)), ends((4, "B", "C"), (2, "A", "B"))) == {"C": [0, 1, 2, 3, 4]}


def test_two_securities_swap_their_symbols():
    assert securities(
        bars(A=(0, 3), B=(0, 3)).with_columns(close=pl.col("close") + 10 * (pl.col("symbol") == "B")), ends((2, "A", "B"), (2, "B", "A"))
    ) == {
        "B": [0, 1, 12, 13],
        "A": [10, 11, 2, 3],
    }


def test_a_symbol_that_is_used_again_after_a_delisting_is_another_security():
    assert securities(bars(A=(0, 5)), ends((3, "A", None))) == {f"A until {DAYS[3]}": [0, 1, 2], "A": [3, 4, 5]}


def test_a_symbol_that_is_used_again_after_a_rename_is_another_security():
    assert securities(bars(A=(0, 5), B=(3, 5)), ends((3, "A", "B")))["B"] == [0, 1, 2, 3, 4, 5]


def test_two_rows_of_one_security_in_a_session_are_refused():
    with pytest.raises(InputError, match=r"expected one bar a session of each security .*symbol=B traded_as=A"):
        by_security(bars(A=(0, 2), B=(2, 4)), ends((3, "A", "B")))


def test_an_action_on_the_day_of_a_rename_belongs_to_it_under_either_symbol():
    rows = pl.DataFrame({"ex_date": [DAYS[3], DAYS[3], DAYS[2]], "symbol": ["A", "B", "A"]})
    assert actions_by_security(rows, ends((3, "A", "B")))["symbol"].to_list() == ["B", "B", "B"]


def listed(rows: pl.DataFrame, known: pl.DataFrame) -> list[tuple[object, ...]]:
    table = instruments(rows, known, exchange_calendar())
    checked(table, TABLES["instruments"])
    return table.select("symbol", "first_session", "last_session", "ended_by", "security").rows()


def test_instruments_have_the_sessions_on_which_a_symbol_was_listed_and_what_ended_it():
    rows = bars(A=(0, 5), B=(1, 2), C=(3, 5), D=(2, 4))
    assert listed(rows, ends((3, "B", "C"), (5, "D", None))) == [
        ("A", DAYS[0], None, None, "A"),
        ("B", DAYS[1], DAYS[2], "rename", "C"),
        ("C", DAYS[3], None, None, "C"),
        ("D", DAYS[2], DAYS[4], "delisting", f"D until {DAYS[5]}"),
    ]


def test_a_symbol_that_lists_twice_is_two_instruments():
    assert [row[:3] for row in listed(bars(A=(0, 5)), ends((3, "A", None)))] == [("A", DAYS[0], DAYS[2]), ("A", DAYS[3], None)]


@given(days=st.lists(st.integers(1, 15), min_size=1, max_size=3, unique=True), at=st.integers(0, 15))
def test_an_ending_still_to_come_joins_and_parts_no_rows_of_the_past(days: list[int], at: int):
    names = "ABCD"
    moves = [(day, names[n], names[n + 1]) for n, day in enumerate(sorted(days))]
    edges = [0, *sorted(days), 16]
    rows = bars(**{names[n]: (edges[n], edges[n + 1] - 1) for n in range(len(days) + 1)})
    past = rows.filter(pl.col("session") <= DAYS[at])
    then = by_security(past, ends(*[move for move in moves if move[0] <= at]))
    now = by_security(past, ends(*moves))
    groups = [{tuple(sorted(part["close"])) for _, part in named.group_by("symbol")} for named in (then, now)]
    assert groups[0] == groups[1]


def spells(known: pl.DataFrame) -> list[tuple[str, int | None, int | None]]:
    """(symbol, first and last day) as listings has them."""
    rows = listings(known, exchange_calendar()).rows()
    return [(symbol, *(None if at is None else DAYS.index(at) for at in span)) for symbol, *span in rows]


def test_a_symbol_is_listed_up_to_its_ending_and_again_from_the_rename_to_it():
    assert spells(ends()) == []
    assert spells(ends((3, "A", None), (4, "B", "C"))) == [("A", None, 2), ("B", None, 3)]
    assert spells(ends((3, "A", None), (5, "B", "A"), (8, "A", "D"))) == [("A", None, 2), ("A", 5, 7), ("B", None, 4)]
    assert spells(ends((3, "A", "B"), (3, "B", "A"))) == [("A", None, 2), ("A", 3, None), ("B", None, 2), ("B", 3, None)]


@given(
    moves=st.lists(st.tuples(st.integers(1, 15), st.sampled_from("ABC"), st.sampled_from(["A", "B", "C", None])), max_size=6),
    at=st.integers(0, 16),
)
def test_no_later_ending_or_rename_tells_whether_a_symbol_is_listed_on_a_day(moves: list[tuple[int, str, str | None]], at: int):
    def gone(known: pl.DataFrame) -> set[str]:
        all_of = listings(known, exchange_calendar())
        begun = pl.col("listed").is_null() | (pl.col("listed") <= DAYS[at])
        still = pl.col("delisted").is_null() | (pl.col("delisted") >= DAYS[at])
        return set(all_of["symbol"]) - set(all_of.filter(begun, still)["symbol"])

    assert gone(ends(*moves)) == gone(ends(*[move for move in moves if move[0] <= at]))
