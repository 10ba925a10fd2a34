"""The life of an order, over every pair of state and event, and its identity."""

from __future__ import annotations

import re
from datetime import date
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.errors import InputError, LedgerError
from quant.trading.orders import ORDER_LIFE, Leg, OrderEvent, OrderState, Side, client_order_id, next_state, reported

# Written out a second time, state by state: the table of the product has to agree with this page. "." is the state itself.
REPORT = {
    "accept": "accepted",
    "open": "new",
    "bid": "accepted_for_bidding",
    "review": "pending_review",
    "hold": "held",
    "stop": "stopped",
    "suspend": "suspended",
    "calculate": "calculated",
    "end_day": "done_for_day",
    "ask_cancel": "pending_cancel",
    "ask_replace": "pending_replace",
}
END = {"fill": "filled", "cancel": "canceled", "expire": "expired", "replace": "replaced"}
LIFE: dict[str, dict[str, str]] = {
    "proposed": {"deny": "denied", "intend": "pending_new"},
    "pending_new": {"send": "sent", "miss": "missed", "skip": "dry_run"},
    "sent": {**REPORT, **END, "partial_fill": "partially_filled", "reject": "rejected", "miss": "missed"},
    **{state: {**REPORT, **END, "partial_fill": "partially_filled", "reject": "rejected"} for state in REPORT.values()},
    "partially_filled": {**dict.fromkeys(REPORT, "partially_filled"), **END, "partial_fill": "partially_filled"},
    **{state: {"partial_fill": state, "fill": "filled"} for state in ("canceled", "expired", "replaced")},
    **{state: {} for state in ("denied", "missed", "dry_run", "filled", "rejected")},
}
ALLOWED = {(OrderState(a), OrderEvent(b)): OrderState(c) for a, events in LIFE.items() for b, c in events.items()}
PAIRS = list(product(OrderState, OrderEvent))


@pytest.mark.parametrize(("state", "event"), PAIRS, ids=lambda value: value.value)
def test_every_pair_of_state_and_event_leads_where_the_table_says_or_is_refused(state: OrderState, event: OrderEvent) -> None:
    if (state, event) in ALLOWED:
        assert next_state(state, event, order="o-1") is ALLOWED[state, event]
    else:
        with pytest.raises(LedgerError, match=f"expected one of: .* in state {state} in order o-1, found {event}"):
            next_state(state, event, order="o-1")


def test_every_state_has_a_line_on_this_page() -> None:
    assert set(LIFE) == set(OrderState)


def test_an_order_ends_unsent_rejected_or_as_the_broker_ends_it() -> None:
    ends = ["denied", "missed", "dry_run", "rejected", "filled", "canceled", "expired", "replaced"]
    assert {state for state in OrderState if state.terminal} == set(ends)


@pytest.mark.scenario(4)
def test_what_has_executed_is_never_taken_back() -> None:
    for (before, _), after in ORDER_LIFE.items():
        if before is OrderState.PARTIALLY_FILLED:
            assert after is OrderState.PARTIALLY_FILLED or after.terminal
            assert after is not OrderState.REJECTED


@pytest.mark.parametrize("status", [*REPORT.values(), *END.values(), "partially_filled", "rejected"])
def test_a_brokers_report_leads_a_sent_order_to_the_state_that_it_names(status: str) -> None:
    assert next_state(OrderState.SENT, reported(OrderState(status)), order="o-1") == status


def test_no_broker_reports_a_state_of_ours() -> None:
    for status in ("proposed", "denied", "missed", "dry_run", "sent"):
        with pytest.raises(LedgerError, match="expected a state that a broker reports"):
            reported(OrderState(status))


def test_every_state_is_reached_from_proposed() -> None:
    reached = {OrderState.PROPOSED}
    for _ in OrderState:
        reached |= {after for (before, _), after in ALLOWED.items() if before in reached}
    assert reached == set(OrderState)


def test_a_refusal_says_what_would_be_allowed() -> None:
    with pytest.raises(LedgerError, match="send, miss, skip in state pending_new"):
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
