"""A book and its broker through any sequence of fills, corporate actions, crashes and second runs, beside a twin that never crashes.

The house is what the world does to the broker's account: it works on its own positions and marks, by its own arithmetic.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from adapters.brokers.alpaca import NEVER_BOOKS
from adapters.clock import FixedClock
from adapters.ledger import open_ledger
from quant.ledger.entries import Account, Entry
from quant.ledger.reconciliation import ReconcileSettings
from quant.ledger.settings import LedgerSettings
from quant.ports import AdjustmentConvention, Clock
from quant.risk.settings import RiskSettings
from quant.trading.attribution import COSTS, GAINS
from quant.trading.brokerage import BrokerCapabilities
from quant.trading.desk import Desk
from quant.trading.exchange import (
    Bar,
    ExchangeRules,
    Listing,
    Placed,
    Refusal,
    RefusalKind,
    SimulatedAccountExchange,
    Ticket,
)
from quant.trading.execution import CostSettings
from quant.trading.market import CorporateAction, SessionMarket
from quant.trading.orders import Order
from quant.trading.reconciling import reconcile_book
from quant.trading.rules import BookRules
from quant.units import CENT, ZERO, cents
from tests.fakes.account_exchange import AccountExchange
from tests.trading.simulation import CALENDAR, DEPOSIT, KNOWN, SESSIONS, decided

BOOK = "paper"
NAMES = ("AAA", "BBB", "CCC")
VOLUME, THIN = 1e7, 5e4  # the auction gives a side 1 %
RATIOS = (2.0, 1.5, 1 / 3, 0.1, 3.0)
DELAYS = (0, 1, None, 4, 30)  # calendar days from the ex-date to the pay date
PAID_AFTER, STALE = 3, 2
COSTS_PAID = CostSettings(borrow_rate_annual=0.3)
NIGHTLY = Decimal("0.3") / 252
RULES = BookRules(
    costs=COSTS_PAID,
    risk=RiskSettings(max_net_ratio=2, max_name_ratio=2, max_gross_ratio=2, max_volume_ratio=1, max_turnover_ratio=10),
    convention=AdjustmentConvention.EX_DATE_CLOSE,
    ledger=LedgerSettings(dividend_pay_delay_days=PAID_AFTER, stale_limit_sessions=STALE, interest_credit_rate_annual=0.02),
)
NOT_BOOKED = (NEVER_BOOKS, frozenset({"regulatory_fee", "interest"}))
ACTIONS, OTHERS = ("split", "dividend", "rename", "delisting"), ("dark", "halted", "thin", "not lent")


class Crash(BaseException):
    """The process ends here."""


@dataclass
class Fuse:
    """Two steps for every call, one before it and one after it; at step ``at`` (0: never), and at any one after it, the process ends."""

    at: int = 0
    steps: int = 0

    def step(self) -> None:
        self.steps += 1
        if 0 < self.at <= self.steps:
            raise Crash


class Breakable:
    """An object whose every call may be the last one of the process."""

    def __init__(self, inner: object, fuse: Fuse) -> None:
        self._inner, self._fuse = inner, fuse

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def called(*args: object, **options: object) -> object:
            self._fuse.step()
            done = found(*args, **options)
            self._fuse.step()
            return done

        return called


@dataclass
class MovedClock:
    """A clock that stands where it is put."""

    at: datetime

    def now(self) -> datetime:
        return self.at

    def wait(self, seconds: float) -> None:
        del seconds


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happens to one security: an action that goes ex in the next session but one if ``foreseen``, else in this one."""

    kind: str
    place: int
    value: int = 0
    foreseen: bool = False


@dataclass(kw_only=True)
class Security:
    """One of the world: its name of today, its price, and since how many sessions nobody has quoted it."""

    name: str
    price: float
    renames: int = 0
    dark: int = 0
    gone: bool = False


@dataclass(frozen=True, kw_only=True)
class Day:
    """A session as the product sees it, and what else the broker's account sees of it. ``ends`` are names paid out."""

    market: SessionMarket
    bars: Mapping[str, Bar]
    surprised: frozenset[str]
    halted: frozenset[str]
    not_lent: frozenset[str]
    ends: frozenset[str]


def evening_of(day: Day) -> datetime:
    """When brokers take orders for the next open again."""
    return CALENDAR.close_at(day.market.session) + timedelta(hours=5)


