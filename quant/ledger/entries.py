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
    DIVIDEND = "dividend"
    SPLIT = "split"  # changes quantity, not cash
    CASH_IN_LIEU = "cash_in_lieu"
    BORROW = "borrow"
    ADJUSTMENT = "adjustment"  # shares at a price, or cash, from outside: what a reconciliation found and booked with a reason
    DIVERGENCE = "divergence"  # booked here, never by the broker: cash becomes cash that only the book has
    MARK = "mark"  # values a holding at a price; moves nothing


class Account(StrEnum):
    """Where amounts come from and go to."""

    CASH = "cash"
    SECURITIES = "securities"
    BROKER_DIVERGENCE = "broker_divergence"
    DIVIDENDS = "dividends"
    CASH_IN_LIEU = "cash_in_lieu"
    COMMISSIONS = "commissions"
    BORROW = "borrow"
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

    ``symbol`` is None for pure cash flows. ``price`` (USD per share) is set on TRADE, MARK, CASH_IN_LIEU and on an ADJUSTMENT of
    shares; ``stale`` on a MARK whose
    price is older than its session.
    """

    book: str
    session: date
    key: str
    kind: EntryKind
    symbol: str | None
    postings: tuple[Posting, ...]
    price: Decimal | None = None
    stale: bool = False

    def __post_init__(self) -> None:
        total = sum((leg.amount for leg in self.postings), ZERO)
        if total != 0:
            raise LedgerError(
                expected("postings that sum to zero", found=f"{total} USD", where=f"entry {self.key}", do="fix the booking code")
            )
        for leg in self.postings:
            if abs(leg.amount) >= _LARGEST_AMOUNT or leg.amount % CASH_QUANTUM != 0:
                what = f"amounts in steps of 0.000001 USD and below {_LARGEST_AMOUNT}"
                raise LedgerError(expected(what, found=leg.amount, where=f"entry {self.key}", do="round before booking"))
            if leg.quantity != 0 and leg.account is not Account.SECURITIES:
                raise LedgerError(
                    expected("shares on securities only", found=leg.account, where=f"entry {self.key}", do="fix the booking code")
                )

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
