"""Whatever happens to a book (trades, splits, dividends, renames, delistings, names that vanish), nothing is made and nothing is lost."""

from __future__ import annotations

from collections import defaultdict
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.ledger.book import BookState
from quant.ledger.entries import Account, Entry, EntryKind
from quant.ledger.lots import LotBook
from quant.ledger.settings import LedgerSettings
from quant.risk.settings import RiskSettings
from quant.risk.state import TradingState, Watermark
from quant.trading.attribution import COSTS, GAINS
from quant.trading.decision import decide
from quant.trading.execution import CostSettings
from quant.trading.orders import Execution, Order
from quant.trading.settlement import Settlement, settle
from quant.units import ZERO
from tests.trading.eventful import eventful_markets
from tests.trading.simulation import DEPOSIT, RULES, exchange, random_targets

if TYPE_CHECKING:
    from quant.trading.market import SessionMarket

BOOK = LedgerSettings(stale_limit_sessions=3, interest_credit_rate_annual=0.03, dividend_pay_delay_days=5)
COSTLY = CostSettings(borrow_rate_annual=0.3)
WIDE = RiskSettings(max_name_ratio=0.9, max_net_ratio=1.0, max_gross_ratio=2.0)


def kept(seed: int, sessions: int = 24) -> tuple[list[SessionMarket], list[Settlement]]:
    """A book that trades on random scores through eventful sessions."""
    days = eventful_markets(seed, sessions=sessions)
    targets, broker = random_targets(seed, days), exchange(days, COSTLY)
    state, pending, done = BookState(), list[Order](), list[Settlement]()
    for day in days:
        outcomes = broker.outcomes(day.session, pending)
        funds = ZERO if done else DEPOSIT
        done.append(
            settle(
                book="b",
                opening=state,
                outcomes=outcomes,
                market=day,
                convention=RULES.convention,
                costs=COSTLY,
                ledger=BOOK,
                deposit=funds,
            )
        )
        state = done[-1].closing
        wanted = targets.filter(pl.col("session") == day.session)
        pending = decide(
            book="b", state=state, market=day, targets=wanted, risk=WIDE, watermark=Watermark(), trading=TradingState.ACTIVE
        ).allowed
    return days, done


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_every_session_is_explained_exactly_by_term_and_by_side_and_every_entry_balances(seed: int):
    _, done = kept(seed)
    for session in done:
        assert session.gap == session.side_gap == 0
        assert all(sum(leg.amount for leg in entry.postings) == 0 for entry in session.entries)
    entries = [entry for session in done for entry in session.entries]
    assert len({entry.key for entry in entries}) == len(entries)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 100_000), cut=st.integers(0, 2000))
def test_folds_of_a_prefix_and_the_rest_are_the_folds_of_all(seed: int, cut: int):
    _, done = kept(seed, sessions=15)
    entries = [entry for session in done for entry in session.entries]
    at = cut % (len(entries) + 1)
    for empty in (BookState(), LotBook()):
        assert empty.after(entries[:at]).after(entries[at:]) == empty.after(entries)
    assert BookState().after(entries) == done[-1].closing


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_lots_sum_to_holdings_and_realised_and_unrealised_gains_to_the_result_of_prices(seed: int):
    _, done = kept(seed)
    lots = LotBook()
    for session in done:
        lots = lots.after(session.entries)
        held = session.closing.holdings
        assert {s: sum(lot.quantity for lot in of) for s, of in lots.open.items()} == {s: h.quantity for s, h in held.items()}
    value = sum((h.market_value for h in done[-1].closing.holdings.values()), ZERO)
    of_prices = sum((p.price_pnl + p.cash_in_lieu + p.write_offs for session in done for p in session.pnl), ZERO)
    assert lots.realised + value - lots.cost == of_prices
    assert all(lot.opened <= lot.closed for lot in lots.closed)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_what_was_earned_is_paid_once_or_still_owed_and_each_account_holds_its_term(seed: int):
    _, done = kept(seed)
    entries = [entry for session in done for entry in session.entries]
    into: defaultdict[Account, Decimal] = defaultdict(Decimal)
    for entry in entries:
        for leg in entry.postings:
            into[leg.account] += leg.amount
    closing = done[-1].closing
    assert (into[Account.CASH], into[Account.RECEIVABLES]) == (closing.cash, closing.receivable)
    for term in (*GAINS, *COSTS):
        if term != "price_pnl":
            total = sum((getattr(p, term) for session in done for p in session.pnl), ZERO)
            assert total == (into[Account(term)] if term in COSTS else -into[Account(term)])
    assert all(due > done_on for (_, due), done_on in ((key, last_session(entries)) for key in closing.receivables))


def last_session(entries: list[Entry]) -> date:
    """The newest session of some entries."""
    return max(entry.session for entry in entries)


def test_what_the_sessions_are_made_of_happens_in_them():
    seen: defaultdict[EntryKind, int] = defaultdict(int)
    filled_as_new = 0
    for seed in range(12):
        _, done = kept(seed)
        for session in done:
            filled_as_new += sum(isinstance(o, Execution) and o.order.symbol == "NEW" for o in session.outcomes)
            for entry in session.entries:
                seen[entry.kind] += 1
    assert set(seen) == set(EntryKind) - {EntryKind.ADJUSTMENT, EntryKind.DIVERGENCE}
    assert filled_as_new > 0
