from __future__ import annotations

from datetime import date
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant.calendar import exchange_calendar
from quant.errors import InputError
from quant.market.adjustment import adjusted_bars, adjustment_indices, refuse_unpayable, seen_from, unpayable
from quant.market.contracts import checked
from quant.ports import AdjustmentConvention
from quant.tables import TABLES

EX_DATE, PREVIOUS = AdjustmentConvention.EX_DATE_CLOSE, AdjustmentConvention.PREVIOUS_CLOSE
DAYS = exchange_calendar().sessions(date(2013, 1, 2), date(2013, 1, 31))
Action = tuple[int, str, float]  # day number, kind, value


def accepted(closes: dict[int, float], symbol: str = "X") -> pl.DataFrame:
    """Rows of accepted_bars of one symbol: day number -> close; the other prices around it, volume 1000."""
    close = pl.col("close")
    rows = pl.DataFrame({"session": [DAYS[n] for n in closes], "symbol": symbol, "close": list(closes.values())})
    return rows.select(
        "session",
        "symbol",
        open=close * 0.99,
        high=close * 1.02,
        low=close * 0.98,
        close=close,
        volume=1000.0,
        vwap=pl.lit(None, pl.Float64),
    )


def actions(*rows: Action, symbol: str = "X") -> pl.DataFrame:
    schema = {"ex_date": pl.Date, "symbol": pl.String, "kind": pl.String, "value": pl.Float64}
    return pl.DataFrame([(DAYS[n], symbol, kind, value) for n, kind, value in rows], schema=schema, orient="row")


def indices(closes: dict[int, float], convention: AdjustmentConvention, *rows: Action) -> list[tuple[float, float]]:
    """split_index and total_index of each row."""
    return adjusted_bars(accepted(closes), actions(*rows), convention).select("split_index", "total_index").rows()


def test_without_actions_every_index_is_one():
    assert indices({0: 10.0, 1: 11.0}, EX_DATE) == [(1.0, 1.0), (1.0, 1.0)]


def test_the_rows_are_those_of_the_table():
    rows = adjusted_bars(accepted({0: 10.0, 1: 5.0}), actions((1, "split", 2.0)), EX_DATE)
    assert checked(rows, TABLES["adjusted_bars"]).columns == list(TABLES["adjusted_bars"].columns)


def test_a_split_raises_both_indices_from_its_ex_date_on():
    assert indices({0: 10.0, 1: 5.0, 2: 5.0}, EX_DATE, (1, "split", 2.0)) == [(1.0, 1.0), (2.0, 2.0), (2.0, 2.0)]


def test_a_reverse_split_makes_the_indices_fall():
    assert indices({0: 1.0, 1: 10.0}, EX_DATE, (1, "split", 0.1)) == [(1.0, 1.0), (0.1, 0.1)]


def test_a_dividend_by_the_close_of_its_ex_date():
    assert indices({0: 100.0, 1: 80.0}, EX_DATE, (1, "dividend", 20.0)) == [(1.0, 1.0), (1.0, 100 / 80)]


def test_a_dividend_by_the_close_before_as_yahoo_computes_it():
    # hand-computed: factors 1 - 20/100 and 1 - 6/60 on all earlier prices; seen from the end the first close is 100 x 0.8 x 0.9 = 72
    closes = {0: 100.0, 1: 75.0, 2: 60.0, 3: 54.0}
    rows = adjusted_bars(accepted(closes), actions((1, "dividend", 20.0), (3, "dividend", 6.0)), PREVIOUS)
    assert seen_from(rows, DAYS[3])["close"].to_list() == pytest.approx([72.0, 67.5, 54.0, 54.0], rel=1e-15)


def test_yahoos_rule_over_a_split_and_a_dividend():
    # hand-computed: 2:1 on day 1; dividend 2 on day 2 by the close 40 of day 1: 1 - 2/40 = 0.95; 80 / 2 x 0.95 = 38 and 40 x 0.95 = 38
    rows = adjusted_bars(accepted({0: 80.0, 1: 40.0, 2: 39.0}), actions((1, "split", 2.0), (2, "dividend", 2.0)), PREVIOUS)
    seen = seen_from(rows, DAYS[2])
    assert seen["close"].to_list() == pytest.approx([38.0, 38.0, 39.0], rel=1e-15)
    assert seen["volume"].to_list() == [2000.0, 1000.0, 1000.0]


