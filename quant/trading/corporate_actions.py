"""What corporate actions do to a book: renames, delistings, splits, dividends. Pure: entries out, nothing stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction

from quant.ledger.book import BookState
from quant.ledger.entries import Account, Entry, EntryKind, transfer
from quant.ledger.settings import LedgerSettings
from quant.ports import AdjustmentConvention
from quant.trading.market import CorporateAction, SessionMarket
from quant.trading.splits import after_split, exact_split_ratio
from quant.units import CASH_QUANTUM, PRICE_QUANTUM, ZERO, cents, to_decimal


def new_names(actions: Iterable[CorporateAction]) -> dict[str, str]:
    """Symbol -> new symbol of the renames among ``actions``."""
    return {a.symbol: a.new_symbol for a in actions if a.kind == "rename" and a.new_symbol is not None}


def by_new_name(actions: Sequence[CorporateAction]) -> tuple[CorporateAction, ...]:
    """``actions`` of one ex-date without its renames, under the symbols of after them: one that a symbol has on the day that it ends is
    still of the security that had it until then.
    """
    names = new_names(actions)
    return tuple(replace(a, symbol=names.get(a.symbol, a.symbol)) for a in actions if a.kind != "rename")


def name_after(symbol: str, entries: Iterable[Entry]) -> str:
    """The symbol that ``symbol`` has after the renames among ``entries``."""
    for entry in entries:
        if entry.new_symbol is not None and entry.symbol == symbol:
            symbol = entry.new_symbol
    return symbol


def rename_steps(names: Mapping[str, str]) -> list[tuple[str, str]]:
    """Renames of one day, one after the other, so that each moves only what was its own: the last of a chain first; symbols that change
    places go by way of a name that nobody has.
    """
    waiting = {symbol: new for symbol, new in sorted(names.items()) if symbol != new}
    steps: list[tuple[str, str]] = []
    while waiting:
        free = next((symbol for symbol, new in waiting.items() if new not in waiting), None)
        if free is None:
            symbol = next(iter(waiting))
            steps.append((symbol, f"{symbol} (moving)"))
            waiting[f"{symbol} (moving)"] = waiting.pop(symbol)
        else:
            steps.append((free, waiting.pop(free)))
    return steps


def rename_entries(book: str, state: BookState, session: date, actions: Sequence[CorporateAction]) -> list[Entry]:
    """A RENAME for every renamed symbol of which the book holds, or is owed, something."""
    known = {*state.holdings, *(symbol for symbol, _ in state.receivables)}
    entries: list[Entry] = []
    for symbol, new in rename_steps(new_names(actions)):
        if symbol in known:
            known.add(new)
            entries.append(
                Entry(
                    book=book,
                    session=session,
                    key=f"{session}|rename|{symbol}",
                    kind=EntryKind.RENAME,
                    symbol=symbol,
                    postings=(),
                    new_symbol=new,
                )
            )
    return entries


def name_entries(book: str, state: BookState, session: date, actions: Sequence[CorporateAction]) -> list[Entry]:
    """Renames, then a DELISTING at its last price for every holding that is delisted."""
    renames = rename_entries(book, state, session, actions)
    held = state.after(renames).holdings
    last = {a.symbol: a for a in by_new_name(actions) if a.kind == "delisting"}
    return renames + [
        Entry(
            book=book,
            session=session,
            key=f"{session}|delisting|{symbol}",
            kind=EntryKind.DELISTING,
            symbol=symbol,
            postings=(),
            price=to_decimal(action.value, quantum=CASH_QUANTUM, where=f"last price of {symbol}"),
        )
        for symbol, action in sorted(last.items())
        if symbol in held
    ]


def corporate_action_entries(
    book: str,
    state: BookState,
    market: SessionMarket,
    convention: AdjustmentConvention,
    settings: LedgerSettings,
    *,
    booked_in: date | None = None,
) -> list[Entry]:
    """Renames, delistings, splits (fractions paid in cash at the open, else at the last mark) and dividends on what was held at the
    previous close, dated ``market.session``; ``booked_in`` is the session that books them, if that is a later one.

    A dividend that shares its date with a split is per new share under EX_DATE_CLOSE and per old share under PREVIOUS_CLOSE, as in the
    adjustment of prices. It is earned on the ex-date and receivable until its pay date; where the source has none, that is the ex-date and
    dividend_pay_delay_days, flagged as assumed. Shorts owe dividends. What a spin-off gives is paid in cash at its value, at once.
    """
    named = name_entries(book, state, market.session, market.actions)
    state, actions = state.after(named), by_new_name(market.actions)
    market = replace(market, actions=actions)
    entries = list(named)
    for symbol, holding in state.holdings.items():
        ratio = exact_split_ratio(actions, symbol)
        whole, fraction = shares_after(holding.quantity, ratio, settings)
        if ratio != 1:
            entries += _split_entries(book, market, symbol, change=whole - holding.quantity, fraction=fraction, state=state)
        entitled = whole + fraction if convention is AdjustmentConvention.EX_DATE_CLOSE else holding.quantity
        for kind in ("dividend", "spinoff"):
            for number, action in enumerate(a for a in actions if a.symbol == symbol and a.kind == kind):
                key = f"{market.session}|{kind}|{symbol}|{number}"
                amount = cents(entitled * Decimal(repr(action.value)))
                entries.append(_dividend(book, action, key, amount, settings, booked_in or market.session))
    return entries


def shares_after(quantity: Decimal, ratio: Fraction, settings: LedgerSettings) -> tuple[Decimal, Decimal]:
    """Shares after a split, and the fraction that is paid in cash: none where the book holds fractions."""
    if ratio == 1 or not settings.fractional_shares:
        return after_split(quantity, ratio) if ratio != 1 else (quantity, ZERO)
    return (quantity * ratio.numerator / ratio.denominator).quantize(PRICE_QUANTUM), ZERO


def held_after_splits(state: BookState, actions: Sequence[CorporateAction], settings: LedgerSettings) -> dict[str, Decimal]:
    """Signed shares of every holding after the splits among ``actions``."""
    return {s: shares_after(h.quantity, exact_split_ratio(actions, s), settings)[0] for s, h in state.holdings.items()}


def carried_mark(state: BookState, market: SessionMarket, symbol: str) -> Decimal:
    """The last mark, brought onto the session's share basis."""
    ratio = exact_split_ratio(market.actions, symbol)
    return (state.holdings[symbol].mark * ratio.denominator / ratio.numerator).quantize(CASH_QUANTUM)


