"""Alpaca's own client against the stand-in that fails: what an answer tells, what is asked again, what is never believed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import stamina

from adapters.brokers.alpaca import AlpacaAccess, AlpacaBroker, state_event
from adapters.brokers.alpaca_stream import AlpacaStream
from adapters.clock import SystemClock
from adapters.ledger.inbox import open_inbox
from adapters.sources.alpaca import AlpacaKeys
from quant.calendar import exchange_calendar
from quant.errors import BrokerError, InputError
from quant.ports import Inbox
from quant.trading.brokerage import Answer
from quant.trading.inbox import Channel
from quant.trading.orders import Leg, Order, OrderState, OrderType, Side
from tests.fakes.broker_server import DAY, EVENING, NEXT, RunningBroker, wait_for

KEYS = AlpacaKeys(key_id="k", secret="s")
LOST = ("500", "504", "empty", "302", "cut", "half", "headers")


@pytest.fixture(autouse=True)
def without_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=10, cap=True):
        yield


@dataclass
class Setup:
    server: RunningBroker
    folder: Path
    calls: list[str] = field(default_factory=list)

    def inbox(self, name: str = "ledger") -> Inbox:
        return open_inbox(f"sqlite:///{self.folder / name}.sqlite", SystemClock())

    def broker(self, name: str = "ledger", *, polls: bool = True) -> AlpacaBroker:
        access = AlpacaAccess(url=self.server.url, read_seconds=5)
        return AlpacaBroker(access, lambda: KEYS, SystemClock(), lambda: self.inbox(name), exchange_calendar(), polls=polls)

    def log(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in (self.folder / "log.jsonl").read_text().splitlines()]

    def accepted(self, order: Order) -> int:
        """How often the broker took the order, by its own log."""
        return sum(row["kind"] == "accepted" and row["client_order_id"] == order.client_order_id for row in self.log())


@pytest.fixture
def at_broker(tmp_path: Path) -> Iterator[Setup]:
    with RunningBroker(log=tmp_path / "log.jsonl") as server:
        yield Setup(server=server, folder=tmp_path)


def order(symbol: str = "AAA", quantity: str = "300", generation: int = 1, order_type: OrderType = OrderType.MARKET_ON_OPEN) -> Order:
    return Order(
        book="b",
        session=DAY,
        symbol=symbol,
        leg=Leg.OPEN,
        side=Side.BUY,
        quantity=Decimal(quantity),
        reference_price=Decimal(50),
        generation=generation,
        order_type=order_type,
    )


def test_an_answer_that_is_lost_is_unknown_and_the_order_is_sent_once_by_one_submission(at_broker: Setup):
    broker, generation = at_broker.broker(), 0
    for kind in LOST:
        for accepted in (False, True):
            generation += 1
            one = order(generation=generation)
            at_broker.server.control("faults", [{"kind": kind, "accepted": accepted}])
            assert broker.submit(one).answer is Answer.UNKNOWN, kind
            assert at_broker.accepted(one) == accepted, kind
            assert (broker.find(one.client_order_id) is not None) == accepted, kind


@pytest.mark.scenario(23)
def test_a_throttled_order_was_not_taken(at_broker: Setup):
    broker, one = at_broker.broker(), order()
    at_broker.server.control("faults", [{"kind": "429", "times": 3}])
    assert [broker.submit(one).answer for _ in range(4)] == [*[Answer.THROTTLED] * 3, Answer.ACCEPTED]
    assert at_broker.accepted(one) == 1


def test_an_answer_that_does_not_come_is_given_up_and_unknown(at_broker: Setup):
    access = AlpacaAccess(url=at_broker.server.url, read_seconds=0.2)
    broker = AlpacaBroker(access, lambda: KEYS, SystemClock(), at_broker.inbox, exchange_calendar())
    broker.account()
    at_broker.server.control("faults", [{"kind": "latency", "seconds": 0.6}])
    assert broker.submit(order()).answer is Answer.UNKNOWN


@pytest.mark.parametrize("kind", LOST)
def test_a_question_is_asked_again_within_bounds_and_never_answered_by_half(at_broker: Setup, kind: str):
    broker = at_broker.broker()
    at_broker.server.control("faults", [{"kind": kind, "on": "GET /v2/positions", "times": 2, "accepted": True}])
    assert broker.positions() == []
    at_broker.server.control("faults", [{"kind": kind, "on": "GET /v2/positions", "times": 50}])
    with stamina.set_testing(True, attempts=3), pytest.raises(BrokerError):
        broker.positions()


def test_an_order_is_absent_only_if_the_broker_says_so(at_broker: Setup):
    assert at_broker.broker().find("nobody") is None
    with pytest.raises(BrokerError):
        AlpacaBroker(
            AlpacaAccess(url="http://127.0.0.1:1", connect_seconds=0.2), lambda: KEYS, SystemClock(), at_broker.inbox, exchange_calendar()
        ).find("nobody")


@pytest.mark.scenario(12)
@pytest.mark.scenario(13)
@pytest.mark.parametrize(
    ("new_york", "answer"),
    [
        ("2020-01-03T09:27:59-05:00", Answer.ACCEPTED),
        ("2020-01-03T09:28:00-05:00", Answer.THROTTLED),
        ("2020-01-03T15:59:59-05:00", Answer.THROTTLED),
        ("2020-01-03T16:00:00-05:00", Answer.ACCEPTED),  # as a day order, which waits for the next open
        ("2020-11-27T13:00:00-05:00", Answer.ACCEPTED),  # the close of a half day
        ("2020-01-03T18:59:59-05:00", Answer.ACCEPTED),
        ("2020-01-03T19:00:00-05:00", Answer.ACCEPTED),
        ("2020-01-04T12:00:00-05:00", Answer.ACCEPTED),  # a Saturday
        ("2020-07-03T12:00:00-04:00", Answer.ACCEPTED),  # a holiday
        ("2020-06-01T09:28:00-04:00", Answer.THROTTLED),  # in summer
    ],
)
def test_orders_for_the_open_are_sent_only_when_they_are_taken(at_broker: Setup, new_york: str, answer: Answer):
    at_broker.server.control("clock", {"now": new_york})
    assert at_broker.broker().submit(order()).answer is answer
    assert at_broker.accepted(order()) == (answer is Answer.ACCEPTED)


@pytest.mark.scenario(13)
def test_orders_for_the_close_are_refused_ten_minutes_before_it_also_on_a_half_day(at_broker: Setup):
    for new_york, expected in (("2020-11-27T12:49:59-05:00", Answer.ACCEPTED), ("2020-11-27T12:50:00-05:00", Answer.REJECTED)):
        at_broker.server.control("clock", {"now": new_york})
        one = order(generation=1 + (expected is Answer.REJECTED), order_type=OrderType.MARKET_ON_CLOSE)
        assert at_broker.broker().submit(one).answer is expected


@pytest.mark.parametrize(
    "access",
    [
        {"url": "https://api.alpaca.markets"},
        {"url": "https://api.alpaca.markets", "allow_live": True},
        {"url": "https://api.alpaca.markets", "live_account": "1"},
        {"url": "https://paper-api.alpaca.markets.example.com"},
        {"url": "http://paper-api.alpaca.markets"},
        {"url": "https://paper-api.alpaca.markets/v2"},
    ],
)
def test_real_money_is_refused_unless_it_is_said_twice(access: dict[str, object]):
    with pytest.raises(InputError, match=r"\[broker\] url"):
        AlpacaAccess(**access)


def test_real_money_under_another_number_is_refused_before_an_order_is_sent(at_broker: Setup, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("adapters.brokers.alpaca._LOOPBACK", frozenset())
    monkeypatch.setattr(AlpacaAccess, "__post_init__", lambda self: None)
    access = AlpacaAccess(url=at_broker.server.url, allow_live=True, live_account="another")
    with pytest.raises(BrokerError, match="expected account another"):
        AlpacaBroker(access, lambda: KEYS, SystemClock(), at_broker.inbox, exchange_calendar()).submit(order())
    assert at_broker.accepted(order()) == 0


def test_a_status_that_nobody_knows_is_one_of_an_open_order(at_broker: Setup):
    broker, one = at_broker.broker(), order()
    broker.submit(one)
    (placed,) = at_broker.server.house.exchange.orders.values()
    object.__setattr__(placed, "status", type("New", (str,), {"value": "thought_about", "open": True})("thought_about"))
    (held,) = broker.open_orders()
    assert held.state is OrderState.ACCEPTED


def test_quantities_travel_exactly(at_broker: Setup):
    one = order(quantity="0.123456789", order_type=OrderType.MARKET)
    assert at_broker.broker().submit(one).answer is Answer.ACCEPTED
    held = at_broker.broker().find(one.client_order_id)
    assert held is not None
    assert held.quantity == Decimal("0.123456789")


@pytest.mark.slow
def test_more_orders_and_fills_than_a_page_are_read_once_each(at_broker: Setup):
    orders = [order(quantity="2", generation=n) for n in range(1, 702)]  # all at one instant but for the second half
    broker = at_broker.broker()
    for place, one in enumerate(orders):
        if place == 400:
            at_broker.server.control("clock", {"advance_seconds": 1})
        assert broker.submit(one).answer is Answer.ACCEPTED
    assert len({held.client_order_id for held in broker.open_orders()}) == len(broker.open_orders()) == 701
    at_broker.server.run()
    fills = broker.fills(EVENING)
    assert len({fill.execution_id for fill in fills}) == len(fills) == 1402
    assert len(broker.outcomes(NEXT, orders)) == 1402


# --- the inbox: polling and the stream, each alone and both ---------------------------------------------------------------------------


@contextmanager
def listening(setup: Setup, name: str) -> Iterator[AlpacaStream]:
    before = setup.server.control("state")["listeners"]
    stream = AlpacaStream(AlpacaAccess(url=setup.server.url), KEYS, setup.inbox(name), setup.server.house.exchange.account_number)
    done = threading.Event()
    thread = threading.Thread(target=stream.listen, args=(done.is_set,))
    thread.start()
    try:
        wait_for(lambda: setup.server.control("state")["listeners"] > before)
        yield stream
    finally:
        done.set()
        thread.join(timeout=10)


ORDERS = [order(), order("BBB", "200"), order("CCC", "15000")]
FAULTS = {"copies": 3, "hold": 4}


def outcomes_of(setup: Setup, name: str, *, polls: bool) -> list[object]:
    return list(setup.broker(name, polls=polls).outcomes(NEXT, ORDERS))


def test_polling_and_the_stream_tell_the_same_each_alone_and_both_together(at_broker: Setup):
    with listening(at_broker, "stream") as one, listening(at_broker, "both") as two:
        at_broker.server.control("faults", {"events": FAULTS})
        for each in ORDERS:
            at_broker.broker().submit(each)
        at_broker.server.run()
        at_broker.server.control("events")  # what was held arrives: late, the last one first
        told = at_broker.server.house.exchange.happenings
        wait_for(lambda: min(one.received, two.received) == 3 * len(told))
        by_stream = outcomes_of(at_broker, "stream", polls=False)
        by_both = outcomes_of(at_broker, "both", polls=True)
    by_polling = outcomes_of(at_broker, "poll", polls=True)
    assert by_stream == by_both == by_polling
    assert len(by_polling) == 6
    number = at_broker.server.house.exchange.account_number
    assert {event.channel for event in at_broker.inbox("stream").events(number, EVENING)} == {Channel.STREAM}


def test_what_the_stream_lost_polling_tells_and_the_other_way_round(at_broker: Setup):
    with listening(at_broker, "ledger") as stream:
        at_broker.server.control("faults", {"events": {"lose": 4}})
        for each in ORDERS:
            at_broker.broker().submit(each)
        at_broker.server.run()
        wait_for(lambda: stream.received == len(at_broker.server.house.exchange.happenings) - 4)
        with pytest.raises(BrokerError):
            outcomes_of(at_broker, "ledger", polls=False)
        assert outcomes_of(at_broker, "ledger", polls=True) == outcomes_of(at_broker, "poll", polls=True)


def test_fills_that_the_activities_do_not_show_yet_are_waited_for(at_broker: Setup):
    at_broker.server.control("faults", {"events": {"hide_fills": 1}})
    at_broker.broker().submit(ORDERS[0])
    at_broker.server.run()
    with pytest.raises(BrokerError, match="executions of 150 of 300"):
        at_broker.broker().outcomes(NEXT, ORDERS[:1])
    at_broker.server.control("faults", {})
    assert len(at_broker.broker().outcomes(NEXT, ORDERS[:1])) == 2


def test_a_stream_that_was_cut_goes_on(at_broker: Setup):
    with listening(at_broker, "ledger") as stream:
        at_broker.server.control("disconnect")
        wait_for(lambda: at_broker.server.control("state")["listeners"] == 1)
        at_broker.broker().submit(order())
        wait_for(lambda: stream.received == 1)


def test_a_stream_without_a_connection_gives_up(at_broker: Setup):
    stream = AlpacaStream(AlpacaAccess(url="http://127.0.0.1:1"), KEYS, at_broker.inbox(), "PA1")
    with pytest.raises(BrokerError, match="a connection"):
        stream.listen(lambda: False, give_up_seconds=0.3)


def test_a_trade_update_that_cannot_be_stored_is_counted_and_the_stream_goes_on(at_broker: Setup):
    with listening(at_broker, "ledger") as stream:
        at_broker.broker().submit(order())
        wait_for(lambda: stream.received == 1)
        stored, stream._inbox = stream._inbox, Broken()
        at_broker.broker().submit(order("BBB"))
        wait_for(lambda: stream.lost == 1)
        stream._inbox = stored
        at_broker.broker().submit(order("CCC"))
        wait_for(lambda: stream.received == 2)


class Broken:
    def receive(self, events):
        raise BrokerError("the disk is full")


def test_the_inbox_keeps_what_came_first_and_counts_what_is_new(tmp_path: Path):
    inbox = open_inbox(f"sqlite:///{tmp_path / 'ledger.sqlite'}", SystemClock())
    raw = {
        "id": "o",
        "client_order_id": "c",
        "symbol": "A",
        "status": "new",
        "filled_qty": "0",
        "updated_at": "2020-01-03T14:30:00.123456789Z",
    }
    first, later = (state_event("PA1", raw, channel) for channel in Channel)
    other = state_event("PA2", raw, Channel.STREAM)
    assert (inbox.receive([first, first, other]), inbox.receive([later]), inbox.receive([])) == (2, 0, 0)
    assert inbox.events("PA1", first.at) == [first]
    assert inbox.events("PA2", first.at) == [other]
    assert inbox.events("PA2", first.at + timedelta(microseconds=1)) == []
    assert first.at == datetime(2020, 1, 3, 14, 30, 0, 123456, tzinfo=UTC)
