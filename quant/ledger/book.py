"""The state of a book, folded from its entries: cash, holdings, marks, net asset value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from quant.ledger.entries import Account, Entry, EntryKind
from quant.units import ZERO


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """Signed whole shares of one symbol and the price they were last valued at (USD per share; zero before the first mark)."""

    quantity: Decimal
    mark: Decimal = ZERO
    stale: bool = False

    @property
    def market_value(self) -> Decimal:
        """USD; negative for a short."""
        return self.quantity * self.mark


@dataclass(frozen=True, slots=True, kw_only=True)
class BookState:
    """One book after some prefix of its entries. Holdings are non-zero; symbols are sorted.

    ``divergence``: cash that the book has and the broker never booked, USD.
    """

    cash: Decimal = ZERO
    divergence: Decimal = ZERO
    holdings: Mapping[str, Holding] = field(default_factory=dict[str, Holding])

    @property
    def nav(self) -> Decimal:
        """Net asset value: cash plus the market value of every holding, USD."""
        return self.cash + self.divergence + sum((h.market_value for h in self.holdings.values()), ZERO)

    def quantity(self, symbol: str) -> Decimal:
        """Signed shares held; zero if none."""
        held = self.holdings.get(symbol)
        return held.quantity if held else ZERO

    def after(self, entries: Iterable[Entry]) -> BookState:
        """This state with ``entries`` applied in order. Replaying a prefix and then the rest equals replaying all."""
        cash, divergence, holdings = self.cash, self.divergence, dict(self.holdings)
        for entry in entries:
            cash += entry.cash
            divergence += entry.amount(Account.BROKER_DIVERGENCE)
            if entry.symbol is None:
                continue
            # A closed holding leaves nothing behind: were it to keep its mark, folding in one go or in two would differ.
            holding = holdings.pop(entry.symbol, Holding(quantity=ZERO))
            if entry.kind is EntryKind.MARK and entry.price is not None:
                holding = replace(holding, mark=entry.price, stale=entry.stale)
            holding = replace(holding, quantity=holding.quantity + entry.quantity)
            if holding.quantity != 0:
                holdings[entry.symbol] = holding
        return BookState(cash=cash, divergence=divergence, holdings=dict(sorted(holdings.items())))
