"""The state of a book is a fold of its entries."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from quant.ledger.book import BookState, Holding
from quant.ledger.entries import Account, Entry, EntryKind, transfer
from tests.ledger.records import entry_lists

SESSION = date(2013, 1, 2)


def entry(kind: EntryKind, symbol: str | None = None, *, cash: str = "0", shares: str = "0", price: str | None = None) -> Entry:
    other = Account.EXTERNAL if kind is EntryKind.DEPOSIT else Account.SECURITIES
    moved = transfer(other, Account.CASH, Decimal(cash), Decimal(shares)) if kind is not EntryKind.MARK else ()
    worth = None if price is None else Decimal(price)
    return Entry(book="paper", session=SESSION, key="k", kind=kind, symbol=symbol, postings=moved, price=worth)


def bought(shares: str, cash: str, symbol: str = "IBM") -> Entry:
    return entry(EntryKind.TRADE, symbol, cash=f"-{cash}", shares=shares)


def sold(shares: str, cash: str, symbol: str = "IBM") -> Entry:
    return entry(EntryKind.TRADE, symbol, cash=cash, shares=f"-{shares}")


def marked(price: str, symbol: str = "IBM") -> Entry:
    return entry(EntryKind.MARK, symbol, price=price)


@given(made=entry_lists(), split=st.integers(0, 8))
def test_replaying_a_prefix_and_then_the_rest_equals_replaying_all(made: list[Entry], split: int) -> None:
    assert BookState().after(made[:split]).after(made[split:]) == BookState().after(made)


def test_the_equality_holds_where_holdings_close_and_open_again() -> None:
    for moves in product([bought("10", "50"), sold("10", "60"), marked("5")], repeat=5):
        for split in range(6):
            assert BookState().after(moves[:split]).after(moves[split:]) == BookState().after(moves)


@given(made=entry_lists())
def test_cash_is_the_sum_of_the_cash_legs(made: list[Entry]) -> None:
    legs = [leg for item in made for leg in item.postings if leg.account is Account.CASH]
    assert BookState().after(made).cash == sum((leg.amount for leg in legs), Decimal(0))


def test_net_asset_value_is_cash_plus_longs_minus_shorts() -> None:
    deposit = entry(EntryKind.DEPOSIT, cash="1000")
    state = BookState().after([deposit, bought("10", "500"), sold("5", "100", "AAPL"), marked("51"), marked("22", "AAPL")])
    assert state.cash == 600
    assert state.nav == 600 + 510 - 110


def test_a_closed_holding_disappears_and_symbols_are_sorted() -> None:
    state = BookState().after([bought("1", "5", "MSFT"), bought("2", "5", "IBM"), bought("3", "5", "AAPL"), sold("2", "5", "IBM")])
    assert list(state.holdings) == ["AAPL", "MSFT"]
    assert state.quantity("IBM") == 0


def test_a_mark_values_a_holding_and_moves_nothing() -> None:
    held = BookState().after([bought("10", "500")])
    state = held.after([marked("51.5")])
    assert state.cash == held.cash
    assert state.holdings == {"IBM": Holding(quantity=Decimal(10), mark=Decimal("51.5"))}


def test_a_split_changes_the_quantity_and_not_the_cash() -> None:
    split = Entry(
        book="paper",
        session=SESSION,
        key="split",
        kind=EntryKind.SPLIT,
        symbol="IBM",
        postings=transfer(Account.CASH, Account.SECURITIES, Decimal(0), Decimal(10)),
    )
    state = BookState().after([bought("10", "500"), split])
    assert (state.quantity("IBM"), state.cash) == (20, -500)


def test_a_state_is_not_changed_by_what_comes_after_it() -> None:
    state = BookState().after([bought("10", "500")])
    state.after([bought("5", "250"), marked("51")])
    assert state.holdings == {"IBM": Holding(quantity=Decimal(10))}
