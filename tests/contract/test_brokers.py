"""One suite for every broker: the embedded exchange, the exchange with an account, Alpaca's client against the stand-in. What a broker says
it is able to do decides what is asked of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import stamina

from adapters.brokers.alpaca import AlpacaAccess, AlpacaBroker
from adapters.brokers.simulated import SimulatedExchange
from adapters.clock import FixedClock, SystemClock
from adapters.ledger.inbox import open_inbox
from adapters.sources.alpaca import AlpacaKeys
from quant.calendar import exchange_calendar
from quant.errors import BrokerError
from quant.ports import Broker
from quant.trading.brokerage import Answer
from quant.trading.exchange import Bar, ExchangeRules, Listing, SimulatedAccountExchange
from quant.trading.market import SessionMarket
from quant.trading.orders import Execution, Expiry, Leg, Order, OrderType, Side
from tests.fakes.account_exchange import AccountExchange
from tests.fakes.broker_server import BARS, DAY, EVENING, FREE, NEXT, RunningBroker

KINDS = ("simulated", "exchange", "alpaca")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A broker and the hand that moves its market."""

    broker: Broker
    run: Callable[[], None]
    list: Callable[[Listing], None]


@pytest.fixture(params=KINDS)
def trial(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Trial]:
    if request.param == "alpaca":
        with stamina.set_testing(True, attempts=10, cap=True), RunningBroker(rules=RULES) as server:
            broker = AlpacaBroker(
                AlpacaAccess(url=server.url),
                lambda: AlpacaKeys(key_id="k", secret="s"),
                SystemClock(),
                lambda: open_inbox(f"sqlite:///{tmp_path / 'ledger.sqlite'}", SystemClock()),
                exchange_calendar(),
            )
            change = {"tradable", "halted", "shortable", "easy_to_borrow", "fractionable", "symbol"}
            yield Trial(
                broker=broker,
                run=server.run,
                list=lambda listing: server.control("asset", {name: getattr(listing, name) for name in change}),
            )
    elif request.param == "exchange":
        exchange = SimulatedAccountExchange(exchange_calendar(), RULES, [Listing(symbol=symbol) for symbol in BARS])
        bars = {symbol: Bar(**bar) for symbol, bar in BARS.items()}

        def run() -> None:
            exchange.open(NEXT, bars)
            exchange.close(NEXT, bars)

        yield Trial(broker=AccountExchange(exchange, FixedClock(EVENING)), run=run, list=lambda listing: exchange.list(listing, EVENING))
    else:
        halted: set[str] = set()

        def market(session: date) -> SessionMarket:
            opens = {symbol: bar["open"] for symbol, bar in BARS.items() if symbol not in halted}
            return SessionMarket(session=session, opens=opens, prior_median_volume=dict.fromkeys(opens, 1e6))

        def change_listing(listing: Listing) -> None:
            (halted.add if listing.halted else halted.discard)(listing.symbol)

        yield Trial(broker=SimulatedExchange(market, FREE), run=lambda: None, list=change_listing)


RULES = ExchangeRules(costs=FREE.model_copy(update={"borrow_rate_annual": 0.005}), deposit=Decimal(1_000_000), pieces_ratio=1.0)


def order(symbol: str = "AAA", quantity: str = "300", side: Side = Side.BUY, **terms: object) -> Order:
    return replace(
        Order(book="b", session=DAY, symbol=symbol, leg=Leg.OPEN, side=side, quantity=Decimal(quantity), reference_price=Decimal(50)),
        **terms,
    )


def apart(trial: Trial) -> Broker:
    """The broker, if it is one apart from us; an embedded one has nothing to ask."""
    if trial.broker.capabilities.embedded:
        pytest.skip("embedded: the ledger is its only memory")
    return trial.broker


def test_orders_for_the_open_execute_at_one_price_for_all_of_their_executions(trial: Trial):
    orders = [order(), order("BBB", "200", Side.SELL)]
    assert [trial.broker.submit(one).answer for one in orders] == [Answer.ACCEPTED] * 2
    trial.run()
    found = trial.broker.outcomes(NEXT, orders)
    for one, price in ((orders[0], Decimal("50.063730")), (orders[1], Decimal("49.943377"))):
        mine = [outcome for outcome in found if outcome.order is one and isinstance(outcome, Execution)]
        assert sum(outcome.quantity for outcome in mine) == one.quantity
        assert {outcome.price for outcome in mine} == {price}
        assert mine[-1].unfilled == 0
    assert [outcome.order for outcome in found] == sorted((outcome.order for outcome in found), key=orders.index)


def test_asking_twice_for_outcomes_gives_the_same(trial: Trial):
    one = order()
    trial.broker.submit(one)
    trial.run()
    assert trial.broker.outcomes(NEXT, [one]) == trial.broker.outcomes(NEXT, [one])


