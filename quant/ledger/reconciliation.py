"""What the ledger holds against what the broker says it holds: every difference found, named, and booked with a reason, or stopped at.

Pure: a view of the ledger and a report of the broker in, entries and blocks out. What could not be read is a BrokerError before this is
asked; what reads as nothing is never taken for flat. Its entries make the two agree, so that a second look books nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from quant.ledger.entries import Account, Entry, EntryKind, Posting, transfer
from quant.units import CASH_QUANTUM, ZERO

if TYPE_CHECKING:
    from quant.trading.brokerage import BrokerAccount, BrokerCapabilities, BrokerFill, BrokerOrder, BrokerPosition
    from quant.trading.market import CorporateAction

ADJUSTING = (EntryKind.ADJUSTMENT, EntryKind.DIVERGENCE)
WHOLE_ACCOUNT = "*"
"""In the place of a symbol: a difference that belongs to no name."""


class ReconcileSettings(BaseModel, frozen=True, extra="forbid"):
    """Up to what a difference without an order of ours behind it is booked; a larger one waits for a person."""

    max_position_usd: float = Field(default=1.0, ge=0)  # of one symbol: shares x last mark
    max_cash_usd: float = Field(default=1.0, ge=0)


class DeltaKind(StrEnum):
    """What a difference is."""

    MISSED_FILL = "missed_fill"  # an execution of an order of ours that the ledger has not booked
    EXTERNAL_TRADE = "external_trade"  # an execution, or an open order, of nobody here
    CORPORATE_ACTION = "corporate_action"  # shares that a split explains, cash that a dividend explains
    CASH_ADJUSTMENT = "cash_adjustment"
    UNKNOWN = "unknown"


class Outcome(StrEnum):
    """What becomes of a difference."""

    BOOKED = "booked"
    BLOCKED = "blocked"  # the symbol is not traded until a person confirms
    HALTED = "halted"  # nothing is


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """One difference: ``quantity`` (shares) and ``amount`` (USD, cash) are the broker's less the ledger's. ``evidence`` is what it was
    classified by; ``reason`` why it was booked or was not.
    """

    kind: DeltaKind
    symbol: str | None
    quantity: Decimal
    amount: Decimal
    evidence: str
    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerView:
    """A book as it should be at the broker. ``cash`` is without what the broker never books; ``since``: up to which instant
    executions are not looked at any more; ``orders`` the ids of the orders sent since and of those ``working``, which may still execute;
    ``executions`` the ids that are booked; ``actions`` those of the last sessions.
    """

    book: str
    session: date
    since: datetime
    cash: Decimal
    quantities: Mapping[str, Decimal]
    marks: Mapping[str, Decimal]
    orders: frozenset[str] = frozenset()
    working: frozenset[str] = frozenset()
    executions: frozenset[str] = frozenset()
    actions: Sequence[CorporateAction] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerReport:
    """What a broker said, all of it, at one time. ``client_order_ids``: ours, by the broker's own id of an order."""

    account: BrokerAccount
    positions: Sequence[BrokerPosition]
    open_orders: Sequence[BrokerOrder]
    fills: Sequence[BrokerFill]
    client_order_ids: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """The differences, what to post, which symbols not to trade and why, and why to trade nothing at all, if so."""

    deltas: Sequence[Delta]
    entries: Sequence[Entry]
    blocked: Mapping[str, str]
    halt_reason: str | None

    @property
    def breaks(self) -> Sequence[Delta]:
        """What a person has to look at."""
        return [delta for delta in self.deltas if delta.outcome is not Outcome.BOOKED]


def divergence_entries(entries: Sequence[Entry], capabilities: BrokerCapabilities) -> list[Entry]:
    """For every entry that moved cash by a kind that the broker never books: that cash moves on to the account for it, under
    a key made of the entry's.
    """
    return [
        Entry(
            book=entry.book,
            session=entry.session,
            key=f"divergence|{entry.key}",
            kind=EntryKind.DIVERGENCE,
            symbol=None,
            postings=transfer(Account.CASH, Account.BROKER_DIVERGENCE, entry.cash),
        )
        for entry in entries
        if entry.kind.value in capabilities.never_books and entry.cash != 0
    ]


