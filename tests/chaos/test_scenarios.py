"""What happens to a book at a broker apart from it, and what must come out. The product's own desk, ledger and adapter; the broker's log is
the judge. docs/exactly-once.md lists the scenarios by number.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from threading import Event, Thread

import pytest
import stamina
from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext

from adapters.brokers.alpaca import NEVER_BOOKS
from adapters.ledger import sqlite
from assets.trading import _agreement
from quant.errors import BrokerError, LedgerError
from quant.ledger.entries import EntryKind
from quant.ledger.reconciliation import DeltaKind, Outcome, ReconcileSettings
from quant.ledger.settings import LedgerSettings
from quant.trading.desk import Desk
from quant.trading.market import CorporateAction
from quant.trading.orders import OrderState
from quant.trading.reconciling import Reconciled, reconcile_book
from quant.trading.records import reconciliation_rows
from tests.chaos.trial import SYMBOLS, Trial
from tests.chaos.worker import CALENDAR, CLOSES, RULES, TARGETS, decide, desk_of, market
from tests.conftest import REPOSITORY
from tests.fakes.broker_server import BARS, DAY, EVENING, NEXT, wait_for

THIRD = CALENDAR.next(NEXT)
NIGHT = timedelta(days=1)
THIRD_EVENING = EVENING + 4 * NIGHT  # of a Monday


@pytest.fixture(autouse=True)
def without_pauses() -> Iterator[None]:
    with stamina.set_testing(True, attempts=5, cap=True):
        yield


def look(desk: Desk, session: date) -> Reconciled:
    return reconcile_book(desk, market(session), ReconcileSettings())


def executions(desk: Desk) -> list[str]:
    """Ids of the executions that the ledger has booked, as often as it has."""
    booked = desk.ledger.entries(desk.book)
    return sorted(entry.key.split("|", 1)[1] for entry in booked if entry.kind in (EntryKind.TRADE, EntryKind.ADJUSTMENT))


@pytest.mark.scenario(1)
def test_what_executed_before_a_cancellation_stays_and_only_the_rest_is_ordered_again(trial: Trial):
    desk = trial.desk(datetime(2020, 1, 2, 22, tzinfo=UTC))  # between close and evening: orders of the day, which outlive the auction
    decide(desk)
    thin = {**BARS, "AAA": {**BARS["AAA"], "volume": 2e5}}
    trial.server.run(NEXT, "open", thin)
    order = trial.order("AAA")
    desk.broker.cancel(order.client_order_id)
    trial.server.run(NEXT, "close", thin)
    assert [row["filled_qty"] for row in trial.log("canceled")] == ["2000"]
    desk = trial.desk(EVENING + NIGHT)
    desk.settle(market(NEXT))
    trial.judge_books()
    assert desk.state(NEXT).holdings["AAA"].quantity == 2000
    assert look(desk, NEXT).found.deltas == []
    decide(desk, market(NEXT))
    left = order.quantity - 2000
    (open_one,) = [held for held in desk.broker.open_orders() if held.symbol == "AAA"]
    assert abs(open_one.quantity - left) < left / 100  # of the session's value
    assert trial.accepted()["AAA"] == 2


@pytest.mark.scenario(2)
@pytest.mark.parametrize("booked", [False, True], ids=["before it was booked", "after it was booked"])
def test_a_fill_after_the_cancellation_is_booked_once_and_told(trial: Trial, booked: bool):
    desk = trial.desk(EVENING)
    decide(desk)
    order = trial.order("AAA")
    desk.broker.cancel(order.client_order_id)
    trial.server.run()
    desk = trial.desk(EVENING + NIGHT)
    if booked:
        desk.settle(market(NEXT))
        assert trial.order("AAA").state is OrderState.EXPIRED
    exchange = trial.server.house.exchange
    opened = CALENDAR.open_at(NEXT)
    exchange._fill(exchange.by_client_id[order.client_order_id], order.quantity, Decimal(50), Decimal(0), opened)
    assert [row["kind"] for row in trial.log("canceled", "fill") if row["symbol"] == "AAA"] == ["canceled", "fill"]
    if not booked:
        desk.settle(market(NEXT))
    found = look(desk, NEXT)
    desk.settle(market(NEXT))
    trial.judge_books()
    assert len(executions(desk)) == len(set(executions(desk))) == len(trial.log("fill", "partial_fill"))
    assert look(desk, NEXT).found.deltas == []
    if booked:
        assert [(delta.kind, delta.outcome) for delta in found.found.deltas] == [(DeltaKind.MISSED_FILL, Outcome.BOOKED)]
        told = _agreement(reconciliation_rows("paper", NEXT, found))
        assert not told.passed
        assert order.client_order_id in str(told.metadata["observed"].value)


@pytest.mark.scenario(2)
def test_a_fill_that_a_later_session_has_booked_is_not_booked_again_by_a_rerun_of_its_own_session(trial: Trial):
    desk = trial.desk(EVENING)
    decide(desk)
    order = trial.order("AAA")
    desk.broker.cancel(order.client_order_id)
    trial.server.run()
    decide(trial.desk(EVENING + NIGHT), market(NEXT), {})
    exchange = trial.server.house.exchange
    exchange._fill(exchange.by_client_id[order.client_order_id], order.quantity, Decimal(50), Decimal(0), CALENDAR.open_at(NEXT))
    trial.server.run(THIRD)
    desk = trial.desk(THIRD_EVENING)
    desk.settle(market(THIRD))
    assert [delta.kind for delta in look(desk, THIRD).found.deltas] == [DeltaKind.MISSED_FILL]
    desk.settle(market(NEXT))
    desk.settle(market(THIRD))
    assert len(executions(desk)) == len(set(executions(desk))) == len(trial.log("fill", "partial_fill"))
    trial.judge_books(THIRD)


@pytest.mark.scenario(3)
def test_a_fill_that_is_told_again_and_again_by_stream_and_polling_is_booked_once(trial: Trial):
    with trial.listening() as stream:
        trial.server.control("faults", {"events": {"copies": 3, "hold": 4}})
        decide(trial.desk(EVENING))
        trial.server.run()
        trial.server.control("events")
        wait_for(lambda: stream.received == 3 * len(trial.log()))
    desk = trial.desk(EVENING + NIGHT)
    desk.settle(market(NEXT))
    desk.settle(market(NEXT))
    assert len(executions(desk)) == len(set(executions(desk))) == len(trial.log("fill", "partial_fill")) == 2 * len(SYMBOLS)
    trial.judge_books()


@pytest.mark.scenario(4)
def test_a_fill_that_is_told_before_its_order_was_acknowledged_waits_and_is_booked(trial: Trial):
    deaf = [{"kind": "cut", "accepted": True, "times": 9}, {"kind": "500", "on": "GET /v2/orders:by_client", "times": 500}]
    with trial.listening() as stream:
        trial.server.control("faults", {"requests": deaf, "events": {"hold": 1000}})
        with pytest.raises(BrokerError, match="an answer to every order"):
            decide(trial.desk(EVENING))
        trial.server.run()
        trial.server.control("events")  # the last one first: fills before what they are of
        wait_for(lambda: stream.received == len(trial.log()))
    trial.server.control("faults")
    assert {order.state for order in desk_of(trial.folder, trial.server.url, EVENING).ledger.orders("paper")} == {OrderState.SENT}
    desk = trial.desk(EVENING + NIGHT)
    decide(desk)  # too late to send: looked up
    trial.judge()
    desk.settle(market(NEXT))
    trial.judge_books()


@pytest.mark.scenario(5)
def test_a_split_changes_shares_leaves_cost_and_pays_the_fraction_once(trial: Trial):
    desk = trial.begun({**TARGETS, "AAA": 0.30005})
    decide(desk, market(NEXT), {})
    exchange = trial.server.house.exchange
    before = exchange.positions["AAA"]
    assert before.quantity % 2 == 1
    trial.server.control("split", {"symbol": "AAA", "ratio": "1.5"})
    after = {**CLOSES, "AAA": 33.666667}
    split = CorporateAction(symbol="AAA", ex_date=THIRD, kind="split", value=1.5, known_at=EVENING)
    shown = market(THIRD, opens=after, closes=after, actions=(split,))
    desk = trial.desk(THIRD_EVENING)
    desk.broker._inner._never_books = NEVER_BOOKS - {"cash_in_lieu"}  # type: ignore[attr-defined]  # the stand-in pays it
    desk.settle(shown)
    once = desk.ledger.entries("paper")
    desk.settle(shown)
    assert desk.ledger.entries("paper") == once
    assert (exchange.positions["AAA"].quantity, exchange.positions["AAA"].cost) == ((before.quantity * 3) // 2, before.cost)
    trial.judge_books(THIRD)
    assert reconcile_book(desk, shown, ReconcileSettings()).found.deltas == []
    assert sum(entry.kind is EntryKind.CASH_IN_LIEU for entry in once) == 1
    lots = desk.ledger.lots("paper", through=THIRD)
    closed = [lot for lot in lots.closed if lot.symbol == "AAA"]
    assert sum(lot.cost for lot in [*lots.open["AAA"], *closed]) == before.cost


@pytest.mark.scenario(6)
def test_a_position_of_nobody_here_is_quarantined_and_its_symbol_is_not_traded(trial: Trial):
    trial.server.control("trade", {"symbol": "AAA", "qty": 100, "price": 0})
    desk = trial.desk(EVENING)
    desk.settle(market(DAY))
    found = look(desk, DAY)
    assert list(found.blocked) == ["AAA"]
    decide(desk, blocked=found.blocked)
    assert trial.order("AAA").state is OrderState.DENIED
    assert trial.accepted() == Counter({"BBB": 1, "CCC": 1})
    assert "AAA" not in desk.state(DAY).holdings


@pytest.mark.scenario(7)
def test_a_position_that_the_broker_does_not_have_blocks_its_symbol(trial: Trial):
    desk = trial.begun()
    held = desk.state(NEXT).holdings["AAA"].quantity
    trial.server.control("trade", {"symbol": "AAA", "qty": str(-held), "price": 0})
    found = look(desk, NEXT)
    assert list(found.blocked) == ["AAA"]
    assert found.found.entries == []
    decide(desk, market(NEXT), {"AAA": 0.1, "BBB": -0.1, "CCC": 0.2}, blocked=found.blocked)
    assert trial.order("AAA", NEXT).state is OrderState.DENIED
    assert trial.accepted() == Counter({"AAA": 1, "BBB": 2, "CCC": 2})
    assert desk.state(NEXT).holdings["AAA"].quantity == held


@pytest.mark.scenario(8)
def test_an_order_beyond_the_buying_power_is_recorded_and_not_sent_again_and_sells_went_first(trial: Trial):
    trial.server.control("marks", {"CCC": 5000})
    decide(trial.desk(EVENING))
    decide(trial.desk(EVENING))
    assert trial.order("CCC").state is OrderState.REJECTED
    rows = trial.log("accepted", "refused")
    assert [(row["kind"], row.get("symbol")) for row in rows] == [("accepted", "BBB"), ("accepted", "AAA"), ("refused", None)]
    assert rows[-1]["client_order_id"] == trial.order("CCC").client_order_id
    ledger = desk_of(trial.folder, trial.server.url, EVENING).ledger
    assert "insufficient buying power" in (ledger.order_history(trial.order("CCC").client_order_id)[-1].note or "")
    trial.server.run()
    trial.desk(EVENING + NIGHT).settle(market(NEXT))
    trial.judge_books()


@pytest.mark.scenario(9)
@pytest.mark.parametrize(
    ("asset", "state"),
    [({"halted": True}, OrderState.EXPIRED), ({"tradable": False}, OrderState.REJECTED)],
    ids=["halted", "not tradable"],
)
def test_what_does_not_trade_ends_unexecuted_and_is_wanted_again_in_the_next_session(trial: Trial, asset: dict, state: OrderState):
    trial.server.control("asset", {"symbol": "AAA", **asset})
    desk = trial.begun()
    assert trial.order("AAA").state is state
    assert "AAA" not in desk.state(NEXT).holdings
    trial.judge_books()
    trial.server.control("asset", {"symbol": "AAA", "halted": False, "tradable": True})
    decide(desk, market(NEXT))
    trial.server.run(THIRD)
    trial.desk(THIRD_EVENING).settle(market(THIRD))
    assert desk.state(THIRD).holdings["AAA"].quantity == trial.order("AAA", NEXT).quantity > 5000
    trial.judge_books(THIRD)


@pytest.mark.scenario(10)
def test_a_holding_without_bars_keeps_its_mark_up_to_the_limit_and_is_written_off_and_never_ordered(trial: Trial):
    rules = replace(RULES, ledger=LedgerSettings(interest_debit_rate_annual=0, stale_limit_sessions=2))
    desk = trial.begun()
    held = desk.state(NEXT).holdings["AAA"].quantity
    decide(desk, market(NEXT), {})
    trial.server.control("asset", {"symbol": "AAA", "tradable": False})
    gone = {symbol: close for symbol, close in CLOSES.items() if symbol != "AAA"}
    bars = {symbol: bar for symbol, bar in BARS.items() if symbol != "AAA"}
    session, seen = THIRD, []
    for _ in range(3):
        trial.server.run(session, bars=bars)
        desk = trial.desk(CALENDAR.close_at(session) + timedelta(hours=4, minutes=30), rules=rules)
        shown = market(session, opens=gone, closes=gone)
        decide(desk, shown, {"AAA": 0.5, "BBB": -0.2, "CCC": 0.1})
        seen.append(desk.state(session).holdings.get("AAA"))
        session = CALENDAR.next(session)
    assert [one and (one.quantity, float(one.mark), one.stale) for one in seen] == [(held, 50.5, True), (held, 50.5, True), None]
    assert sum(entry.kind is EntryKind.WRITE_OFF for entry in desk.ledger.entries("paper")) == 1
    assert trial.accepted()["AAA"] == 1
    assert list(look(desk, CALENDAR.previous(session)).blocked) == ["AAA"], "the broker still has it: a person decides"


@pytest.mark.scenario(12)
@pytest.mark.parametrize(
    ("session", "cutoff"),
    [(date(2020, 3, 6), "2020-03-09T13:28:00Z"), (date(2020, 10, 30), "2020-11-02T14:28:00Z")],
    ids=["spring", "autumn"],
)
def test_the_cut_off_is_new_yorks_also_over_the_weekend_on_which_its_clocks_change(trial: Trial, session: date, cutoff: str):
    instant = datetime.fromisoformat(cutoff)
    decide(trial.desk(instant, first_session=session, book="late"), market(session))
    assert {order.state for order in desk_of(trial.folder, trial.server.url, EVENING).ledger.orders("late")} == {OrderState.MISSED}
    assert trial.accepted() == Counter()
    decide(trial.desk(instant - timedelta(seconds=1), first_session=session), market(session))
    trial.judge()
    execution = CALENDAR.next(session)
    trial.server.run(execution)
    trial.desk(CALENDAR.close_at(execution), first_session=session).settle(market(execution))
    trial.judge_books(execution)


@pytest.mark.scenario(13)
def test_after_a_half_day_orders_are_taken_from_its_early_close_on(trial: Trial):
    half, close = date(2020, 11, 27), datetime(2020, 11, 27, 18, tzinfo=UTC)
    with pytest.raises(BrokerError, match="until the close nothing can be sent"):
        decide(trial.desk(close - timedelta(seconds=1), first_session=half), market(half))
    assert trial.accepted() == Counter()
    decide(trial.desk(close, first_session=half), market(half))
    trial.judge()
    assert {row["type"] for row in trial.log("accepted")} == {"market"}
    trial.server.run(date(2020, 11, 30))
    trial.desk(datetime(2020, 11, 30, 22, tzinfo=UTC), first_session=half).settle(market(date(2020, 11, 30)))
    trial.judge_books(date(2020, 11, 30))


@pytest.mark.scenario(13)
def test_an_hour_that_is_after_the_close_of_a_half_day_is_before_that_of_another_day(trial: Trial):
    monday = date(2020, 11, 30)
    with pytest.raises(BrokerError, match="until the close nothing can be sent"):
        decide(trial.desk(datetime(2020, 11, 30, 18, tzinfo=UTC), first_session=monday), market(monday))
    assert trial.accepted() == Counter()


@pytest.mark.scenario(14)
def test_a_session_that_is_run_again_on_the_same_day_sends_no_new_order_whatever_was_revised(trial: Trial):
    decide(trial.desk(EVENING))
    before = desk_of(trial.folder, trial.server.url, EVENING).ledger.orders("paper")
    revised = market(DAY, closes={symbol: 2 * close for symbol, close in CLOSES.items()})
    decide(trial.desk(EVENING + timedelta(minutes=30)), revised, {"AAA": -0.3, "BBB": 0.2, "CCC": 0.3})
    assert desk_of(trial.folder, trial.server.url, EVENING).ledger.orders("paper") == before
    trial.judge()


@pytest.mark.scenario(15)
def test_a_past_session_that_is_run_for_the_first_time_among_later_ones_sends_nothing(trial: Trial):
    later = EVENING + timedelta(days=60)
    desk = trial.desk(later)
    for session in (DAY, NEXT, THIRD):
        decide(desk, market(session))
    assert {order.state for order in desk.ledger.orders("paper")} == {OrderState.MISSED}
    assert trial.accepted() == Counter()
    assert "has begun" in look(desk, THIRD).why_not


@pytest.mark.scenario(17)
def test_a_locked_ledger_is_tried_again_and_nothing_is_sent_before_the_intents_are_in_it(trial: Trial, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_SECONDS", 0.5)
    desk = trial.desk(EVENING)
    desk.settle(market(DAY))
    refused = Event()

    def seen(context: ExceptionContext) -> None:
        if "locked" in str(context.original_exception):
            refused.set()

    event.listen(Engine, "handle_error", seen)
    try:
        with closing(sqlite3.connect(trial.folder / "ledger.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            deciding = Thread(target=decide, args=(desk,))
            deciding.start()
            assert refused.wait(timeout=60)
            assert trial.accepted() == Counter()
            other.execute("COMMIT")
            deciding.join(timeout=60)
    finally:
        event.remove(Engine, "handle_error", seen)
    trial.judge()


_FULL = """
import resource, signal, sys
from pathlib import Path
import stamina
from tests.chaos.worker import EVENING, DAY, decide, desk_of, market
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails like one on a full disk
stamina.set_testing(True, attempts=5, cap=True)
folder, room = Path(sys.argv[1]), int(sys.argv[3])
desk = desk_of(folder, sys.argv[2], EVENING)
desk.settle(market(DAY))
assert desk.broker.open_orders() == []  # it is connected
journal = (folder / "ledger.sqlite-wal").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (journal + room, journal + room))
decide(desk)
"""


@pytest.mark.scenario(18)
@pytest.mark.parametrize("room", [0, *range(9_000, 120_000, 9_000)])
@pytest.mark.chaos
@pytest.mark.slow
def test_a_disk_that_fills_up_at_any_write_sends_nothing_that_is_not_written_down_and_nothing_twice(trial: Trial, room: int):
    filled_up_and_run_again(trial, room)


@pytest.mark.scenario(18)
def test_a_disk_that_is_full_when_the_intents_are_written_sends_nothing(trial: Trial):
    assert filled_up_and_run_again(trial, 0) == Counter()


def filled_up_and_run_again(trial: Trial, room: int) -> Counter[str]:
    """What the broker had when the disk was full; then there is room again."""
    command = [sys.executable, "-c", _FULL, str(trial.folder), trial.server.url, str(room)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0 or "nothing was written" in done.stderr, done.stderr
    had = trial.accepted()
    orders = desk_of(trial.folder, trial.server.url, EVENING).ledger.orders("paper")
    assert set(had) <= {order.symbol for order in orders if order.state is not OrderState.PENDING_NEW}
    decide(trial.desk(EVENING))
    trial.judge()
    trial.server.run()
    trial.desk(EVENING + NIGHT).settle(market(NEXT))
    trial.judge_books()
    return had


@pytest.mark.scenario(24)
@pytest.mark.parametrize(
    ("before", "state", "kinds"),
    [(False, OrderState.EXPIRED, ["accepted", "canceled"]), (True, OrderState.DENIED, [])],
    ids=["after it was sent", "before it was decided"],
)
def test_a_short_that_can_no_longer_be_borrowed_is_ended_and_recorded(trial: Trial, before: bool, state: OrderState, kinds: list[str]):
    hard = {"symbol": "BBB", "easy_to_borrow": False}
    if before:
        trial.server.control("asset", hard)
    decide(trial.desk(EVENING))
    trial.server.control("asset", hard)
    trial.server.run()
    desk = trial.desk(EVENING + NIGHT)
    desk.settle(market(NEXT))
    assert [row["kind"] for row in trial.log() if row.get("symbol") == "BBB"] == kinds
    assert trial.order("BBB").state is state
    assert sorted(desk.state(NEXT).holdings) == ["AAA", "CCC"]
    trial.judge_books()
    assert look(desk, NEXT).found.deltas == []


@pytest.mark.scenario(25)
def test_an_account_that_was_reset_is_refused_before_anything_is_decided(trial: Trial):
    desk = trial.begun()
    look(desk, NEXT)
    before = desk.ledger.entries("paper")
    trial.server.control("reset")
    again = trial.desk(EVENING + NIGHT)
    with pytest.raises(LedgerError, match="book paper at account"):
        look(again, NEXT)
    assert again.ledger.entries("paper") == before
    assert trial.accepted() == Counter(SYMBOLS)
