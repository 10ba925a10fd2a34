"""What every broker does. A broker that is added is a line in BROKERS; its capabilities decide what it is asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
import requests
import stamina

from adapters.brokers.simulated import SimulatedExchange
from adapters.clock import FixedClock
from adapters.sources.alpaca import AlpacaKeys
from quant.calendar import exchange_calendar
from quant.errors import BrokerError, InputError
from quant.ports import Broker
from quant.trading.brokerage import Answer
from quant.trading.execution import CostSettings
from quant.trading.market import SessionMarket
from quant.trading.orders import Execution, Expiry, Leg, Order, OrderState, OrderType, Side
from services.broker.server import new_server

CALENDAR = exchange_calendar()
DAY, NEXT = date(2013, 2, 28), date(2013, 3, 1)
EVENING = datetime(2013, 3, 1, 1, 30, tzinfo=UTC)  # 20:30 in New York
PRICES = {"AAA": 50.0, "BBB": 20.0, "CCC": 10.0}
VOLUME = 1_000_000.0


@dataclass
class Rig:
    """A broker, and the hand that moves its market."""

    broker: Broker
    hold_session: Callable[[date, Mapping[str, float]], None]
    control: Callable[[str, dict[str, object]], dict[str, object]] | None = None


def simulated(tmp_path: Path) -> Iterator[Rig]:
    held: dict[date, SessionMarket] = {}

    def hold(session: date, prices: Mapping[str, float]) -> None:
        volumes = dict.fromkeys(prices, VOLUME)
        held[session] = SessionMarket(session=session, opens=prices, closes=prices, prior_median_volume=volumes)

    yield Rig(broker=SimulatedExchange(held.__getitem__, CostSettings()), hold_session=hold)


def alpaca(tmp_path: Path) -> Iterator[Rig]:
    from adapters.brokers.alpaca import AlpacaBroker

    server = new_server(calendar=CALENDAR, clock=FixedClock(EVENING), key_id="K", secret="S", log=tmp_path / "broker.jsonl")
    server.exchange.last = {symbol: Decimal(str(price)) for symbol, price in PRICES.items()}
    with server.running() as (url, _):

        def control(what: str, body: dict[str, object]) -> dict[str, object]:
            return requests.post(f"{url}/_control/{what}", json=body, timeout=10).json()

        def hold(session: date, prices: Mapping[str, float]) -> None:
            bars = {s: {"open": p, "close": p, "high": p, "low": p, "prior_median_volume": VOLUME} for s, p in prices.items()}
            control("session", {"session": str(session), "bars": bars})

        keys = AlpacaKeys(key_id="K", secret="S")
        yield Rig(AlpacaBroker(keys, url=url, clock=FixedClock(EVENING), calendar=CALENDAR, timeout_seconds=(2.0, 2.0)), hold, control)


BROKERS = {"simulated": simulated, "alpaca": alpaca}


@pytest.fixture(params=BROKERS)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    yield from BROKERS[request.param](tmp_path)


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Rig]:
    """A broker that has a memory of its own."""
    yield from alpaca(tmp_path)


def order(symbol: str = "AAA", quantity: int = 100, side: Side = Side.BUY, **changes: object) -> Order:
    terms: dict[str, object] = {"leg": Leg.OPEN, "reference_price": Decimal(str(PRICES[symbol])), **changes}
    return Order(book="paper", session=DAY, symbol=symbol, side=side, quantity=Decimal(quantity), **terms)  # type: ignore[arg-type]


def test_it_is_a_broker_that_states_what_it_can(rig: Rig):
    assert isinstance(rig.broker, Broker)
    can = rig.broker.capabilities
    assert OrderType.MARKET_ON_OPEN in can.order_types
    assert can.embedded or can.opening_cutoff is not None


def test_an_order_for_the_open_is_accepted_and_executes_at_the_open(rig: Rig):
    wanted = [order("AAA"), order("BBB", 50, Side.SELL)]
    assert [rig.broker.submit(one).answer for one in wanted] == [Answer.ACCEPTED] * 2
    rig.hold_session(NEXT, PRICES)
    outcomes = rig.broker.outcomes(NEXT, wanted)
    executed = [x for x in outcomes if isinstance(x, Execution)]
    assert [(x.order.symbol, x.quantity, x.unfilled) for x in executed] == [("AAA", 100, 0), ("BBB", 50, 0)]
    assert executed[0].price > 50
    assert executed[1].price < 20
    assert len({x.execution_id for x in executed}) == 2
    assert rig.broker.outcomes(NEXT, wanted) == outcomes, "asked twice, the same"


def test_an_order_without_a_bar_expires(rig: Rig):
    rig.broker.submit(order())
    rig.hold_session(NEXT, {"BBB": 20.0})
    (ended,) = rig.broker.outcomes(NEXT, [order()])
    assert isinstance(ended, Expiry)


def test_more_than_the_auction_gives_executes_in_part_and_the_rest_expires(rig: Rig):
    rig.broker.submit(order("CCC", 15_000))
    rig.hold_session(NEXT, PRICES)
    outcomes = rig.broker.outcomes(NEXT, [order("CCC", 15_000)])
    assert [x.quantity for x in outcomes if isinstance(x, Execution)] == [10_000]  # 1,000,000 x 5 % x 20 %
    assert outcomes[-1].unfilled == 5_000  # type: ignore[union-attr]


def test_the_same_id_twice_is_one_order(apart: Rig):
    assert apart.broker.submit(order()).answer is Answer.ACCEPTED
    assert apart.broker.submit(order()).answer is Answer.UNKNOWN, "to be looked up"
    found = apart.broker.find(order().client_order_id)
    assert found is not None
    assert (found.symbol, found.side, found.quantity, found.state) == ("AAA", Side.BUY, 100, OrderState.NEW)
    assert [o.client_order_id for o in apart.broker.open_orders()] == [order().client_order_id]


def test_an_id_that_it_never_saw_is_none(apart: Rig):
    assert apart.broker.find("nobody") is None


FAULTS_BEFORE = ["500", "504", "empty_200", "302", "cut", "half", "html_200"]


@pytest.mark.parametrize("fault", [*FAULTS_BEFORE, *(f"{name}_after" for name in ("500", "504", "empty_200", "302", "cut", "half"))])
def test_a_reply_that_is_not_the_order_is_unknown_whether_or_not_it_was_taken(apart: Rig, fault: str):
    apart.control("faults", {"faults": [{"fault": fault}]})  # type: ignore[misc]
    assert apart.broker.submit(order()).answer is Answer.UNKNOWN
    assert (apart.broker.find(order().client_order_id) is not None) is fault.endswith("_after")


def test_a_server_that_is_silent_is_unknown_in_bounded_time(apart: Rig):
    apart.control("faults", {"faults": [{"fault": "slow", "seconds": 3}]})  # type: ignore[misc]
    assert apart.broker.submit(order()).answer is Answer.UNKNOWN
    assert apart.broker.find(order().client_order_id) is not None


def test_too_many_requests_are_throttled(apart: Rig):
    apart.control("faults", {"faults": [{"fault": "429"}]})  # type: ignore[misc]
    assert apart.broker.submit(order()).answer is Answer.THROTTLED


@pytest.mark.parametrize(
    ("control", "wanted", "reason"),
    [
        ({}, order("AAA", 10_000_000), "insufficient buying power"),
        ({"hard_to_borrow": True}, order("AAA", 1, Side.SELL), "cannot be sold short"),
        ({"delisted": True}, order("AAA", 1), "not active"),
    ],
)
def test_what_it_refuses_is_rejected_with_its_reason(apart: Rig, control: dict[str, object], wanted: Order, reason: str):
    apart.control("symbol", {"symbol": "AAA", **control})  # type: ignore[misc]
    said = apart.broker.submit(wanted)
    assert said.answer is Answer.REJECTED
    assert reason in said.reason
    asset = apart.broker.asset("AAA")
    assert asset is not None
    assert (asset.tradable, asset.shortable) == ("delisted" not in control, not control)


def test_a_holding_cannot_be_flipped_in_one_order(apart: Rig):
    apart.control("trade", {"symbol": "AAA", "shares": 10, "price": 50})  # type: ignore[misc]
    said = apart.broker.submit(order("AAA", 20, Side.SELL))
    assert (said.answer, "insufficient qty available" in said.reason) == (Answer.REJECTED, True)


def test_a_halted_symbol_executes_nothing(apart: Rig):
    apart.broker.submit(order())
    apart.control("symbol", {"symbol": "AAA", "halted": True})  # type: ignore[misc]
    apart.hold_session(NEXT, PRICES)
    assert isinstance(apart.broker.outcomes(NEXT, [order()])[0], Expiry)


def test_while_an_order_may_still_execute_there_is_no_outcome(apart: Rig):
    apart.broker.submit(order())
    with pytest.raises(BrokerError, match="expected an order that ended"):
        apart.broker.outcomes(NEXT, [order()])


def test_a_cancelled_order_ends(apart: Rig):
    apart.broker.submit(order())
    apart.broker.cancel(order().client_order_id)
    apart.broker.cancel(order().client_order_id)  # it has ended: nothing happens
    assert apart.broker.find(order().client_order_id).state is OrderState.CANCELED  # type: ignore[union-attr]
    assert apart.broker.open_orders() == []


def test_account_positions_and_fills_agree_after_a_session(apart: Rig):
    before = apart.broker.account()
    assert (before.account_id, before.active, before.cash, before.equity) == ("PA-REHEARSAL", True, 1_000_000, 1_000_000)
    for one in (order("AAA"), order("BBB", 50, Side.SELL)):
        apart.broker.submit(one)
    apart.hold_session(NEXT, PRICES)
    fills, after = apart.broker.fills(), apart.broker.account()
    spent = sum(f.quantity * f.side.sign * f.price for f in fills)
    assert after.cash == before.cash - spent
    assert {p.symbol: p.quantity for p in apart.broker.positions()} == {"AAA": 100, "BBB": -50}
    assert apart.broker.fills(after=fills[0].cursor) == fills[1:]


def test_more_fills_than_fit_a_page_come_once_each(apart: Rig):
    symbols = [f"S{n:03}" for n in range(230)]
    apart.control("prices", dict.fromkeys(symbols, 10))  # type: ignore[misc]
    orders = [
        Order(book="paper", session=DAY, symbol=s, leg=Leg.OPEN, side=Side.BUY, quantity=Decimal(1), reference_price=Decimal(10))
        for s in symbols
    ]
    assert {apart.broker.submit(one).answer for one in orders} == {Answer.ACCEPTED}
    apart.hold_session(NEXT, dict.fromkeys(symbols, 10.0))
    assert [f.symbol for f in apart.broker.fills()] == symbols
    assert len(apart.broker.outcomes(NEXT, orders[:3])) == 3


def test_what_cannot_be_answered_is_an_error_and_never_flat(apart: Rig):
    for fault in ("empty_200", "html_200"):
        apart.control("faults", {"faults": [{"fault": fault, "method": "GET", "path": "/v2/positions", "times": 50}]})  # type: ignore[misc]
        with stamina.set_testing(True, attempts=2), pytest.raises(BrokerError, match="expected a reply with a list"):
            apart.broker.positions()


def test_its_own_log_has_every_order_that_it_took(apart: Rig, tmp_path: Path):
    apart.broker.submit(order())
    apart.broker.submit(order())
    lines = [json.loads(line) for line in (tmp_path / "broker.jsonl").read_text().splitlines()]
    assert [(line["event"], line["client_order_id"]) for line in lines] == [
        ("accepted", order().client_order_id),
        ("refused", order().client_order_id),
    ]


def test_its_clock_is_the_brokers(apart: Rig):
    apart.control("clock", {"at": "2013-03-01T14:00:00+00:00"})  # type: ignore[misc]
    assert apart.broker.now() == datetime(2013, 3, 1, 14, tzinfo=UTC)


@pytest.mark.parametrize("hour", [14, 20, 23])
def test_an_order_on_the_open_is_refused_in_the_hours_in_which_alpaca_refuses_it_and_queued_as_a_day_order_after_the_close(
    apart: Rig, hour: int
):
    from adapters.brokers.alpaca import AlpacaBroker

    at = datetime(2013, 2, 28, hour, 40, tzinfo=UTC)  # 09:40, 15:40 and 18:40 in New York
    apart.control("clock", {"at": at.isoformat()})  # type: ignore[misc]
    url = apart.broker._url  # type: ignore[attr-defined]
    late = AlpacaBroker(AlpacaKeys(key_id="K", secret="S"), url=url, clock=FixedClock(at), calendar=CALENDAR)
    assert late.submit(order()).answer is Answer.ACCEPTED
    assert late.find(order().client_order_id).order_type is OrderType.MARKET  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("url", "live", "account", "taken"),
    [
        ("https://paper-api.alpaca.markets", False, None, True),
        ("http://127.0.0.1:9", False, None, True),
        ("https://api.alpaca.markets", False, None, False),
        ("https://api.alpaca.markets", True, None, False),
        ("https://api.alpaca.markets", False, "123", False),
        ("https://api.alpaca.markets", True, "123", True),
        ("http://paper-api.alpaca.markets", False, None, False),
        ("http://api.alpaca.markets", True, "123", False),
        ("https://paper-api.alpaca.markets.evil.example", False, None, False),
    ],
)
def test_an_address_that_is_not_paper_is_refused_unless_the_settings_say_so_twice(url: str, live: bool, account: str | None, taken: bool):
    from adapters.brokers.alpaca import require_paper

    if taken:
        require_paper(url, live_account=account, allow_live=live)
    else:
        with pytest.raises(InputError, match=r"expected https://paper-api\.alpaca\.markets"):
            require_paper(url, live_account=account, allow_live=live)
