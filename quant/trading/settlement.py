"""One session of a book, first half: corporate actions on holdings, what executed, fees, marks, P&L. Pure: entries out, nothing stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from quant.errors import LedgerError, expected
from quant.ledger.book import BookState
from quant.ledger.entries import Account, Entry, EntryKind, transfer
from quant.ports import AdjustmentConvention
from quant.trading.execution import CostSettings
from quant.trading.market import SessionMarket
from quant.trading.orders import Execution, Expiry, Order
from quant.trading.splits import after_split, exact_split_ratio
from quant.units import CASH_QUANTUM, CENT, ZERO, cents, to_decimal

SESSIONS_PER_YEAR = 252


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolPnl:
    """One name's result in one session, USD. Costs are positive; slippage is inside price_pnl."""

    symbol: str
    price_pnl: Decimal
    dividends: Decimal
    cash_in_lieu: Decimal
    commissions: Decimal
    borrow: Decimal
    slippage: Decimal
    turnover: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """A session of a book after its close: what to post, what became of the orders, the book before and after."""

    entries: Sequence[Entry]
    outcomes: Sequence[Execution | Expiry]
    opening: BookState
    closing: BookState
    pnl: Sequence[SymbolPnl]
    external_flows: Decimal

    @property
    def gap(self) -> Decimal:
        """Opening + terms - closing net asset value, USD. Anything but zero means that a term is wrong."""
        terms = sum((p.price_pnl + p.dividends + p.cash_in_lieu - p.commissions - p.borrow for p in self.pnl), ZERO)
        return self.opening.nav + terms + self.external_flows - self.closing.nav

    def verified(self) -> Settlement:
        """This settlement, if its parts sum to the change in net asset value to the cent; else a LedgerError."""
        if abs(self.gap) >= CENT:
            found = f"a gap of {self.gap} USD"
            raise LedgerError(
                expected("P&L terms that sum to the change in NAV", found=found, where="the session", do="do not trade; find the term")
            )
        return self


def opening_deposit(book: str, market: SessionMarket, amount: Decimal) -> Entry:
    """The external flow that starts a book."""
    postings = transfer(Account.EXTERNAL, Account.CASH, amount)
    return Entry(book=book, session=market.session, key="deposit|opening", kind=EntryKind.DEPOSIT, symbol=None, postings=postings)


def held_after_splits(state: BookState, market: SessionMarket) -> dict[str, Decimal]:
    """Signed whole shares of every holding after the session's splits."""
    return {symbol: after_split(h.quantity, exact_split_ratio(market.actions, symbol))[0] for symbol, h in state.holdings.items()}


def corporate_action_entries(book: str, state: BookState, market: SessionMarket, convention: AdjustmentConvention) -> list[Entry]:
    """Splits (fractions paid in cash at the open, else at the last mark) and dividends on what was held at the previous close.

    A dividend that shares its date with a split is per new share under EX_DATE_CLOSE and per old share under PREVIOUS_CLOSE, as in the
    adjustment of prices. Shorts pay dividends. No pay date is assumed: cash moves on the ex-date. What a spin-off gives is paid in cash at
    its value. A rename or a delisting books nothing: the holding has no price from then on, so it is frozen at its last one.
    """
    entries: list[Entry] = []
    for symbol, holding in state.holdings.items():
        ratio = exact_split_ratio(market.actions, symbol)
        whole, fraction = after_split(holding.quantity, ratio)
        if ratio != 1:
            entries += _split_entries(book, market, symbol, change=whole - holding.quantity, fraction=fraction, state=state)
        entitled = whole + fraction if convention is AdjustmentConvention.EX_DATE_CLOSE else holding.quantity
        for kind in ("dividend", "spinoff"):
            for number, action in enumerate(a for a in market.actions if a.symbol == symbol and a.kind == kind):
                key = _key(market, f"{kind}|{symbol}|{number}")
                postings = transfer(Account.DIVIDENDS, Account.CASH, cents(entitled * Decimal(repr(action.value))))
                entries.append(Entry(book=book, session=market.session, key=key, kind=EntryKind.DIVIDEND, symbol=symbol, postings=postings))
    return entries


