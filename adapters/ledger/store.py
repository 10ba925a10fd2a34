"""The Ledger port on SQLAlchemy: every call is one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.ledger.entries import post_entries, read_entries
from adapters.ledger.migrate import bring_to_head
from adapters.ledger.orders import advance_orders, intend_orders, of_book, read_orders
from adapters.ledger.records import (
    begin_once,
    change_state_once,
    crown_champion,
    decide_once,
    read_audit,
    read_champion,
    read_decision,
    read_start,
    read_states,
    record_audit,
)
from adapters.ledger.schema import entries as entries_table
from adapters.ledger.schema import orders as orders_table
from adapters.ledger.sqlite import sqlite_engine, transact, writing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import date, datetime

    from sqlalchemy import Engine

    from quant.ledger.entries import Entry
    from quant.ports import Clock, DecisionRecord, Ledger, SessionStart
    from quant.risk.state import StateChange
    from quant.trading.orders import Order, OrderEvent


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

    def entries(self, book: str, *, first: date | None = None, through: date | None = None) -> Sequence[Entry]:
        column = entries_table.c
        where = [column.book == book]
        where += [] if first is None else [column.session >= first]
        where += [] if through is None else [column.session <= through]
        return transact(self._reader, lambda connection: read_entries(connection, *where))

    def post(self, entries: Iterable[Entry]) -> int:
        wanted, now = list(entries), self._clock.now()
        return transact(self._writer, lambda connection: post_entries(connection, wanted, now))

    def intend(self, orders: Iterable[Order]) -> Sequence[Order]:
        wanted, now = list(orders), self._clock.now()
        return transact(self._writer, lambda connection: intend_orders(connection, wanted, now))

    def orders(self, book: str, *, decided: date | None = None, states: Collection[str] | None = None) -> Sequence[Order]:
        where = of_book(book, states) + ([] if decided is None else [orders_table.c.session == decided])
        return transact(self._reader, lambda connection: read_orders(connection, *where))

    def advance(self, book: str, events: Mapping[str, OrderEvent]) -> None:
        now = self._clock.now()
        transact(self._writer, lambda connection: advance_orders(connection, book, events, now))

    def begin(self, start: SessionStart) -> SessionStart:
        return transact(self._writer, lambda connection: begin_once(connection, start))

    def begun(self, book: str, *, through: date | None = None) -> SessionStart | None:
        return transact(self._reader, lambda connection: read_start(connection, book, through))

    def record_decision(self, decision: DecisionRecord, summary: Mapping[str, object]) -> DecisionRecord:
        now = self._clock.now()
        return transact(self._writer, lambda connection: decide_once(connection, decision, summary, now))

    def decision(self, book: str, session: date) -> DecisionRecord | None:
        return transact(self._reader, lambda connection: read_decision(connection, book, session))

    def change_state(self, change: StateChange) -> bool:
        now = self._clock.now()
        return transact(self._writer, lambda connection: change_state_once(connection, change, now))

    def state_changes(self, book: str) -> Sequence[StateChange]:
        return transact(self._reader, lambda connection: read_states(connection, book))

    def crown(self, strategy: str, effective_session: date, version: str) -> None:
        now = self._clock.now()
        transact(self._writer, lambda connection: crown_champion(connection, strategy, effective_session, version, now))

    def champion(self, strategy: str, session: date) -> tuple[date, str] | None:
        return transact(self._reader, lambda connection: read_champion(connection, strategy, session))

    def record(self, kind: str, payload: Mapping[str, object]) -> None:
        now = self._clock.now()
        transact(self._writer, lambda connection: record_audit(connection, kind, payload, now))

    def audit(self, kind: str | None = None) -> Sequence[tuple[int, datetime, str, Mapping[str, object]]]:
        return transact(self._reader, lambda connection: read_audit(connection, kind))
