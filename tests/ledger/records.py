"""Generated entries and orders."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from hypothesis import strategies as st

from quant.ledger.entries import Account, Entry, EntryKind, Posting, transfer
from quant.trading.orders import Denial, Leg, Order, OrderState, Side

SESSIONS = st.dates(min_value=date(2000, 1, 3), max_value=date(2030, 12, 31))
SYMBOLS = st.sampled_from(["AAPL", "BRK.B", "IBM", "Ünï", "o'clock"])
AMOUNTS = st.decimals(min_value=Decimal(-(10**9)), max_value=Decimal(10**9), places=6)
PRICES = st.decimals(min_value=Decimal("0.000000001"), max_value=Decimal(10**6), places=9)
ODD_TEXT = st.text("a:'é ", max_size=3)
QUANTITIES = st.decimals(min_value=Decimal(-(10**6)), max_value=Decimal(10**6), places=9)


@st.composite
def postings(draw: st.DrawFn) -> tuple[Posting, ...]:
    """Two to four legs that sum to zero."""
    accounts = draw(st.lists(st.sampled_from([a for a in Account if a is not Account.RECEIVABLES]), min_size=2, max_size=4))
    amounts = [draw(AMOUNTS) for _ in accounts[1:]]
    amounts.append(-sum(amounts, Decimal(0)))
    legs = zip(accounts, amounts, strict=True)
    return tuple(Posting(account=a, amount=x, quantity=draw(QUANTITIES) if a is Account.SECURITIES else Decimal(0)) for a, x in legs)


@st.composite
def entry_lists(draw: st.DrawFn, book: str = "paper") -> list[Entry]:
    """Entries with distinct keys, in any order of sessions: trades and flows, and marks that move nothing."""
    made: list[Entry] = []
    for number in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(EntryKind))
        marks = kind in (EntryKind.MARK, EntryKind.DELISTING)
        named = marks or kind in (EntryKind.RENAME, EntryKind.DIVIDEND, EntryKind.PAYMENT)
        if kind in (EntryKind.DIVIDEND, EntryKind.PAYMENT):
            legs = transfer(Account.DIVIDENDS, Account.RECEIVABLES, draw(AMOUNTS))
        else:
            legs = () if named else draw(postings())
        made.append(
            Entry(
                book=book,
                session=draw(SESSIONS),
                key=f"{kind}:{number}:{draw(ODD_TEXT)}",
                kind=kind,
                symbol=draw(SYMBOLS if named else st.none() | SYMBOLS),
                postings=legs,
                price=draw(PRICES if marks else st.none() | PRICES),
                stale=marks and draw(st.booleans()),
                due=draw(SESSIONS) if legs and named else None,
                assumed=bool(legs) and named and draw(st.booleans()),
                new_symbol=draw(SYMBOLS) if kind is EntryKind.RENAME else None,
            )
        )
    return made


@st.composite
def orders(draw: st.DrawFn, book: str = "paper") -> Order:
    """A reviewed order, before anything is sent."""
    number = st.floats(allow_nan=False)
    denial = draw(
        st.none() | st.builds(Denial, limit=st.sampled_from(["gross_exposure", ""]), observed=number, allowed=number, unit=st.just("ratio"))
    )
    return Order(
        book=book,
        session=draw(SESSIONS),
        symbol=draw(SYMBOLS),
        leg=draw(st.sampled_from(Leg)),
        side=draw(st.sampled_from(Side)),
        quantity=Decimal(draw(st.integers(1, 10**6))),
        reference_price=draw(PRICES),
        generation=draw(st.integers(1, 99)),
        state=OrderState.PENDING_NEW if denial is None else OrderState.DENIED,
        denial=denial,
    )