class World:
    """Securities, and the sessions that are made of events."""

    def __init__(self) -> None:
        self.securities = [Security(name=name, price=30.0 + 25 * place) for place, name in enumerate(NAMES)]
        self.place = 0
        self.due: list[tuple[Security, CorporateAction]] = []

    def next(self, events: Sequence[Event]) -> Day:
        session, previous = SESSIONS[self.place], CALENDAR.previous(SESSIONS[self.place])
        today, self.due = self.due, []
        self.place += 1
        before = len(today)
        for event in events:
            if event.kind in ACTIONS and not event.foreseen and self.place > 1:
                self._announce(today, event, session, CALENDAR.open_at(session))
        surprises = [(security, action) for security, action in today[before:] if action.kind != "dividend"]
        ends = frozenset(s.name for s in self.securities if s.gone and s.dark >= STALE)
        for security, action in today:
            self._apply(security, action)
        marked = {kind: {self.securities[e.place].name for e in events if e.kind == kind} for kind in OTHERS}
        bars = self._bars(marked["dark"], marked["thin"])
        for event in events:
            if event.kind in ACTIONS and event.foreseen:
                self._announce(self.due, event, CALENDAR.next(session), KNOWN)
        market = SessionMarket(
            session=session,
            previous=previous,
            opens={name: bar.open for name, bar in bars.items()},
            closes={name: bar.close for name, bar in bars.items()},
            median_volume=dict.fromkeys(bars, VOLUME),
            prior_median_volume={name: bar.prior_median_volume or 0 for name, bar in bars.items()},
            actions=tuple(action for _, action in today),
            upcoming=tuple(action for _, action in self.due),
        )
        return Day(
            market=market,
            bars=bars,
            surprised=frozenset(name for security, action in surprises for name in (action.symbol, security.name)),
            halted=frozenset(marked["halted"]),
            not_lent=frozenset(marked["not lent"]),
            ends=ends,
        )

    def _announce(self, day: list[tuple[Security, CorporateAction]], event: Event, ex_date: date, known_at: datetime) -> None:
        security = self.securities[event.place]
        kinds = {event.kind, *(action.kind for of, action in day if of is security)}
        if security.gone or (event.kind in kinds and len(kinds) <= sum(of is security for of, _ in day)):
            return
        if "delisting" in kinds and kinds & {"split", "rename"}:
            return
        of_price = {"dividend": 0.02, "delisting": 0.9}.get(event.kind, 0.0)
        value = {"split": RATIOS[event.value], "rename": 1.0}.get(event.kind, round(security.price * of_price, 4))
        delay = DELAYS[event.value] if event.kind == "dividend" else None
        action = CorporateAction(
            symbol=security.name,
            ex_date=ex_date,
            kind=event.kind,
            value=value,
            known_at=known_at,
            pay_date=None if delay is None else ex_date + timedelta(days=delay),
            new_symbol=f"{security.name[:3]}{security.renames + 1}" if event.kind == "rename" else None,
        )
        day.append((security, action))

    @staticmethod
    def _apply(security: Security, action: CorporateAction) -> None:
        if action.kind == "rename":
            security.name, security.renames = action.new_symbol or "", security.renames + 1
        elif action.kind == "delisting":
            security.gone = True
        else:
            security.price = security.price / action.value if action.kind == "split" else max(security.price - action.value, 1.0)

    def _bars(self, dark: set[str], thin: set[str]) -> dict[str, Bar]:
        bars: dict[str, Bar] = {}
        for security in self.securities:
            if security.gone or (security.name in dark and security.dark < STALE):
                security.dark += 1
                continue
            chance = random.Random(f"{security.name} {self.place}")
            opened, closed = (round(security.price * chance.uniform(0.96, 1.04), 2) for _ in range(2))
            security.price, security.dark = closed, 0
            prior = THIN if security.name in thin else VOLUME
            bars[security.name] = Bar(
                open=opened, high=max(opened, closed), low=min(opened, closed), close=closed, volume=VOLUME, prior_median_volume=prior
            )
        return bars


class Recording(SimulatedAccountExchange):
    """An exchange that writes down everything it was asked to take."""

    asked: list[tuple[Ticket, Placed | Refusal]]

    def place(self, ticket: Ticket, at: datetime) -> Placed | Refusal:
        said = super().place(ticket, at)
        self.asked.append((ticket, said))
        return said


class DeclaringExchange(AccountExchange):
    """Access to an exchange that says what it never books."""

    def __init__(self, exchange: SimulatedAccountExchange, clock: Clock, never_books: frozenset[str]) -> None:
        super().__init__(exchange, clock)
        self._never_books = never_books

    @property
    def capabilities(self) -> BrokerCapabilities:
        return replace(super().capabilities, never_books=self._never_books)


