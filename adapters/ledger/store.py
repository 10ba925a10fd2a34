"""The Ledger port on SQLAlchemy: every call is one transaction."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from adapters.ledger.audit import read_audit, record_audit, walk_entries
from adapters.ledger.entries import post_entries, read_entries, stream_entries
from adapters.ledger.held_against import unlike_the_log
from adapters.ledger.lock import hold_book
from adapters.ledger.migrate import bring_to_head
from adapters.ledger.orders import advance_orders, intend_orders, of_book, read_orders, read_steps
from adapters.ledger.records import (
    begin_once,
    bind_once,
    change_state_once,
    crown_champion,
    decide_once,
    read_champion,
    read_decision,
    read_start,
    read_states,
)
from adapters.ledger.schema import entries as entries_table
from adapters.ledger.schema import orders as orders_table
from adapters.ledger.sqlite import sqlite_engine, transact, writing
from adapters.ledger.states import STORED_EVERY, Folded, fold, store
from quant.ledger.lots import OF_LOTS, LotBook

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import date, datetime

    from sqlalchemy import Engine

    from quant.audit.chain import ChainEntry
    from quant.ledger.book import BookState, SessionValue
    from quant.ledger.entries import Entry
    from quant.ports import Clock, DecisionRecord, Ledger, OrderStep, SessionStart
    from quant.risk.state import StateChange
    from quant.trading.orders import Order, OrderEvent

T = TypeVar("T")
_NOTHING: Mapping[str, Mapping[str, object]] = MappingProxyType({})


KEPT = 4  # a session asks for the book at its own close and at the one before


def open_ledger(url: str, clock: Clock) -> Ledger:
    """The ledger at ``sqlite:///path`` (made, or migrated to the newest schema, if need be). ``clock`` dates its rows.

    InputError for a URL that is not SQLite's, LedgerError for a database that cannot be read, written or understood.
    """
    engine = sqlite_engine(url)
    bring_to_head(engine)
    return SqlLedger(engine, clock)


class SqlLedger:
    """See quant.ports.Ledger. Safe to share between threads and, through the file, between processes."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._reader = engine
        self._writer = writing(engine)
        self._clock = clock
        self._folded: dict[str, tuple[Folded, ...]] = {}  # the last few states of each book

    def entries(self, book: str, *, first: date | None = None, through: date | None = None) -> Sequence[Entry]:
        column = entries_table.c
        where = [column.book == book]
        where += [] if first is None else [column.session >= first]
        where += [] if through is None else [column.session <= through]
        return transact(self._reader, lambda connection: read_entries(connection, *where))

    def state(self, book: str, *, through: date) -> BookState:
        return self._fold(book, through).state

    def values(self, book: str, *, through: date) -> Sequence[SessionValue]:
        return self._fold(book, through).values

    def _fold(self, book: str, through: date) -> Folded:
        known, now = self._folded.get(book, ()), self._clock.now()
        found = transact(self._reader, lambda connection: fold(connection, book, through, known))
        if found.unstored >= STORED_EVERY:
            transact(self._writer, lambda connection: store(connection, book, found, now))
            found = replace(found, unstored=0)
        self._folded[book] = (found, *(f for f in known if f.session != through))[:KEPT]
        return found

    def lots(self, book: str, *, through: date) -> LotBook:
        column = entries_table.c
        where = (column.book == book, column.session <= through, column.kind.in_([kind.value for kind in OF_LOTS]))
        return transact(self._reader, lambda connection: LotBook().after(stream_entries(connection, *where)))

    def post(self, entries: Iterable[Entry]) -> int:
        wanted, now = list(entries), self._clock.now()
        return transact(self._writer, lambda connection: post_entries(connection, wanted, now))

    def intend(self, orders: Iterable[Order]) -> Sequence[Order]:
        wanted, now = list(orders), self._clock.now()
        return transact(self._writer, lambda connection: intend_orders(connection, wanted, now))

    def orders(self, book: str, *, decided: date | None = None, states: Collection[str] | None = None) -> Sequence[Order]:
        where = of_book(book, states) + ([] if decided is None else [orders_table.c.session == decided])
        return transact(self._reader, lambda connection: read_orders(connection, *where))

    def advance(self, book: str, events: Mapping[str, OrderEvent], *, notes: Mapping[str, str] | None = None) -> None:
        if events:
            now = self._clock.now()
            transact(self._writer, lambda connection: advance_orders(connection, book, events, notes or {}, now))

    def order_history(self, client_order_id: str) -> Sequence[OrderStep]:
        return transact(self._reader, lambda connection: read_steps(connection, client_order_id))

    def trading(self, book: str) -> AbstractContextManager[None]:
        return hold_book(self._reader.url.database, book)

    def begin(self, start: SessionStart) -> SessionStart:
        now = self._clock.now()
        return transact(self._writer, lambda connection: begin_once(connection, start, now))

    def begun(self, book: str, *, through: date | None = None) -> SessionStart | None:
        return transact(self._reader, lambda connection: read_start(connection, book, through))

    def bind_account(self, book: str, account_id: str) -> None:
        now = self._clock.now()
        transact(self._writer, lambda connection: bind_once(connection, book, account_id, now))

    def record_decision(
        self, decision: DecisionRecord, summary: Mapping[str, object], evidence: Mapping[str, Mapping[str, object]] = _NOTHING
    ) -> DecisionRecord:
        now = self._clock.now()
        return transact(self._writer, lambda connection: decide_once(connection, decision, summary, evidence, now))

    def decision(self, book: str, session: date) -> DecisionRecord | None:
        return transact(self._reader, lambda connection: read_decision(connection, book, session))

    def change_state(self, change: StateChange) -> bool:
        now = self._clock.now()
        return transact(self._writer, lambda connection: change_state_once(connection, change, now))

    def state_changes(self, book: str) -> Sequence[StateChange]:
        return transact(self._reader, lambda connection: read_states(connection, book))

    def crown(self, strategy: str, effective_session: date, version: str, evidence: Mapping[str, object] = _NOTHING) -> None:
        now = self._clock.now()
        transact(self._writer, lambda connection: crown_champion(connection, strategy, effective_session, version, evidence, now))

    def champion(self, strategy: str, session: date) -> tuple[date, str] | None:
        return transact(self._reader, lambda connection: read_champion(connection, strategy, session))

    def record(self, kind: str, payload: Mapping[str, object], *, key: str | None = None) -> bool:
        now = self._clock.now()
        return transact(self._writer, lambda connection: record_audit(connection, kind, payload, now, key=key))

    def audit(self, kind: str | None = None, *, containing: str | None = None) -> Sequence[tuple[int, datetime, str, Mapping[str, object]]]:
        return transact(self._reader, lambda connection: read_audit(connection, kind, containing))

    def unlike_the_log(self) -> Sequence[str]:
        return transact(self._reader, unlike_the_log)

    def walk_audit(self, work: Callable[[Iterator[ChainEntry]], T], *, after: int = 0) -> T:
        return transact(self._reader, lambda connection: work(walk_entries(connection, after)))
