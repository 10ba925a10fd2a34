"""The paper book's day against its ledger: settle what executed, decide for tomorrow. Every call can be killed and made again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import count
from math import isfinite
from typing import TYPE_CHECKING

from quant.errors import BrokerError, SequenceError, expected
from quant.ledger.book import BookState
from quant.ledger.entries import Account, EntryKind
from quant.ledger.reconciliation import WHOLE_ACCOUNT
from quant.ports import Broker, Clock, DecisionRecord, Ledger
from quant.risk.state import TradingState, Watermark, automatic_changes, state_after
from quant.trading.corporate_actions import by_new_name, corporate_action_entries, name_after, new_names
from quant.trading.decision import Decision, decide
from quant.trading.market import SessionMarket
from quant.trading.orders import Execution, Expiry, Leg, Order, OrderEvent, OrderState, next_state
from quant.trading.settlement import OPENING_KEY, Settlement, settle, unforeseen_actions
from quant.trading.submission import find_out, submit
from quant.units import CASH_QUANTUM, ZERO, price

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

    from quant.calendar import ExchangeCalendar
    from quant.ledger.entries import Entry
    from quant.trading.rules import BookRules

_WAITING = (OrderState.PENDING_NEW, OrderState.SENT)
_NEVER_TAKEN = (*_WAITING, OrderState.PROPOSED, OrderState.DENIED, OrderState.MISSED, OrderState.DRY_RUN, OrderState.REJECTED)
_STANDING = [state for state in OrderState if state.at_broker or state in _WAITING]
MOST_SKEW = timedelta(seconds=60)
Evidence = Callable[[DecisionRecord, "Sequence[Order]"], "Mapping[str, Mapping[str, object]]"]
_ON_SHARES = (EntryKind.SPLIT, EntryKind.RENAME, EntryKind.DELISTING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """One book and what it trades with. ``first_session`` is the session at whose close the book starts with ``deposit`` in cash. In a
    ``dry_run`` orders are recorded and not sent.
    """

    book: str
    first_session: date
    deposit: Decimal
    rules: BookRules
    calendar: ExchangeCalendar
    ledger: Ledger
    broker: Broker
    clock: Clock
    dry_run: bool = False

    def trades(self, session: date) -> bool:
        """False before the book's first session."""
        return session >= self.first_session

    def settlement(self, market: SessionMarket) -> Settlement:
        """The settlement of a session, computed from the ledger up to the session before; nothing is stored.

        SequenceError if the session before has not been decided. BrokerError while one of its orders may still execute.
        """
        session, first = market.session, market.session == self.first_session
        previous = self.calendar.previous(session)
        decision = None if first else self._require_decision(previous, before=session)
        sent = [o for o in self.ledger.orders(self.book, decided=previous) if o.state not in _NEVER_TAKEN]
        opening = self.state(previous)
        late = unforeseen_actions(sent, market, decision.decision_at if decision else None)
        ended = {expiry.order.client_order_id for expiry in late}
        live = [order for order in sent if order.client_order_id not in ended]
        since = self.ledger.entries(self.book, first=session)
        return settle(
            book=self.book,
            opening=opening,
            late=self._late_entries(market, opening),
            outcomes=[*self._outcomes(market, live), *late],
            market=market,
            convention=self.rules.convention,
            costs=self.rules.costs,
            ledger=self.rules.ledger,
            deposit=self.deposit if first else ZERO,
            adjustments=[e for e in since if e.session == session and _from_outside(e)],
            recovered={e.key.removeprefix("adjustment|") for e in since if e.kind is EntryKind.ADJUSTMENT},
        )

    def settle(self, market: SessionMarket) -> Settlement:
        """Book a session: post its entries, end its orders. A second call posts and ends nothing. Orders of the session before whose fate a
        run that was killed left open are looked up first.
        """
        if market.session != self.first_session:
            left = self.ledger.orders(self.book, decided=self.calendar.previous(market.session), states=_WAITING)
            if left:
                find_out(left, book=self.book, ledger=self.ledger, broker=self.broker)
        done = self.settlement(market)
        self.ledger.post(done.entries)
        self.ledger.advance(self.book, _endings(done.outcomes))
        return done

    def decide(
        self,
        market: SessionMarket,
        targets: pl.DataFrame,
        *,
        decision_at: datetime,
        model_version: str | None,
        table_versions: Mapping[str, int],
        evidence: Evidence = lambda record, orders: {},
        blocked: Mapping[str, str] | None = None,
    ) -> Sequence[Order]:
        """Settle, then review and submit the orders for the next session, once: a session that was decided keeps its orders.

        Intents are written before anything is sent and the decision after everything was: a run that was killed between finds
        the frozen intents and sends those that nobody acknowledged, under the same ids. It adds none: two half decisions are no decision.
        ``evidence`` (kind -> payload) of the decision goes into the audit log with it.
        """
        session = market.session
        if self.ledger.decision(self.book, session) is None:
            closing = self.settle(market).closing
            intents = self.ledger.orders(self.book, decided=session)
            watermark = self.watermark(session)
            trading, reviewed = self._trading_state(session, watermark), None
            if not intents:
                reviewed = decide(
                    book=self.book,
                    state=closing,
                    market=market,
                    targets=targets,
                    risk=self.rules.risk,
                    watermark=watermark,
                    trading=trading,
                    live=Counter((o.symbol, o.side) for o in self.ledger.orders(self.book, states=_STANDING)),
                    blocked=blocked,
                    shortable=lambda symbol: self._shortable(session, symbol),
                )
                intents = self.ledger.intend([_intent(order) for order in reviewed.orders])
            self._send(session, [order for order in intents if order.state in _WAITING], blocked or {})
            record = DecisionRecord(
                book=self.book,
                session=session,
                decision_at=decision_at,
                model_version=model_version,
                table_versions=table_versions,
            )
            summary = {**_summary(record, intents), **_told(reviewed)}
            self.ledger.record_decision(record, summary, evidence(record, intents))
        return self.ledger.orders(self.book, decided=session)

    def _shortable(self, session: date, symbol: str) -> bool:
        """By what the broker says now, which is nothing about a session that is over; the embedded exchange lends everything but what the
        limits name.
        """
        over = self.clock.now() >= self.calendar.open_at(self.calendar.next(session))
        if self.broker.capabilities.embedded or self.dry_run or over:
            return True
        asset = self.broker.asset(symbol)
        return asset is not None and asset.shortable

    def _send(self, session: date, waiting: Sequence[Order], blocked: Mapping[str, str]) -> None:
        """Submit orders once, or record why not: to a broker apart from us only those of the session that is the newest now, in time for
        its auction, by a clock that agrees with the broker's. Intents may be of a run that was killed: what the book's state or a
        reconciliation forbids by now is not sent.
        """
        if not waiting:
            return
        unsent = [order for order in waiting if order.state is OrderState.PENDING_NEW]
        if self.dry_run:
            note = f"dry run; {self.broker.capabilities.name} was not asked"
            self.ledger.advance(
                self.book, {o.client_order_id: OrderEvent.SKIP for o in unsent}, notes={o.client_order_id: note for o in unsent}
            )
            return
        with self.ledger.trading(self.book):
            waiting = self.ledger.orders(self.book, decided=session, states=_WAITING)  # as they are now that nobody else trades
            state = state_after(self.ledger.state_changes(self.book))
            stopped = [order for order in waiting if _stopped(order, state, blocked)]
            if stopped:
                why = f"the book is {state}" if state is not TradingState.ACTIVE else "the broker and the ledger differ"
                find_out(stopped, book=self.book, ledger=self.ledger, broker=self.broker, why=f"stopped before it was sent: {why}")
                waiting = [order for order in waiting if order not in stopped]
            if not self.broker.capabilities.embedded and self._too_late(session):
                find_out(waiting, book=self.book, ledger=self.ledger, broker=self.broker)
            else:
                submit(waiting, book=self.book, ledger=self.ledger, broker=self.broker, clock=self.clock)

    def _too_late(self, session: date) -> bool:
        """True from the broker's cut-off on the morning of the next session on; BrokerError if the clocks do not agree."""
        now, theirs = self.clock.now(), self.broker.now()
        if abs(now - theirs) > MOST_SKEW:
            do = "set this machine's clock, or start a stand-in without --now; nothing was sent"
            raise BrokerError(
                expected(f"{theirs:%Y-%m-%d %H:%M:%S} UTC, the broker's clock", found=f"{now:%H:%M:%S}", where="our clock", do=do)
            )
        cutoff = self.broker.capabilities.opening_cutoff
        execution = self.calendar.next(session)
        deadline = self.calendar.open_at(execution) if cutoff is None else datetime.combine(execution, cutoff, self.calendar.zone)
        return now >= deadline

    def _outcomes(self, market: SessionMarket, live: Sequence[Order]) -> Sequence[Execution | Expiry]:
        """What became of the orders; a broker apart from us knows the price it gave, and the market the open it is held against."""
        outcomes = self.broker.outcomes(market.session, live)
        if self.broker.capabilities.embedded:
            return outcomes
        return [_against_the_open(x, market) if isinstance(x, Execution) else x for x in outcomes]

    def _late_entries(self, market: SessionMarket, opening: BookState) -> list[Entry]:
        """What the late actions of ``market`` would have booked on their ex-dates, on what was held then, booked in this session.

        Under the keys of their ex-dates: what was booked in time, or in an earlier session, is not booked again. A name that is neither
        held nor has a bar to value it by waits for one. The book of an ex-date has the splits and names of before it, whenever they were
        learned; what is booked goes on the name of today.
        """
        entries: list[Entry] = []
        for ex_date in sorted({action.ex_date for action in market.late}):
            before = self.calendar.previous(self.calendar.on_or_after(ex_date))
            if before < self.first_session:
                continue
            since = self.ledger.entries(self.book, first=ex_date, through=self.calendar.previous(market.session))
            learned = [e for e in (*since, *entries) if e.kind in _ON_SHARES and e.key < f"{ex_date}"]
            renames = [e for e in since if e.kind is EntryKind.RENAME and e.key >= f"{ex_date}"]
            known = {*opening.after(entries).holdings, *market.closes}
            due = tuple(a for a in market.late if a.ex_date == ex_date and name_after(a.symbol, renames) in known)
            then = self.state(before).after(learned)
            concerned = {a.symbol for a in (*due, *by_new_name(due))} | set(new_names(due).values())
            held = replace(then, holdings={s: h for s, h in then.holdings.items() if s in concerned})
            made = corporate_action_entries(
                self.book,
                held,
                SessionMarket(session=ex_date, actions=due),
                self.rules.convention,
                self.rules.ledger,
                booked_in=market.session,
            )
            booked = {e.key: e for e in since}
            entries += [
                replace(entry, session=market.session, symbol=name_after(entry.symbol or "", renames))
                for entry in _numbered_as(booked, made)
                if entry.key not in booked
            ]
        return entries

    def state(self, session: date) -> BookState:
        """The book at the close of a session: the fold of its entries."""
        return self.ledger.state(self.book, through=session)

    def watermark(self, session: date) -> Watermark:
        """What losses at the close of a session are measured from; the peak starts anew at the session of a resume."""
        resumed = {c.session for c in self.ledger.state_changes(self.book) if c.state is TradingState.ACTIVE and c.session <= session}
        mark, last = Watermark(), date.min
        for value in self.ledger.values(self.book, through=session):
            if any(last < day < value.session for day in resumed):  # of a session in which nothing was booked
                mark = mark.restarted()
            last, mark = value.session, mark.after(float(value.nav), float(value.flows))
            mark = mark.restarted() if last in resumed else mark
        mark = mark if last == session else mark.after(mark.closing)
        return mark.restarted() if any(day > last for day in resumed) else mark

    def _trading_state(self, session: date, watermark: Watermark) -> TradingState:
        """The book's state after what the session's result changes by itself, which is written down, once by key."""
        before = state_after(self.ledger.state_changes(self.book))
        for change in automatic_changes(self.book, session, before, watermark, self.rules.risk):
            self.ledger.change_state(change)
        return state_after(self.ledger.state_changes(self.book))

    def _require_decision(self, session: date, *, before: date) -> DecisionRecord:
        found = self.ledger.decision(self.book, session)
        if found is None:
            what = f"session {session} of book {self.book} to be done before {before}"
            raise SequenceError(
                expected(what, found="no decision", where="the ledger", do=f"run `afterclose backfill --from {session} --to {before}`")
            )
        return found