@dataclass(kw_only=True)
class House:
    """The account at the broker, and all that happens to it but orders."""

    never_books: frozenset[str]
    exchange: Recording
    owed: list[tuple[date, Decimal]] = field(default_factory=list[tuple[date, Decimal]])

    @classmethod
    def opened(cls, never_books: frozenset[str]) -> House:
        free = COSTS_PAID.model_copy(update={"borrow_rate_annual": 0.0})
        rules = ExchangeRules(costs=free, deposit=DEPOSIT, pieces_ratio=0.5, multiplier=4)
        exchange = Recording(CALENDAR, rules, [Listing(symbol=name) for name in NAMES])
        exchange.asked = []
        return cls(never_books=never_books, exchange=exchange)

    def pay(self, kind: str, amount: Decimal) -> None:
        """Cash that the broker books if it ever books such a thing."""
        if kind not in self.never_books:
            self.exchange.cash += amount

    def play(self, day: Day) -> None:
        """A session, from the night before it to its close, and what is known by its evening."""
        exchange, session, at = self.exchange, day.market.session, CALENDAR.open_at(day.market.session) - timedelta(hours=2)
        for symbol, held in exchange.positions.items():
            if held.quantity < 0:
                self.pay("borrow", -cents(-held.quantity * exchange.marks[symbol] * NIGHTLY))
        for symbol in day.ends & exchange.positions.keys():
            exchange.cash += exchange.positions.pop(symbol).quantity * exchange.marks[symbol]
        for order in exchange.open_orders():
            if order.ticket.symbol in day.surprised:
                exchange.cancel(order.order_id, at)
        for kind in ("rename", "delisting"):
            for action in day.market.actions:
                if action.kind == kind:
                    self._name(action, at)
        names = {a.symbol: a.new_symbol or "" for a in day.market.actions if a.kind == "rename"}
        entitled = {symbol: Fraction(held.quantity) for symbol, held in exchange.positions.items()}
        for kind in ("split", "dividend"):
            for action in day.market.actions:
                if action.kind == kind:
                    symbol = names.get(action.symbol, action.symbol)
                    self._split(symbol, action, day, entitled) if kind == "split" else self._owe(action, entitled.get(symbol, Fraction(0)))
        for _, amount in [due for due in self.owed if due[0] <= session]:
            self.pay("payment", amount)
        self.owed = [due for due in self.owed if due[0] > session]
        for symbol, listing in list(exchange.listings.items()):
            exchange.list(replace(listing, halted=symbol in day.halted, easy_to_borrow=True), at)
        exchange.open(session, day.bars)
        exchange.close(session, day.bars)
        evening = CALENDAR.close_at(session)
        for symbol in day.not_lent & exchange.listings.keys():
            exchange.list(replace(exchange.listings[symbol], easy_to_borrow=False), evening)
        for action in day.market.upcoming:
            if action.new_symbol is not None:
                exchange.list(Listing(symbol=action.new_symbol), evening)

    def _name(self, action: CorporateAction, at: datetime) -> None:
        exchange = self.exchange
        if action.kind == "delisting":
            exchange.list(Listing(symbol=action.symbol, tradable=False), at)
            exchange.marks[action.symbol] = Decimal(repr(action.value))
            return
        new = action.new_symbol or ""
        exchange.list(Listing(symbol=new), at)
        for kept in (exchange.positions, exchange.marks):
            if action.symbol in kept:
                kept[new] = kept.pop(action.symbol)  # type: ignore[assignment]
        exchange.list(Listing(symbol=action.symbol, tradable=False), at)

    def _split(self, symbol: str, action: CorporateAction, day: Day, entitled: dict[str, Fraction]) -> None:
        exchange, ratio = self.exchange, Fraction(action.value).limit_denominator(100)
        entitled[symbol] = entitled.get(symbol, Fraction(0)) * ratio
        before = exchange.cash
        if symbol in day.bars:  # a fraction is worth what the open says
            exchange.marks[symbol] = Decimal(repr(day.bars[symbol].open)) * ratio.numerator / ratio.denominator
        exchange.split(symbol, Decimal(repr(action.value)))
        in_lieu, exchange.cash = exchange.cash - before, before
        self.pay("cash_in_lieu", in_lieu)

    def _owe(self, action: CorporateAction, entitled: Fraction) -> None:
        amount = entitled * Fraction(repr(action.value))
        due = action.pay_date or action.ex_date + timedelta(days=PAID_AFTER)
        self.owed.append((due, cents(Decimal(amount.numerator) / amount.denominator)))


