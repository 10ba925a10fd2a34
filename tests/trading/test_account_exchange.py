"""The simulated exchange with an account: order types, halts, delistings, latency, fees; equal calls have equal results."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.calendar import exchange_calendar
from quant.trading.exchange import (
    Bar,
    ExchangeRules,
    Listing,
    Placed,
    Refusal,
    RefusalKind,
    SimulatedAccountExchange,
    Status,
    Ticket,
)
from quant.trading.execution import CostSettings
from quant.trading.orders import OrderType, Side

CALENDAR = exchange_calendar()
DAY, NEXT = date(2020, 1, 2), date(2020, 1, 3)
EVENING = datetime(2020, 1, 3, 1, 30, tzinfo=UTC)
EXACT = CostSettings(slippage_bps=0, impact_coefficient=0, commission_per_share_usd=0, commission_minimum_usd=0)
BARS = {"A": Bar(open=50, high=52, low=48, close=51, volume=1e6)}


def exchange(costs: CostSettings = EXACT, **rules: object) -> SimulatedAccountExchange:
    return SimulatedAccountExchange(CALENDAR, ExchangeRules(costs=costs, **rules), [Listing(symbol="A"), Listing(symbol="B")])


def ticket(order_type: OrderType, quantity: int = 100, side: Side = Side.BUY, limit: str | None = None, name: str = "t") -> Ticket:
    price = None if limit is None else Decimal(limit)
    shares = Decimal(quantity)
    return Ticket(client_order_id=name, symbol="A", side=side, order_type=order_type, quantity=shares, limit_price=price)


def placed(market: SimulatedAccountExchange, wanted: Ticket, at: datetime = EVENING) -> str:
    taken = market.place(wanted, at)
    assert isinstance(taken, Placed)
    return taken.order_id


def run(market: SimulatedAccountExchange, session: date = NEXT, bars: dict[str, Bar] = BARS) -> None:
    market.open(session, bars)
    market.close(session, bars)


@pytest.mark.parametrize(
    ("wanted", "price"),
    [
        (ticket(OrderType.MARKET_ON_OPEN), 50),
        (ticket(OrderType.MARKET), 50),
        (ticket(OrderType.MARKET_ON_CLOSE), 51),
        (ticket(OrderType.LIMIT, limit="49"), 49),
        (ticket(OrderType.LIMIT, limit="51"), 50),  # the open was better
        (ticket(OrderType.LIMIT, limit="47.99"), None),
        (ticket(OrderType.LIMIT, limit="52", side=Side.SELL), 52),
        (ticket(OrderType.LIMIT, limit="52.01", side=Side.SELL), None),
    ],
)
def test_each_kind_of_order_executes_where_it_should(wanted: Ticket, price: int | None):
    market = exchange()
    order_id = placed(market, wanted)
    run(market)
    order = market.orders[order_id]
    assert order.average_price == price
    assert order.status is (Status.FILLED if price else Status.EXPIRED)


def test_a_limit_is_never_passed_whatever_slippage_costs():
    market = exchange(replace_costs(slippage_bps=500))
    order_id = placed(market, ticket(OrderType.LIMIT, limit="50"))
    run(market)
    assert market.orders[order_id].average_price == 50


def replace_costs(**terms: float) -> CostSettings:
    return EXACT.model_copy(update=terms)


def test_what_the_opening_did_not_fill_of_a_market_order_fills_in_the_session():
    market = exchange(pieces_ratio=0.0)
    order_id = placed(market, ticket(OrderType.MARKET, 15_000))
    run(market)
    assert [(fill.quantity, fill.price) for fill in market.fills] == [(10_000, 50), (5_000, 51)]
    assert market.orders[order_id].status is Status.FILLED


def test_two_orders_share_what_the_auction_gives_to_a_side():
    market = exchange(pieces_ratio=0.0)
    for name in "ab":
        placed(market, ticket(OrderType.MARKET_ON_OPEN, 6_000, name=name))
    run(market)
    assert [fill.quantity for fill in market.fills] == [6_000, 4_000]


@pytest.mark.parametrize("why", ["halted", "no bar", "latency"])
def test_an_order_that_cannot_take_part_expires_at_the_close(why: str):
    market = exchange(latency_seconds=60.0 if why == "latency" else 0.0)
    market.list(Listing(symbol="A", halted=why == "halted"), EVENING)
    last_moment = CALENDAR.open_at(NEXT) - timedelta(minutes=2, seconds=1)
    order_id = placed(market, ticket(OrderType.MARKET_ON_OPEN), last_moment)
    if why == "latency":
        market.orders[order_id] = replace(market.orders[order_id], placed_at=CALENDAR.open_at(NEXT) - timedelta(seconds=30))
    run(market, bars={} if why == "no bar" else BARS)
    assert (market.orders[order_id].status, market.fills) == (Status.EXPIRED, [])


def test_a_delisting_ends_the_orders_and_leaves_the_holding():
    market = exchange()
    placed(market, ticket(OrderType.MARKET_ON_OPEN))
    run(market)
    waiting = placed(market, ticket(OrderType.MARKET_ON_OPEN, name="later"), CALENDAR.close_at(NEXT) + timedelta(hours=6))
    market.list(Listing(symbol="A", tradable=False), CALENDAR.close_at(NEXT) + timedelta(hours=7))
    assert market.orders[waiting].status is Status.CANCELED
    assert market.held("A") == 100
    refused = market.place(ticket(OrderType.MARKET, name="no"), CALENDAR.close_at(NEXT) + timedelta(hours=8))
    assert isinstance(refused, Refusal)
    assert refused.kind is RefusalKind.NOT_TRADABLE


def test_a_short_pays_to_borrow_every_night():
    market = exchange(replace_costs(borrow_rate_annual=0.252), pieces_ratio=0.0)
    placed(market, ticket(OrderType.MARKET_ON_OPEN, side=Side.SELL))
    run(market)
    assert market.cash == 100_000 + 5_000 - Decimal("5.10")  # 100 x 51 x 0.1 %
    run(market, CALENDAR.next(NEXT))
    assert market.cash == 100_000 + 5_000 - Decimal("10.20")


def test_commission_is_paid_once_an_order_and_auction():
    market = exchange(replace_costs(commission_per_share_usd=0.01, commission_minimum_usd=2.0), pieces_ratio=1.0)
    placed(market, ticket(OrderType.MARKET_ON_OPEN))
    run(market)
    assert [fill.commission for fill in market.fills] == [2, 0]
    assert market.cash == 100_000 - 5_000 - 2


def test_an_order_of_after_the_open_is_for_the_next_session():
    market = exchange()
    order_id = placed(market, ticket(OrderType.MARKET_ON_OPEN), datetime(2020, 1, 4, 0, 30, tzinfo=UTC))  # Friday evening
    assert market.orders[order_id].session == date(2020, 1, 6)
    run(market)
    assert market.orders[order_id].status is Status.ACCEPTED


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(list(OrderType)), st.sampled_from(list(Side)), st.integers(1, 20_000), st.integers(48, 52)),
        max_size=12,
    ),
    st.integers(0, 5),
)
def test_cash_and_shares_are_what_the_fills_say_and_equal_calls_have_equal_results(wanted, seed):
    def played() -> SimulatedAccountExchange:
        market = exchange(CostSettings(borrow_rate_annual=0), seed=seed, pieces_ratio=0.5, deposit=Decimal(10_000_000))
        for place, (order_type, side, quantity, limit) in enumerate(wanted):
            price = str(limit) if order_type is OrderType.LIMIT else None
            market.place(ticket(order_type, quantity, side, price, name=str(place)), EVENING)
        run(market)
        return market

    market = played()
    assert market.happenings == played().happenings
    shares = sum((fill.quantity * fill.side.sign for fill in market.fills), Decimal(0))
    spent = sum((fill.quantity * fill.side.sign * fill.price + fill.commission for fill in market.fills), Decimal(0))
    assert market.held("A") == shares
    assert market.cash == 10_000_000 - spent
    assert market.open_orders() == []
    for order in market.orders.values():
        assert (
            order.filled
            == sum((fill.quantity for fill in market.fills if fill.order_id == order.order_id), Decimal(0))
            <= order.ticket.quantity
        )


@pytest.mark.parametrize("side", Side)
def test_a_split_of_one_for_three_makes_a_hundred_shares_of_three_hundred_and_pays_nothing(side: Side):
    market = exchange(replace_costs(borrow_rate_annual=0), pieces_ratio=0.0)
    placed(market, ticket(OrderType.MARKET_ON_OPEN, 300, side))
    run(market)
    before = market.cash
    market.split("A", Decimal("0.3333333333333333"))
    assert (market.held("A"), market.cash, market.marks["A"]) == (100 * side.sign, before, 153)
