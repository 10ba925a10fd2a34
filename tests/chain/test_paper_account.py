"""The whole daily chain on an account at a broker of its own: the stand-in server, asked through the unmodified client."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import NoReturn

import dagster as dg
import pytest

from adapters.sources.sample import SampleSource
from orchestration.definitions import alerting_of, build_definitions
from orchestration.settings import Settings
from quant.alerts.alert import Alert
from quant.alerts.observations import of_check
from quant.calendar import exchange_calendar
from quant.errors import BrokerError
from quant.trading.exchange import ExchangeRules
from quant.trading.orders import OrderState
from tests.chain.command_line import afterclose
from tests.chain.conftest import PROFILE, Root
from tests.fakes.broker_server import FREE, RunningBroker

CALENDAR = exchange_calendar()
SESSIONS = CALENDAR.sessions(date(2013, 2, 20), date(2013, 2, 28))
FIRST = SESSIONS[0]
SYMBOLS = ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
BROKER = """
[broker]
kind = "alpaca"
url = "{url}"
"""


def text_of(url: str) -> str:
    """A profile that trades there."""
    days = {"start": "2011-01-03", "paper_start": str(FIRST), "end": str(SESSIONS[-1])}
    return PROFILE.format(**days, paper="", backtest="start = 2013-01-02") + BROKER.format(url=url)


class Hands:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.at = datetime(2013, 2, 20, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def wait(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@dataclass
class Account:
    """A data root that trades at a running broker, whose clock is the root's."""

    root: Root
    server: RunningBroker
    clock: Hands
    log: Path

    def evening(self, session: date) -> None:
        """From the auctions of a session to half past eight in its evening."""
        bars = SampleSource().bars(session, session)
        wanted = ("open", "high", "low", "close", "volume")
        self.server.run(session, bars={row["symbol"]: {name: row[name] for name in wanted} for row in bars.iter_rows(named=True)})
        self.at(CALENDAR.close_at(session) + timedelta(hours=4, minutes=30))

    def at(self, instant: datetime) -> None:
        """Both clocks."""
        self.clock.at = instant
        self.server.control("clock", {"now": instant.isoformat()})

    def accepted(self) -> Counter[str]:
        """client_order_id -> how often the broker took it, by its own log."""
        rows = [json.loads(line) for line in self.log.read_text().splitlines()]
        return Counter(row["client_order_id"] for row in rows if row["kind"] == "accepted")

    def states(self, session: date) -> set[OrderState]:
        return {order.state for order in self.root.ledger.orders("paper", decided=session)}

    def says(self, *words: str) -> str:
        """A command on this root, as a process of its own."""
        profile = self.root.path.parent / "profile.toml"
        profile.write_text(text_of(self.server.url))
        done = afterclose(self.root.path, *words, profile=profile, APCA_API_KEY_ID="any", APCA_API_SECRET_KEY="any")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def alert(self, rule: str) -> Alert:
        """What the newest check of whether orders were sent makes of a rule."""
        check = dg.AssetCheckKey(dg.AssetKey("orders"), "everything_was_sent")
        (record,) = self.root.instance.event_log_storage.get_asset_check_execution_history(check, limit=1)
        assert record.event is not None
        assert record.event.asset_check_evaluation is not None
        outcome = alerting_of(self.root.defs).outcome(record.event.asset_check_evaluation, partition=str(FIRST))
        (found,) = (alert for alert in of_check(outcome).alerts if alert.rule == rule)
        return found

    def judge(self) -> None:
        """The ledger's holdings and cash are the broker's, to the cent."""
        exchange, state = self.server.house.exchange, self.root.ledger.state("paper", through=SESSIONS[-1])
        assert {s: h.quantity for s, h in state.holdings.items()} == {s: p.quantity for s, p in exchange.positions.items()}
        assert state.cash == exchange.cash


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    monkeypatch.setenv("APCA_API_KEY_ID", "any")
    monkeypatch.setenv("APCA_API_SECRET_KEY", "any")
    rules = ExchangeRules(costs=FREE, deposit=Decimal(1_000_000), pieces_ratio=0.5)
    log, clock = tmp_path / "broker.jsonl", Hands()
    with RunningBroker(log=log, rules=rules, symbols=SYMBOLS, at=clock.at) as server, dg.DagsterInstance.ephemeral() as instance:
        settings = Settings(**tomllib.loads(text_of(server.url)))
        path = tmp_path / "data"
        path.mkdir()
        root = Root(path=path, settings=settings, defs=build_definitions(settings, path, clock), instance=instance)
        made = Account(root, server, clock, log)
        made.evening(FIRST)
        root.history()
        yield made


