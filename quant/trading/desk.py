"""The paper book's day against its ledger: settle what executed, decide for tomorrow. Every call can be killed and made again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING

from quant.errors import SequenceError, expected
from quant.ledger.book import BookState
from quant.ledger.entries import EntryKind
from quant.ports import Broker, DecisionRecord, Ledger
from quant.risk.state import TradingState, Watermark, automatic_changes, state_after
from quant.trading.decision import decide
from quant.trading.market import SessionMarket
from quant.trading.orders import Execution, Expiry, Order, OrderEvent, OrderState, next_state
from quant.trading.settlement import Settlement, corporate_action_entries, settle, unforeseen_splits
from quant.units import ZERO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

    from quant.calendar import ExchangeCalendar
    from quant.ledger.entries import Entry
    from quant.risk.review import Cut
    from quant.trading.replay import BookRules

_OPEN = (OrderState.ACCEPTED, OrderState.PARTIALLY_FILLED)
_NEVER_SENT = (OrderState.PROPOSED, OrderState.PENDING_NEW, OrderState.DENIED, OrderState.REJECTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """One book and what it trades with. ``first_session`` is the session at whose close the book starts with ``deposit`` in cash."""

    book: str
    first_session: date
    deposit: Decimal
    rules: BookRules
    calendar: ExchangeCalendar
    ledger: Ledger
    broker: Broker

    def trades(self, session: date) -> bool:
        """False before the book's first session."""
        return session >= self.first_session

    def settlement(self, market: SessionMarket) -> Settlement:
        """The settlement of a session, computed from the ledger up to the session before; nothing is stored.

        SequenceError if the session before has not been decided.
        """
        session, first = market.session, market.session == self.first_session
        previous = self.calendar.previous(session)
        decision = None if first else self._require_decision(previous, before=session)
        sent = [o for o in self.ledger.orders(self.book, decided=previous) if o.state not in _NEVER_SENT]
        opening = self.state(previous)
        late = unforeseen_splits(sent, market, decision.decision_at if decision else None)
        ended = {expiry.order.client_order_id for expiry in late}
        live = [order for order in sent if order.client_order_id not in ended]
        return settle(
            book=self.book,
            opening=opening,
            late=self._late_entries(market, opening),
            outcomes=[*self.broker.outcomes(session, live), *late],
            market=market,
            convention=self.rules.convention,
            costs=self.rules.costs,
            deposit=self.deposit if first else ZERO,
        )

    def settle(self, market: SessionMarket) -> Settlement:
        """Book a session: post its entries, end its orders. A second call posts and ends nothing."""
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
    ) -> Sequence[Order]:
        """Settle, then review and submit the orders for the next session, once: a session that was decided keeps its orders.

        Intents are written before anything is sent and the decision after everything was: a run that was killed between finds
        the frozen intents and sends those that nobody acknowledged, under the same ids. It adds none: two half decisions are no decision.
        """
        session = market.session
        if self.ledger.decision(self.book, session) is None:
            closing = self.settle(market).closing
            intents = self.ledger.orders(self.book, decided=session)
            watermark = self.watermark(session)
            trading, cuts = self._trading_state(session, watermark), ()
            if not intents:
                decision = decide(
                    book=self.book,
                    state=closing,
                    market=market,
                    targets=targets,
                    risk=self.rules.risk,
                    watermark=watermark,
                    trading=trading,
                    live=Counter((o.symbol, o.side) for o in self.ledger.orders(self.book, states=[*_OPEN, OrderState.PENDING_NEW])),
                )
                intents, cuts = self.ledger.intend([_intent(order) for order in decision.orders]), decision.cuts
            waiting = [order for order in intents if order.state is OrderState.PENDING_NEW]
            self.ledger.advance(self.book, {order.client_order_id: self.broker.submit(order) for order in waiting})
            record = DecisionRecord(
                book=self.book,
                session=session,
                decision_at=decision_at,
                model_version=model_version,
                table_versions=table_versions,
            )
            self.ledger.record_decision(record, {**_summary(record, intents), "cut": _told(cuts)})
        return self.ledger.orders(self.book, decided=session)

    def _late_entries(self, market: SessionMarket, opening: BookState) -> list[Entry]:
        """What the late actions of ``market`` would have booked on their ex-dates, on what was held then, booked in this session.

        Under the keys of their ex-dates: what was booked in time, or in an earlier session, is not booked again. A name that is neither
        held nor has a bar to value it by waits for one.
        """
        entries: list[Entry] = []
        for ex_date in sorted({action.ex_date for action in market.late}):
            before = self.calendar.previous(self.calendar.on_or_after(ex_date))
            if before < self.first_session:
                continue
            due = tuple(a for a in market.late if a.ex_date == ex_date and (a.symbol in opening.holdings or a.symbol in market.closes))
            then = self.state(before)
            held = replace(then, holdings={s: h for s, h in then.holdings.items() if s in {a.symbol for a in due}})
            made = corporate_action_entries(self.book, held, SessionMarket(session=ex_date, actions=due), self.rules.convention)
            booked = {e.key for e in self.ledger.entries(self.book, first=ex_date, through=self.calendar.previous(market.session))}
            entries += [replace(entry, session=market.session) for entry in made if entry.key not in booked]
        return entries

    def state(self, session: date) -> BookState:
        """The book at the close of a session: the fold of its entries."""
        return BookState().after(self.ledger.entries(self.book, through=session))

    def watermark(self, session: date) -> Watermark:
        """What losses at the close of a session are measured from; the peak starts anew at the session of a resume."""
        resumed = {c.session for c in self.ledger.state_changes(self.book) if c.state is TradingState.ACTIVE}
        mark, state, last = Watermark(), BookState(), None
        for last, part in groupby(self.ledger.entries(self.book, through=session), key=lambda entry: entry.session):
            entries = list(part)
            state = state.after(entries)
            flows = sum((e.cash for e in entries if e.kind is EntryKind.DEPOSIT), ZERO)
            mark = mark.after(float(state.nav), float(flows))
            mark = mark.restarted() if last in resumed else mark
        return mark if last == session else mark.after(mark.closing)

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


def _intent(order: Order) -> Order:
    return order if order.denial else replace(order, state=next_state(order.state, OrderEvent.INTEND, order=order.client_order_id))


def _endings(outcomes: Sequence[Execution | Expiry]) -> dict[str, OrderEvent]:
    """The event that ends each order still open; orders that ended in an earlier call are left alone."""
    events: dict[str, OrderEvent] = {}
    for outcome in outcomes:
        if outcome.order.state in _OPEN:
            whole = isinstance(outcome, Execution) and outcome.unfilled == 0
            events[outcome.order.client_order_id] = OrderEvent.FILL if whole else OrderEvent.EXPIRE
    return events


def _told(cuts: Sequence[Cut]) -> dict[str, object]:
    return {c.client_order_id: {"limit": c.limit, "proposed": str(c.proposed), "quantity": str(c.quantity)} for c in cuts}


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
