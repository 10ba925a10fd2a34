"""The simulated exchange: what the orders of a session take from an auction together."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from adapters.brokers.simulated import SimulatedExchange
from quant.trading.execution import CostSettings
from quant.trading.market import SessionMarket
from quant.trading.orders import Execution, Expiry, Leg, Order, Side

DAY, NEXT = date(2020, 1, 2), date(2020, 1, 3)
COSTS = CostSettings(auction_share_ratio=0.05, participation_cap_ratio=0.2, slippage_bps=0, impact_coefficient=0.1)
MARKET = SessionMarket(session=NEXT, opens={"A": 50.0, "B": 50.0}, prior_median_volume={"A": 1e5, "B": 1e5})  # at most 1,000 a side
EXCHANGE = SimulatedExchange(lambda session: MARKET, COSTS)


def order(quantity: int, leg: Leg = Leg.OPEN, side: Side = Side.SELL, symbol: str = "A") -> Order:
    return Order(book="b", session=DAY, symbol=symbol, leg=leg, side=side, quantity=Decimal(quantity), reference_price=Decimal(50))


def filled(*orders: Order) -> list[int]:
    return [int(x.quantity) if isinstance(x, Execution) else 0 for x in EXCHANGE.outcomes(NEXT, orders)]


@pytest.mark.parametrize(
    ("close", "opened", "fills"), [(600, 600, [600, 400]), (300, 300, [300, 300]), (1000, 1, [1000, 0]), (2000, 500, [1000, 0])]
)
def test_the_two_legs_of_a_flip_share_the_cap_the_close_first(close: int, opened: int, fills: list[int]):
    assert filled(order(close, Leg.CLOSE), order(opened)) == fills


def test_a_leg_that_finds_the_cap_taken_expires_and_says_so():
    last = EXCHANGE.outcomes(NEXT, [order(1000, Leg.CLOSE), order(1)])[1]
    assert isinstance(last, Expiry)
    assert last.reason == "an earlier order took the share of the auction"


def test_the_later_leg_pays_the_impact_of_all_shares_taken_so_far():
    first, second = EXCHANGE.outcomes(NEXT, [order(200, Leg.CLOSE), order(600)])
    (alone,) = EXCHANGE.outcomes(NEXT, [order(800)])
    assert isinstance(first, Execution)
    assert isinstance(second, Execution)
    assert isinstance(alone, Execution)
    assert first.price == Decimal("49.000000")  # impact 0.1 x sqrt(200 / 5,000)
    assert second.price == alone.price == Decimal("48.000000")  # impact 0.1 x sqrt(800 / 5,000)


def test_other_symbols_and_the_other_side_have_their_own_share():
    assert filled(order(1000), order(1000, symbol="B"), order(1000, side=Side.BUY)) == [1000, 1000, 1000]


def test_asking_twice_gives_the_same_outcomes():
    orders = [order(600, Leg.CLOSE), order(600)]
    assert EXCHANGE.outcomes(NEXT, orders) == EXCHANGE.outcomes(NEXT, orders)