@pytest.mark.slow
def test_days_of_paper_trading_at_a_broker_of_its_own_end_with_its_holdings_and_its_cash(account: Account):
    for session in SESSIONS[:4]:
        if session != FIRST:
            account.evening(session)
        account.root.days([session])
        assert account.states(session) == {OrderState.ACCEPTED}
        if session != FIRST:
            account.judge()
    taken = account.accepted()
    assert set(taken.values()) == {1}
    assert {o.client_order_id for o in account.root.ledger.orders("paper")} == set(taken)
    entries = account.root.ledger.entries("paper")
    account.root.days(SESSIONS[:4])
    assert (account.root.ledger.entries("paper"), account.accepted()) == (entries, taken), (
        "another run of the same sessions changes nothing"
    )
    assert account.root.table("reconciliations").is_empty(), "nothing differed"


@pytest.mark.slow
def test_sessions_that_are_made_up_for_are_missed_and_only_the_newest_one_trades(account: Account):
    account.root.days([FIRST])
    for session in SESSIONS[1:4]:
        account.evening(session)
    warned = account.root.days(SESSIONS[1:4])
    assert [{check.check for check in warned[day]} & {"everything_was_sent"} for day in SESSIONS[1:4]] == [
        {"everything_was_sent"},
        {"everything_was_sent"},
        set(),
    ]
    assert [account.states(day) for day in SESSIONS[:4]] == [
        {OrderState.FILLED},
        {OrderState.MISSED},
        {OrderState.MISSED},
        {OrderState.ACCEPTED},
    ]
    first, newest = (account.root.ledger.orders("paper", decided=day) for day in (FIRST, SESSIONS[3]))
    assert account.accepted() == Counter(order.client_order_id for order in (*first, *newest))
    account.judge()


@pytest.mark.slow
def test_a_trade_of_nobody_here_stops_the_book_until_somebody_confirms_it(account: Account):
    account.root.days([FIRST])
    account.evening(SESSIONS[1])
    account.server.control("trade", {"symbol": "IBM", "qty": 5000, "price": 200})
    failed = account.root.days([SESSIONS[1]])
    assert "broker_agrees" in {check.check for checks in failed.values() for check in checks}
    denied = account.root.ledger.orders("paper", decided=SESSIONS[1])
    assert {(order.state, order.denial and order.denial.limit) for order in denied} == {(OrderState.DENIED, "reconciliation")}

    for symbol, found in (("IBM", "5000"), ("*", "-1000000")):
        shown = account.says("reconcile", "--confirm", symbol, "--reason", "a transfer")
        assert f"confirmed: {symbol}, {found}" in shown, shown
    account.root.days([SESSIONS[1]])
    account.judge()
    assert "confirmed by a person" in account.says("reconcile")
    account.evening(SESSIONS[2])
    assert "halted -> active" in account.says("resume", "--reason", "the transfer is booked")
    account.root.days([SESSIONS[2]])
    account.judge()
    states = {order.symbol: order.state for order in account.root.ledger.orders("paper", decided=SESSIONS[2])}
    assert states["IBM"] is OrderState.ACCEPTED, "what is too much goes first"


@pytest.mark.slow
def test_an_order_that_the_broker_rejects_is_an_alert_with_its_words(account: Account):
    account.server.control("asset", {"symbol": "FB", "tradable": False})
    warned = account.root.days([FIRST])
    assert "everything_was_sent" in {check.check for check in warned[FIRST]}
    states = {order.symbol: order.state for order in account.root.ledger.orders("paper", decided=FIRST)}
    assert states["FB"] is OrderState.REJECTED
    alert = account.alert("order_rejected")
    assert (alert.symbol, alert.rule) == ("FB", "order_rejected")
    assert "tradable" in alert.observed


@pytest.mark.slow
def test_what_the_broker_does_not_lend_is_denied_and_the_longs_shrink_with_it(account: Account):
    account.server.control("asset", {"symbol": "FB", "shortable": False, "easy_to_borrow": False})
    account.root.days([FIRST])
    orders = {order.symbol: order for order in account.root.ledger.orders("paper", decided=FIRST)}
    denial = orders.pop("FB").denial
    assert denial is not None
    assert denial.limit == "short_availability"
    assert {order.state for order in orders.values()} == {OrderState.ACCEPTED}
    assert sum(order.signed_quantity * order.reference_price for order in orders.values()) <= Decimal(300_000)


@pytest.mark.slow
def test_orders_that_a_halt_stopped_before_they_were_sent_say_so_and_not_that_they_were_late(
    account: Account, monkeypatch: pytest.MonkeyPatch
):
    def die(*args: object, **options: object) -> NoReturn:
        raise BrokerError("the machine went down")

    with monkeypatch.context() as broken:
        broken.setattr("quant.trading.desk.submit", die)
        with pytest.raises(BrokerError, match="the machine went down"):
            account.root.days([FIRST])
    assert "active -> halted" in account.says("halt", "--reason", "a look at the machine")
    account.root.days([FIRST])
    assert account.states(FIRST) == {OrderState.MISSED}
    assert account.accepted() == Counter()
    alert = account.alert("orders_missed")
    assert "the book is halted" in alert.observed