def _split_entries(book: str, market: SessionMarket, symbol: str, *, change: Decimal, fraction: Decimal, state: BookState) -> list[Entry]:
    def entry(kind: EntryKind, source: Account, target: Account, amount: Decimal, quantity: Decimal, at: Decimal | None) -> Entry:
        postings = transfer(source, target, amount, quantity)
        key = _key(market, f"{kind}|{symbol}")
        return Entry(book=book, session=market.session, key=key, kind=kind, symbol=symbol, postings=postings, price=at)

    entries = [entry(EntryKind.SPLIT, Account.EXTERNAL, Account.SECURITIES, ZERO, change, None)]
    if fraction != 0:
        at = _money(market.opens[symbol]) if symbol in market.opens else carried_mark(state, market, symbol)
        entries.append(entry(EntryKind.CASH_IN_LIEU, Account.CASH_IN_LIEU, Account.CASH, cents(fraction * at), ZERO, at))
    return entries


def execution_entries(book: str, market: SessionMarket, executions: Sequence[Execution]) -> list[Entry]:
    """A TRADE and a COMMISSION for every execution, keyed by its id."""
    entries: list[Entry] = []
    for execution in executions:
        order = execution.order
        signed = execution.quantity * order.side.sign
        trade = transfer(Account.CASH, Account.SECURITIES, signed * execution.price, signed)
        fee = transfer(Account.CASH, Account.COMMISSIONS, execution.commission)
        for kind, postings, at in ((EntryKind.TRADE, trade, execution.price), (EntryKind.COMMISSION, fee, None)):
            key = f"{kind}|{execution.execution_id}"
            entries.append(Entry(book=book, session=market.session, key=key, kind=kind, symbol=order.symbol, postings=postings, price=at))
    return entries


def borrow_entries(book: str, state: BookState, market: SessionMarket, costs: CostSettings) -> list[Entry]:
    """Fee on every short held over the night: annual rate / 252 x value at the previous close, in cents."""
    rate = Decimal(repr(costs.borrow_rate_annual)) / SESSIONS_PER_YEAR
    fees = {s: cents(-h.market_value * rate) for s, h in state.holdings.items() if h.quantity < 0}
    return [
        Entry(
            book=book,
            session=market.session,
            key=_key(market, f"borrow|{symbol}"),
            kind=EntryKind.BORROW,
            symbol=symbol,
            postings=transfer(Account.CASH, Account.BORROW, fee),
        )
        for symbol, fee in fees.items()
        if fee != 0
    ]


def carried_mark(state: BookState, market: SessionMarket, symbol: str) -> Decimal:
    """The last mark, brought onto the session's share basis."""
    ratio = exact_split_ratio(market.actions, symbol)
    return _quantised(state.holdings[symbol].mark * ratio.denominator / ratio.numerator)


def mark_entries(book: str, before: BookState, opening: BookState, market: SessionMarket) -> list[Entry]:
    """One MARK for each holding of ``before`` (the book after the session's trades): the close, or the carried mark, flagged stale."""
    entries: list[Entry] = []
    for symbol in before.holdings:
        stale = symbol not in market.closes
        at = carried_mark(opening, market, symbol) if stale else _money(market.closes[symbol])
        key = _key(market, f"mark|{symbol}")
        entries.append(
            Entry(book=book, session=market.session, key=key, kind=EntryKind.MARK, symbol=symbol, postings=(), price=at, stale=stale)
        )
    return entries


def unforeseen_splits(orders: Sequence[Order], market: SessionMarket, decided_at: datetime | None) -> list[Expiry]:
    """Orders whose share basis changed after they were sized: they end here, because their quantity means something else now."""
    if decided_at is None:
        return []
    late = {a.symbol for a in market.actions if a.kind == "split" and a.known_at > decided_at}
    reason = "a split became known after the decision"
    return [Expiry(order=order, session=market.session, reason=reason) for order in orders if order.symbol in late]