def reconcile(
    view: LedgerView, report: BrokerReport, settings: ReconcileSettings, confirmed: Mapping[str, Decimal] | None = None
) -> Reconciliation:
    """Compare, classify, and say what to book. ``confirmed``: differences that a person accepted, by symbol: broker's shares less the
    ledger's (WHOLE_ACCOUNT: broker's cash less the ledger's); only the very difference that was accepted is booked.

    Executions are booked as they are where they explain a symbol's difference wholly; where they do not, none of them is. An account
    that is not active, or that reports no position while the ledger has some, stops everything and books nothing.
    """
    if (reason := _unusable(view, report)) is not None:
        delta = Delta(
            kind=DeltaKind.UNKNOWN,
            symbol=None,
            quantity=ZERO,
            amount=report.account.cash - view.cash,
            evidence=reason,
            outcome=Outcome.HALTED,
            reason=reason,
        )
        return Reconciliation(deltas=[delta], entries=[], blocked={}, halt_reason=reason)
    book = _Look(view=view, report=report, settings=settings, confirmed=confirmed or {})
    book.positions()
    book.open_orders()
    book.cash()
    blocked: dict[str, str] = {}
    for delta in book.deltas:
        if delta.outcome is Outcome.BLOCKED and delta.symbol is not None:
            blocked.setdefault(delta.symbol, f"{delta.kind}: {delta.evidence}")
    halted = [delta.reason for delta in book.deltas if delta.outcome is Outcome.HALTED]
    return Reconciliation(deltas=book.deltas, entries=book.entries, blocked=blocked, halt_reason=halted[0] if halted else None)


def _unusable(view: LedgerView, report: BrokerReport) -> str | None:
    if not report.account.active:
        return f"account {report.account.account_id} is not active at the broker"
    held = [symbol for symbol, quantity in view.quantities.items() if quantity != 0]
    if held and not report.positions and not _closed_by_fills(view, report):
        return f"the broker reports no position at all, the ledger holds {len(held)}: an empty report is not flat, or the account was reset"
    return None


def _closed_by_fills(view: LedgerView, report: BrokerReport) -> bool:
    """True if executions that were not booked yet, of orders of ours, took every holding to zero."""
    left = defaultdict(Decimal, view.quantities)
    for fill in _new_fills(view, report):
        if _order_of(fill, report) in view.orders:
            left[fill.symbol] += fill.quantity * fill.side.sign
    return not any(left.values())


def _new_fills(view: LedgerView, report: BrokerReport) -> list[BrokerFill]:
    """Executions since the view's instant that are not booked, each once."""
    found = {fill.execution_id: fill for fill in report.fills if fill.executed_at >= view.since}
    return [fill for name, fill in found.items() if name not in view.executions]


def _order_of(fill: BrokerFill, report: BrokerReport) -> str | None:
    return fill.client_order_id or report.client_order_ids.get(fill.broker_order_id)


