"""Who is of the universe of a session is decided by what was there up to it."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant.calendar import exchange_calendar
from quant.market.securities import by_security
from quant.market.universe import UniverseSettings, universe

XNYS = exchange_calendar()
DAYS = XNYS.sessions(date(2013, 1, 2), date(2013, 1, 31))


def rows(*bars: tuple[int, str, float, float]) -> pl.DataFrame:
    """(day number, symbol, close, volume)."""
    schema = {"session": pl.Date, "symbol": pl.String, "close": pl.Float64, "volume": pl.Float64}
    return pl.DataFrame([(DAYS[n], *rest) for n, *rest in bars], schema=schema, orient="row")


def members(window: pl.DataFrame, first: int, last: int, **settings: float) -> list[tuple[int, str]]:
    chosen = UniverseSettings.model_validate(settings)
    found = universe(window, first=DAYS[first], last=DAYS[last], calendar=XNYS, settings=chosen)
    return [(DAYS.index(day), symbol) for day, symbol in found.rows()]


def test_by_default_everybody_with_a_bar_in_the_session_is_in():
    assert UniverseSettings().everybody
    assert members(rows((0, "A", 1.0, 0.0), (1, "A", 1.0, 5.0), (1, "B", 0.01, 1.0)), 1, 2) == [(1, "A"), (1, "B")]


def test_too_cheap_a_close_keeps_a_name_out_of_that_session_only():
    assert members(rows((0, "A", 5.0, 9.0), (1, "A", 4.99, 9.0), (2, "A", 5.01, 9.0)), 0, 2, min_price_usd=5) == [(0, "A"), (2, "A")]


def test_the_median_of_dollars_traded_in_the_window_counts_not_one_busy_session():
    window = rows(*((n, "A", 10.0, 1e6 if n == 3 else 10.0) for n in range(5)), *((n, "B", 10.0, 50.0) for n in range(5)))
    assert members(window, 3, 4, min_median_dollar_volume_usd=500, window_sessions=3) == [(3, "B"), (4, "B")]


def test_the_window_is_of_exchange_sessions_whether_or_not_the_name_traded_in_them():
    window = rows((0, "A", 10.0, 1000.0), (4, "A", 10.0, 1.0))
    assert members(window, 4, 4, min_median_dollar_volume_usd=100, window_sessions=5) == [(4, "A")]
    assert members(window, 4, 4, min_median_dollar_volume_usd=100, window_sessions=4) == []


def test_a_split_changes_nothing_and_neither_does_a_rename():
    window = rows(*((n, "A", 100.0, 100.0) for n in range(3)), *((n, "B", 50.0, 1.0 if n == 3 else 200.0) for n in range(3, 6)))
    ends = pl.DataFrame({"symbol": ["A"], "ex_date": [DAYS[3]], "kind": ["rename"], "new_symbol": ["B"]})
    wanted = [(2, "A"), (3, "B"), (4, "B")]  # on day 3 the median is of two sessions as A, and the thin first one as B
    assert members(by_security(window, ends), 2, 4, min_median_dollar_volume_usd=9_000, window_sessions=3) == wanted


bars = st.lists(
    st.tuples(st.integers(0, 15), st.sampled_from("ABC"), st.floats(0.5, 50), st.floats(0, 1e6)),
    unique_by=lambda bar: bar[:2],
    max_size=40,
)


@given(window=bars, day=st.integers(0, 15), price=st.sampled_from([0, 5.0]), dollars=st.sampled_from([0, 1e5]), sessions=st.integers(1, 8))
def test_rows_that_come_later_change_no_earlier_universe_and_a_range_is_its_sessions(
    window: list[tuple[int, str, float, float]], day: int, price: float, dollars: float, sessions: int
):
    settings = UniverseSettings(min_price_usd=price, min_median_dollar_volume_usd=dollars, window_sessions=sessions)

    def of(known: list[tuple[int, str, float, float]], first: int, last: int) -> pl.DataFrame:
        return universe(rows(*known), first=DAYS[first], last=DAYS[last], calendar=XNYS, settings=settings)

    whole = of(window, 0, 15)
    assert_frame_equal(of([bar for bar in window if bar[0] <= day], 0, day), whole.filter(pl.col("session") <= DAYS[day]))
    needed = [bar for bar in window if day - sessions < bar[0] <= day]
    assert_frame_equal(of(needed, day, day), whole.filter(pl.col("session") == DAYS[day]))


@pytest.mark.parametrize("key", ["min_price_usd", "min_median_dollar_volume_usd"])
def test_a_negative_limit_is_refused(key: str):
    with pytest.raises(ValueError, match=key):
        UniverseSettings.model_validate({key: -1})
