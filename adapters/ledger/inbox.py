"""The Inbox port on SQLAlchemy: what brokers reported, each event once, whichever channel brought it first."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from sqlalchemy import insert, select

from adapters.ledger.migrate import bring_to_head
from adapters.ledger.schema import broker_events
from adapters.ledger.sqlite import sqlite_engine, transact, writing
from quant.trading.inbox import BrokerEvent, Channel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Engine

    from quant.ports import Clock, Inbox

_IDS_A_QUERY = 10_000  # SQLite takes 32,766 parameters


def open_inbox(url: str, clock: Clock) -> Inbox:
    """The inbox at ``sqlite:///path`` (made, or migrated to the newest schema, if need be)."""
    engine = sqlite_engine(url)
    bring_to_head(engine)
    return SqlInbox(engine, clock)


class SqlInbox:
    """See quant.ports.Inbox. Safe to share between threads and, through the file, between processes."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._reader = engine
        self._writer = writing(engine)
        self._clock = clock

    def receive(self, events: Sequence[BrokerEvent]) -> int:
        now = self._clock.now()
        return transact(self._writer, lambda connection: _receive(connection, events, now)) if events else 0

    def events(self, account: str, since: datetime) -> Sequence[BrokerEvent]:
        return transact(self._reader, lambda connection: _read(connection, account, since))


def _receive(connection: Connection, events: Sequence[BrokerEvent], now: datetime) -> int:
    wanted: dict[tuple[str, str], BrokerEvent] = {}
    for event in events:
        wanted.setdefault((event.account, event.event_id), event)
    for account in {event.account for event in events}:
        ids = [event_id for of, event_id in wanted if of == account]
        column = broker_events.c
        for some in _parts(ids):
            there = connection.scalars(select(column.event_id).where(column.account == account, column.event_id.in_(some)))
            for event_id in there.all():
                del wanted[account, event_id]
    if wanted:
        connection.execute(insert(broker_events), [{"recorded_at": now, **asdict(event)} for event in wanted.values()])
    return len(wanted)


def _read(connection: Connection, account: str, since: datetime) -> list[BrokerEvent]:
    column = broker_events.c
    wanted = select(broker_events).where(column.account == account, column.at >= since).order_by(column.sequence)
    rows = connection.execute(wanted).mappings()
    skipped = {"sequence", "recorded_at", "channel"}
    return [BrokerEvent(channel=Channel(row["channel"]), **{name: row[name] for name in row if name not in skipped}) for row in rows]


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _IDS_A_QUERY):
        yield ids[start : start + _IDS_A_QUERY]