def _numbered_as(booked: Mapping[str, Entry], made: Sequence[Entry]) -> list[Entry]:
    """``made`` with dividends of one day and name that were ``booked`` under their keys of then: one more that is learned later may come
    before them in the order that numbers them.
    """
    named: dict[int, str] = {}
    taken: set[str] = set()
    dividends = [(place, entry) for place, entry in enumerate(made) if entry.kind is EntryKind.DIVIDEND]
    of = [key.rpartition("|")[0] for key in (entry.key for _, entry in dividends)]
    for (place, entry), name in zip(dividends, of, strict=True):
        amount = entry.amount(Account.DIVIDENDS)
        same = (key for key, e in booked.items() if key.rpartition("|")[0] == name and e.amount(Account.DIVIDENDS) == amount)
        if (key := next((key for key in same if key not in taken), None)) is not None:
            named[place] = key
            taken.add(key)
    for (place, _), name in zip(dividends, of, strict=True):
        if place not in named:
            key = next(key for key in (f"{name}|{number}" for number in count()) if key not in taken)
            named[place] = key
            taken.add(key)
    return [replace(entry, key=named.get(place, entry.key)) for place, entry in enumerate(made)]


def _from_outside(entry: Entry) -> bool:
    """True for flows after the opening one, and for what a reconciliation booked."""
    flow = entry.kind is EntryKind.DEPOSIT and entry.key != OPENING_KEY
    return flow or entry.kind in (EntryKind.ADJUSTMENT, EntryKind.DIVERGENCE)


