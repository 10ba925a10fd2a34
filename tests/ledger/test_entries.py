"""An entry that does not balance cannot be built."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.errors import LedgerError
from quant.ledger.entries import Account, Entry, EntryKind, Posting, transfer
from tests.ledger.records import AMOUNTS, QUANTITIES, entry_lists, postings

TRADE = Entry(
    book="paper",
    session=date(2013, 1, 2),
    key="trade:1",
    kind=EntryKind.TRADE,
    symbol="IBM",
    price=Decimal("100.25"),
    postings=transfer(Account.CASH, Account.SECURITIES, Decimal("1002.50"), Decimal(10)),
)


@given(legs=postings(), error=AMOUNTS.filter(bool), which=st.integers(0, 3))
def test_an_entry_whose_legs_are_off_by_any_amount_is_refused(legs: tuple[Posting, ...], error: Decimal, which: int) -> None:
    place = which % len(legs)
    broken = replace(legs[place], amount=legs[place].amount + error)
    with pytest.raises(LedgerError, match="expected postings that sum to zero"):
        replace(TRADE, postings=(*legs[:place], broken, *legs[place + 1 :]))


@given(made=entry_lists())
def test_the_accounts_of_every_entry_sum_to_zero(made: list[Entry]) -> None:
    assert all(sum(entry.amount(account) for account in Account) == 0 for entry in made)


def test_an_amount_finer_than_a_millionth_of_a_dollar_is_refused() -> None:
    with pytest.raises(LedgerError, match=r"steps of 0.000001 USD"):
        replace(TRADE, postings=transfer(Account.CASH, Account.SECURITIES, Decimal("0.0000001")))


@given(amount=AMOUNTS, quantity=QUANTITIES)
def test_a_transfer_moves_the_amount_and_puts_the_shares_on_the_securities_leg(amount: Decimal, quantity: Decimal) -> None:
    entry = replace(TRADE, postings=transfer(Account.CASH, Account.SECURITIES, amount, quantity))
    assert (entry.cash, entry.amount(Account.SECURITIES), entry.quantity) == (-amount, amount, quantity)
    assert sum(leg.quantity for leg in entry.postings if leg.account is Account.CASH) == 0


def test_an_entry_cannot_be_changed_after_it_was_built() -> None:
    with pytest.raises(FrozenInstanceError):
        TRADE.key = "other"  # pyright: ignore[reportAttributeAccessIssue]
