"""Actions that become known after their ex-date are booked on what was held then, whatever else was learned or happened since."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from adapters.brokers.simulated import SimulatedExchange
from adapters.clock import FixedClock
from adapters.ledger import open_ledger
from quant.ledger.entries import Account, Entry, EntryKind, transfer
from quant.ports import DecisionRecord
from quant.trading.desk import Desk
from quant.trading.market import CorporateAction, SessionMarket
from quant.trading.rules import BookRules
from tests.trading.simulation import CALENDAR, DEPOSIT, KNOWN, RULES, SESSIONS, decided

if TYPE_CHECKING:
    from pathlib import Path

D = SESSIONS[:8]
LATE = datetime(2021, 1, 1, tzinfo=UTC)
FREE = BookRules(
    costs=RULES.costs.model_copy(update={"borrow_rate_annual": 0.0}), risk=RULES.risk, convention=RULES.convention, ledger=RULES.ledger
)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A book that holds 100 AAA at 50 USD, bought on its first session."""
    ledger = open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}", FixedClock(KNOWN))
    costs = FREE.costs
    made = Desk(
        book="paper",
        first_session=D[0],
        deposit=DEPOSIT,
        rules=FREE,
        calendar=CALENDAR,
        ledger=ledger,
        broker=SimulatedExchange(lambda _: SessionMarket(session=D[0]), costs),
        clock=FixedClock(datetime(2020, 1, 1, tzinfo=UTC)),
    )
    run(made, 0)
    bought = transfer(Account.CASH, Account.SECURITIES, Decimal(5000), Decimal(100))
    ledger.post([Entry(book="paper", session=D[0], key="x", kind=EntryKind.TRADE, symbol="AAA", postings=bought, price=Decimal(50))])
    return made


def run(desk: Desk, at: int, *actions: CorporateAction, late: tuple[CorporateAction, ...] = (), **closes: float) -> list[Entry]:
    """Settle session ``at``, and mark it decided; what it booked besides marks."""
    session = D[at]
    market = SessionMarket(session=session, opens=closes, closes=closes, actions=actions, late=late)
    done = desk.settle(market)
    record = DecisionRecord(book="paper", session=session, decision_at=decided(market), model_version=None, table_versions={})
    desk.ledger.record_decision(record, {})
    assert list(desk.settle(market).entries) == list(done.entries)
    return [entry for entry in done.entries if entry.kind is not EntryKind.MARK]


def action(kind: str, value: float, at: int, symbol: str = "AAA", **more: object) -> CorporateAction:
    return CorporateAction(symbol=symbol, ex_date=D[at], kind=kind, value=value, known_at=LATE, **more)  # type: ignore[arg-type]


def test_a_dividend_learned_after_its_pay_date_is_cash_at_once_and_one_learned_before_is_receivable(desk: Desk):
    run(desk, 1, AAA=50.0)
    run(desk, 2, late=(action("dividend", 0.5, 1, pay_date=D[2]),), AAA=50.0)
    assert desk.state(D[2]).cash == DEPOSIT - 5000 + 50
    run(desk, 3, late=(action("dividend", 0.7, 2, pay_date=D[4]),), AAA=50.0)
    assert desk.state(D[3]).receivables == {("AAA", D[4]): 70}
    assert [e.kind for e in run(desk, 4, AAA=50.0)] == [EntryKind.PAYMENT]


@pytest.mark.parametrize("special", [0.2, 0.5, 2.0])
def test_a_second_dividend_of_a_day_that_is_learned_late_is_booked_once_beside_the_first(desk: Desk, special: float):
    run(desk, 1, action("dividend", 0.5, 1, pay_date=D[1]), AAA=50.0)
    both = tuple(action("dividend", value, 1, pay_date=D[1]) for value in sorted((0.5, special)))
    assert [entry.cash for entry in run(desk, 2, late=both, AAA=50.0)] == [100 * Decimal(repr(special))]
    assert run(desk, 3, late=both, AAA=50.0) == []


def test_a_dividend_that_is_corrected_late_is_not_restated(desk: Desk):
    run(desk, 1, action("dividend", 0.5, 1, pay_date=D[1]), AAA=50.0)
    assert run(desk, 2, late=(action("dividend", 0.6, 1, pay_date=D[1]),), AAA=50.0) == []


def test_a_dividend_after_a_split_that_was_learned_late_is_for_the_new_shares(desk: Desk):
    run(desk, 1, AAA=25.0)
    run(desk, 2, AAA=25.0)
    both = (action("split", 2.0, 1), action("dividend", 0.5, 2, pay_date=D[2]))
    split, dividend = run(desk, 3, late=both, AAA=25.0)
    assert (split.quantity, dividend.cash) == (100, 100)


def test_a_dividend_after_a_split_that_was_learned_in_between_is_for_the_new_shares(desk: Desk):
    run(desk, 1, AAA=25.0)
    run(desk, 2, AAA=25.0)
    run(desk, 3, late=(action("split", 2.0, 1),), AAA=25.0)
    (dividend,) = run(desk, 4, late=(action("dividend", 0.5, 2, pay_date=D[2]),), AAA=25.0)
    assert dividend.cash == 100


def test_a_rename_learned_late_moves_the_frozen_holding_and_a_later_dividend_of_the_new_name_finds_it(desk: Desk):
    run(desk, 1, BBB=60.0)
    assert desk.state(D[1]).holdings["AAA"].stale
    run(desk, 2, BBB=60.0)
    late = (action("rename", 1.0, 1, new_symbol="BBB"), action("dividend", 0.5, 2, symbol="BBB", pay_date=D[2]))
    booked = run(desk, 3, late=late, BBB=60.0)
    assert [(e.kind, e.symbol, e.new_symbol, e.cash) for e in booked] == [
        (EntryKind.RENAME, "AAA", "BBB", 0),
        (EntryKind.DIVIDEND, "BBB", None, 50),
    ]
    held = desk.state(D[3]).holdings
    assert (list(held), held["BBB"].market_value, held["BBB"].stale) == (["BBB"], 6000, False)


def test_what_went_ex_before_a_rename_and_is_learned_after_it_goes_on_the_new_name(desk: Desk):
    run(desk, 1, AAA=50.0)
    run(desk, 2, replace(action("rename", 1.0, 2, new_symbol="BBB"), known_at=KNOWN), BBB=50.0)
    split, dividend = run(desk, 3, late=(action("split", 2.0, 1), action("dividend", 0.5, 1, pay_date=D[7])), BBB=25.0)
    assert (split.symbol, split.quantity, dividend.symbol) == ("BBB", 100, "BBB")
    state = desk.state(D[3])
    assert (state.quantity("BBB"), state.receivables) == (200, {("BBB", D[7]): 100})


def test_a_delisting_learned_late_marks_the_frozen_holding_at_its_last_price(desk: Desk):
    run(desk, 1)
    run(desk, 2, late=(action("delisting", 30.0, 1),))
    held = desk.state(D[2]).holdings["AAA"]
    assert (held.mark, held.delisted, held.stale_sessions) == (30, True, 2)
