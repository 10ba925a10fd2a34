"""Split ratios are exact: a float stands for the ratio of whole numbers that a company announced."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.trading.market import CorporateAction
from quant.trading.splits import after_split, exact_ratio, exact_split_ratio
from tests.trading.simulation import KNOWN


def split(value: float, symbol: str = "A", kind: str = "split") -> CorporateAction:
    return CorporateAction(symbol=symbol, ex_date=date(2020, 1, 6), kind=kind, value=value, known_at=KNOWN)


@given(new=st.integers(1, 10_000), old=st.integers(1, 10_000), lots=st.integers(-1000, 1000))
def test_whole_lots_of_an_announced_ratio_become_whole_shares_and_nothing_is_left(new: int, old: int, lots: int):
    assert after_split(Decimal(lots * old), exact_ratio(new / old)) == (lots * new, 0)


@given(quantity=st.integers(-(10**9), 10**9), ratio=st.floats(1e-4, 1e4))
def test_shares_and_the_rest_are_the_whole_and_the_rest_is_less_than_a_share(quantity: int, ratio: float):
    shares, rest = after_split(Decimal(quantity), exact_ratio(ratio))
    assert abs(rest) < 1
    assert shares * quantity >= 0
    assert rest * quantity >= 0
    assert float(shares + rest) == pytest.approx(quantity * ratio, rel=1e-8)


@pytest.mark.parametrize("ratio", [7.000007, 0.333333, 1.23456789])
def test_a_ratio_that_no_simple_one_is_meant_by_stays_the_decimal_it_is(ratio: float):
    assert exact_ratio(ratio) == Fraction(repr(ratio))


def test_several_splits_of_a_day_are_the_product_of_what_each_stands_for():
    actions = [split(1 / 7), split(4 / 3), split(2.0, symbol="B"), split(0.5, kind="dividend")]
    assert exact_split_ratio(actions, "A") == Fraction(4, 21)
    assert exact_split_ratio(actions, "C") == 1
