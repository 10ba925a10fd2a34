"""A session's result by name, by term and by side: every amount from its own source, none of them a residual."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from quant.ledger.book import BookState
from quant.ledger.entries import Account, Entry, EntryKind
from quant.trading.corporate_actions import name_after
from quant.trading.orders import Execution, Leg, Side
from quant.units import ZERO

GAINS = ("price_pnl", "dividends", "cash_in_lieu", "write_offs")
COSTS = ("commissions", "regulatory_fees", "borrow")
_ACCOUNTS = {
    EntryKind.DIVIDEND: Account.DIVIDENDS,
    EntryKind.CASH_IN_LIEU: Account.CASH_IN_LIEU,
    EntryKind.WRITE_OFF: Account.WRITE_OFFS,
    EntryKind.COMMISSION: Account.COMMISSIONS,
    EntryKind.REGULATORY_FEE: Account.REGULATORY_FEES,
    EntryKind.BORROW: Account.BORROW,
}
"""Of the entries that are a name's result: the account that says how much. Its name is the term's."""


class Holder(StrEnum):
    """The side of the book that an amount belongs to."""

    LONG = "long"
    SHORT = "short"

    @classmethod
    def of(cls, quantity: Decimal) -> Holder:
        """The side that holds so many shares."""
        return cls.LONG if quantity >= 0 else cls.SHORT


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolPnl:
    """One name's result in one session, USD. Costs are positive; slippage is inside price_pnl; a write-off that loses is negative.

    long_pnl and short_pnl are the same result by side, costs taken off: of a flip, each side has what was held and traded on it.
    """

    symbol: str
    price_pnl: Decimal
    dividends: Decimal
    cash_in_lieu: Decimal
    write_offs: Decimal
    commissions: Decimal
    regulatory_fees: Decimal
    borrow: Decimal
    long_pnl: Decimal
    short_pnl: Decimal
    slippage: Decimal
    turnover: Decimal

    @property
    def total(self) -> Decimal:
        """Sum of the terms, costs taken off."""
        gains = self.price_pnl + self.dividends + self.cash_in_lieu + self.write_offs
        return gains - self.commissions - self.regulatory_fees - self.borrow


@dataclass(slots=True)
class _OfName:
    """What a session did to one name, as it is read off holdings, entries and fills."""

    amounts: defaultdict[tuple[str, Holder], Decimal]  # by term and side
    held: Decimal = ZERO  # after splits, before trades
    moves: list[tuple[Decimal, Decimal]] = field(default_factory=list[tuple[Decimal, Decimal]])  # shares that came or went, and their price
    fills: list[Execution] = field(default_factory=list[Execution])


def symbol_pnl(
    opening: BookState, entries: Sequence[Entry], executions: Sequence[Execution], marks: Mapping[str, Decimal]
) -> list[SymbolPnl]:
    """Each name's result under its symbol at the close: prices from holdings, fills and ``marks`` (what a share of each is worth at the
    close), the rest from the accounts of the session's ``entries``. Everything that was held, traded or booked on has a row.
    """
    names: defaultdict[str, _OfName] = defaultdict(lambda: _OfName(amounts=defaultdict(Decimal)))
    sides = {x.execution_id: _side_of_order(x) for x in executions}
    renames = [entry for entry in entries if entry.kind is EntryKind.RENAME]
    for symbol, held in opening.holdings.items():
        name = names[name_after(symbol, renames)]
        name.amounts["price_pnl", Holder.of(held.quantity)] -= held.market_value
        name.held += held.quantity
    done = 0
    for entry in entries:
        if entry.kind is EntryKind.RENAME:
            done += 1
        elif entry.symbol is not None and entry.kind is not EntryKind.PAYMENT:
            _read(entry, names[name_after(entry.symbol, renames[done:])], sides)
    for execution in executions:
        name = names[execution.order.symbol]
        name.fills.append(execution)
        name.moves.append((execution.quantity * execution.order.side.sign, execution.price))
    for symbol, name in names.items():
        if name.held:
            name.amounts["price_pnl", Holder.of(name.held)] += name.held * marks[symbol]
        for side, earned in _earned(name.held, name.moves, marks.get(symbol, ZERO)):
            name.amounts["price_pnl", side] += earned
    return [_pnl(symbol, names[symbol].amounts, names[symbol].fills) for symbol in sorted(names)]


def _read(entry: Entry, name: _OfName, sides: Mapping[str, Holder]) -> None:
    if entry.kind is EntryKind.SPLIT:
        name.held += entry.quantity
    elif entry.kind is EntryKind.ADJUSTMENT and entry.price is not None:
        name.moves.append((entry.quantity, entry.price))
    elif (account := _ACCOUNTS.get(entry.kind)) is not None:
        amount = entry.amount(account)
        name.amounts[account.value, _side_of_entry(entry, amount, sides)] += amount if account.value in COSTS else -amount


def _side_of_order(execution: Execution) -> Holder:
    """Buying to open and selling to close are the long side's."""
    order = execution.order
    return Holder.LONG if (order.side is Side.BUY) == (order.leg is Leg.OPEN) else Holder.SHORT


def _side_of_entry(entry: Entry, amount: Decimal, sides: Mapping[str, Holder]) -> Holder:
    """By what the entry itself says: longs receive dividends and fractions, only shorts pay to borrow, a write-off takes shares away."""
    match entry.kind:
        case EntryKind.COMMISSION | EntryKind.REGULATORY_FEE:
            return sides[entry.key.partition("|")[2]]
        case EntryKind.BORROW:
            return Holder.SHORT
        case EntryKind.WRITE_OFF:
            return Holder.of(-entry.quantity)
        case _:
            return Holder.of(-amount)


def _earned(held: Decimal, moves: Sequence[tuple[Decimal, Decimal]], mark: Decimal) -> list[tuple[Holder, Decimal]]:
    """What shares that came or went (signed, with their price) earned until the close: value at ``mark`` less what was paid. The part that
    closes belongs to the side it closes.
    """
    parts: list[tuple[Holder, Decimal]] = []
    for signed, price in moves:
        closing = signed if abs(signed) <= abs(held) else -held
        if held * signed >= 0:
            closing = ZERO
        for part, side in ((closing, Holder.of(held)), (signed - closing, Holder.of(signed))):
            if part != 0:
                parts.append((side, part * (mark - price)))
        held += signed
    return parts


def _pnl(symbol: str, amounts: Mapping[tuple[str, Holder], Decimal], fills: Sequence[Execution]) -> SymbolPnl:
    def term(name: str) -> Decimal:
        return sum((amount for (of, _), amount in amounts.items() if of == name), ZERO)

    def side(holder: Holder) -> Decimal:
        return sum((-amount if of in COSTS else amount for (of, by), amount in amounts.items() if by is holder), ZERO)

    signed = [(x.quantity * x.order.side.sign, x) for x in fills]
    return SymbolPnl(
        symbol=symbol,
        price_pnl=term("price_pnl"),
        dividends=term("dividends"),
        cash_in_lieu=term("cash_in_lieu"),
        write_offs=term("write_offs"),
        commissions=term("commissions"),
        regulatory_fees=term("regulatory_fees"),
        borrow=term("borrow"),
        long_pnl=side(Holder.LONG),
        short_pnl=side(Holder.SHORT),
        slippage=sum((q * (x.price - x.reference_price) for q, x in signed), ZERO),
        turnover=sum((abs(q) * x.price for q, x in signed), ZERO),
    )
