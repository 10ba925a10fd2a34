"""States that are kept are a cache: used where they hold, passed over where they do not, and never needed."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select

from adapters.clock import FixedClock
from adapters.ledger import SqlLedger, open_ledger, states, store
from adapters.ledger.schema import book_states
from adapters.ledger.sqlite import sqlite_engine, transact
from adapters.ledger.states import Folded, fold
from quant.ledger.book import BookState
from quant.ledger.entries import Account, Entry, EntryKind, transfer

if TYPE_CHECKING:
    from pathlib import Path

DAYS = [date(2013, 1, day) for day in range(2, 12)]


def entry(number: int, session: date) -> Entry:
    """Shares and a dividend that is not paid yet, so that every part of a state is there."""
    if number % 2:
        due = transfer(Account.DIVIDENDS, Account.RECEIVABLES, Decimal("12.34"))
        return Entry(book="b", session=session, key=f"{number}", kind=EntryKind.DIVIDEND, symbol="A", postings=due, due=date(2014, 1, 2))
    legs = transfer(Account.CASH, Account.SECURITIES, Decimal("100.000001"), Decimal(3))
    return Entry(book="b", session=session, key=f"{number}", kind=EntryKind.TRADE, symbol="Ünï", postings=legs, price=Decimal("33.3333"))


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A ledger of ten sessions that keeps every state that it is asked for."""
    monkeypatch.setattr(store, "STORED_EVERY", 1)
    made = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    ledger = opened(made)
    for number, day in enumerate(DAYS):
        ledger.post([entry(number, day)])
        ledger.state("b", through=day)
    return made


def opened(url: str) -> SqlLedger:
    ledger = open_ledger(url, FixedClock(datetime(2013, 3, 1, tzinfo=UTC)))
    assert isinstance(ledger, SqlLedger)
    return ledger


def kept(url: str) -> int:
    return transact(sqlite_engine(url), lambda connection: connection.execute(select(func.count()).select_from(book_states)).scalar_one())


def afresh(url: str, through: date) -> Folded:
    return transact(sqlite_engine(url), lambda connection: fold(connection, "b", through, ()))


def test_a_new_process_goes_on_from_the_newest_state_up_to_the_session(url: str) -> None:
    assert kept(url) == len(DAYS)
    entries = opened(url).entries("b", through=DAYS[6])
    found = afresh(url, DAYS[6])
    assert (found.state, found.unstored) == (BookState().after(entries), 0)


def test_a_state_from_before_a_late_booking_is_passed_over(url: str) -> None:
    ledger = opened(url)
    ledger.post([entry(100, DAYS[3])])
    assert ledger.state("b", through=DAYS[-1]).quantity("Ünï") == 3 * 6
    assert afresh(url, DAYS[2]).unstored == 0
    assert afresh(url, DAYS[-1]).unstored == 0  # it was kept again
    assert kept(url) == len(DAYS) + 1
    assert ledger.unlike_the_log() == []


def test_states_of_another_fold_are_passed_over(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "FOLD", states.FOLD + 1)
    found = afresh(url, DAYS[-1])
    assert (found.unstored, found.state) == (len(DAYS), BookState().after(opened(url).entries("b")))


def test_without_what_is_kept_the_state_is_the_same(url: str) -> None:
    before = opened(url).state("b", through=DAYS[-1])
    with sqlite_engine(url).begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER book_states_no_delete")
        connection.exec_driver_sql("DELETE FROM book_states")
    assert opened(url).state("b", through=DAYS[-1]) == before
