"""The state of a book, folded from its entries: cash, what it is owed, holdings, marks, net asset value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from itertools import groupby

from quant.ledger.entries import Account, Entry, EntryKind
from quant.units import ZERO

Due = tuple[str, date]
"""Symbol and pay date of a receivable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """Signed shares of one symbol and the price they were last valued at (USD per share; zero before the first mark).

    ``stale`` if that price is older than the last session, ``stale_sessions`` since how many sessions; ``delisted`` if there will be no
    other.
    """

    quantity: Decimal
    mark: Decimal = ZERO
    stale: bool = False
    stale_sessions: int = 0
    delisted: bool = False

    @property
    def market_value(self) -> Decimal:
        """USD; negative for a short."""
        return self.quantity * self.mark


@dataclass(frozen=True, slots=True, kw_only=True)
class BookState:
    """One book after some prefix of its entries. Holdings and receivables are non-zero and sorted.

    ``receivables``: dividends by symbol and pay date that were earned and are not paid yet, USD, negative where a short owes them.
    ``divergence``: cash that the book has and the broker never booked, USD.
    """

    cash: Decimal = ZERO
    holdings: Mapping[str, Holding] = field(default_factory=dict[str, Holding])
    receivables: Mapping[Due, Decimal] = field(default_factory=dict[Due, Decimal])
    divergence: Decimal = ZERO

    @property
    def nav(self) -> Decimal:
        """Net asset value: cash, what is receivable, and the market value of every holding, USD."""
        return self.cash + self.divergence + self.receivable + sum((h.market_value for h in self.holdings.values()), ZERO)

    @property
    def receivable(self) -> Decimal:
        """Sum of the receivables, USD."""
        return sum(self.receivables.values(), ZERO)

    def quantity(self, symbol: str) -> Decimal:
        """Signed shares held; zero if none."""
        held = self.holdings.get(symbol)
        return held.quantity if held else ZERO

    def after(self, entries: Iterable[Entry]) -> BookState:
        """This state with ``entries`` applied in order. Replaying a prefix and then the rest equals replaying all."""
        cash, divergence = self.cash, self.divergence
        holdings, receivables = dict(self.holdings), dict(self.receivables)
        for entry in entries:
            symbol, change = entry.symbol, ZERO
            for leg in entry.postings:
                match leg.account:
                    case Account.CASH:
                        cash += leg.amount
                    case Account.SECURITIES:
                        change += leg.quantity
                    case Account.BROKER_DIVERGENCE:
                        divergence += leg.amount
                    case Account.RECEIVABLES if symbol is not None and entry.due is not None:
                        _add(receivables, (symbol, entry.due), leg.amount)
                    case _:
                        pass
            if symbol is None:
                continue
            if entry.new_symbol is not None:
                _rename(holdings, receivables, symbol, entry.new_symbol)
                continue
            # A closed holding leaves nothing behind: were it to keep its mark, folding in one go or in two would differ.
            holding = _valued(holdings.pop(symbol, None) or Holding(quantity=ZERO), entry)
            if change != 0:
                holding = replace(holding, quantity=holding.quantity + change)
            if holding.quantity != 0:
                holdings[symbol] = holding
        return BookState(
            cash=cash, holdings=dict(sorted(holdings.items())), receivables=dict(sorted(receivables.items())), divergence=divergence
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionValue:
    """Net asset value of a book at the close of a session in which something was booked, and what flowed in in it, USD: deposits, and what
    a reconciliation booked from outside.
    """

    session: date
    nav: Decimal
    flows: Decimal


def valued_after(state: BookState, entries: Iterable[Entry]) -> tuple[BookState, list[SessionValue]]:
    """``state`` with ``entries`` (of later sessions, in their order) applied, and the values on the way, one a session."""
    values: list[SessionValue] = []
    for session, part in groupby(entries, key=lambda entry: entry.session):
        flows = ZERO

        def watched(made: Iterable[Entry]) -> Iterator[Entry]:
            nonlocal flows
            for entry in made:
                if entry.kind in (EntryKind.DEPOSIT, EntryKind.ADJUSTMENT):
                    flows -= entry.amount(Account.EXTERNAL)
                yield entry

        state = state.after(watched(part))
        values.append(SessionValue(session=session, nav=state.nav, flows=flows))
    return state, values


def _valued(holding: Holding, entry: Entry) -> Holding:
    if entry.price is None or entry.kind not in (EntryKind.MARK, EntryKind.DELISTING):
        return holding
    delisted = entry.kind is EntryKind.DELISTING
    sessions = holding.stale_sessions if delisted else holding.stale_sessions + 1 if entry.stale else 0
    return Holding(
        quantity=holding.quantity,
        mark=entry.price,
        stale=entry.stale or delisted,
        stale_sessions=sessions,
        delisted=delisted or holding.delisted,
    )


def _rename(holdings: dict[str, Holding], receivables: dict[Due, Decimal], symbol: str, new_symbol: str) -> None:
    moved = holdings.pop(symbol, None)
    if moved is not None:
        there = holdings.pop(new_symbol, None)
        both = replace(there, quantity=there.quantity + moved.quantity) if there else moved
        if both.quantity != 0:
            holdings[new_symbol] = both
    for due in [due for due in receivables if due[0] == symbol]:
        _add(receivables, (new_symbol, due[1]), receivables.pop(due))


def _add(receivables: dict[Due, Decimal], due: Due, amount: Decimal) -> None:
    total = receivables.pop(due, ZERO) + amount
    if total != 0:
        receivables[due] = total