@dataclass(slots=True, kw_only=True)
class _Look:
    """One comparison under way. ``explained`` is cash that differences of symbols account for, booked or not."""

    view: LedgerView
    report: BrokerReport
    settings: ReconcileSettings
    confirmed: Mapping[str, Decimal]
    deltas: list[Delta] = field(default_factory=list[Delta])
    entries: list[Entry] = field(default_factory=list[Entry])
    explained: Decimal = ZERO

    def positions(self) -> None:
        theirs = {position.symbol: position.quantity for position in self.report.positions}
        fills: defaultdict[str, list[BrokerFill]] = defaultdict(list)
        for fill in _new_fills(self.view, self.report):
            fills[fill.symbol].append(fill)
        for symbol in sorted({*self.view.quantities, *theirs, *fills}):
            ours = self.view.quantities.get(symbol, ZERO)
            difference = theirs.get(symbol, ZERO) - ours
            executed = sum((fill.quantity * fill.side.sign for fill in fills[symbol]), ZERO)
            if fills[symbol] and difference == executed:
                self._executions(symbol, difference, fills[symbol])
            elif difference != 0 or fills[symbol]:
                self._shares(symbol, ours, difference, fills[symbol])

    def _executions(self, symbol: str, difference: Decimal, fills: Sequence[BrokerFill]) -> None:
        """Executions that explain all of a symbol's difference: ours are recovered, others' are booked if small or confirmed; all or
        none.
        """
        foreign = [fill for fill in fills if _order_of(fill, self.report) not in self.view.orders]
        value = sum((fill.quantity * fill.price for fill in foreign), ZERO)
        accepted = self._accepted(symbol, difference)
        bookable = accepted or value <= Decimal(repr(self.settings.max_position_usd))
        for fill in fills:
            ours = fill not in foreign
            paid = (fill.quantity * fill.side.sign * fill.price).quantize(CASH_QUANTUM)
            self.explained -= paid
            if bookable:
                postings = transfer(Account.CASH, Account.SECURITIES, paid, fill.quantity * fill.side.sign)
                self._book(f"adjustment|{fill.execution_id}", symbol, postings, fill.price)
            self._note(
                kind=DeltaKind.MISSED_FILL if ours else DeltaKind.EXTERNAL_TRADE,
                symbol=symbol,
                quantity=fill.quantity * fill.side.sign,
                amount=-paid,
                evidence=f"execution {fill.execution_id} of {'order ' + str(_order_of(fill, self.report)) if ours else 'no order of ours'}",
                outcome=Outcome.BOOKED if bookable else Outcome.BLOCKED,
                reason=self._reason(accepted=accepted, recovered=not foreign, bookable=bookable),
            )

    def _shares(self, symbol: str, ours: Decimal, difference: Decimal, fills: Sequence[BrokerFill]) -> None:
        """Shares that executions do not explain. Booked at the last mark, against no cash, if small or confirmed; where there are
        executions, only if confirmed: they at their prices, the rest at the mark.
        """
        mark = self.view.marks.get(symbol)
        accepted = difference != 0 and self._accepted(symbol, difference) and mark is not None
        small = bool(mark) and abs(difference) * (mark or ZERO) <= Decimal(repr(self.settings.max_position_usd))  # at zero, who knows
        bookable = accepted or (difference != 0 and not fills and small)
        split = next((a for a in self.view.actions if a.symbol == symbol and _is_split_of(a, ours, ours + difference)), None)
        if fills:
            evidence = f"executions {', '.join(fill.execution_id for fill in fills)} do not explain {difference} shares"
        elif split is not None:
            evidence = f"split {split.value:g} with ex-date {split.ex_date}: the broker has {ours + difference}, the ledger {ours}"
        else:
            evidence = f"the broker has {ours + difference}, the ledger {ours}; no execution, no action"
        if bookable and mark is not None:
            rest = difference
            for fill in fills:  # only of a confirmed difference
                signed = fill.quantity * fill.side.sign
                paid, rest = (signed * fill.price).quantize(CASH_QUANTUM), rest - signed
                self.explained -= paid
                self._book(f"adjustment|{fill.execution_id}", symbol, transfer(Account.CASH, Account.SECURITIES, paid, signed), fill.price)
            worth = (rest * mark).quantize(CASH_QUANTUM)
            postings = transfer(Account.EXTERNAL, Account.SECURITIES, worth, rest)
            self._book(f"adjustment|{self.view.session}|{symbol}|{ours}|{ours + difference}", symbol, postings, mark)
        self._note(
            kind=DeltaKind.UNKNOWN if split is None or fills else DeltaKind.CORPORATE_ACTION,
            symbol=symbol,
            quantity=difference,
            amount=ZERO,
            evidence=evidence,
            outcome=Outcome.BOOKED if bookable else Outcome.BLOCKED,
            reason=self._reason(accepted=accepted, recovered=False, bookable=bookable),
        )

    def open_orders(self) -> None:
        """An order at the broker that nobody here sent, or one of ours that should be there and is not: the symbol waits."""
        theirs = {order.client_order_id: order for order in self.report.open_orders}
        for name in sorted(theirs.keys() - self.view.orders):
            order = theirs[name]
            self._note(
                kind=DeltaKind.EXTERNAL_TRADE,
                symbol=order.symbol,
                quantity=ZERO,
                amount=ZERO,
                evidence=f"open order {name or order.broker_order_id} of nobody here: {order.side} {order.quantity}",
                outcome=Outcome.BLOCKED,
                reason="it may execute at any time",
            )
        for name in sorted(self.view.working - theirs.keys()):
            reason = f"order {name} is open in the ledger and not at the broker"
            self._note(
                kind=DeltaKind.UNKNOWN,
                symbol=None,
                quantity=ZERO,
                amount=ZERO,
                evidence=reason,
                outcome=Outcome.HALTED,
                reason=reason,
            )

    def cash(self) -> None:
        """What is left of the difference in cash once that of executions is taken out."""
        difference = (self.report.account.cash - self.view.cash - self.explained).quantize(CASH_QUANTUM)
        if difference == 0:
            return
        accepted = self._accepted(WHOLE_ACCOUNT, difference)
        bookable = accepted or abs(difference) <= Decimal(repr(self.settings.max_cash_usd))
        dividend = next((a for a in self.view.actions if self._pays(a, difference)), None)
        reason = self._reason(accepted=accepted, recovered=False, bookable=bookable)
        if bookable:
            # The cash that the ledger had names the step: the same amount twice in a session is two bookings.
            key = f"adjustment|{self.view.session}|cash|{self.view.cash}|{difference}"
            self._book(key, None, transfer(Account.EXTERNAL, Account.CASH, difference), None)
        expected = self.view.cash + self.explained
        evidence = (
            f"the broker has {self.report.account.cash} USD, {expected} are expected"
            if dividend is None
            else f"{dividend.kind} {dividend.value:g} of {dividend.symbol} with ex-date {dividend.ex_date}"
        )
        self._note(
            kind=DeltaKind.CASH_ADJUSTMENT if dividend is None else DeltaKind.CORPORATE_ACTION,
            symbol=None,
            quantity=ZERO,
            amount=difference,
            evidence=evidence,
            outcome=Outcome.BOOKED if bookable else Outcome.HALTED,
            reason=reason if bookable else f"cash differs by {difference} USD: {evidence}; {reason}",
        )

    def _pays(self, action: CorporateAction, amount: Decimal) -> bool:
        held = self.view.quantities.get(action.symbol, ZERO)
        return action.kind == "dividend" and held != 0 and abs(abs(amount) - abs(held) * Decimal(repr(action.value))) < Decimal("0.01")

    def _accepted(self, symbol: str, difference: Decimal) -> bool:
        return self.confirmed.get(symbol) == difference

    def _reason(self, *, accepted: bool, recovered: bool, bookable: bool) -> str:
        if accepted:
            return "confirmed by a person"
        if recovered:
            return "an execution of an order of ours"
        return "within the tolerance" if bookable else "beyond the tolerance: `afterclose reconcile` shows and confirms it"

    def _book(self, key: str, symbol: str | None, postings: tuple[Posting, ...], price: Decimal | None) -> None:
        kind = EntryKind.ADJUSTMENT
        self.entries.append(
            Entry(book=self.view.book, session=self.view.session, key=key, kind=kind, symbol=symbol, postings=postings, price=price)
        )

    def _note(
        self, *, kind: DeltaKind, symbol: str | None, quantity: Decimal, amount: Decimal, evidence: str, outcome: Outcome, reason: str
    ) -> None:
        self.deltas.append(
            Delta(kind=kind, symbol=symbol, quantity=quantity, amount=amount, evidence=evidence, outcome=outcome, reason=reason)
        )


def _is_split_of(action: CorporateAction, ours: Decimal, theirs: Decimal) -> bool:
    """True if one of the two is the other after the split, up to the fraction of a share that is paid in cash."""
    if action.kind != "split" or ours == 0 or theirs == 0:
        return False
    ratio = Decimal(repr(action.value))
    return abs(abs(ours * ratio) - abs(theirs)) < 1 or abs(abs(theirs * ratio) - abs(ours)) < 1 or abs(theirs - ours) < 1
