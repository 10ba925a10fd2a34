"""The ledger against what a broker says: classified, booked or stopped, and a second look books nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.book_commands import open_difference
from quant.errors import InputError
from quant.ledger.entries import Account, Entry, EntryKind, transfer
from quant.ledger.reconciliation import (
    WHOLE_ACCOUNT,
    BrokerReport,
    DeltaKind,
    LedgerView,
    Outcome,
    ReconcileSettings,
    Reconciliation,
    divergence_entries,
    reconcile,
)
from quant.trading.brokerage import BrokerAccount, BrokerCapabilities, BrokerFill, BrokerOrder, BrokerPosition
from quant.trading.market import CorporateAction
from quant.trading.orders import OrderState, OrderType, Side

DAY = date(2013, 2, 28)
AT = datetime(2013, 2, 28, 14, 30, tzinfo=UTC)
SETTINGS = ReconcileSettings()
VIEW = LedgerView(
    book="paper",
    session=DAY,
    since=datetime(2013, 2, 1, tzinfo=UTC),
    cash=Decimal(10_000),
    quantities={"AAA": Decimal(100), "BBB": Decimal(-50)},
    marks={"AAA": Decimal(50), "BBB": Decimal(20), "CCC": Decimal("0.10")},
    orders=frozenset({"paper-1"}),
)


def report(cash: str = "10000", fills: tuple[BrokerFill, ...] = (), active: bool = True, **shares: int) -> BrokerReport:
    held = {"AAA": 100, "BBB": -50, **shares}
    account = BrokerAccount(account_id="A", active=active, cash=Decimal(cash), equity=Decimal(0), buying_power=Decimal(0))
    positions = [BrokerPosition(symbol=s, quantity=Decimal(q), average_entry_price=Decimal(1)) for s, q in held.items() if q]
    return BrokerReport(account=account, positions=positions, open_orders=(), fills=fills, client_order_ids={"b-1": "paper-1"})


def fill(number: int = 1, symbol: str = "AAA", quantity: int = 10, price: str = "50", *, of: str = "b-1", at: datetime = AT) -> BrokerFill:
    return BrokerFill(
        execution_id=f"x{number}",
        broker_order_id=of,
        client_order_id=None,
        symbol=symbol,
        side=Side.BUY if quantity > 0 else Side.SELL,
        quantity=Decimal(abs(quantity)),
        price=Decimal(price),
        executed_at=at,
    )


def after(view: LedgerView, entries: list[Entry] | tuple[Entry, ...] | object) -> LedgerView:
    """The ledger once ``entries`` are posted: each key once."""
    quantities, cash, executions = Counter(view.quantities), view.cash, set(view.executions)
    posted = list({entry.key: entry for entry in entries}.values())  # type: ignore[attr-defined]
    assert len(posted) == len(list(entries)), "no two entries have one key"  # type: ignore[call-overload]
    for entry in posted:
        cash += entry.cash
        if entry.symbol is not None:
            quantities[entry.symbol] += entry.quantity
        executions.add(entry.key.removeprefix("adjustment|"))
    return replace(view, quantities=dict(quantities), cash=cash, executions=frozenset(executions))


def told(found: Reconciliation) -> list[tuple[str, str | None, str]]:
    return [(delta.kind.value, delta.symbol, delta.outcome.value) for delta in found.deltas]


def test_a_ledger_and_a_broker_that_agree_have_no_difference():
    found = reconcile(VIEW, report(), SETTINGS)
    assert (found.deltas, found.entries, found.blocked, found.halt_reason) == ([], [], {}, None)


def test_executions_that_do_not_explain_a_confirmed_difference_are_booked_with_the_rest_of_it():
    seen = report("9500", fills=(fill(),), AAA=115)
    assert list(reconcile(VIEW, seen, SETTINGS).blocked) == ["AAA"]
    done = reconcile(VIEW, seen, SETTINGS, {"AAA": Decimal(15)})
    assert [(e.quantity, e.cash) for e in done.entries] == [(10, -500), (5, 0)]
    assert (done.blocked, done.halt_reason) == ({}, None)
    assert reconcile(after(VIEW, done.entries), seen, SETTINGS).deltas == []


def test_a_trade_that_somebody_else_made_and_took_back_can_be_confirmed():
    bought_and_sold = report("9990", fills=(fill(1, of="t"), fill(2, quantity=-10, price="49", of="t")))
    found = reconcile(VIEW, bought_and_sold, SETTINGS)
    rows = pl.DataFrame({"symbol": [d.symbol for d in found.deltas], "quantity": [d.quantity for d in found.deltas], "outcome": "blocked"})
    assert open_difference(rows, "AAA")["quantity"].sum() == 0
    done = reconcile(VIEW, bought_and_sold, SETTINGS, {"AAA": Decimal(0)})
    assert (done.blocked, sum(entry.cash for entry in done.entries)) == ({}, -10)
    with pytest.raises(InputError, match="an open difference of one of: AAA"):
        open_difference(rows, "BBB")


def test_no_number_of_shares_is_within_the_tolerance_at_a_mark_of_zero():
    worthless = replace(VIEW, marks={**VIEW.marks, "AAA": Decimal(0)})
    assert list(reconcile(worthless, report(AAA=1_000_100), SETTINGS).blocked) == ["AAA"]
    assert reconcile(worthless, report(AAA=1_000_100), SETTINGS, {"AAA": Decimal(1_000_000)}).blocked == {}


@pytest.mark.scenario(2)
def test_a_fill_that_came_after_the_end_of_its_order_is_recovered_at_its_price():
    found = reconcile(VIEW, report("9500", fills=(fill(),), AAA=110), SETTINGS)
    assert told(found) == [("missed_fill", "AAA", "booked")]
    (entry,) = found.entries
    assert (entry.kind, entry.cash, entry.quantity, entry.price) == (EntryKind.ADJUSTMENT, -500, 10, 50)
    assert reconcile(after(VIEW, found.entries), report("9500", fills=(fill(),), AAA=110), SETTINGS).deltas == []


@pytest.mark.scenario(3)
def test_one_execution_that_is_reported_twice_is_booked_once():
    found = reconcile(VIEW, report("9500", fills=(fill(), fill()), AAA=110), SETTINGS)
    assert len(found.entries) == 1


def test_an_execution_from_before_the_book_began_is_none_of_its_business():
    old = fill(at=datetime(2013, 1, 2, tzinfo=UTC))
    assert reconcile(VIEW, report(fills=(old,)), SETTINGS).deltas == []


def test_a_trade_of_somebody_else_blocks_its_symbol_and_only_that():
    found = reconcile(VIEW, report("9500", fills=(fill(of="theirs"),), AAA=110), SETTINGS)
    assert told(found) == [("external_trade", "AAA", "blocked")]
    assert found.entries == []
    assert list(found.blocked) == ["AAA"]
    assert found.halt_reason is None


def test_a_confirmed_trade_of_somebody_else_is_booked_and_another_one_is_not():
    theirs = report("9500", fills=(fill(of="theirs"),), AAA=110)
    assert len(reconcile(VIEW, theirs, SETTINGS, {"AAA": Decimal(10)}).entries) == 1
    assert reconcile(VIEW, theirs, SETTINGS, {"AAA": Decimal(9)}).entries == []


@pytest.mark.scenario(6)
@pytest.mark.scenario(7)
@pytest.mark.parametrize(("shares", "symbol"), [({"CCC": 500}, "CCC"), ({"AAA": 0}, "AAA"), ({"DDD": 1}, "DDD")])
def test_an_unknown_or_a_missing_position_is_quarantined_and_blocks_its_symbol(shares: dict[str, int], symbol: str):
    found = reconcile(VIEW, report(**shares), SETTINGS)
    assert told(found) == [("unknown", symbol, "blocked")]
    assert found.entries == []
    assert list(found.blocked) == [symbol]


def test_a_difference_within_the_tolerance_is_booked_with_its_reason():
    found = reconcile(VIEW, report("10000.40", CCC=5), SETTINGS)
    assert [(d.outcome, d.reason) for d in found.deltas] == [(Outcome.BOOKED, "within the tolerance")] * 2
    assert [e.amount(Account.EXTERNAL) for e in found.entries] == [Decimal("-0.5"), Decimal("-0.4")]


def test_a_split_that_only_one_side_has_made_is_named_and_blocks():
    split = CorporateAction(symbol="AAA", ex_date=DAY, kind="split", value=2.0, known_at=AT)
    found = reconcile(replace(VIEW, actions=[split]), report(AAA=50), SETTINGS)
    assert told(found) == [("corporate_action", "AAA", "blocked")]
    assert "split 2 with ex-date 2013-02-28" in found.deltas[0].evidence


def test_a_dividend_that_the_broker_paid_and_the_ledger_does_not_know_of_is_named():
    dividend = CorporateAction(symbol="AAA", ex_date=DAY, kind="dividend", value=0.5, known_at=AT)
    found = reconcile(replace(VIEW, actions=[dividend]), report("10050"), SETTINGS)
    assert told(found) == [("corporate_action", None, "halted")]
    confirmed = reconcile(replace(VIEW, actions=[dividend]), report("10050"), SETTINGS, {WHOLE_ACCOUNT: Decimal(50)})
    assert confirmed.halt_reason is None
    assert confirmed.entries[0].cash == 50


def test_cash_beyond_the_tolerance_halts_the_book():
    found = reconcile(VIEW, report("90000"), SETTINGS)
    assert found.deltas[0].kind is DeltaKind.CASH_ADJUSTMENT
    assert found.halt_reason is not None
    assert found.entries == []


def test_an_empty_report_is_never_flat():
    found = reconcile(VIEW, report(AAA=0, BBB=0), SETTINGS)
    assert found.halt_reason is not None
    assert "an empty report is not flat" in found.halt_reason
    assert found.entries == []


@pytest.mark.scenario(25)
def test_a_reset_account_halts_even_if_somebody_confirmed_a_symbol():
    found = reconcile(VIEW, report("100000", AAA=0, BBB=0), SETTINGS, {"AAA": Decimal(-100), "BBB": Decimal(50)})
    assert found.halt_reason is not None
    assert found.entries == []


def test_executions_of_our_orders_may_well_close_everything():
    closing = (fill(1, "AAA", -100), fill(2, "BBB", 50, "20"))
    found = reconcile(VIEW, report("14000", fills=closing, AAA=0, BBB=0), SETTINGS)
    assert found.halt_reason is None
    assert [entry.quantity for entry in found.entries] == [-100, 50]


def test_executions_that_do_not_explain_the_position_are_not_booked():
    found = reconcile(VIEW, report(fills=(fill(),)), SETTINGS)
    assert told(found) == [("unknown", "AAA", "blocked")]
    assert found.entries == []


def test_an_account_that_may_not_trade_halts():
    assert reconcile(VIEW, report(active=False), SETTINGS).halt_reason == "account A is not active at the broker"


def test_an_open_order_of_nobody_here_blocks_its_symbol_and_one_of_ours_that_is_gone_halts():
    order = BrokerOrder(
        client_order_id="hand-made",
        broker_order_id="b-9",
        symbol="CCC",
        side=Side.BUY,
        order_type=OrderType.MARKET,
        quantity=Decimal(1),
        filled_quantity=Decimal(0),
        average_price=None,
        state=OrderState.NEW,
        updated_at=AT,
    )
    found = reconcile(VIEW, replace(report(), open_orders=(order,)), SETTINGS)
    assert list(found.blocked) == ["CCC"]
    gone = reconcile(replace(VIEW, working=frozenset({"paper-1"})), report(), SETTINGS)
    assert gone.halt_reason == "order paper-1 is open in the ledger and not at the broker"


def test_what_a_broker_never_books_goes_beside_the_cash_and_is_no_break():
    paid = transfer(Account.DIVIDENDS, Account.CASH, Decimal(25))
    dividend = Entry(book="paper", session=DAY, key="2013-02-28|dividend|AAA|0", kind=EntryKind.DIVIDEND, symbol="AAA", postings=paid)
    can = BrokerCapabilities(
        name="x", embedded=False, order_types=frozenset(OrderType), fractional=False, never_books=frozenset({"dividend"})
    )
    (moved,) = divergence_entries([dividend], can)
    assert (moved.cash, moved.amount(Account.BROKER_DIVERGENCE)) == (-25, 25)
    booked = replace(VIEW, cash=VIEW.cash + dividend.cash + moved.cash)
    assert reconcile(booked, report(), SETTINGS).deltas == []
    assert divergence_entries([dividend], replace(can, never_books=frozenset())) == []


FILLS = st.lists(
    st.builds(
        fill,
        st.integers(1, 6),
        st.sampled_from("ABCD").map(lambda s: s * 3),
        st.integers(-40, 40).filter(bool),
        st.sampled_from(["0.01", "1", "49.999999"]),
        of=st.sampled_from(["b-1", "theirs"]),
    ),
    max_size=5,
    unique_by=lambda f: f.execution_id,
)


@given(
    fills=FILLS,
    moved=st.dictionaries(st.sampled_from(["AAA", "BBB", "CCC", "DDD"]), st.integers(-3, 3), max_size=3),
    cash=st.decimals(-3, 3, places=2),
    tolerance=st.sampled_from([0.0, 1.0, 60.0, 1e9]),
    honest=st.booleans(),
)
def test_whatever_differs_it_converges_at_once_and_books_nothing_beyond_the_tolerance(
    fills: list[BrokerFill], moved: dict[str, int], cash: Decimal, tolerance: float, honest: bool
):
    """``honest``: positions and cash follow the executions that are reported."""
    shares = Counter({"AAA": 100, "BBB": -50})
    shares.update(dict.fromkeys(moved, 0))
    paid = Decimal(0)
    for one in fills if honest else ():
        shares[one.symbol] += int(one.quantity) * one.side.sign
        paid += one.quantity * one.side.sign * one.price
    for symbol, number in moved.items():
        shares[symbol] += number
    said = report(str(Decimal(10_000) - paid + cash), fills=tuple(fills), **shares)
    settings = ReconcileSettings(max_position_usd=tolerance, max_cash_usd=tolerance)
    first = reconcile(VIEW, said, settings)
    second = reconcile(after(VIEW, first.entries), said, settings)
    assert list(second.entries) == []
    assert all(delta.outcome is not Outcome.BOOKED for delta in second.deltas)
    assert second.blocked.keys() == first.blocked.keys()
    assert (second.halt_reason is None) == (first.halt_reason is None)
    for entry in first.entries:
        outside = abs(entry.amount(Account.EXTERNAL))
        assert outside <= Decimal(repr(tolerance))
    for delta in first.deltas:
        if delta.kind is DeltaKind.EXTERNAL_TRADE and delta.outcome is Outcome.BOOKED:
            assert abs(delta.amount) <= Decimal(repr(tolerance))
    if not first.breaks:
        final = after(VIEW, first.entries)
        assert {s: q for s, q in final.quantities.items() if q} == {s: Decimal(q) for s, q in shares.items() if q}
        assert final.cash == said.account.cash