def settle(
    *,
    book: str,
    opening: BookState,
    outcomes: Sequence[Execution | Expiry],
    market: SessionMarket,
    convention: AdjustmentConvention,
    costs: CostSettings,
    deposit: Decimal = ZERO,
    late: Sequence[Entry] = (),
    adjustments: Sequence[Entry] = (),
) -> Settlement:
    """Everything that happens to a book from the previous close to this one. Verified before it is returned.

    ``late``: entries of corporate actions that became known after their ex-date; they come first.
    ``adjustments``: what a reconciliation booked in this session.
    """
    executions = [o for o in outcomes if isinstance(o, Execution)]
    restated = opening.after(late)
    flows = [opening_deposit(book, market, deposit)] if deposit else []
    entries = [
        *flows,
        *late,
        *corporate_action_entries(book, restated, market, convention),
        *adjustments,
        *execution_entries(book, market, executions),
        *borrow_entries(book, opening, market, costs),
    ]
    traded = opening.after(entries)
    marks = mark_entries(book, traded, restated, market)
    return Settlement(
        entries=[*entries, *marks],
        outcomes=outcomes,
        opening=opening,
        closing=traded.after(marks),
        pnl=symbol_pnl(opening, restated, market, entries, executions),
        external_flows=-sum((e.amount(Account.EXTERNAL) for e in entries), ZERO),
    ).verified()


def symbol_pnl(
    opening: BookState, restated: BookState, market: SessionMarket, entries: Sequence[Entry], executions: Sequence[Execution]
) -> list[SymbolPnl]:
    """Each term of the session's result from its own source: prices from holdings and fills, cash terms from their entries.

    ``restated``: the opening book after late corporate actions.
    """
    whole = held_after_splits(restated, market)
    symbols = sorted(
        {*opening.holdings, *restated.holdings, *(e.symbol for e in entries if e.symbol), *(x.order.symbol for x in executions)}
    )
    return [
        _pnl_of(symbol, opening, restated, market, whole, entries, [x for x in executions if x.order.symbol == symbol])
        for symbol in symbols
    ]


def _pnl_of(
    symbol: str,
    opening: BookState,
    restated: BookState,
    market: SessionMarket,
    whole: dict[str, Decimal],
    entries: Sequence[Entry],
    fills: Sequence[Execution],
) -> SymbolPnl:
    held, now = opening.holdings.get(symbol), whole.get(symbol, ZERO)
    mark = _money(market.closes[symbol]) if symbol in market.closes else carried_mark(restated, market, symbol)
    on_holding = now * mark - (held.market_value if held else ZERO)
    signed = [(x.quantity * x.order.side.sign, x) for x in fills]
    adjusted = [(e.quantity, e.price) for e in entries if e.kind is EntryKind.ADJUSTMENT and e.symbol == symbol and e.price is not None]

    def booked(kind: EntryKind) -> Decimal:
        return sum((e.cash for e in entries if e.symbol == symbol and e.kind is kind), ZERO)

    return SymbolPnl(
        symbol=symbol,
        price_pnl=on_holding + sum((q * (mark - x.price) for q, x in signed), ZERO) + sum((q * (mark - p) for q, p in adjusted), ZERO),
        dividends=booked(EntryKind.DIVIDEND),
        cash_in_lieu=booked(EntryKind.CASH_IN_LIEU),
        commissions=-booked(EntryKind.COMMISSION),
        borrow=-booked(EntryKind.BORROW),
        slippage=sum((q * (x.price - x.reference_price) for q, x in signed), ZERO),
        turnover=sum((abs(q) * x.price for q, x in signed), ZERO),
    )


def _key(market: SessionMarket, rest: str) -> str:
    return f"{market.session}|{rest}"


def _money(price: float) -> Decimal:
    return to_decimal(price, quantum=CASH_QUANTUM, where="a price")


def _quantised(price: Decimal) -> Decimal:
    return price.quantize(CASH_QUANTUM)
