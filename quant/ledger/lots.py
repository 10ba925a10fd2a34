"""Tax lots, first in, first out: a fold of a book's entries into what is open and what was realised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from itertools import accumulate

from quant.ledger.entries import Account, Entry, EntryKind
from quant.units import CASH_QUANTUM, PRICE_QUANTUM, ZERO

OF_LOTS = frozenset({EntryKind.TRADE, EntryKind.ADJUSTMENT, EntryKind.SPLIT, EntryKind.CASH_IN_LIEU, EntryKind.RENAME, EntryKind.WRITE_OFF})
"""Kinds of the entries that do something to lots; the others need not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lot:
    """Shares bought, or sold short, together. ``quantity`` and ``cost`` (USD, for the whole lot) are negative for a short, whose cost is
    what it was sold for. Commissions and fees are not in the cost: they are terms of their own.
    """

    opened: date
    quantity: Decimal
    cost: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLot:
    """A lot, or a part of one, that was closed: by a trade, a write-off, or as a fraction of a share that was paid in cash.

    ``symbol`` is the one at the closing; ``quantity`` as it was held (negative: a short); ``proceeds`` is USD received for it, negative
    what a short was bought back for.
    """

    symbol: str
    opened: date
    closed: date
    quantity: Decimal
    cost: Decimal
    proceeds: Decimal

    @property
    def gain(self) -> Decimal:
        """Realised gain, USD; a loss is negative."""
        return self.proceeds - self.cost


@dataclass(frozen=True, slots=True, kw_only=True)
class LotBook:
    """Lots after some prefix of a book's entries: the open ones by symbol, oldest first, and the closed ones in order.

    The open quantities of a symbol sum to its holding. Gains of closed lots plus market value less cost of open ones are the book's price
    P&L, cash in lieu and write-offs. A split leaves a lot's cost and opening date alone; so does a rename.
    """

    open: Mapping[str, tuple[Lot, ...]] = field(default_factory=dict[str, tuple[Lot, ...]])
    closed: tuple[ClosedLot, ...] = ()

    @property
    def cost(self) -> Decimal:
        """Of all open lots, USD."""
        return sum((lot.cost for lots in self.open.values() for lot in lots), ZERO)

    @property
    def realised(self) -> Decimal:
        """Gains of all closed lots, USD."""
        return sum((lot.gain for lot in self.closed), ZERO)

    def after(self, entries: Iterable[Entry]) -> LotBook:
        """These lots with ``entries`` applied in order. Replaying a prefix and then the rest equals replaying all."""
        lots, closed = {symbol: list(held) for symbol, held in self.open.items()}, list(self.closed)
        for entry in entries:
            if entry.symbol is None or entry.kind not in OF_LOTS:
                continue
            if entry.kind is EntryKind.RENAME and entry.new_symbol is not None:
                _rename(lots, closed, entry, entry.symbol, entry.new_symbol)
            elif entry.kind is EntryKind.CASH_IN_LIEU:
                _sell_fraction(lots.setdefault(entry.symbol, []), closed, entry)
            elif entry.postings and (change := entry.quantity) != 0:
                held = lots.setdefault(entry.symbol, [])
                if entry.kind is EntryKind.SPLIT:
                    _split(held, entry, change)
                else:
                    paid = -entry.cash if entry.kind is EntryKind.WRITE_OFF else entry.amount(Account.SECURITIES)
                    _trade(held, closed, entry, change, paid)
        return LotBook(open={symbol: tuple(held) for symbol, held in sorted(lots.items()) if held}, closed=tuple(closed))


def _trade(lots: list[Lot], closed: list[ClosedLot], entry: Entry, change: Decimal, paid: Decimal) -> None:
    """Close from the oldest lot on, open with the rest. ``paid`` for ``change`` shares, both negative for a sale."""
    done = 0
    while change != 0 and done < len(lots) and lots[done].quantity * change < 0:
        lot = lots[done]
        part = max(change, -lot.quantity) if change < 0 else min(change, -lot.quantity)
        whole = part == -lot.quantity
        cost = lot.cost if whole else _share(lot.cost, -part, lot.quantity)
        price = paid if part == change else _share(paid, part, change)
        closed.append(
            ClosedLot(symbol=entry.symbol or "", opened=lot.opened, closed=entry.session, quantity=-part, cost=cost, proceeds=-price)
        )
        change, paid = change - part, paid - price
        if whole:
            done += 1
        else:
            lots[done] = replace(lot, quantity=lot.quantity + part, cost=lot.cost - cost)
    del lots[:done]
    if change != 0:
        lots.append(Lot(opened=entry.session, quantity=change, cost=paid))


def _rename(lots: dict[str, list[Lot]], closed: list[ClosedLot], entry: Entry, symbol: str, new_symbol: str) -> None:
    """Lots go on under the new symbol; against lots of the other side, should there be any, they close at what they cost."""
    moved, there = lots.pop(symbol, []), lots.pop(new_symbol, [])
    if moved and there and moved[0].quantity * there[0].quantity < 0:
        for lot in moved:
            _trade(there, closed, replace(entry, symbol=new_symbol), lot.quantity, lot.cost)
        lots[new_symbol] = there
    else:
        lots[new_symbol] = sorted(moved + there, key=lambda lot: lot.opened)


def _split(lots: list[Lot], entry: Entry, change: Decimal) -> None:
    """Every lot by the ratio of the holding. What rounding to 1e-9 shares leaves of one lot goes to the next, so that the sum is exact."""
    if sum((lot.quantity for lot in lots), ZERO) == 0:  # learned when all of it was sold already: what it gives has no cost
        lots.append(Lot(opened=entry.session, quantity=change, cost=ZERO))
        return
    before = list(accumulate(lot.quantity for lot in lots))
    total = before[-1] + change
    after = [*((so_far * total / before[-1]).quantize(PRICE_QUANTUM) for so_far in before[:-1]), total]
    lots[:] = [replace(lot, quantity=upto - start) for lot, upto, start in zip(lots, after, [ZERO, *after[:-1]], strict=True)]


def _sell_fraction(lots: list[Lot], closed: list[ClosedLot], entry: Entry) -> None:
    """Cash for a fraction of a share closes that much of the oldest lot; where nothing but the fraction was left, all that there is."""
    fraction = (entry.cash / entry.price).quantize(PRICE_QUANTUM) if entry.price else ZERO
    oldest = lots[0] if lots else Lot(opened=entry.session, quantity=ZERO, cost=ZERO)
    if all(lot.quantity == 0 for lot in lots):
        cost = sum((lot.cost for lot in lots), ZERO)
        lots.clear()
    else:
        cost = _share(oldest.cost, fraction, oldest.quantity + fraction)
        lots[0] = replace(oldest, cost=oldest.cost - cost)
    sold = ClosedLot(
        symbol=entry.symbol or "", opened=oldest.opened, closed=entry.session, quantity=fraction, cost=cost, proceeds=entry.cash
    )
    closed.append(sold)


def _share(amount: Decimal, part: Decimal, whole: Decimal) -> Decimal:
    return (amount * part / whole).quantize(CASH_QUANTUM)