def test_what_does_not_find_a_counterpart_expires_with_the_last_execution(trial: Trial):
    one = order(quantity="15000")  # 20 % of 5 % of 1,000,000 shares
    trial.broker.submit(one)
    trial.run()
    *_, last = trial.broker.outcomes(NEXT, [one])
    assert isinstance(last, Execution)
    assert last.unfilled == 5000


@pytest.mark.scenario(9)
def test_a_halted_symbol_expires_its_orders(trial: Trial):
    trial.list(Listing(symbol="AAA", halted=True))
    one = order()
    assert trial.broker.submit(one).answer is Answer.ACCEPTED
    trial.run()
    (outcome,) = trial.broker.outcomes(NEXT, [one])
    assert isinstance(outcome, Expiry)


def test_the_same_id_twice_is_one_order(trial: Trial):
    broker, one = apart(trial), order()
    assert broker.submit(one).answer is Answer.ACCEPTED
    assert broker.submit(one).answer is Answer.UNKNOWN  # to be looked up
    assert [held.client_order_id for held in broker.open_orders()] == [one.client_order_id]


def test_an_order_is_found_as_it_was_sent_and_another_is_none(trial: Trial):
    broker = apart(trial)
    for place, order_type in enumerate(sorted(broker.capabilities.order_types)):
        one = (
            order(quantity="7", generation=place + 1, order_type=order_type)
            if order_type is not OrderType.LIMIT
            else order(quantity="7", generation=place + 1, order_type=order_type, limit_price=Decimal("49.5"))
        )
        assert broker.submit(one).answer is Answer.ACCEPTED
        held = broker.find(one.client_order_id)
        assert held is not None
        assert (held.symbol, held.side, held.quantity, held.order_type) == ("AAA", Side.BUY, 7, order_type)
    assert broker.find(order("BBB").client_order_id) is None


def test_an_open_order_has_no_outcome_yet(trial: Trial):
    broker, one = apart(trial), order()
    broker.submit(one)
    with pytest.raises(BrokerError, match="run this again later"):
        broker.outcomes(NEXT, [one])


def test_a_cancelled_order_expires(trial: Trial):
    broker, one = apart(trial), order()
    broker.submit(one)
    broker.cancel(one.client_order_id)
    assert broker.open_orders() == []
    (outcome,) = broker.outcomes(NEXT, [one])
    assert isinstance(outcome, Expiry)
    with pytest.raises(BrokerError):
        broker.cancel(order("BBB").client_order_id)


def test_cash_positions_and_fills_agree_with_each_other(trial: Trial):
    broker = apart(trial)
    before = broker.account()
    for one in (order(), order("BBB", "200", Side.SELL)):
        broker.submit(one)
    trial.run()
    fills, after = broker.fills(EVENING), broker.account()
    assert after.active
    held = {position.symbol: position.quantity for position in broker.positions()}
    assert held == {"AAA": 300, "BBB": -200}
    paid = sum(fill.quantity * fill.price * fill.side.sign for fill in fills)
    borrowed = Decimal("0.20")  # 200 x 50.5 x 0.5 % / 252
    assert before.cash - after.cash == paid + borrowed
    assert len({fill.execution_id for fill in fills}) == len(fills) == 4
    assert broker.fills(fills[0].executed_at - timedelta(microseconds=1)) == fills
    assert broker.fills(fills[-1].executed_at) == []


@pytest.mark.scenario(24)
def test_what_is_hard_to_borrow_is_not_sold_short(trial: Trial):
    broker = apart(trial)
    waiting = order("AAA", "10", Side.SELL)
    broker.submit(waiting)
    trial.list(Listing(symbol="AAA", easy_to_borrow=False))
    asset = broker.asset("AAA")
    assert asset is not None
    assert (asset.tradable, asset.shortable) == (True, False)
    said = broker.submit(order("AAA", "10", Side.SELL, generation=2))
    assert said.answer is Answer.REJECTED
    assert "sold short" in said.reason
    held = broker.find(waiting.client_order_id)
    assert held is not None
    assert held.state not in {"accepted", "new"}  # cancelled when it became hard to borrow


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (order("ZZZ"), "not found"),
        (order("AAA", "0.5"), "fractionable"),
        (order("AAA", "99999999", order_type=OrderType.LIMIT, limit_price=Decimal(50)), "buying power"),
    ],
)
def test_a_definite_rejection_says_why_and_leaves_nothing(trial: Trial, wrong: Order, reason: str):
    broker = apart(trial)
    said = broker.submit(wrong)
    assert said.answer is Answer.REJECTED
    assert reason in said.reason
    assert broker.find(wrong.client_order_id) is None


def test_an_unknown_symbol_is_no_asset(trial: Trial):
    assert apart(trial).asset("ZZZ") is None