def test_a_dividend_on_a_split_date_is_per_new_share_by_the_close_of_the_ex_date():
    # 100 -> 2:1 and 5 a new share: two new shares at 45 and two dividends of 5 are worth the old 100
    assert indices({0: 100.0, 1: 45.0}, EX_DATE, (1, "dividend", 5.0), (1, "split", 2.0))[1] == (2.0, 2.0 * (50 / 45))


def test_a_dividend_on_a_split_date_is_per_old_share_by_the_close_before():
    # 100 -> 10 an old share, then 2:1: two new shares at 45 and one dividend of 10
    assert indices({0: 100.0, 1: 45.0}, PREVIOUS, (1, "split", 2.0), (1, "dividend", 10.0))[1] == (2.0, 100 / 90 * 2.0)


@pytest.mark.parametrize(("convention", "step"), [(EX_DATE, 22 / 20), (PREVIOUS, 25 / 23)])
def test_a_quarantined_ex_date_does_not_lose_its_action(convention: AdjustmentConvention, step: float):
    # days 2 and 3 never passed the gate: the close after is 20 on day 4, the close before is 25 on day 1
    rows = indices({0: 24.0, 1: 25.0, 4: 20.0}, convention, (2, "dividend", 2.0))
    assert rows == [(1.0, 1.0), (1.0, 1.0), (1.0, step)]
    assert indices({0: 24.0, 1: 25.0, 4: 12.5}, convention, (3, "split", 2.0))[-1] == (2.0, 2.0)


def test_a_close_from_after_a_later_split_is_brought_back_to_the_dividends_shares():
    # dividend 2 an old share on day 1 (quarantined), 4:1 on day 2: the close 25 is 100 of the dividend's shares
    assert indices({0: 100.0, 2: 25.0}, EX_DATE, (1, "dividend", 2.0), (2, "split", 4.0))[-1] == (4.0, 102 / 100 * 4.0)


def test_a_close_from_before_an_earlier_split_is_brought_forward_to_the_dividends_shares():
    # 4:1 on day 1 (quarantined), dividend 5 a new share on day 2: the close 100 of day 0 is 25 of the dividend's shares
    assert indices({0: 100.0, 2: 20.0}, PREVIOUS, (1, "split", 4.0), (2, "dividend", 5.0))[-1] == (4.0, 4.0 * (25 / 20))


def test_indices_start_at_the_first_row_and_ignore_what_was_before():
    assert indices({1: 10.0, 2: 10.0}, EX_DATE, (0, "split", 3.0), (1, "dividend", 1.0)) == [(1.0, 1.0), (1.0, 1.0)]


def test_actions_still_to_come_move_nothing():
    assert indices({0: 10.0, 1: 10.0}, EX_DATE, (5, "split", 3.0), (6, "dividend", 1.0)) == [(1.0, 1.0), (1.0, 1.0)]


def test_each_symbol_has_its_own_actions():
    both = pl.concat([accepted({0: 10.0, 1: 5.0}), accepted({0: 7.0, 1: 7.0}, "Y")])
    rows = adjusted_bars(both, actions((1, "split", 2.0)), EX_DATE)
    assert rows.filter(pl.col("symbol") == "Y")["total_index"].to_list() == [1.0, 1.0]
    assert rows.filter(pl.col("symbol") == "X")["total_index"].to_list() == [1.0, 2.0]


def test_a_dividend_that_eats_the_price_is_refused_by_the_close_before():
    with pytest.raises(
        InputError, match=r"expected dividends below the close before in corporate_actions, found symbol=X .*value=12.0 close=10.0"
    ):
        indices({0: 10.0, 1: 1.0}, PREVIOUS, (1, "dividend", 12.0))


def test_an_action_of_unknown_kind_is_refused():
    with pytest.raises(InputError, match=r"expected kind split or dividend or .* in corporate_actions, found .*kind=merger"):
        indices({0: 10.0, 1: 1.0}, EX_DATE, (1, "merger", 1.0))