def _stopped(order: Order, state: TradingState, blocked: Mapping[str, str]) -> bool:
    """True for an order that a review would deny now for the book's state or for what a reconciliation found."""
    if state is TradingState.HALTED or order.symbol in blocked or WHOLE_ACCOUNT in blocked:
        return True
    return state is TradingState.REDUCING and order.leg is Leg.OPEN


def _intent(order: Order) -> Order:
    return order if order.denial else replace(order, state=next_state(order.state, OrderEvent.INTEND, order=order.client_order_id))


def _against_the_open(execution: Execution, market: SessionMarket) -> Execution:
    opened = market.opens.get(execution.order.symbol)
    return execution if opened is None else replace(execution, reference_price=price(opened).quantize(CASH_QUANTUM))


def _endings(outcomes: Sequence[Execution | Expiry]) -> dict[str, OrderEvent]:
    """The event that ends each order still open, FILL if all of its outcomes left nothing; orders that ended in an earlier call are left
    alone.
    """
    events: dict[str, OrderEvent] = {}
    for outcome in outcomes:
        name = outcome.order.client_order_id
        if outcome.order.state.at_broker:
            whole = isinstance(outcome, Execution) and outcome.unfilled == 0 and events.get(name) is not OrderEvent.EXPIRE
            events[name] = OrderEvent.FILL if whole else OrderEvent.EXPIRE
    return events


def _told(reviewed: Decision | None) -> dict[str, object]:
    """What the review cut and saw; nothing of one that was made by a run which was killed before it recorded the decision."""
    if reviewed is None:
        return {}
    cuts = {c.client_order_id: {"limit": c.limit, "proposed": str(c.proposed), "quantity": str(c.quantity)} for c in reviewed.cuts}
    seen = {name: {limit: x if isfinite(x) else str(x) for limit, x in values.items()} for name, values in reviewed.seen.items()}
    return {"cut": cuts, "seen": seen}


def _summary(record: DecisionRecord, orders: Sequence[Order]) -> dict[str, object]:
    return {
        "book": record.book,
        "session": record.session.isoformat(),
        "decision_at": record.decision_at.isoformat(),
        "model_version": record.model_version,
        "table_versions": dict(record.table_versions),
        "submitted": [order.client_order_id for order in orders if order.denial is None],
        "denied": {order.client_order_id: order.denial.limit for order in orders if order.denial},
    }
