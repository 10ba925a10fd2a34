"""The life of an order, over every pair of state and event, and its identity."""

from __future__ import annotations

import re
from datetime import date
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.errors import InputError, LedgerError
from quant.trading.orders import Leg, OrderEvent, OrderState, Side, client_order_id, next_state

# Written out a second time, in the broker's order of things: the table of the product has to agree with this page.
LIFE = """
proposed          deny          denied
proposed          intend        pending_new
pending_new       accept        accepted
pending_new       reject        rejected
accepted          partial_fill  partially_filled
accepted          fill          filled
accepted          expire        expired
partially_filled  partial_fill  partially_filled
partially_filled  fill          filled
partially_filled  expire        expired
"""
ALLOWED = {(OrderState(a), OrderEvent(b)): OrderState(c) for a, b, c in (line.split() for line in LIFE.split("\n") if line)}
PAIRS = list(product(OrderState, OrderEvent))


@pytest.mark.parametrize(("state", "event"), PAIRS, ids=lambda value: value.value)
def test_every_pair_of_state_and_event_leads_where_the_table_says_or_is_refused(state: OrderState, event: OrderEvent) -> None:
    if (state, event) in ALLOWED:
        assert next_state(state, event, order="o-1") is ALLOWED[state, event]
    else:
        with pytest.raises(LedgerError, match=f"expected one of: .* in state {state} in order o-1, found {event}"):
            next_state(state, event, order="o-1")


def test_an_order_ends_denied_rejected_filled_or_expired() -> None:
    assert {state for state in OrderState if state.terminal} == {
        OrderState.DENIED,
        OrderState.REJECTED,
        OrderState.FILLED,
        OrderState.EXPIRED,
    }


def test_every_state_is_reached_from_proposed() -> None:
    reached = {OrderState.PROPOSED}
    for _ in OrderState:
        reached |= {after for (before, _), after in ALLOWED.items() if before in reached}
    assert reached == set(OrderState)


def test_a_refusal_says_what_would_be_allowed() -> None:
    with pytest.raises(LedgerError, match="accept, reject in state pending_new"):
        next_state(OrderState.PENDING_NEW, OrderEvent.FILL, order="o-1")
    with pytest.raises(LedgerError, match=r"nothing \(terminal\)"):
        next_state(OrderState.FILLED, OrderEvent.FILL, order="o-1")


BOOKS = st.from_regex(r"[a-z0-9]{1,14}", fullmatch=True)
IDENTITIES = st.tuples(
    BOOKS, st.dates(date(1990, 1, 1), date(2100, 1, 1)), st.text(min_size=1, max_size=12), st.sampled_from(Leg), st.integers(1, 999)
)


@given(identity=IDENTITIES)
def test_a_client_order_id_has_at_most_48_characters_whatever_it_names(identity: tuple[str, date, str, Leg, int]) -> None:
    name = client_order_id(*identity)
    assert len(name) <= 48
    assert re.fullmatch(r"[a-z0-9]{1,14}-\d{8}-[0-9a-f]{24}", name)
    assert name == client_order_id(*identity)


@given(one=IDENTITIES, other=IDENTITIES)
def test_different_orders_have_different_ids(one: tuple[str, date, str, Leg, int], other: tuple[str, date, str, Leg, int]) -> None:
    assert (client_order_id(*one) == client_order_id(*other)) is (one == other)


def test_a_universe_over_a_year_has_no_two_equal_ids() -> None:
    days = [date.fromordinal(date(2020, 1, 1).toordinal() + n) for n in range(250)]
    made = [client_order_id("paper", day, f"S{n}", leg, 1) for day in days for n in range(100) for leg in Leg]
    assert len(set(made)) == len(made)


def test_an_id_never_changes_because_it_is_what_keeps_a_rerun_from_trading_twice() -> None:
    # printf 'paper|2013-02-28|AAPL|open|1' | sha256sum
    assert client_order_id("paper", date(2013, 2, 28), "AAPL", Leg.OPEN, 1) == "paper-20130228-1d5b4d8ef7cbbc874ab41dc2"


@pytest.mark.parametrize("book", ["", "Paper", "a-b", "fifteenletters0", "pa per"])
def test_a_book_name_that_would_not_fit_is_refused(book: str) -> None:
    with pytest.raises(InputError, match="expected a book name of 1-14 characters"):
        client_order_id(book, date(2013, 2, 28), "AAPL", Leg.OPEN, 1)


def test_buys_add_and_sells_subtract() -> None:
    assert (Side.BUY.sign, Side.SELL.sign) == (1, -1)