@pytest.mark.parametrize("convention", AdjustmentConvention)
def test_a_spin_off_moves_prices_as_a_dividend_of_its_value(convention: AdjustmentConvention):
    closes = {0: 100.0, 1: 80.0, 2: 81.0}
    assert indices(closes, convention, (1, "spinoff", 20.0)) == indices(closes, convention, (1, "dividend", 20.0))


@pytest.mark.parametrize(("convention", "step"), [(EX_DATE, (70 + 5 + 25) / 70), (PREVIOUS, 100 / (100 - 5 - 25))])
def test_a_spin_off_and_a_dividend_of_one_date_are_one_payment(convention: AdjustmentConvention, step: float):
    both = indices({0: 100.0, 1: 70.0}, convention, (1, "dividend", 5.0), (1, "spinoff", 25.0))
    assert both == [(1.0, 1.0), (1.0, pytest.approx(step, rel=1e-15))]


def test_a_rename_and_a_delisting_move_no_price():
    assert indices({0: 10.0, 1: 11.0}, EX_DATE, (1, "rename", 1.0), (1, "delisting", 11.0)) == [(1.0, 1.0), (1.0, 1.0)]


def test_seen_from_a_session_its_own_row_is_raw_and_later_ones_are_not_there():
    rows = adjusted_bars(accepted({0: 100.0, 1: 50.0, 2: 25.0}), actions((1, "split", 2.0), (2, "split", 2.0)), EX_DATE)
    seen = seen_from(rows, DAYS[1])
    assert seen["session"].to_list() == DAYS[:2]
    assert seen["close"].to_list() == [50.0, 50.0]
    assert seen["volume"].to_list() == [2000.0, 1000.0]
    assert seen.columns == ["session", "symbol", "open", "high", "low", "close", "volume", "vwap"]


def test_an_older_close_of_a_session_in_the_rows_is_not_used():
    stale = accepted({0: 100.0, 1: 40.0}).select("session", "symbol", "close")
    rows = adjusted_bars(accepted({1: 80.0}), actions((1, "dividend", 20.0)), EX_DATE, indices_from=stale)
    assert rows["total_index"].to_list() == [100 / 80]


def test_no_rows_give_no_rows():
    assert adjusted_bars(accepted({0: 1.0}).clear(), actions((1, "split", 2.0)), EX_DATE).is_empty()


# A symbol over some days, with rows missing where the gate kept them out, and any actions. Closes are 1 at least and two splits take at
# most a ninth of one, so that a dividend below 0.1 is always below the close before.
def on_different_days(action: st.SearchStrategy[Action], most: int) -> st.SearchStrategy[list[Action]]:
    return st.lists(action, max_size=most, unique_by=lambda a: a[0])


prices = st.floats(1.0, 500.0)
closes = st.dictionaries(st.integers(0, 14), prices, min_size=1)
splits = on_different_days(st.tuples(st.integers(0, 16), st.just("split"), st.sampled_from([2.0, 3.0, 1.5, 0.1, 1.0000007])), 2)
dividends = on_different_days(st.tuples(st.integers(0, 16), st.just("dividend"), st.floats(0.01, 0.09)), 6)
some_actions = st.tuples(splits, dividends).map(lambda both: [*both[0], *both[1]])


def closes_that_matter(before: pl.DataFrame, known: pl.DataFrame, convention: AdjustmentConvention) -> pl.DataFrame:
    """Each symbol's first close, and the one at each ex_date that the convention asks for."""
    exact = convention is EX_DATE
    at_ex_dates = known.sort("ex_date").join_asof(
        before.sort("session"),
        left_on="ex_date",
        right_on="session",
        by="symbol",
        strategy="forward" if exact else "backward",
        allow_exact_matches=exact,
        coalesce=False,
        check_sortedness=False,
    )
    first = before.sort("session").unique("symbol", keep="first")
    return pl.concat([first, at_ex_dates.drop_nulls("session").select(before.columns)]).unique()


