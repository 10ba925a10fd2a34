"""What became of an order, by the reports of it: no repetition, delay or order of arrival changes it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.errors import BrokerError
from quant.trading.inbox import BrokerEvent, Channel, execution_key, outcomes, state_key
from quant.trading.orders import Execution, Expiry, Leg, Order, Side

DAY, NEXT = date(2020, 1, 2), date(2020, 1, 3)
AT = datetime(2020, 1, 3, 15, tzinfo=UTC)
ORDER = Order(book="b", session=DAY, symbol="A", leg=Leg.OPEN, side=Side.BUY, quantity=Decimal(100), reference_price=Decimal(50))
ID = ORDER.client_order_id


def state(status: str, executed: int, channel: Channel = Channel.POLL) -> BrokerEvent:
    shares = Decimal(executed)
    return BrokerEvent(
        account="PA1",
        event_id=state_key("o", status, shares),
        broker_order_id="o",
        client_order_id=ID,
        symbol="A",
        at=AT,
        channel=channel,
        cumulative=shares,
        status=status,
    )


def execution(quantity: int, cumulative: int, channel: Channel = Channel.POLL) -> BrokerEvent:
    event = state("", cumulative, channel)
    key = execution_key("o", Decimal(cumulative))
    return replace(event, status=None, event_id=key, quantity=Decimal(quantity), price=Decimal(cumulative))


TOLD = [state("new", 0), execution(30, 30), state("partially_filled", 30), execution(50, 80), state("canceled", 80)]


def of(events: list[BrokerEvent]) -> list[Execution | Expiry]:
    return outcomes(NEXT, [ORDER], {ID: events})


@pytest.mark.scenario(3)
@pytest.mark.scenario(4)
@given(st.permutations(TOLD), st.lists(st.sampled_from(TOLD)), st.randoms())
def test_any_order_and_any_repetition_of_the_reports_give_the_same_outcomes(order, again, chance):
    mixed = [*order, *(replace(event, channel=Channel.STREAM) for event in again)]
    chance.shuffle(mixed)
    first, last = of(mixed)
    assert isinstance(first, Execution)
    assert isinstance(last, Execution)
    assert (first.quantity, first.unfilled, first.price) == (30, 0, 30)
    assert (last.quantity, last.unfilled, last.price) == (50, 20, 80)


@pytest.mark.parametrize(
    "missing",
    [
        [],  # nothing was told: not an expiry
        TOLD[:-1],  # it may still execute
        [event for event in TOLD if event is not TOLD[1]],  # an execution is late
        [execution(30, 30), state("canceled", 80)],
    ],
)
def test_what_is_not_told_completely_has_no_outcome(missing: list[BrokerEvent]):
    with pytest.raises(BrokerError, match="an order that ended, with all its executions"):
        of(missing)


@pytest.mark.scenario(2)
def test_a_fill_that_overtook_the_cancellation_counts():
    (whole,) = of([state("canceled", 0), execution(100, 100), state("filled", 100)])
    assert isinstance(whole, Execution)
    assert (whole.quantity, whole.unfilled) == (100, 0)


def test_an_order_that_ended_without_an_execution_expires_and_says_how():
    (ended,) = of([state("new", 0), state("expired", 0)])
    assert ended == Expiry(order=ORDER, session=NEXT, reason="expired at the broker")