def _dividend(book: str, action: CorporateAction, key: str, amount: Decimal, settings: LedgerSettings, session: date) -> Entry:
    waits = action.kind == "dividend" and settings.dividends_paid == "pay_date"
    due = (action.pay_date or action.ex_date + timedelta(days=settings.dividend_pay_delay_days)) if waits else None
    target = Account.CASH if due is None or due <= session else Account.RECEIVABLES
    return Entry(
        book=book,
        session=session,
        key=key,
        kind=EntryKind.DIVIDEND,
        symbol=action.symbol,
        postings=transfer(Account.DIVIDENDS, target, amount),
        due=due,
        assumed=waits and action.pay_date is None,
    )


def _split_entries(book: str, market: SessionMarket, symbol: str, *, change: Decimal, fraction: Decimal, state: BookState) -> list[Entry]:
    def entry(kind: EntryKind, source: Account, target: Account, amount: Decimal, quantity: Decimal, at: Decimal | None) -> Entry:
        postings = transfer(source, target, amount, quantity)
        key = f"{market.session}|{kind}|{symbol}"
        return Entry(book=book, session=market.session, key=key, kind=kind, symbol=symbol, postings=postings, price=at)

    entries = [entry(EntryKind.SPLIT, Account.EXTERNAL, Account.SECURITIES, ZERO, change, None)]
    if fraction != 0:
        opened = market.opens.get(symbol)
        at = carried_mark(state, market, symbol) if opened is None else to_decimal(opened, quantum=CASH_QUANTUM, where="an open")
        entries.append(entry(EntryKind.CASH_IN_LIEU, Account.CASH_IN_LIEU, Account.CASH, cents(fraction * at), ZERO, at))
    return entries


def under_new_names(state: BookState, market: SessionMarket) -> tuple[BookState, SessionMarket]:
    """A book and a session's market under the names of the next session, as far as its renames are known: orders go out under them. A name
    that is delisted has no price to trade at: what is quoted under it from then on is another security.
    """
    names = new_names(market.upcoming)
    gone = {a.symbol for a in market.upcoming if a.kind == "delisting"} | {s for s, h in state.holdings.items() if h.delisted}
    if not names and not gone:
        return state, market

    def renamed(values: Mapping[str, float]) -> dict[str, float]:
        kept = {symbol: value for symbol, value in values.items() if symbol not in gone and symbol not in names}
        return kept | {names[symbol]: value for symbol, value in values.items() if symbol in names}

    upcoming = by_new_name(market.upcoming)
    shown = replace(market, closes=renamed(market.closes), median_volume=renamed(market.median_volume), upcoming=upcoming)
    return state.after(rename_entries("", state, market.session, market.upcoming)), shown
