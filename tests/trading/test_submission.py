"""An order reaches the broker once, whatever the wire does, and the ledger knows what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.clock import FixedClock
from adapters.ledger import open_ledger
from quant.errors import BrokerError, InputError, LedgerError
from quant.trading.brokerage import Acknowledgement, Answer, BrokerCapabilities, BrokerOrder
from quant.trading.orders import Leg, Order, OrderState, OrderType, Side
from quant.trading.submission import MOST_TRIES, find_out, residual, submit

DAY = date(2013, 2, 28)
AT = datetime(2013, 2, 28, 23, tzinfo=UTC)


@dataclass
class Wire:
    """A broker behind a wire that loses things. ``plan`` says what becomes of each post, in turn: ok; lost (never arrives); mute (arrives,
    the answer is lost); busy (429); no (refused). Beyond the plan all is ok. ``blind`` looks fail.
    """

    plan: list[str] = field(default_factory=list)
    blind: int = 0
    book: dict[str, BrokerOrder] = field(default_factory=dict)
    posts: list[str] = field(default_factory=list)

    @property
    def capabilities(self) -> BrokerCapabilities:
        return BrokerCapabilities(
            name="wire", embedded=False, order_types=frozenset(OrderType), fractional=False, opening_cutoff=time(9, 28)
        )

    def submit(self, order: Order) -> Acknowledgement:
        self.posts.append(order.client_order_id)
        fate = self.plan.pop(0) if self.plan else "ok"
        if fate == "lost":
            return Acknowledgement(answer=Answer.UNKNOWN, reason="timeout")
        if fate == "busy":
            return Acknowledgement(answer=Answer.THROTTLED, reason="429")
        if order.client_order_id in self.book:
            return Acknowledgement(answer=Answer.UNKNOWN, reason="client_order_id must be unique")
        state = OrderState.REJECTED if fate == "no" else OrderState.ACCEPTED
        self.book[order.client_order_id] = held(order, state)
        if fate == "mute":
            return Acknowledgement(answer=Answer.UNKNOWN, reason="reset")
        if fate == "no":
            return Acknowledgement(answer=Answer.REJECTED, reason="insufficient buying power")
        return Acknowledgement(answer=Answer.ACCEPTED, broker_order_id="b-1")

    def find(self, client_order_id: str) -> BrokerOrder | None:
        if self.blind:
            self.blind -= 1
            raise BrokerError("no answer")
        return self.book.get(client_order_id)


def held(order: Order, state: OrderState = OrderState.ACCEPTED, **changes: object) -> BrokerOrder:
    made = BrokerOrder(
        client_order_id=order.client_order_id,
        broker_order_id=f"b-{order.symbol}",
        symbol=order.symbol,
        side=order.side,
        order_type=order.order_type,
        quantity=order.quantity,
        filled_quantity=Decimal(0),
        average_price=None,
        state=state,
        updated_at=AT,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def intents(*symbols: str) -> list[Order]:
    return [
        Order(
            book="paper",
            session=DAY,
            symbol=symbol,
            leg=Leg.OPEN if n % 2 else Leg.CLOSE,
            side=Side.BUY if n % 3 else Side.SELL,
            quantity=Decimal(10 + n),
            reference_price=Decimal(50),
            state=OrderState.PENDING_NEW,
        )
        for n, symbol in enumerate(symbols)
    ]


class Desk:
    """A ledger of its own with intents in it."""

    def __init__(self, folder: Path, *symbols: str) -> None:
        self.ledger = open_ledger(f"sqlite:///{folder / 'ledger.sqlite'}", FixedClock(AT))
        self.ledger.intend(intents(*symbols))

    def send(self, wire: Wire) -> None:
        submit(self.ledger.orders("paper"), book="paper", ledger=self.ledger, broker=wire, clock=FixedClock(AT))  # type: ignore[arg-type]

    def states(self) -> dict[str, str]:
        return {order.symbol: order.state.value for order in self.ledger.orders("paper")}


def test_closes_go_first_and_sells_before_buys(tmp_path: Path):
    desk, wire = Desk(tmp_path, "A", "B", "C", "D", "E"), Wire()
    desk.send(wire)
    by_id = {order.client_order_id: order for order in desk.ledger.orders("paper")}
    sent = [(by_id[i].leg, by_id[i].side) for i in wire.posts]
    assert sent == sorted(sent, key=lambda pair: (pair[0] is Leg.OPEN, pair[1] is Side.BUY))
    assert set(desk.states().values()) == {"accepted"}


@pytest.mark.parametrize(
    ("plan", "posts", "state"),
    [
        (["ok"], 1, "accepted"),
        (["mute"], 1, "accepted"),  # accepted, the answer lost: found, not sent again
        (["lost"], 2, "accepted"),  # never arrived: looked for, then sent again under the same id
        (["lost", "mute"], 2, "accepted"),
        (["busy", "busy", "ok"], 3, "accepted"),
        (["busy", "no"], 2, "rejected"),
        (["no"], 1, "rejected"),
        (["lost", "no"], 2, "rejected"),
    ],
)
def test_whatever_the_wire_does_the_broker_has_the_order_once(tmp_path: Path, plan: list[str], posts: int, state: str):
    desk, wire = Desk(tmp_path, "A"), Wire(plan=list(plan))
    desk.send(wire)
    assert len(wire.posts) == posts
    assert len(wire.book) == 1
    assert desk.states() == {"A": state}
    desk.send(wire)
    assert len(wire.posts) == posts, "a second run sends nothing"


def test_an_order_of_unknown_fate_stays_sent_and_is_looked_up_by_the_next_run(tmp_path: Path):
    desk, wire = Desk(tmp_path, "A", "B"), Wire(plan=["mute", "ok"], blind=1)
    with pytest.raises(BrokerError, match="an answer to every order in book paper, found 1 of unknown fate"):
        desk.send(wire)
    assert sorted(desk.states().values()) == ["accepted", "sent"], "what is known is kept"
    desk.send(wire)
    assert set(desk.states().values()) == {"accepted"}
    assert len(wire.posts) == 2


def test_tries_are_bounded(tmp_path: Path):
    desk, wire = Desk(tmp_path, "A"), Wire(plan=["busy"] * 100)
    with pytest.raises(BrokerError, match="throttled: 429"):
        desk.send(wire)
    assert len(wire.posts) == MOST_TRIES
    assert desk.states() == {"A": "sent"}


@pytest.mark.parametrize("other", [{"symbol": "B"}, {"side": Side.BUY}, {"quantity": Decimal(9)}, {"order_type": OrderType.LIMIT}])
def test_another_order_under_our_id_is_an_alarm_and_is_not_adopted(tmp_path: Path, other: dict[str, object]):
    desk, wire = Desk(tmp_path, "A"), Wire()
    (order,) = desk.ledger.orders("paper")
    wire.book[order.client_order_id] = held(order, **other)  # type: ignore[arg-type]
    with pytest.raises(LedgerError, match="expected sell 10 A at the market, as it was intended"):
        desk.send(wire)
    assert desk.states() == {"A": "sent"}


def test_a_frozen_quantity_is_what_is_sent_whatever_a_rerun_computes(tmp_path: Path):
    desk = Desk(tmp_path, "A")
    stored = desk.ledger.intend([replace(intents("A")[0], quantity=Decimal(99))])
    assert [order.quantity for order in stored] == [Decimal(10)]


def test_what_the_broker_said_is_in_the_orders_history(tmp_path: Path):
    desk, wire = Desk(tmp_path, "A", "B"), Wire(plan=["no"])
    desk.send(wire)
    steps = {o.symbol: desk.ledger.order_history(o.client_order_id) for o in desk.ledger.orders("paper")}
    assert [(s.event.value, s.note) for s in steps["A"]] == [("intend", None), ("send", None), ("reject", "insufficient buying power")]
    assert [(s.event.value, s.note) for s in steps["B"]] == [("intend", None), ("send", None), ("accept", "b-1")]


def test_when_it_is_too_late_what_arrived_is_found_and_what_did_not_is_missed(tmp_path: Path):
    desk, wire = Desk(tmp_path, "A", "B", "C"), Wire(plan=["mute", "lost"], blind=2)
    orders = desk.ledger.orders("paper")
    with pytest.raises(BrokerError):
        submit(orders[:2], book="paper", ledger=desk.ledger, broker=wire, clock=FixedClock(AT))  # type: ignore[arg-type]
    wire.plan = ["lost"] * 9
    find_out(desk.ledger.orders("paper"), book="paper", ledger=desk.ledger, broker=wire)  # type: ignore[arg-type]
    assert desk.states() == {"A": "accepted", "B": "missed", "C": "missed"}
    assert len(wire.posts) == 2


@pytest.mark.scenario(1)
def test_the_rest_of_an_order_is_a_new_generation_and_only_once_it_ended():
    order = intents("A")[0]
    with pytest.raises(InputError, match="expected an order that ended with shares left"):
        residual(replace(order, state=OrderState.PARTIALLY_FILLED), Decimal(4))
    with pytest.raises(InputError, match="with 0 of 10 shares left"):
        residual(replace(order, state=OrderState.FILLED), Decimal(10))
    rest = residual(replace(order, state=OrderState.CANCELED), Decimal(4))
    assert (rest.quantity, rest.generation, rest.state) == (Decimal(6), 2, OrderState.PROPOSED)
    assert rest.client_order_id != order.client_order_id


@pytest.mark.scenario(22)
@given(plan=st.lists(st.sampled_from(["ok", "lost", "mute", "busy", "no"]), max_size=12), blind=st.integers(0, 3), runs=st.integers(1, 4))
def test_over_any_faults_and_reruns_no_order_is_there_twice_and_none_is_lost(tmp_path_factory: pytest.TempPathFactory, plan, blind, runs):
    desk, wire = Desk(tmp_path_factory.mktemp("wire"), "A", "B", "C"), Wire(plan=list(plan), blind=blind)
    for _ in range(runs):
        try:
            desk.send(wire)
        except BrokerError:
            continue
    wire.plan, wire.blind = [], 0
    desk.send(wire)
    assert len(wire.book) == 3
    assert {i: o.state.value for i, o in wire.book.items()} == {o.client_order_id: o.state.value for o in desk.ledger.orders("paper")}


@pytest.mark.scenario(16)
def test_one_process_at_a_time_trades_a_book(tmp_path: Path):
    one, other = (open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}", FixedClock(AT)) for _ in range(2))
    with one.trading("paper"):
        with other.trading("second"):
            pass
        with pytest.raises(LedgerError, match="expected one run at a time to trade book paper"), other.trading("paper"):
            pass
    with other.trading("paper"):
        assert other.orders("paper") == []
