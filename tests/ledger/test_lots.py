"""Tax lots, first in, first out."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

from quant.ledger.entries import Account, Entry, EntryKind, Posting, transfer
from quant.ledger.lots import ClosedLot, Lot, LotBook

START = date(2013, 1, 2)


def at(number: int) -> date:
    return START + timedelta(days=number)


def trade(number: int, shares: int, price: str, symbol: str = "IBM") -> Entry:
    legs = transfer(Account.CASH, Account.SECURITIES, shares * Decimal(price), Decimal(shares))
    return Entry(book="b", session=at(number), key=f"{number}", kind=EntryKind.TRADE, symbol=symbol, postings=legs, price=Decimal(price))


def split(number: int, change: int) -> Entry:
    legs = transfer(Account.EXTERNAL, Account.SECURITIES, Decimal(0), Decimal(change))
    return Entry(book="b", session=at(number), key=f"{number}", kind=EntryKind.SPLIT, symbol="IBM", postings=legs)


def in_lieu(number: int, amount: str, price: str) -> Entry:
    legs = transfer(Account.CASH_IN_LIEU, Account.CASH, Decimal(amount))
    return Entry(
        book="b", session=at(number), key=f"l{number}", kind=EntryKind.CASH_IN_LIEU, symbol="IBM", postings=legs, price=Decimal(price)
    )


def lot(number: int, shares: str, cost: str) -> Lot:
    return Lot(opened=at(number), quantity=Decimal(shares), cost=Decimal(cost))


def test_the_oldest_shares_are_sold_first_and_part_of_a_lot_stays() -> None:
    book = LotBook().after([trade(0, 100, "10"), trade(1, 100, "20"), trade(2, -150, "30")])
    assert book.open == {"IBM": (lot(1, "50", "1000"),)}
    assert [(c.opened, c.quantity, c.cost, c.proceeds, c.gain) for c in book.closed] == [
        (at(0), 100, 1000, 3000, 2000),
        (at(1), 50, 1000, 1500, 500),
    ]


def test_a_sale_beyond_what_is_held_opens_a_short_lot_that_a_purchase_closes() -> None:
    book = LotBook().after([trade(0, 100, "10"), trade(1, -150, "12"), trade(2, 50, "9")])
    assert book.open == {}
    assert [(c.quantity, c.cost, c.proceeds, c.gain) for c in book.closed] == [(100, 1000, 1200, 200), (-50, -600, -450, 150)]


def test_a_split_scales_lots_so_that_they_sum_to_the_holding_and_leaves_cost_and_date() -> None:
    book = LotBook().after([trade(0, 33, "7"), trade(1, 33, "7"), trade(2, 34, "7"), split(3, -67)])
    lots = book.open["IBM"]
    assert sum(lot.quantity for lot in lots) == 33
    assert [(lot.opened, lot.cost) for lot in lots] == [(at(0), 231), (at(1), 231), (at(2), 238)]


def test_a_fraction_paid_in_cash_is_a_sale_of_so_much_of_the_oldest_lot() -> None:
    book = LotBook().after([trade(0, 105, "10"), split(1, -95), in_lieu(1, "50.00", "100")])
    assert book.open == {"IBM": (lot(0, "10", "1000"),)}
    assert book.closed == (
        ClosedLot(symbol="IBM", opened=at(0), closed=at(1), quantity=Decimal("0.5"), cost=Decimal(50), proceeds=Decimal(50)),
    )


def test_where_only_a_fraction_is_left_the_cash_closes_every_lot() -> None:
    book = LotBook().after([trade(0, 2, "10"), trade(1, 3, "10"), split(2, -5), in_lieu(2, "50.00", "100")])
    assert book.open == {}
    assert (book.cost, book.realised) == (0, 0)


def test_a_rename_onto_lots_of_the_other_side_closes_them_against_each_other() -> None:
    rename = Entry(book="b", session=at(2), key="r", kind=EntryKind.RENAME, symbol="FB", postings=(), new_symbol="META")
    book = LotBook().after([trade(0, 100, "10", "FB"), trade(1, -40, "12", "META"), rename])
    assert book.open == {"META": (lot(2, "60", "600"),)}
    assert book.realised == 80


def test_a_write_off_realises_what_was_not_paid() -> None:
    legs = (
        Posting(account=Account.SECURITIES, amount=Decimal(-1500), quantity=Decimal(-100)),
        Posting(account=Account.CASH, amount=Decimal(200)),
        Posting(account=Account.WRITE_OFFS, amount=Decimal(1300)),
    )
    off = Entry(book="b", session=at(1), key="w", kind=EntryKind.WRITE_OFF, symbol="IBM", postings=legs, price=Decimal(2))
    book = LotBook().after([trade(0, 100, "10"), off])
    assert (book.open, book.realised) == ({}, -800)
