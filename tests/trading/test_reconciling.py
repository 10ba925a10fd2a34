"""A book against a broker that has books of its own: the Alpaca adapter and the loopback server behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
import stamina

from adapters.brokers.alpaca import AlpacaAccess, AlpacaBroker
from adapters.clock import FixedClock
from adapters.ledger import open_ledger
from adapters.ledger.inbox import open_inbox
from adapters.sources.alpaca import AlpacaKeys
from quant.calendar import exchange_calendar
from quant.errors import BrokerError, LedgerError
from quant.ledger.entries import Account, Entry, EntryKind, transfer
from quant.ledger.reconciliation import WHOLE_ACCOUNT, ReconcileSettings, divergence_entries
from quant.ports import AdjustmentConvention
from quant.risk.settings import RiskSettings
from quant.risk.state import StateChange, TradingState
from quant.trading.brokerage import BrokerFill
from quant.trading.desk import Desk
from quant.trading.exchange import Position
from quant.trading.execution import CostSettings
from quant.trading.market import SessionMarket
from quant.trading.orders import OrderState
from quant.trading.reconciling import CONFIRMED, LOOKED_BACK, Reconciled, reconcile_book
from quant.trading.rules import BookRules
from tests.alerts.servers import free_port
from tests.fakes.broker_server import DAY, EVENING, RunningBroker

CALENDAR = exchange_calendar()
CLOCK = FixedClock(EVENING)
KEYS = AlpacaKeys(key_id="K", secret="S")
MARKET = SessionMarket(session=DAY, opens={"AAA": 50.0}, closes={"AAA": 50.0})


@dataclass
class Rig:
    desk: Desk
    server: RunningBroker

    def look(self) -> Reconciled:
        return reconcile_book(self.desk, MARKET, ReconcileSettings())


def broker_at(url: str, folder: Path) -> AlpacaBroker:
    access = AlpacaAccess(url=url, read_seconds=2, connect_seconds=1, all_attempts_seconds=2)
    return AlpacaBroker(access, lambda: KEYS, CLOCK, lambda: open_inbox(f"sqlite:///{folder / 'ledger.sqlite'}", CLOCK), CALENDAR)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    stamina.set_testing(True)
    with RunningBroker() as server:
        desk = Desk(
            book="paper",
            first_session=DAY,
            deposit=server.house.exchange.cash,
            rules=BookRules(costs=CostSettings(), risk=RiskSettings(), convention=AdjustmentConvention.PREVIOUS_CLOSE),
            calendar=CALENDAR,
            ledger=open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}", CLOCK),
            broker=broker_at(server.url, tmp_path),
            clock=CLOCK,
        )
        desk.settle(MARKET)
        yield Rig(desk, server)
    stamina.set_testing(False)


def test_a_book_that_has_just_begun_agrees_with_its_account(rig: Rig):
    done = rig.look()
    assert done.why_not == ""
    assert (list(done.found.deltas), done.blocked) == ([], {})


@pytest.mark.scenario(6)
def test_an_unknown_position_blocks_until_a_person_confirms_it_and_then_the_books_agree(rig: Rig):
    rig.server.house.exchange.positions["AAA"] = Position(quantity=Decimal(100), cost=Decimal(50))
    assert list(rig.look().blocked) == ["AAA"]
    assert rig.look().found.entries == []
    rig.desk.ledger.record(CONFIRMED, {"book": "paper", "session": str(DAY), "symbol": "AAA", "difference": "100", "reason": "a transfer"})
    assert len(rig.look().found.entries) == 1
    settled = rig.desk.settle(MARKET)
    assert settled.closing.nav == rig.desk.state(DAY).nav
    assert settled.external_flows - rig.desk.deposit == 5000
    again = rig.look()
    assert (list(again.found.deltas), again.blocked) == ([], {})


@pytest.mark.parametrize("symbol", ["AAA", WHOLE_ACCOUNT])
def test_a_confirmed_difference_that_was_booked_and_comes_again_waits_for_a_person_again(rig: Rig, symbol: str):
    exchange = rig.server.house.exchange

    def more() -> None:
        if symbol == "AAA":
            exchange.positions["AAA"] = Position(quantity=exchange.held("AAA") + 100, cost=Decimal(50))
        else:
            exchange.cash += 100

    more()
    assert list(rig.look().blocked) == [symbol]
    held = "0" if symbol == "AAA" else str(rig.desk.deposit)
    told = {"book": "paper", "session": str(DAY), "symbol": symbol, "difference": "100", "held": held, "reason": "a transfer"}
    rig.desk.ledger.record(CONFIRMED, told)
    assert rig.look().blocked == {}
    more()
    assert list(rig.look().blocked) == [symbol]


def test_cash_that_is_not_the_books_halts(rig: Rig):
    rig.server.house.exchange.cash += 5000
    assert list(rig.look().blocked) == [WHOLE_ACCOUNT]


def test_a_confirmed_withdrawal_is_a_flow_and_no_loss(rig: Rig):
    rig.server.house.exchange.cash -= 600_000
    rig.look()
    told = {"book": "paper", "session": str(DAY), "symbol": WHOLE_ACCOUNT, "difference": "-600000", "reason": "a withdrawal"}
    rig.desk.ledger.record(CONFIRMED, told)
    assert rig.look().blocked == {}
    mark = rig.desk.watermark(DAY)
    assert (mark.closing, mark.peak, mark.drawdown, mark.loss) == (400_000, 400_000, 0, 0)


def killed_before_it_sent(rig: Rig, session: SessionMarket, targets: pl.DataFrame) -> None:
    """The intents of the session are in the ledger, nothing was sent."""
    with pytest.raises(BrokerError):
        decide(replace(rig.desk, clock=FixedClock(EVENING - timedelta(hours=1))), session, targets)
    assert [order.state for order in rig.desk.ledger.orders("paper")] == [OrderState.PENDING_NEW] * 2


def decide(desk: Desk, session: SessionMarket, targets: pl.DataFrame, blocked: dict[str, str] | None = None) -> dict[str, OrderState]:
    made = desk.decide(session, targets, decision_at=EVENING, model_version=None, table_versions={}, blocked=blocked)
    return {order.symbol: order.state for order in made}


@pytest.mark.parametrize(
    ("state", "blocked", "sent"),
    [
        (TradingState.ACTIVE, {}, {"AAA", "BBB"}),
        (TradingState.REDUCING, {}, set[str]()),
        (TradingState.HALTED, {}, set[str]()),
        (TradingState.ACTIVE, {"AAA": "unknown"}, {"BBB"}),
        (TradingState.ACTIVE, {WHOLE_ACCOUNT: "cash"}, set[str]()),
    ],
)
def test_what_a_killed_run_left_unsent_is_not_sent_once_it_may_not_be(
    rig: Rig, state: TradingState, blocked: dict[str, str], sent: set[str]
):
    prices, volumes = {"AAA": 50.0, "BBB": 50.0}, {"AAA": 1e6, "BBB": 1e6}
    session = SessionMarket(session=DAY, opens=prices, closes=prices, median_volume=volumes)
    targets = pl.DataFrame({"symbol": ["AAA", "BBB"], "target_weight": [0.05, -0.05]})
    killed_before_it_sent(rig, session, targets)
    rig.desk.ledger.change_state(StateChange(book="paper", session=DAY, key="command|1", state=state, reason="r", by="command"))
    assert {s for s, state in decide(rig.desk, session, targets, blocked).items() if state is OrderState.ACCEPTED} == sent
    assert {order.symbol for order in rig.desk.broker.open_orders()} == sent
    assert set(decide(rig.desk, session, targets).values()) <= {OrderState.ACCEPTED, OrderState.MISSED}


def test_a_little_cash_is_booked_once_and_the_parts_still_sum(rig: Rig):
    rig.server.house.exchange.cash += Decimal("0.25")
    assert len(rig.look().found.entries) == 1
    assert rig.look().found.deltas == []
    assert rig.desk.settle(MARKET).closing.cash == rig.server.house.exchange.cash


def test_a_report_that_fails_is_an_error_and_nothing_is_booked(rig: Rig, tmp_path: Path):
    before = len(rig.desk.ledger.entries("paper"))
    gone = replace(rig.desk, broker=broker_at(f"http://127.0.0.1:{free_port()}", tmp_path))
    with pytest.raises(BrokerError):
        reconcile_book(gone, MARKET, ReconcileSettings())
    assert len(rig.desk.ledger.entries("paper")) == before


@pytest.mark.scenario(25)
def test_one_book_has_one_account_for_ever(rig: Rig):
    first = rig.desk.broker.account().account_id
    rig.look()
    rig.server.house.reset()
    with pytest.raises(LedgerError, match="book paper at account"):
        rig.look()
    with pytest.raises(LedgerError, match="as it began in the ledger, found book other"):
        rig.desk.ledger.bind_account("other", first)


def test_a_session_whose_morning_after_has_come_is_not_compared(rig: Rig):
    late = replace(rig.desk, clock=FixedClock(datetime(2020, 1, 3, 15, tzinfo=UTC)))
    assert "has begun" in reconcile_book(late, MARKET, ReconcileSettings()).why_not


@dataclass(frozen=True)
class Asked:
    """A broker that keeps since when it was asked for executions."""

    broker: AlpacaBroker
    since: list[datetime]

    def fills(self, since: datetime) -> Sequence[BrokerFill]:
        self.since.append(since)
        return self.broker.fills(since)

    def __getattr__(self, name: str) -> object:
        return getattr(self.broker, name)


def years_old(rig: Rig) -> tuple[Desk, list[datetime]]:
    """The desk of a book that began three years before."""
    asked = Asked(rig.desk.broker, [])  # type: ignore[arg-type]
    return replace(rig.desk, first_session=CALENDAR.on_or_after(date(2017, 1, 3)), broker=asked), asked.since  # type: ignore[arg-type]


def test_a_book_of_years_asks_for_the_executions_of_two_weeks(rig: Rig):
    desk, since = years_old(rig)
    assert reconcile_book(desk, MARKET, ReconcileSettings()).found.deltas == []
    assert since == [CALENDAR.close_at(CALENDAR.shift(DAY, -LOOKED_BACK))]


@pytest.mark.parametrize("moved_on", [None, 15, 40, 700], ids=["nothing yet", "two weeks ago", "two months ago", "years ago"])
def test_what_the_broker_never_books_is_moved_on_once_however_long_nothing_was_compared(rig: Rig, moved_on: int | None):
    desk, _ = years_old(rig)
    ages = [750, 700, 40, 15, 12, 3]
    paid = [dividend(CALENDAR.shift(DAY, -age), Decimal(age)) for age in ages]
    then = {entry.session: entry for entry in paid if moved_on is not None and entry.session <= CALENDAR.shift(DAY, -moved_on)}
    desk.ledger.post([*paid, *(one for entry in then.values() for one in divergence_entries([entry], desk.broker.capabilities))])
    reconcile_book(desk, MARKET, ReconcileSettings(max_cash_usd=0))
    state = desk.state(DAY)
    assert (state.cash, state.divergence) == (rig.desk.deposit, sum(ages))
    entries = desk.ledger.entries("paper")
    assert reconcile_book(desk, MARKET, ReconcileSettings(max_cash_usd=0)).found.deltas == []
    assert desk.ledger.entries("paper") == entries


def dividend(session: date, amount: Decimal) -> Entry:
    return Entry(
        book="paper",
        session=session,
        key=f"{session}|dividend|AAA|0",
        kind=EntryKind.DIVIDEND,
        symbol="AAA",
        postings=transfer(Account.DIVIDENDS, Account.CASH, amount),
    )