@pytest.mark.parametrize("convention", AdjustmentConvention)
@given(x=closes, y=closes, of_x=some_actions, of_y=some_actions, day=st.integers(0, 14))
def test_one_session_has_the_same_bits_as_in_the_range_from_the_closes_that_matter_alone(
    convention: AdjustmentConvention, x: dict[int, float], y: dict[int, float], of_x: list[Action], of_y: list[Action], day: int
):
    bars = pl.concat([accepted(x), accepted(y, "Y")])
    known = pl.concat([actions(*of_x), actions(*of_y, symbol="Y")])
    whole = adjusted_bars(bars, known, convention).filter(pl.col("session") == DAYS[day])
    before = bars.filter(pl.col("session") < DAYS[day]).select("session", "symbol", "close")
    one = adjusted_bars(
        bars.filter(pl.col("session") == DAYS[day]), known, convention, indices_from=closes_that_matter(before, known, convention)
    )
    assert_frame_equal(one, whole, check_exact=True)


@pytest.mark.parametrize("convention", AdjustmentConvention)
@given(x=closes, some=some_actions, day=st.integers(0, 14))
def test_rows_up_to_a_session_know_nothing_of_what_comes_after(
    convention: AdjustmentConvention, x: dict[int, float], some: list[Action], day: int
):
    past = accepted(x).filter(pl.col("session") <= DAYS[day])
    whole = adjusted_bars(accepted(x), actions(*some), convention).filter(pl.col("session") <= DAYS[day])
    known = actions(*[action for action in some if action[0] <= day])
    assert_frame_equal(adjusted_bars(past, known, convention), whole, check_exact=True)


@given(x=closes, some=some_actions)
def test_the_order_in_which_rows_and_actions_arrive_changes_nothing(x: dict[int, float], some: list[Action]):
    assert_frame_equal(
        adjusted_bars(accepted(x), actions(*some), EX_DATE),
        adjusted_bars(accepted(x).reverse(), actions(*reversed(some)), EX_DATE),
        check_exact=True,
    )


@given(x=st.dictionaries(st.integers(0, 14), prices, min_size=15), dividends=dividends)
def test_an_adjusted_return_is_the_return_with_the_dividend_put_back_in_on_the_ex_date(x: dict[int, float], dividends: list[Action]):
    rows = adjusted_bars(accepted(x), actions(*dividends), EX_DATE).sort("session")
    unanchored = (rows["close"] * rows["total_index"]).to_list()
    paid = {n: value for n, _, value in dividends}
    for (before, after), n in zip(pairwise(unanchored), range(1, 15), strict=True):
        assert after / before == pytest.approx((x[n] + paid.get(n, 0.0)) / x[n - 1], rel=1e-12)


def test_indices_are_steps_by_ex_date():
    steps = adjustment_indices(accepted({0: 8.0, 1: 4.0, 2: 4.0}), actions((1, "split", 2.0), (2, "dividend", 1.0)), EX_DATE)
    assert steps.rows() == [("X", DAYS[1], 2.0, 2.0), ("X", DAYS[2], 2.0, 2.5)]


@pytest.mark.parametrize("convention", AdjustmentConvention)
def test_a_dividend_that_nobody_could_pay_is_named_whatever_the_convention(convention: AdjustmentConvention):
    closes = accepted({0: 10.0, 1: 9.0, 2: 9.0})
    assert unpayable(closes, actions((1, "dividend", 9.99), (2, "spinoff", 8.99)), convention).is_empty()
    found = unpayable(closes, actions((1, "dividend", 10.0), (2, "spinoff", 1000.0)), convention)
    assert found.rows() == [("X", DAYS[1], 10.0, 10.0), ("X", DAYS[2], 1000.0, 9.0)]
    with pytest.raises(InputError, match="dividends below the close before"):
        refuse_unpayable(found)


def test_a_dividend_beside_a_reverse_split_is_held_against_the_shares_that_it_is_paid_on():
    closes, both = accepted({0: 16.0, 1: 42.0}), actions((1, "split", 0.25), (1, "dividend", 21.0))
    assert unpayable(closes, both, EX_DATE).is_empty(), "paid on the new shares, of 64 each"
    assert unpayable(closes, both, AdjustmentConvention.PREVIOUS_CLOSE)["close"].to_list() == [16.0], "paid on the old ones"
