"""Target weights become whole shares on tomorrow's share basis."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from quant.ledger.book import BookState, Holding
from quant.portfolio.sizing import NextBasis, proposed_orders
from quant.trading.market import CorporateAction, SessionMarket
from tests.trading.simulation import KNOWN

DAY = date(2020, 1, 3)


def book(cash: str = "100000", **shares: tuple[int, str]) -> BookState:
    return BookState(cash=Decimal(cash), holdings={s: Holding(quantity=Decimal(q), mark=Decimal(m)) for s, (q, m) in shares.items()})


def orders(
    state: BookState, closes: dict[str, float], weights: dict[str, float], *splits: CorporateAction
) -> list[tuple[str, str, str, int]]:
    market = SessionMarket(session=DAY, closes=closes, upcoming=splits)
    made = proposed_orders(book="b", session=DAY, state=state, basis=NextBasis.of(state, market), weights=weights)
    return [(o.symbol, str(o.leg), str(o.side), int(o.quantity)) for o in made]


def test_targets_are_truncated_to_whole_shares():
    assert orders(book(), {"A": 300.0, "B": 299.0}, {"A": 0.5, "B": -0.5}) == [("A", "open", "buy", 166), ("B", "open", "sell", 167)]


def test_only_the_difference_to_what_is_held_is_ordered():
    assert orders(book(cash="50000", A=(500, "100")), {"A": 100.0}, {"A": 0.6}) == [("A", "open", "buy", 100)]
    assert orders(book(cash="50000", A=(500, "100")), {"A": 100.0}, {"A": 0.4}) == [("A", "close", "sell", 100)]
    assert orders(book(cash="50000", A=(500, "100")), {"A": 100.0}, {"A": 0.5}) == []


def test_a_flip_is_a_close_now_and_an_open_once_nothing_is_held():
    assert orders(book(cash="50000", A=(500, "100")), {"A": 100.0}, {"A": -0.5}) == [("A", "close", "sell", 500)]
    assert orders(book(), {"A": 100.0}, {"A": -0.5}) == [("A", "open", "sell", 500)]


def test_a_held_name_without_a_target_goes_to_zero():
    assert orders(book(cash="0", A=(500, "100")), {"A": 100.0}, {}) == [("A", "close", "sell", 500)]


def test_a_held_name_without_a_close_is_frozen_and_its_capital_reserved():
    state = book(cash="80000", X=(100, "200"))  # 20,000 of 100,000 frozen on the long side
    assert orders(state, {"A": 100.0, "B": 100.0}, {"A": 0.5, "B": -0.5}) == [("A", "open", "buy", 300), ("B", "open", "sell", 500)]


@pytest.mark.parametrize("close", [1e-7, 5e-7])
def test_a_price_that_the_ledger_would_hold_as_zero_does_not_trade(close: float):
    assert orders(book(), {"A": close, "B": 100.0}, {"A": 0.5, "B": -0.5}) == [("B", "open", "sell", 500)]
    assert orders(book(cash="80000", X=(100, "200")), {"X": close, "A": 100.0}, {"A": 0.5}) == [("A", "open", "buy", 300)]


def test_a_price_that_a_split_brings_below_what_the_ledger_holds_does_not_trade():
    split = CorporateAction(symbol="A", ex_date=date(2020, 1, 6), kind="split", value=10.0, known_at=KNOWN)
    assert orders(book(), {"A": 1e-6}, {"A": 0.5}, split) == []
    assert orders(book(), {"A": 1e-6}, {"A": 0.5}) == [("A", "open", "buy", 50_000_000_000)]


def test_quantities_are_on_the_share_basis_of_a_split_that_goes_ex_tomorrow():
    split = CorporateAction(symbol="A", ex_date=date(2020, 1, 6), kind="split", value=4.0, known_at=KNOWN)
    assert orders(book(cash="50000", A=(500, "100")), {"A": 100.0}, {"A": 0.6}, split) == [("A", "open", "buy", 400)]


@pytest.mark.parametrize(("shares", "ratio", "then"), [(300, 1 / 3, 100), (700, 1 / 7, 100), (300, 4 / 3, 400)])
def test_a_holding_is_sold_whole_after_a_split_whose_ratio_is_no_round_float(shares: int, ratio: float, then: int):
    split = CorporateAction(symbol="A", ex_date=date(2020, 1, 6), kind="split", value=ratio, known_at=KNOWN)
    assert orders(book(cash="0", A=(shares, "100")), {"A": 100.0}, {}, split) == [("A", "close", "sell", then)]