@cache
def empty_ledger() -> bytes:
    """A file with the newest schema: migrating one for every book takes longer than all that happens to it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "empty.sqlite"
        open_ledger(f"sqlite:///{path}", FixedClock(KNOWN))
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return path.read_bytes()


@dataclass(kw_only=True)
class Keeper:
    """One book: its file, its account, and the processes that work on them, each with objects of its own. ``looking`` only reads."""

    file: Path
    house: House

    def __post_init__(self) -> None:
        self.file.write_bytes(empty_ledger())
        self.clock, self.fuse = MovedClock(KNOWN), Fuse()
        self.looking, self.desk = self.opened(Fuse()), self.opened(self.fuse)

    def opened(self, fuse: Fuse) -> Desk:
        """A desk of new objects: all that a process knows is in the file and at the broker."""
        broker = DeclaringExchange(self.house.exchange, self.clock, self.house.never_books)
        return Desk(
            book=BOOK,
            first_session=SESSIONS[0],
            deposit=DEPOSIT,
            rules=RULES,
            calendar=CALENDAR,
            ledger=Breakable(open_ledger(f"sqlite:///{self.file}", self.clock), fuse),  # type: ignore[arg-type]
            broker=Breakable(broker, fuse),  # type: ignore[arg-type]
            clock=self.clock,
        )

    def run(self, day: Day, weights: Mapping[str, float], at: datetime, crashes: Sequence[int] = ()) -> None:
        """Settle, reconcile and decide, interrupted at each of ``crashes`` and started again in a new process."""
        self.clock.at = at
        for crash_at in (*crashes, 0):
            self.fuse.at, self.fuse.steps = crash_at, 0
            try:
                self._run(day, weights)
            except Crash:
                self.restart()

    def restart(self) -> None:
        """The process ends, another one begins."""
        self.fuse = Fuse()
        self.desk = self.opened(self.fuse)

    def _run(self, day: Day, weights: Mapping[str, float]) -> None:
        targets = pl.DataFrame({"symbol": list(weights), "target_weight": list(weights.values())}, schema=_TARGETS)
        self.desk.settle(day.market)
        found = reconcile_book(self.desk, day.market, ReconcileSettings())
        assert list(found.found.deltas) == [], found.found.deltas
        at = decided(day.market)
        self.desk.decide(day.market, targets, decision_at=at, model_version=None, table_versions={}, blocked=found.blocked)

    def kept(self) -> tuple[list[Entry], list[Order]]:
        """Everything in the ledger's file."""
        return list(self.looking.ledger.entries(BOOK)), list(self.looking.ledger.orders(BOOK))


_TARGETS = {"symbol": pl.String, "target_weight": pl.Float64}
_PLACES = st.integers(0, len(NAMES) - 1)
_WEIGHTS = st.tuples(*[st.sampled_from([0.3, -0.3, 0.1, -0.1, 0.0, None])] * len(NAMES))
_KINDS = st.sampled_from(["split", "dividend", "split", "dividend", "rename", *OTHERS, "delisting"])
_EVENTS = st.lists(st.builds(Event, kind=_KINDS, place=_PLACES, value=st.integers(0, 4), foreseen=st.booleans()), max_size=5)
_STEPS = st.integers(1, 92) | st.integers(68, 88)  # of some 90, of which the later ones send the orders


