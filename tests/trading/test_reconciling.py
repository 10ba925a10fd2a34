"""A book against a broker that has books of its own: the Alpaca adapter and the loopback server behind it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
import stamina

from adapters.clock import FixedClock
from adapters.ledger import open_ledger
from adapters.sources.alpaca import AlpacaKeys
from quant.calendar import exchange_calendar
from quant.errors import BrokerError, LedgerError
from quant.ledger.reconciliation import WHOLE_ACCOUNT, ReconcileSettings
from quant.ports import AdjustmentConvention
from quant.risk.limit import RiskSettings
from quant.trading.desk import Desk
from quant.trading.execution import CostSettings
from quant.trading.market import SessionMarket
from quant.trading.reconciling import CONFIRMED, Reconciled, reconcile_book
from quant.trading.replay import BookRules
from services.broker.server import BrokerServer, new_server
from tests.alerts.servers import free_port

CALENDAR = exchange_calendar()
DAY = date(2013, 2, 28)
CLOCK = FixedClock(datetime(2013, 3, 1, 1, 30, tzinfo=UTC))
MARKET = SessionMarket(session=DAY, opens={"AAA": 50.0}, closes={"AAA": 50.0})


@dataclass
class Rig:
    desk: Desk
    server: BrokerServer

    def look(self) -> Reconciled:
        return reconcile_book(self.desk, MARKET, ReconcileSettings())


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    from adapters.brokers.alpaca import AlpacaBroker

    stamina.set_testing(True)
    server = new_server(calendar=CALENDAR, clock=CLOCK, key_id="K", secret="S", log=tmp_path / "broker.jsonl")
    with server.running() as (url, _):
        keys = AlpacaKeys(key_id="K", secret="S")
        desk = Desk(
            book="paper",
            first_session=DAY,
            deposit=server.exchange.cash,
            rules=BookRules(costs=CostSettings(), risk=RiskSettings(), convention=AdjustmentConvention.PREVIOUS_CLOSE),
            calendar=CALENDAR,
            ledger=open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}", CLOCK),
            broker=AlpacaBroker(keys, url=url, clock=CLOCK, calendar=CALENDAR, timeout_seconds=(2.0, 2.0)),
            clock=CLOCK,
        )
        desk.settle(MARKET)
        yield Rig(desk, server)
    stamina.set_testing(False)


def test_a_book_that_has_just_begun_agrees_with_its_account(rig: Rig):
    done = rig.look()
    assert done.why_not == ""
    assert (list(done.found.deltas), done.blocked) == ([], {})


def test_an_unknown_position_blocks_until_a_person_confirms_it_and_then_the_books_agree(rig: Rig):
    rig.server.exchange.holdings["AAA"] = (Decimal(100), Decimal(50))
    assert list(rig.look().blocked) == ["AAA"]
    assert rig.look().found.entries == []
    rig.desk.ledger.record(CONFIRMED, {"book": "paper", "session": str(DAY), "symbol": "AAA", "difference": "100", "reason": "a transfer"})
    assert len(rig.look().found.entries) == 1
    settled = rig.desk.settle(MARKET)
    assert settled.closing.nav == rig.desk.state(DAY).nav
    assert settled.external_flows - rig.desk.deposit == 5000
    again = rig.look()
    assert (list(again.found.deltas), again.blocked) == ([], {})


def test_cash_that_is_not_the_books_halts(rig: Rig):
    rig.server.exchange.cash += 5000
    assert list(rig.look().blocked) == [WHOLE_ACCOUNT]


def test_a_little_cash_is_booked_once_and_the_parts_still_sum(rig: Rig):
    rig.server.exchange.cash += Decimal("0.25")
    assert len(rig.look().found.entries) == 1
    assert rig.look().found.deltas == []
    assert rig.desk.settle(MARKET).closing.cash == rig.server.exchange.cash


def test_a_report_that_fails_is_an_error_and_nothing_is_booked(rig: Rig):
    from adapters.brokers.alpaca import AlpacaBroker

    before = len(rig.desk.ledger.entries("paper"))
    keys, nowhere = AlpacaKeys(key_id="K", secret="S"), f"http://127.0.0.1:{free_port()}"
    gone = replace(rig.desk, broker=AlpacaBroker(keys, url=nowhere, clock=CLOCK, calendar=CALENDAR, timeout_seconds=(1.0, 1.0)))
    with pytest.raises(BrokerError):
        reconcile_book(gone, MARKET, ReconcileSettings())
    assert len(rig.desk.ledger.entries("paper")) == before


def test_one_book_has_one_account_for_ever(rig: Rig):
    first = rig.desk.broker.account().account_id
    rig.look()
    rig.server.exchange.account_id = "RESET"
    with pytest.raises(LedgerError, match="book paper at account"):
        rig.look()
    with pytest.raises(LedgerError, match="as it began in the ledger, found book other"):
        rig.desk.ledger.bind_account("other", first)


def test_a_session_whose_morning_after_has_come_is_not_compared(rig: Rig):
    late = replace(rig.desk, clock=FixedClock(datetime(2013, 3, 1, 15, tzinfo=UTC)))
    assert "has begun" in reconcile_book(late, MARKET, ReconcileSettings()).why_not
