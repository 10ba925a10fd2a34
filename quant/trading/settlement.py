"""One session of a book, first half: corporate actions on holdings, what executed, fees, interest, marks, P&L. Pure: entries out, nothing
stored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from quant.errors import LedgerError, expected
from quant.ledger.book import BookState, Holding
from quant.ledger.entries import Account, Entry, EntryKind, Posting, transfer
from quant.ledger.settings import LedgerSettings
from quant.ports import AdjustmentConvention
from quant.trading.attribution import SymbolPnl, symbol_pnl
from quant.trading.corporate_actions import by_new_name, carried_mark, corporate_action_entries, name_after, new_names
from quant.trading.execution import CostSettings
from quant.trading.market import SessionMarket
from quant.trading.orders import Execution, Expiry, Order, Side
from quant.units import CASH_QUANTUM, CENT, ZERO, cents, cents_up, to_decimal

SESSIONS_PER_YEAR = 252
OPENING_KEY = "deposit|opening"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """A session of a book after its close: what to post, what became of the orders, the book before and after.

    ``interest`` and ``external_flows`` (deposits less withdrawals) are the terms that belong to no name, USD.
    """

    entries: Sequence[Entry]
    outcomes: Sequence[Execution | Expiry]
    opening: BookState
    closing: BookState
    pnl: Sequence[SymbolPnl]
    interest: Decimal
    external_flows: Decimal

    @property
    def gap(self) -> Decimal:
        """Opening + terms - closing net asset value, USD. Anything but zero means that a term is wrong."""
        return self.opening.nav + sum((p.total for p in self.pnl), ZERO) + self.interest + self.external_flows - self.closing.nav

    @property
    def side_gap(self) -> Decimal:
        """The same with the result of longs and shorts in the place of the terms."""
        sides = sum((p.long_pnl + p.short_pnl for p in self.pnl), ZERO)
        return self.opening.nav + sides + self.interest + self.external_flows - self.closing.nav

    def verified(self) -> Settlement:
        """This settlement, if its parts sum to the change in net asset value to the cent; else a LedgerError."""
        for gap, parts in ((self.gap, "P&L terms"), (self.side_gap, "results of longs and shorts")):
            if abs(gap) >= CENT:
                what = f"{parts} that sum to the change in NAV"
                raise LedgerError(expected(what, found=f"a gap of {gap} USD", where="the session", do="do not trade; find the term"))
        return self


def opening_deposit(book: str, market: SessionMarket, amount: Decimal) -> Entry:
    """The external flow that starts a book."""
    postings = transfer(Account.EXTERNAL, Account.CASH, amount)
    return Entry(book=book, session=market.session, key=OPENING_KEY, kind=EntryKind.DEPOSIT, symbol=None, postings=postings)


def execution_entries(book: str, market: SessionMarket, executions: Sequence[Execution], costs: CostSettings) -> list[Entry]:
    """A TRADE, a COMMISSION and, for a sale, a REGULATORY_FEE for every execution, keyed by its id."""
    entries: list[Entry] = []
    for execution in executions:
        order = execution.order
        signed = execution.quantity * order.side.sign
        trade = transfer(Account.CASH, Account.SECURITIES, (signed * execution.price).quantize(CASH_QUANTUM), signed)
        fee = transfer(Account.CASH, Account.COMMISSIONS, execution.commission)
        regulators = transfer(Account.CASH, Account.REGULATORY_FEES, regulatory_fee(execution, costs))
        legs = [(EntryKind.TRADE, trade, execution.price), (EntryKind.COMMISSION, fee, None)]
        if regulators[1].amount != 0:
            legs.append((EntryKind.REGULATORY_FEE, regulators, None))
        for kind, postings, at in legs:
            key = f"{kind}|{execution.execution_id}"
            entries.append(Entry(book=book, session=market.session, key=key, kind=kind, symbol=order.symbol, postings=postings, price=at))
    return entries


def regulatory_fee(execution: Execution, costs: CostSettings) -> Decimal:
    """What a sale, a short one too, pays the regulators, USD: the fee of the SEC on its value (Securities Exchange Act, section 31) plus
    FINRA's trading activity fee on its shares (By-Laws, schedule A, section 1), which has a maximum. Each is rounded up to the cent, as
    brokers pass them on.
    """
    if execution.order.side is Side.BUY:
        return ZERO
    sec = execution.quantity * execution.price * Decimal(repr(costs.sec_fee_per_million_usd)) / 1_000_000
    activity = min(execution.quantity * Decimal(repr(costs.taf_per_share_usd)), Decimal(repr(costs.taf_maximum_usd)))
    return cents_up(sec) + cents_up(activity)


def borrow_entries(book: str, state: BookState, market: SessionMarket, costs: CostSettings, renames: Sequence[Entry]) -> list[Entry]:
    """Fee on every short held over the night: annual rate / 252 x value at the previous close, in cents; under the symbol that the short
    has after ``renames``.
    """
    rate = Decimal(repr(costs.borrow_rate_annual)) / SESSIONS_PER_YEAR
    fees: dict[str, Decimal] = {}
    for held_as, holding in state.holdings.items():
        if holding.quantity < 0:  # two shorts may have become one
            symbol = name_after(held_as, renames)
            fees[symbol] = fees.get(symbol, ZERO) + cents(-holding.market_value * rate)
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


def interest_entries(book: str, state: BookState, market: SessionMarket, settings: LedgerSettings) -> list[Entry]:
    """Interest on the cash of the previous close over the calendar days since then, in cents: simple, by days / interest_year_days.

    What shorts were sold for is collateral: it earns nothing and pays for nothing. So the balance is cash less the value of the shorts
    (the debit and credit balances of Regulation T, 12 CFR 220.4-5): at the credit rate above zero, at the debit rate below.
    """
    if market.previous is None:
        return []
    balance = state.cash + sum((h.market_value for h in state.holdings.values() if h.quantity < 0), ZERO)
    rate = settings.interest_credit_rate_annual if balance > 0 else settings.interest_debit_rate_annual
    days = (market.session - market.previous).days
    amount = cents(balance * Decimal(repr(rate)) * days / settings.interest_year_days)
    postings = transfer(Account.INTEREST, Account.CASH, amount)
    entry = Entry(book=book, session=market.session, key=_key(market, "interest"), kind=EntryKind.INTEREST, symbol=None, postings=postings)
    return [entry] if amount != 0 else []


def payment_entries(book: str, state: BookState, market: SessionMarket) -> list[Entry]:
    """Receivables that are due by the session become cash; what shorts owe is paid."""
    return [
        Entry(
            book=book,
            session=market.session,
            key=_key(market, f"payment|{symbol}|{due}"),
            kind=EntryKind.PAYMENT,
            symbol=symbol,
            postings=transfer(Account.RECEIVABLES, Account.CASH, amount),
            due=due,
        )
        for (symbol, due), amount in state.receivables.items()
        if due <= market.session
    ]


def mark_entries(
    book: str, before: BookState, restated: BookState, market: SessionMarket, settings: LedgerSettings, paid: Mapping[str, Decimal]
) -> list[Entry]:
    """One MARK for each holding of ``before`` (the book after the session's trades): the close, or the carried mark, flagged stale. One
    that was stale for stale_limit_sessions is written off instead. ``restated``: the book before the session's trades, on its names.
    """
    entries: list[Entry] = []
    for symbol, holding in before.holdings.items():
        stale = symbol not in market.closes or holding.delisted
        at = session_mark(symbol, restated, market, paid)
        if stale and holding.stale_sessions >= settings.stale_limit_sessions:
            entries.append(_write_off(book, market, symbol, holding, at))
            continue
        key = _key(market, f"mark|{symbol}")
        entries.append(
            Entry(book=book, session=market.session, key=key, kind=EntryKind.MARK, symbol=symbol, postings=(), price=at, stale=stale)
        )
    return entries


def session_mark(symbol: str, restated: BookState, market: SessionMarket, paid: Mapping[str, Decimal]) -> Decimal:
    """What a holding is worth at the session's close, USD a share: the close; else its last mark on the session's share basis; else, of
    what came in a session that has no accepted close, the last price ``paid``.
    """
    held = restated.holdings.get(symbol)
    if symbol in market.closes and not (held and held.delisted):
        return to_decimal(market.closes[symbol], quantum=CASH_QUANTUM, where=f"close of {symbol}")
    return carried_mark(restated, market, symbol) if held else paid[symbol]


def _write_off(book: str, market: SessionMarket, symbol: str, holding: Holding, mark: Decimal) -> Entry:
    """A delisted holding is paid out at the last price, which it is marked at. Of another one nobody knows what it is worth, so it ends at
    what is worse for the book: a long at nothing, a short bought in at its mark.
    """
    worth = mark if holding.delisted or holding.quantity < 0 else ZERO
    value, paid = ((holding.quantity * price).quantize(CASH_QUANTUM) for price in (mark, worth))
    postings = (
        Posting(account=Account.SECURITIES, amount=-value, quantity=-holding.quantity),
        Posting(account=Account.CASH, amount=paid),
        Posting(account=Account.WRITE_OFFS, amount=value - paid),
    )
    key = _key(market, f"write_off|{symbol}")
    return Entry(book=book, session=market.session, key=key, kind=EntryKind.WRITE_OFF, symbol=symbol, postings=postings, price=worth)


def unforeseen_actions(orders: Sequence[Order], market: SessionMarket, decided_at: datetime | None) -> list[Expiry]:
    """Orders whose share basis or name changed after they were sized: they end here, because they mean something else now."""
    if decided_at is None:
        return []
    names = new_names(market.actions)  # an order has the symbol of before a rename, or of after it if that was known
    unforeseen = [a for a in market.actions if a.kind in ("split", "rename", "delisting") and a.known_at > decided_at]
    late = {symbol: a.kind for a in unforeseen for symbol in (a.symbol, names.get(a.symbol, a.symbol))}
    return [
        Expiry(order=order, session=market.session, reason=f"a {late[order.symbol]} became known after the decision")
        for order in orders
        if order.symbol in late
    ]


def settle(
    *,
    book: str,
    opening: BookState,
    outcomes: Sequence[Execution | Expiry],
    market: SessionMarket,
    convention: AdjustmentConvention,
    costs: CostSettings,
    ledger: LedgerSettings | None = None,
    deposit: Decimal = ZERO,
    late: Sequence[Entry] = (),
    adjustments: Sequence[Entry] = (),
    recovered: Collection[str] = (),
) -> Settlement:
    """Everything that happens to a book from the previous close to this one. Verified before it is returned.

    ``late``: entries of corporate actions that became known after their ex-date; they come first. ``adjustments``: flows and what a
    reconciliation booked in this session, on its share basis and names. ``recovered``: ids of executions that a reconciliation has booked,
    in whichever session; they are not booked again.
    """
    settings = ledger or LedgerSettings()
    executions = [o for o in outcomes if isinstance(o, Execution) and o.execution_id not in recovered]
    flows = [opening_deposit(book, market, deposit)] if deposit else []
    actions = corporate_action_entries(book, opening.after(late), market, convention, settings)
    names = [entry for entry in actions if entry.kind in (EntryKind.RENAME, EntryKind.DELISTING)]
    restated = opening.after([*late, *names])
    market = replace(market, actions=by_new_name(market.actions))
    entries = [
        *flows,
        *late,
        *actions,
        *adjustments,
        *execution_entries(book, market, executions, costs),
        *borrow_entries(book, opening, market, costs, [*late, *names]),
        *interest_entries(book, opening, market, settings),
        *payment_entries(book, restated, market),
    ]
    traded = opening.after(entries)
    paid = {e.symbol: e.price for e in entries if e.kind in (EntryKind.ADJUSTMENT, EntryKind.TRADE) and e.symbol and e.price is not None}
    entries += mark_entries(book, traded, restated, market, settings, paid)
    marks = {symbol: session_mark(symbol, restated, market, paid) for symbol in {*restated.holdings, *paid}}
    return Settlement(
        entries=entries,
        outcomes=outcomes,
        opening=opening,
        closing=opening.after(entries),
        pnl=symbol_pnl(opening, entries, executions, marks),
        interest=-_into(Account.INTEREST, entries),
        external_flows=-_into(Account.EXTERNAL, entries),
    ).verified()


def _into(account: Account, entries: Iterable[Entry]) -> Decimal:
    return sum((entry.amount(account) for entry in entries), ZERO)


def _key(market: SessionMarket, rest: str) -> str:
    return f"{market.session}|{rest}"
