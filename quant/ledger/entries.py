"""Ledger entries: immutable, balanced, keyed. Everything else about a book is a fold of them."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING

from quant.errors import LedgerError, expected
from quant.units import CASH_QUANTUM, ZERO

if TYPE_CHECKING:
    from datetime import date


_LARGEST_AMOUNT = Decimal(10) ** 15  # far beyond any book; larger ones are bugs


class EntryKind(StrEnum):
    """What happened."""

    DEPOSIT = "deposit"  # external flow; negative is a withdrawal
    TRADE = "trade"
    COMMISSION = "commission"
    REGULATORY_FEE = "regulatory_fee"
    DIVIDEND = "dividend"  # earned on the ex-date: a receivable until it is due, cash where it is due at once
    PAYMENT = "payment"  # a receivable becomes cash
    SPLIT = "split"  # changes quantity, not cash
    RENAME = "rename"  # everything of symbol goes on under new_symbol; moves no amount
    DELISTING = "delisting"  # the last price there will be; moves no amount
    CASH_IN_LIEU = "cash_in_lieu"
    BORROW = "borrow"
    INTEREST = "interest"
    WRITE_OFF = "write_off"  # a holding that nobody quotes any more leaves the book
    ADJUSTMENT = "adjustment"  # shares at a price, or cash, from outside: what a reconciliation found and booked with a reason
    DIVERGENCE = "divergence"  # booked here, never by the broker: cash becomes cash that only the book has
    MARK = "mark"  # values a holding at a price; moves nothing


class Account(StrEnum):
    """Where amounts come from and go to. The first four are what a book owns (its net asset value), the rest is where it came from."""

    CASH = "cash"
    SECURITIES = "securities"
    RECEIVABLES = "receivables"  # dividends earned and not yet paid; negative: owed by a short
    BROKER_DIVERGENCE = "broker_divergence"
    DIVIDENDS = "dividends"
    CASH_IN_LIEU = "cash_in_lieu"
    COMMISSIONS = "commissions"
    REGULATORY_FEES = "regulatory_fees"
    BORROW = "borrow"
    INTEREST = "interest"
    WRITE_OFFS = "write_offs"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """One leg of an entry. ``amount`` is USD, positive into the account; ``quantity`` is shares, on SECURITIES only."""

    account: Account
    amount: Decimal
    quantity: Decimal = ZERO


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One balanced booking. ``key`` is unique within the book and deterministic, so that booking twice is booking once.

    ``symbol`` is None for pure cash flows. ``price`` (USD per share) is set on TRADE, MARK, CASH_IN_LIEU, DELISTING, WRITE_OFF and on an
    ADJUSTMENT of shares; ``stale`` on a MARK whose price is older than its session; ``due``, the pay date, on what goes into or out of
    RECEIVABLES, with ``assumed`` if the source had none; ``new_symbol`` on a RENAME.
    """

    book: str
    session: date
    key: str
    kind: EntryKind
    symbol: str | None
    postings: tuple[Posting, ...]
    price: Decimal | None = None
    stale: bool = False
    due: date | None = None
    assumed: bool = False
    new_symbol: str | None = None

    def __post_init__(self) -> None:
        total = ZERO
        for leg in self.postings:
            total += leg.amount
            if abs(leg.amount) >= _LARGEST_AMOUNT or leg.amount % CASH_QUANTUM != 0:
                raise self._refusal(f"amounts in steps of 0.000001 USD and below {_LARGEST_AMOUNT}", leg.amount, "round before booking")
            if leg.account is Account.SECURITIES:
                continue
            if leg.quantity != 0:
                raise self._refusal("shares on securities only", leg.account)
            if leg.account is Account.RECEIVABLES and (self.symbol is None or self.due is None):
                raise self._refusal("a symbol and a due date on receivables", f"{self.symbol}, {self.due}")
        if total != 0:
            raise self._refusal("postings that sum to zero", f"{total} USD")
        if (self.kind is EntryKind.RENAME) != (self.new_symbol is not None and not self.postings):
            raise self._refusal("a new symbol on a rename without postings, and only there", f"{self.kind}, {self.new_symbol}")

    def _refusal(self, what: str, found: object, do: str = "fix the booking code") -> LedgerError:
        return LedgerError(expected(what, found=found, where=f"entry {self.key}", do=do))

    @property
    def cash(self) -> Decimal:
        """Signed change of cash, USD."""
        return self.amount(Account.CASH)

    @property
    def quantity(self) -> Decimal:
        """Signed change of the holding, shares."""
        return sum((leg.quantity for leg in self.postings if leg.account is Account.SECURITIES), ZERO)

    def amount(self, account: Account) -> Decimal:
        """Signed amount into one account, USD."""
        return sum((leg.amount for leg in self.postings if leg.account is account), ZERO)


def transfer(source: Account, target: Account, amount: Decimal, quantity: Decimal = ZERO) -> tuple[Posting, ...]:
    """Two postings that move ``amount`` from one account to another; ``quantity`` goes onto the SECURITIES leg."""

    def leg(account: Account, signed: Decimal) -> Posting:
        return Posting(account=account, amount=signed, quantity=quantity if account is Account.SECURITIES else ZERO)

    return leg(source, -amount), leg(target, amount)