class AnySequence(RuleBasedStateMachine):
    """A book whose processes crash, and its twin, whose processes do not, in the same world."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.world, self.day = World(), None
        self.fresh = False

    @initialize(never_books=st.sampled_from(NOT_BOOKED))
    def begin(self, never_books: frozenset[str]) -> None:
        self.book, self.twin = (
            Keeper(file=Path(self.folder.name) / f"{name}.sqlite", house=House.opened(never_books)) for name in ("book", "twin")
        )

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(weights=_WEIGHTS, events=_EVENTS, crashes=st.lists(_STEPS, max_size=2))
    def session(self, weights: tuple[float | None, ...], events: list[Event], crashes: list[int]) -> None:
        """The next session happens; its run is interrupted at each of ``crashes`` and started again."""
        self.day = day = self.world.next(events)
        wanted, self.fresh = self._named(weights), True
        for keeper in (self.book, self.twin):
            keeper.house.play(day)
        evening = evening_of(day)
        self.twin.run(day, wanted, evening)
        self.book.run(day, wanted, evening, crashes)
        self.kept, self.kept_by_twin = self.book.kept(), self.twin.kept()

    @precondition(lambda self: self.fresh)
    @rule(weights=_WEIGHTS, crashes=st.lists(_STEPS, max_size=1), late=st.booleans())
    def again(self, weights: tuple[float | None, ...], crashes: list[int], late: bool) -> None:
        """The newest session is run again, with other targets and maybe after the next open: nothing changes."""
        assert self.day is not None
        before, asked = self.kept, list(self.book.house.exchange.asked)
        session = self.day.market.session
        at = CALENDAR.open_at(CALENDAR.next(session)) + timedelta(hours=1) if late else evening_of(self.day)
        wanted, self.fresh = self._named(weights), False
        self.book.restart()
        self.book.run(self.day, wanted, at, crashes)
        self.kept = self.book.kept()
        assert self.kept == before
        assert self.book.house.exchange.asked == asked

    def _named(self, weights: tuple[float | None, ...]) -> dict[str, float]:
        return {s.name: weight for s, weight in zip(self.world.securities, weights, strict=True) if weight is not None}

    @invariant()
    def it_is_as_if_nothing_had_ever_crashed(self) -> None:
        if self.day is not None:
            assert self.kept == self.kept_by_twin
            assert self.book.house.exchange.happenings == self.twin.house.exchange.happenings

    @invariant()
    def the_broker_took_every_order_once(self) -> None:
        if self.day is None:
            return
        orders = {order.client_order_id: order for order in self.kept[1]}
        asked = self.book.house.exchange.asked
        assert not [ticket for ticket, said in asked if isinstance(said, Refusal) and said.kind is RefusalKind.DUPLICATE]
        taken = [ticket for ticket, said in asked if isinstance(said, Placed)]
        assert max(Counter(ticket.client_order_id for ticket in taken).values(), default=1) == 1
        for ticket in taken:
            order = orders[ticket.client_order_id]
            assert (ticket.symbol, ticket.side, ticket.quantity) == (order.symbol, order.side, order.quantity)
        of = [orders[ticket.client_order_id] for ticket in taken]
        assert max(Counter((o.book, o.session, o.symbol, o.leg, o.generation) for o in of).values(), default=1) == 1

    @invariant()
    def the_ledger_has_what_the_broker_has(self) -> None:
        if self.day is None:
            return
        exchange = self.book.house.exchange
        state = self.book.looking.state(self.day.market.session)
        assert {s: h.quantity for s, h in state.holdings.items()} == {s: p.quantity for s, p in exchange.positions.items()}
        assert state.cash == exchange.cash
        assert {s: h.mark for s, h in state.holdings.items()} == {s: exchange.marks[s] for s in exchange.positions}
        assert state.nav == exchange.equity + state.receivable + state.divergence
        assert state.receivable == sum((amount for _, amount in self.book.house.owed), ZERO)

    @invariant()
    def every_entry_balances_and_the_terms_of_the_session_sum_to_its_result(self) -> None:
        if self.day is None:
            return
        entries = self.kept[0]
        assert all(sum(leg.amount for leg in entry.postings) == 0 for entry in entries)
        assert len({entry.key for entry in entries}) == len(entries)
        session = self.day.market.session
        desk = self.book.looking
        done = desk.settlement(self.day.market)
        opening, closing = desk.state(CALENDAR.previous(session)), desk.state(session)
        gains, costs = (sum((getattr(pnl, term) for pnl in done.pnl for term in terms), ZERO) for terms in (GAINS, COSTS))
        today = [entry for entry in entries if entry.session == session]
        interest, flows = (-sum((e.amount(account) for e in today), ZERO) for account in (Account.INTEREST, Account.EXTERNAL))
        assert abs(opening.nav + gains - costs + interest + flows - closing.nav) < CENT


@pytest.mark.parametrize("examples", [12, pytest.param(60, marks=pytest.mark.slow)])
def test_any_sequence_of_events_and_crashes_leaves_the_books_as_they_should_be(examples: int) -> None:
    slow = (HealthCheck.too_slow, HealthCheck.data_too_large)
    run_state_machine_as_test(
        AnySequence,
        settings=settings(max_examples=examples, stateful_step_count=12, deadline=None, derandomize=True, suppress_health_check=slow),
    )
