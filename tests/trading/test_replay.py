"""A replay and a book kept day by day in a ledger are the same book."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.clock import FixedClock
from adapters.ledger import open_ledger
from quant.errors import SequenceError
from quant.ledger.book import BookState
from quant.ledger.entries import Account, Entry, EntryKind, transfer
from quant.ports import Ledger
from quant.risk.state import StateChange, TradingState
from quant.trading.brokerage import Acknowledgement, Answer
from quant.trading.desk import Desk
from quant.trading.market import SessionMarket
from quant.trading.orders import Execution, Order
from quant.trading.records import fill_rows, nav_rows, order_rows, pnl_rows, position_rows
from quant.trading.replay import replay
from quant.trading.rules import BookRules
from quant.trading.settlement import opening_deposit
from tests.trading.eventful import eventful_markets
from tests.trading.simulation import CALENDAR, DEPOSIT, KNOWN, RULES, decided, exchange, markets, random_targets


def ledger_at(folder: Path) -> Ledger:
    return open_ledger(f"sqlite:///{folder / 'ledger.sqlite'}", FixedClock(KNOWN))


def desk_of(folder: Path, days: list[SessionMarket]) -> Desk:
    return Desk(
        book="paper",
        first_session=days[0].session,
        deposit=DEPOSIT,
        rules=RULES,
        calendar=CALENDAR,
        ledger=ledger_at(folder),
        broker=exchange(days),
        clock=FixedClock(KNOWN),
    )


def decide(desk: Desk, day: SessionMarket, targets: pl.DataFrame):
    rows = targets.filter(pl.col("session") == day.session)
    return desk.decide(day, rows, decision_at=decided(day), model_version="m", table_versions={})


TIGHT = replace(RULES, risk=RULES.risk.model_copy(update={"max_daily_loss_ratio": 0.002, "max_drawdown_ratio": 0.03}))


@pytest.mark.parametrize(
    ("seed", "of", "rules"),
    [
        (1, markets, RULES),
        (2, markets, RULES),
        (3, eventful_markets, RULES),
        (4, eventful_markets, RULES),
        (1, markets, TIGHT),
        (2, markets, TIGHT),
    ],
)
def test_days_in_a_ledger_and_one_replay_give_identical_rows(
    tmp_path: Path, seed: int, of: Callable[..., list[SessionMarket]], rules: BookRules
):
    days = of(seed, sessions=15)
    targets = random_targets(seed, days, book="paper")
    whole = replay(book="paper", markets=days, targets=targets, broker=exchange(days), rules=rules, deposit=DEPOSIT, decision_at=decided)
    stopped = set(whole["orders"]["denied_by"].drop_nulls()) & {"reducing", "halted", "daily_loss", "drawdown"}
    assert bool(stopped) == (rules is TIGHT)
    parts: dict[str, list[pl.DataFrame]] = {name: [] for name in whole}
    for day in days:
        desk = replace(desk_of(tmp_path, days), rules=rules)  # a new process each day, as far as state goes
        done = desk.settle(day)
        parts["fills"].append(fill_rows([x for x in done.outcomes if isinstance(x, Execution)]))
        parts["positions"].append(position_rows("paper", day.session, desk.state(day.session)))
        parts["daily_pnl"].append(pnl_rows("paper", day.session, done.pnl))
        parts["daily_nav"].append(nav_rows("paper", day.session, done, decided(day)))
        parts["orders"].append(order_rows(decide(desk, day, targets)))
    for name, rows in whole.items():
        daily = pl.concat(parts[name])
        keys = [c for c in ("session", "symbol", "leg") if c in rows.columns]
        assert daily.sort(keys).equals(rows.sort(keys)), name


def test_a_drawdown_halts_by_itself_once_and_a_resume_measures_from_where_it_was(tmp_path: Path):
    days = markets(1, sessions=15)
    targets = random_targets(1, days, book="paper")
    desk = replace(desk_of(tmp_path, days), rules=replace(RULES, risk=RULES.risk.model_copy(update={"max_drawdown_ratio": 0.005})))
    halted = None
    for day in days:
        orders = decide(desk, day, targets)
        changes = desk.ledger.state_changes("paper")
        if halted is None and changes:
            halted = day.session
            assert [(c.by, c.state, c.session) for c in changes] == [("drawdown", TradingState.HALTED, halted)]
            assert {o.denial.limit for o in orders if o.denial} == {"halted"} == {o.denial and o.denial.limit for o in orders}
            decide(desk, day, targets)
            assert desk.ledger.state_changes("paper") == changes
            assert [row[3]["reason"] for row in desk.ledger.audit("trading_state")] == [changes[0].reason]
            back = StateChange(book="paper", session=halted, key="c", state=TradingState.ACTIVE, reason="looked at", by="command")
            assert desk.ledger.change_state(back)
            assert not desk.ledger.change_state(back)
            assert desk.watermark(halted).drawdown == 0
        elif halted == CALENDAR.previous(day.session):
            assert desk.watermark(day.session).peak >= desk.watermark(halted).closing
            assert desk.watermark(day.session).drawdown <= 0.005 or len(changes) == 3
            return
    pytest.fail("nothing halted the book")


def test_a_session_run_again_changes_nothing(tmp_path: Path):
    days = markets(5, sessions=6, split_every=0)
    targets = random_targets(5, days, book="paper")
    desk = desk_of(tmp_path, days)
    for day in days:
        decide(desk, day, targets)
    before = desk.ledger.entries("paper"), desk.ledger.orders("paper")
    for day in reversed(days):
        desk.settle(day)
        decide(desk, day, random_targets(99, days, book="paper"))  # other scores: the decided session keeps its orders
    assert (desk.ledger.entries("paper"), desk.ledger.orders("paper")) == before


def test_a_session_is_refused_before_the_one_it_builds_on(tmp_path: Path):
    days = markets(5, sessions=3)
    with pytest.raises(SequenceError, match="backfill"):
        desk_of(tmp_path, days).settle(days[1])


@given(cut=st.integers(0, 14), seed=st.integers(0, 50))
def test_a_prefix_of_the_replay_does_not_depend_on_what_follows(cut: int, seed: int):
    days = markets(seed, sessions=15)
    targets = random_targets(seed, days)

    def run(some: list[SessionMarket]) -> pl.DataFrame:
        made = replay(
            book="backtest", markets=some, targets=targets, broker=exchange(some), rules=RULES, deposit=DEPOSIT, decision_at=decided
        )
        return made["daily_nav"]

    assert run(days)[: cut + 1].equals(run(days[: cut + 1]))


class _PowerCutError(Exception):
    """The process dies here."""


class _Cut:
    """A ledger or broker that dies before or after its n-th writing call."""

    def __init__(self, inner: object, fuse: list[int]) -> None:
        self._inner, self._fuse = inner, fuse

    def __getattr__(self, name: str):
        call = getattr(self._inner, name)
        if name not in ("post", "intend", "advance", "record_decision", "record", "change_state", "submit"):
            return call

        def cut(*args: object, **options: object):
            self._burn()
            done = call(*args, **options)
            self._burn()
            return done

        return cut

    def _burn(self) -> None:
        self._fuse[0] -= 1
        if self._fuse[0] == 0:
            raise _PowerCutError


class _Counting:
    """A broker that remembers what it was sent."""

    def __init__(self, inner: object) -> None:
        self.sent: list[str] = []
        self._inner = inner

    def submit(self, order: Order) -> Acknowledgement:
        self.sent.append(order.client_order_id)
        return Acknowledgement(answer=Answer.ACCEPTED)

    def __getattr__(self, name: str):
        return getattr(self._inner, name)


@pytest.mark.scenario(19)
@pytest.mark.parametrize("step", [5, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.chaos])])
def test_a_day_killed_at_any_write_and_run_again_ends_in_the_same_book(tmp_path: Path, step: int):
    days = markets(7, sessions=3, split_every=0.2)
    targets = random_targets(7, days, book="paper")
    reference = desk_of(tmp_path, days)
    for day in days:
        decide(reference, day, targets)
    wanted = BookState().after(reference.ledger.entries("paper")), reference.ledger.orders("paper")
    for fuse in range(1, 400, step):
        folder = tmp_path / str(fuse)
        folder.mkdir()
        broker, burning, cuts = _Counting(exchange(days)), [fuse], 0
        for day in days:
            for _ in range(3):
                desk = Desk(
                    book="paper",
                    first_session=days[0].session,
                    deposit=DEPOSIT,
                    rules=RULES,
                    calendar=CALENDAR,
                    ledger=_Cut(ledger_at(folder), burning),  # type: ignore[arg-type]
                    broker=_Cut(broker, burning),  # type: ignore[arg-type]
                    clock=FixedClock(KNOWN),
                )
                try:
                    decide(desk, day, targets)
                    break
                except _PowerCutError:
                    cuts += 1
        ledger = ledger_at(folder)
        assert (BookState().after(ledger.entries("paper")), ledger.orders("paper")) == wanted
        submitted = {o.client_order_id for o in wanted[1] if o.denial is None}
        assert set(broker.sent) == submitted
        if cuts == 0:
            return
    pytest.fail("the fuse outlived every write: the test cut nothing")


def test_a_resume_after_a_session_in_which_nothing_was_booked_restarts_the_peak(tmp_path: Path):
    days = markets(1, sessions=4)
    desk = desk_of(tmp_path, days)
    loss = transfer(Account.CASH, Account.WRITE_OFFS, DEPOSIT * 6 / 10)
    desk.ledger.post([opening_deposit("paper", days[0], DEPOSIT)])
    desk.ledger.post([Entry(book="paper", session=days[1].session, key="x", kind=EntryKind.WRITE_OFF, symbol=None, postings=loss)])
    assert desk.watermark(days[2].session).drawdown == pytest.approx(0.6)
    resumed = StateChange(book="paper", session=days[2].session, key="r", state=TradingState.ACTIVE, reason="r", by="command")
    desk.ledger.change_state(resumed)
    assert desk.watermark(days[1].session).drawdown == pytest.approx(0.6)
    assert [desk.watermark(day.session).drawdown for day in days[2:]] == [0, 0]
    gain = transfer(Account.WRITE_OFFS, Account.CASH, DEPOSIT / 10)
    desk.ledger.post([Entry(book="paper", session=days[3].session, key="y", kind=EntryKind.WRITE_OFF, symbol=None, postings=gain)])
    assert desk.watermark(days[3].session).peak == float(DEPOSIT / 2)
