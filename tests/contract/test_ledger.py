"""What every adapter of the Ledger port promises. A further adapter is one line in LEDGERS."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.clock import FixedClock
from adapters.ledger import open_ledger
from quant.audit.anchor import verify
from quant.errors import LedgerConflictError, LedgerError
from quant.ledger.book import BookState
from quant.ledger.entries import Account, Entry, EntryKind, transfer
from quant.ledger.lots import LotBook
from quant.ports import DecisionRecord, Ledger, SessionStart
from quant.trading.orders import Denial, Leg, Order, OrderEvent, OrderState, Side
from tests.ledger.records import entry_lists, orders

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOW = datetime(2013, 3, 1, 22, 15, 0, 123456, tzinfo=UTC)
DAY = date(2013, 2, 27)
NEXT = DAY + timedelta(days=1)

LEDGERS: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite:///{folder / 'ledger.sqlite'}",
}
_BOOKS = count()


@pytest.fixture(scope="module", params=LEDGERS)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return LEDGERS[request.param](tmp_path_factory.mktemp("ledger"))


@pytest.fixture(scope="module")
def ledger(url: str) -> Ledger:
    return open_ledger(url, FixedClock(NOW))


@pytest.fixture
def book() -> str:
    return new_book()


def new_book() -> str:
    """One ledger serves the whole module: every test, and every example of a property, has its own book."""
    return f"book{next(_BOOKS)}"


def trade(book: str, key: str, *, session: date = DAY, cash: str = "-1002.50", shares: str = "10", price: str = "100.25") -> Entry:
    return Entry(
        book=book,
        session=session,
        key=key,
        kind=EntryKind.TRADE,
        symbol="IBM",
        price=Decimal(price),
        postings=transfer(Account.SECURITIES, Account.CASH, Decimal(cash), Decimal(shares)),
    )


def order(book: str, symbol: str = "IBM", *, session: date = DAY, quantity: int = 10, state: OrderState = OrderState.PENDING_NEW) -> Order:
    return Order(
        book=book,
        session=session,
        symbol=symbol,
        leg=Leg.OPEN,
        side=Side.BUY,
        quantity=Decimal(quantity),
        reference_price=Decimal("100.25"),
        state=state,
        denial=Denial(limit="notional", observed=2.0, allowed=1.0, unit="usd") if state is OrderState.DENIED else None,
    )


any_example = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_the_adapter_is_a_ledger(ledger: Ledger) -> None:
    assert isinstance(ledger, Ledger)


# Entries


def test_entries_are_read_by_session_and_then_as_they_were_posted(ledger: Ledger, book: str) -> None:
    late, first, second = trade(book, "c", session=NEXT), trade(book, "b"), trade(book, "a")
    assert ledger.post(iter([late, first, second])) == 3
    assert ledger.entries(book) == [first, second, late]


def test_a_range_of_sessions_includes_both_ends(ledger: Ledger, book: str) -> None:
    made = [trade(book, str(n), session=DAY + timedelta(days=n)) for n in range(4)]
    ledger.post(made)
    assert ledger.entries(book, first=made[1].session, through=made[2].session) == made[1:3]
    assert ledger.entries(book, first=made[3].session) == made[3:]
    assert ledger.entries(book, through=made[0].session) == made[:1]


def test_posting_again_books_nothing_and_says_so(ledger: Ledger, book: str) -> None:
    made = [trade(book, "a"), trade(book, "b")]
    assert ledger.post([*made, *made]) == 2
    assert ledger.post([*made, trade(book, "c")]) == 1
    assert ledger.post([trade(book, "a", cash="-1002.500000", price="100.250")]) == 0
    assert [entry.key for entry in ledger.entries(book)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "change",
    [
        {"session": NEXT},
        {"symbol": "AAPL"},
        {"price": Decimal(1)},
        {"price": None},
        {"stale": True},
        {"kind": EntryKind.COMMISSION},
        {"postings": ()},
        {"postings": transfer(Account.CASH, Account.SECURITIES, Decimal(1), Decimal(10))},
        {"postings": transfer(Account.CASH, Account.SECURITIES, Decimal("1002.50"), Decimal(11))},
        {"postings": transfer(Account.EXTERNAL, Account.CASH, Decimal("1002.50"))},
    ],
    ids=str,
)
def test_a_key_with_other_content_is_refused_and_nothing_of_the_call_is_booked(
    ledger: Ledger, book: str, change: dict[str, object]
) -> None:
    ledger.post([trade(book, "a")])
    with pytest.raises(LedgerConflictError, match=rf"book {book}, key a"):
        ledger.post([trade(book, "new"), replace(trade(book, "a"), **change)])
    assert ledger.entries(book) == [trade(book, "a")]


def test_two_contents_for_one_key_in_one_call_are_a_conflict(ledger: Ledger, book: str) -> None:
    with pytest.raises(LedgerConflictError):
        ledger.post([trade(book, "a"), trade(book, "a", shares="11")])
    assert ledger.entries(book) == []


def test_books_do_not_see_each_other(ledger: Ledger) -> None:
    one, other = new_book(), new_book()
    assert ledger.post([trade(one, "a"), trade(other, "a", shares="11"), trade(one, "b")]) == 3
    assert ledger.entries(other) == [trade(other, "a", shares="11")]
    assert ledger.entries("nobody") == []


@any_example
@given(made=entry_lists())
def test_every_entry_comes_back_as_it_went_in(ledger: Ledger, made: list[Entry]) -> None:
    book = new_book()
    posted = [replace(entry, book=book) for entry in made]
    ledger.post(posted)
    stored = ledger.entries(book)
    assert stored == sorted(posted, key=lambda entry: entry.session)
    assert BookState().after(stored) == BookState().after(sorted(posted, key=lambda entry: entry.session))


@pytest.mark.parametrize(
    "entry",
    [
        trade("b", "cash", cash="-9223372036854.775808"),
        trade("b", "shares", shares="9223372036.854775808"),
        trade("b", "price", price="9223372036.854775808"),
        trade("b", "huge", price="1E+40"),
        trade("b", "fraction", shares="0.0000000001"),
        trade("b", "deep", price="1.0000000000000000000000000000000000000000000001"),
        trade("b", "nan", price="NaN"),
        trade("b", "infinite", price="Infinity"),
    ],
    ids=lambda entry: entry.key,
)
def test_a_number_that_does_not_fit_is_refused_and_nothing_of_the_call_is_booked(ledger: Ledger, book: str, entry: Entry) -> None:
    with pytest.raises(LedgerError, match="round before booking"):
        ledger.post([trade(book, "good"), replace(entry, book=book)])
    assert ledger.entries(book) == []


def test_the_largest_numbers_that_fit_come_back_exactly(ledger: Ledger, book: str) -> None:
    extreme = trade(book, "a", cash="-9223372036854.775807", shares="-9223372036.854775808", price="9223372036.854775807")
    ledger.post([extreme])
    assert ledger.entries(book) == [extreme]


# Orders


@any_example
@given(made=st.lists(orders(), max_size=6, unique_by=lambda order: order.client_order_id))
def test_every_order_comes_back_as_it_went_in(ledger: Ledger, made: list[Order]) -> None:
    book = new_book()
    intended = [replace(order, book=book) for order in made]
    assert ledger.intend(intended) == intended
    assert ledger.orders(book) == sorted(intended, key=lambda order: (order.session, order.symbol, order.leg, order.generation))


def test_an_order_intended_again_keeps_its_frozen_quantity_and_state(ledger: Ledger, book: str) -> None:
    ledger.intend([order(book)])
    for event in (OrderEvent.SEND, OrderEvent.ACCEPT):
        ledger.advance(book, {order(book).client_order_id: event})
    again = ledger.intend([order(book, quantity=99), order(book, "AAPL", quantity=5)])
    assert again == [order(book, state=OrderState.ACCEPTED), order(book, "AAPL", quantity=5)]
    assert ledger.orders(book) == [again[1], again[0]]


def test_a_denied_order_stays_denied_when_it_is_intended_again(ledger: Ledger, book: str) -> None:
    denied = order(book, state=OrderState.DENIED)
    ledger.intend([denied])
    assert ledger.intend([order(book)]) == [denied]


def test_a_denial_that_observed_no_number_comes_back_without_one(ledger: Ledger, book: str) -> None:
    missing = Denial(limit="price", observed=float("nan"), allowed=0.0, unit="usd")
    ledger.intend([replace(order(book, state=OrderState.DENIED), denial=missing)])
    (stored,) = ledger.orders(book)
    assert stored.denial is not None
    assert stored.denial.observed != stored.denial.observed


def test_the_first_of_two_equal_identities_in_one_call_stands(ledger: Ledger, book: str) -> None:
    assert ledger.intend([order(book, quantity=1), order(book, quantity=2)]) == [order(book, quantity=1)] * 2


@pytest.mark.parametrize("state", [s for s in OrderState if s not in {OrderState.PENDING_NEW, OrderState.DENIED}])
def test_only_reviewed_orders_are_intended_and_one_other_stops_all(ledger: Ledger, book: str, state: OrderState) -> None:
    with pytest.raises(LedgerError, match="pending_new or denied"):
        ledger.intend([order(book), order(book, "AAPL", state=state)])
    assert ledger.orders(book) == []


def test_orders_are_found_by_the_session_of_the_decision_and_by_state(ledger: Ledger, book: str) -> None:
    early, late, denied = order(book), order(book, session=NEXT), order(book, "AAPL", state=OrderState.DENIED)
    ledger.intend([late, early, denied])
    assert ledger.orders(book) == [denied, early, late]
    assert ledger.orders(book, decided=DAY) == [denied, early]
    assert ledger.orders(book, states={OrderState.PENDING_NEW}) == [early, late]
    assert ledger.orders(book, states={"denied"}, decided=NEXT) == []
    assert ledger.orders(book, states=()) == []


def test_events_move_orders_through_their_life(ledger: Ledger, book: str) -> None:
    ibm, aapl = order(book), order(book, "AAPL")
    ledger.intend([ibm, aapl])
    ledger.advance(book, {ibm.client_order_id: OrderEvent.SEND, aapl.client_order_id: OrderEvent.SEND})
    ledger.advance(
        book, {ibm.client_order_id: OrderEvent.ACCEPT, aapl.client_order_id: OrderEvent.REJECT}, notes={aapl.client_order_id: "no"}
    )
    for event in (OrderEvent.PARTIAL_FILL, OrderEvent.PARTIAL_FILL, OrderEvent.EXPIRE):
        ledger.advance(book, {ibm.client_order_id: event})
    ledger.advance(book, {})
    assert [(o.symbol, o.state) for o in ledger.orders(book)] == [("AAPL", OrderState.REJECTED), ("IBM", OrderState.EXPIRED)]


def test_one_event_that_the_life_does_not_allow_stops_all(ledger: Ledger, book: str) -> None:
    ibm, aapl = order(book), order(book, "AAPL")
    ledger.intend([ibm, aapl])
    with pytest.raises(LedgerError, match="in state pending_new"):
        ledger.advance(book, {ibm.client_order_id: OrderEvent.SEND, aapl.client_order_id: OrderEvent.FILL})
    assert {o.state for o in ledger.orders(book)} == {OrderState.PENDING_NEW}


def test_an_event_for_an_order_of_another_book_or_of_none_is_refused(ledger: Ledger, book: str) -> None:
    other = new_book()
    ledger.intend([order(other), order(book)])
    for stranger in (order(other).client_order_id, "nobody"):
        with pytest.raises(LedgerError, match=f"expected an order of this book in book {book}, found {stranger}"):
            ledger.advance(book, {order(book).client_order_id: OrderEvent.SEND, stranger: OrderEvent.SEND})
    assert {o.state for o in [*ledger.orders(book), *ledger.orders(other)]} == {OrderState.PENDING_NEW}


# Decisions, champions, audit


def decision(book: str, *, at: datetime = NOW, version: str | None = "lgbm-1", **tables: int) -> DecisionRecord:
    return DecisionRecord(book=book, session=DAY, decision_at=at, model_version=version, table_versions=tables)


def start(book: str, session: date = DAY, *, at: datetime = NOW, rules: str = "{}") -> SessionStart:
    return SessionStart(book=book, session=session, decision_at=at, rules=rules)


def test_the_first_start_of_a_session_stands_and_the_newest_one_is_found(ledger: Ledger, book: str) -> None:
    assert ledger.begun(book) is None
    assert ledger.begin(start(book)) == start(book)
    assert ledger.begin(start(book, at=NOW + timedelta(hours=1), rules='{"a": 1}')) == start(book)
    ledger.begin(start(book, NEXT))
    ledger.begin(start(new_book(), NEXT + timedelta(days=1)))
    assert ledger.begun(book) == start(book, NEXT)
    assert ledger.begun(book, through=DAY) == start(book)
    assert ledger.begun(book, through=DAY - timedelta(days=1)) is None


def test_the_first_decision_of_a_session_stands(ledger: Ledger, book: str) -> None:
    first = decision(book, alpha158=3, scores=4)
    assert ledger.decision(book, DAY) is None
    assert ledger.record_decision(first, {"book": book}) == first
    assert ledger.record_decision(decision(book, at=NOW + timedelta(hours=1), version=None, alpha158=9), {"book": book}) == first
    assert [payload for *_, payload in ledger.audit("decision") if payload["book"] == book] == [{"book": book}]
    assert ledger.decision(book, DAY) == first
    assert ledger.decision(book, NEXT) is None


def test_an_instant_comes_back_in_utc_to_the_microsecond(ledger: Ledger, book: str) -> None:
    new_york = timezone(timedelta(hours=-5))
    ledger.record_decision(decision(book, at=NOW.astimezone(new_york), version=None), {})
    stored = ledger.decision(book, DAY)
    assert stored is not None
    assert (stored.decision_at, stored.decision_at.tzinfo) == (NOW, UTC)


def test_an_instant_without_a_zone_is_refused(ledger: Ledger, book: str) -> None:
    with pytest.raises(LedgerError, match="expected an instant with a time zone"):
        ledger.record_decision(decision(book, at=NOW.replace(tzinfo=None)), {})
    assert ledger.decision(book, DAY) is None


def test_the_champion_is_the_one_of_the_newest_session_not_after_the_asked(ledger: Ledger, book: str) -> None:
    strategy = book
    ledger.crown(strategy, NEXT, "v2")
    ledger.crown(strategy, DAY, "v1")
    assert ledger.champion(strategy, DAY - timedelta(days=1)) is None
    assert ledger.champion(strategy, DAY) == (DAY, "v1")
    assert ledger.champion(strategy, NEXT) == ledger.champion(strategy, date(2030, 1, 1)) == (NEXT, "v2")
    assert ledger.champion("other", NEXT) is None


def test_of_several_champions_from_one_session_on_the_last_crowned_holds(ledger: Ledger, book: str) -> None:
    for version in ("v1", "v2", "v2", "v1"):
        ledger.crown(book, DAY, version)
        assert ledger.champion(book, NEXT) == (DAY, version)


def test_the_audit_log_keeps_order_kind_payload_and_instant(ledger: Ledger, book: str) -> None:
    payload = {"session": DAY, "at": NOW, "notional_usd": Decimal("1.50"), "names": ["ÄÖ", None, 1.5, True], "of": {"b": 1}}
    ledger.record(book, payload)
    ledger.record(f"{book}-other", {})
    ledger.record(book, {"n": 2})
    (first, at, kind, stored), (second, _, _, last) = ledger.audit(book)
    assert (kind, at, at.tzinfo, last) == (book, NOW, UTC, {"n": 2})
    assert stored == {**payload, "session": "2013-02-27", "at": "2013-03-01T22:15:00.123456+00:00", "notional_usd": "1.50"}
    assert first < second
    assert [row for row in ledger.audit() if row[2].startswith(book)] == [
        *ledger.audit(book)[:1],
        *ledger.audit(f"{book}-other"),
        *ledger.audit(book)[1:],
    ]


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object()], ids=["nan", "set", "object"])
def test_a_payload_that_json_cannot_hold_is_refused(ledger: Ledger, book: str, value: object) -> None:
    with pytest.raises(LedgerError, match="expected a JSON document"):
        ledger.record(book, {"value": value})
    assert ledger.audit(book) == []


def test_an_entry_with_a_key_is_recorded_once_and_the_first_stands(ledger: Ledger, book: str) -> None:
    assert ledger.record(book, {"n": 1}, key=book)
    assert not ledger.record(book, {"n": 2}, key=book)
    assert ledger.record(book, {"n": 3}, key=f"{book}, another")
    assert ledger.record(book, {"n": 4})
    assert [payload["n"] for *_, payload in ledger.audit(book)] == [1, 3, 4]


def test_entries_are_found_by_a_text_of_their_payload(ledger: Ledger, book: str) -> None:
    for text in ("100%", "100_", "1000"):
        ledger.record(book, {"text": text})
    assert [payload["text"] for *_, payload in ledger.audit(book, containing='"100_"')] == ["100_"]
    assert [payload["text"] for *_, payload in ledger.audit(book, containing="100%")] == ["100%"]
    assert ledger.audit(book, containing="nothing") == []


def test_what_happens_to_a_book_is_in_the_audit_log_once_in_its_order(ledger: Ledger, book: str) -> None:
    denied = order(book, "AAPL", state=OrderState.DENIED)
    for _ in range(2):
        ledger.begin(start(book))
        ledger.post([trade(book, "trade|1"), trade(book, "trade|2")])
        ledger.intend([order(book), denied])
        ledger.crown(book, DAY, "v1", {"text_sha256": "abc"})
    ledger.advance(book, {order(book).client_order_id: OrderEvent.SEND})
    ledger.advance(book, {order(book).client_order_id: OrderEvent.ACCEPT})
    for _ in range(2):
        ledger.record_decision(decision(book), {"book": book}, {"scores": {"of": book}, "weights": {"of": book}})
    said = {kind: payload for _, _, kind, payload in ledger.audit(containing=book)}
    assert [kind for _, _, kind, _ in ledger.audit(containing=book)] == [
        *("session", "bookings", "intents", "order_events", "promotion", "order_events", "order_events", "decision", "scores", "weights")
    ]
    assert said["bookings"]["fills"] == [[f"trade|{n}", "IBM", "10", "100.25", "-1002.50"] for n in (1, 2)]
    denial = slice(said["intents"]["columns"].index("denial_limit"), -2)
    assert [row[denial] for row in said["intents"]["rows"]] == [[None] * 4, ["notional", 2, 1, "usd"]]
    assert said["order_events"] == {"events": {order(book).client_order_id: ["accept", "accepted"]}}
    assert said["promotion"] == {"strategy": book, "effective_session": DAY.isoformat(), "version": "v1", "text_sha256": "abc"}


def test_the_log_is_walked_as_it_is_stored_and_every_entry_chains_to_the_one_before(ledger: Ledger, book: str) -> None:
    ledger.record(book, {"b": Decimal("1.50"), "a": 1e-7}, key=book)
    entries = ledger.walk_audit(list)
    assert verify(entries, []).sound
    last = entries[-1]
    assert (last.kind, last.key, last.recorded_at) == (book, book, "2013-03-01T22:15:00.123456Z")
    assert last.payload == '{"a":1e-7,"b":"1.50"}'
    assert ledger.walk_audit(list, after=last.sequence - 1) == [last]
    assert ledger.walk_audit(lambda some: next(iter(some))) == entries[0]


def test_what_was_written_is_there_when_the_ledger_is_opened_again(url: str, ledger: Ledger, book: str) -> None:
    ledger.post([trade(book, "a")])
    ledger.intend([order(book)])
    reopened = open_ledger(url, FixedClock(NOW + timedelta(days=1)))
    assert reopened.entries(book) == [trade(book, "a")]
    assert reopened.orders(book) == [order(book)]
    assert reopened.post([trade(book, "a")]) == 0


FLOWS = (EntryKind.DEPOSIT, EntryKind.ADJUSTMENT)


@any_example
@given(made=entry_lists(), cut=st.integers(0, 8), through=st.sampled_from([date(2000, 1, 3), DAY, date(2030, 12, 31)]))
def test_a_state_is_the_fold_of_the_entries_whatever_was_asked_and_posted_before(
    ledger: Ledger, made: list[Entry], cut: int, through: date
) -> None:
    book = new_book()
    for part in (made[:cut], made[cut:]):
        ledger.post([replace(entry, book=book) for entry in part])
        for day in (through, date(2030, 12, 31), through):
            entries = ledger.entries(book, through=day)
            assert ledger.state(book, through=day) == BookState().after(entries)
            sessions = sorted({entry.session for entry in entries})
            assert [(value.session, value.nav, value.flows) for value in ledger.values(book, through=day)] == [
                (
                    session,
                    BookState().after(entry for entry in entries if entry.session <= session).nav,
                    -sum((e.amount(Account.EXTERNAL) for e in entries if e.session == session and e.kind in FLOWS), Decimal(0)),
                )
                for session in sessions
            ]


@any_example
@given(made=entry_lists())
def test_lots_are_the_fold_of_all_entries(ledger: Ledger, made: list[Entry]) -> None:
    book = new_book()
    moved = [replace(entry, book=book) for entry in made]
    ledger.post(moved)
    assert ledger.lots(book, through=date(2030, 12, 31)) == LotBook().after(ledger.entries(book))


def test_lots_are_the_fold_of_the_entries_up_to_a_session(ledger: Ledger, book: str) -> None:
    ledger.post([trade(book, "a"), trade(book, "b", session=NEXT, shares="-4", cash="500")])
    assert ledger.lots(book, through=DAY) == LotBook().after(ledger.entries(book, through=DAY))
    assert [lot.gain for lot in ledger.lots(book, through=NEXT).closed] == [Decimal(500) - Decimal(401)]
