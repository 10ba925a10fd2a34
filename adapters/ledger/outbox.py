"""The Outbox port in the ledger's database: observations and deliveries to rows and back."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select

from adapters.ledger.migrate import bring_to_head
from adapters.ledger.schema import alert_changes, alert_deliveries, alert_notices, alert_runs
from adapters.ledger.sqlite import sqlite_engine, transact, writing
from quant.alerts.alert import Alert, AlertChange, AlertKind, AlertSeverity, AlertState, Notice, changes
from quant.alerts.attempts import MOST_ATTEMPTS
from quant.ports import ChannelHealth, Delivery, DeliveryOutcome

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Engine, Row

    from quant.alerts.alert import Observation
    from quant.ports import Clock, Outbox

IDS_A_QUERY = 10_000  # SQLite takes 32,766 parameters
_SETTLED = (DeliveryOutcome.SENT.value, DeliveryOutcome.REFUSED.value)


def open_outbox(url: str, clock: Clock, channels: Sequence[str]) -> Outbox:
    """The outbox at ``sqlite:///path`` (made, or migrated to the newest schema, if need be); new notices are for ``channels``."""
    engine = sqlite_engine(url)
    bring_to_head(engine)
    return SqlOutbox(engine, clock, channels)


class SqlOutbox:
    """See quant.ports.Outbox. Safe to share between threads and, through the file, between processes."""

    def __init__(self, engine: Engine, clock: Clock, channels: Sequence[str]) -> None:
        self._reader = engine
        self._writer = writing(engine)
        self._clock = clock
        self._channels = list(channels)

    def observe(self, observed: Sequence[Observation], *, run: tuple[str, datetime] | None = None) -> Notice | None:
        now = self._clock.now()
        return transact(self._writer, lambda connection: _observe(connection, observed, run, now, self._channels))

    def report(self, alert: Alert) -> Notice | None:
        now = self._clock.now()
        return transact(self._writer, lambda connection: _report(connection, alert, now, self._channels))

    def unseen(self, runs: Collection[str]) -> set[str]:
        return transact(self._reader, lambda connection: set(runs) - _seen(connection, list(runs)))

    def last_run(self) -> datetime | None:
        return transact(self._reader, lambda connection: connection.scalar(select(func.max(alert_runs.c.ended_at))))

    def standing(self) -> Sequence[tuple[datetime, AlertChange]]:
        return transact(self._reader, _standing)

    def pending(self, channel: str) -> Sequence[Notice]:
        return transact(self._reader, lambda connection: _pending(connection, channel))

    def took(self, channel: str, notices: Collection[str]) -> set[str]:
        column = alert_deliveries.c
        query = select(column.notice).where(column.channel == channel, column.outcome.in_(_SETTLED), column.notice.in_(list(notices)))
        return transact(self._reader, lambda connection: set(connection.scalars(query)))

    def record_delivery(self, notice: str, channel: str, outcome: DeliveryOutcome, detail: str) -> None:
        row = {"recorded_at": self._clock.now(), "notice": notice, "channel": channel, "outcome": outcome.value, "detail": detail}
        transact(self._writer, lambda connection: connection.execute(insert(alert_deliveries), row))

    def health(self, channel: str) -> ChannelHealth:
        return transact(self._reader, lambda connection: _health(connection, channel))

    def recent(self, most: int) -> Sequence[tuple[Notice, Sequence[Delivery]]]:
        return transact(self._reader, lambda connection: _recent(connection, most))


def _observe(
    connection: Connection, observed: Sequence[Observation], run: tuple[str, datetime] | None, now: datetime, channels: list[str]
) -> Notice | None:
    if run is not None:
        if _seen(connection, [run[0]]):
            return None
        connection.execute(insert(alert_runs), {"run": run[0], "ended_at": run[1]})
    found = changes(observed, [change for _, change in _standing(connection)])
    if not found:
        return None
    return _write(connection, Notice(id=uuid.uuid4().hex, at=now, changes=tuple(found)), channels)


def _report(connection: Connection, alert: Alert, now: datetime, channels: list[str]) -> Notice | None:
    told = select(func.count()).where(alert_changes.c.key == alert.key, alert_changes.c.state == AlertState.TOLD.value)
    if connection.scalar(told):
        return None
    change = AlertChange(state=AlertState.TOLD, scope=alert.key, alert=alert)
    return _write(connection, Notice(id=uuid.uuid4().hex, at=now, changes=(change,)), channels)


def _write(connection: Connection, notice: Notice, channels: list[str]) -> Notice:
    connection.execute(insert(alert_notices), {"recorded_at": notice.at, "notice": notice.id, "channels": channels})
    rows = [
        {
            "notice": notice.id,
            "state": change.state.value,
            "scope": change.scope,
            "key": change.alert.key,
            "alert": asdict(change.alert),
        }
        for change in notice.changes
    ]
    connection.execute(insert(alert_changes), rows)
    return notice


def _seen(connection: Connection, runs: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(runs), IDS_A_QUERY):
        some = select(alert_runs.c.run).where(alert_runs.c.run.in_(runs[start : start + IDS_A_QUERY]))
        found.update(connection.scalars(some))
    return found


def _standing(connection: Connection) -> list[tuple[datetime, AlertChange]]:
    newest = select(func.max(alert_changes.c.sequence)).group_by(alert_changes.c.key)
    query = (
        select(alert_notices.c.recorded_at, alert_changes)
        .join(alert_notices, alert_notices.c.notice == alert_changes.c.notice)
        .where(alert_changes.c.sequence.in_(newest), alert_changes.c.state == AlertState.OPENED.value)
        .order_by(alert_changes.c.sequence)
    )
    return [(row.recorded_at, _change(row)) for row in connection.execute(query)]


def _pending(connection: Connection, channel: str) -> list[Notice]:
    column = alert_deliveries.c
    of_channel = select(column.notice).where(column.channel == channel).group_by(column.notice)
    over = of_channel.having((func.max(column.outcome.in_(_SETTLED)) == 1) | (func.count() >= MOST_ATTEMPTS))
    query = select(alert_notices).where(alert_notices.c.notice.not_in(over)).order_by(alert_notices.c.sequence)
    wanted = [row for row in connection.execute(query) if channel in row.channels]
    return [_notice(connection, row) for row in wanted]


def _health(connection: Connection, channel: str) -> ChannelHealth:
    column = alert_deliveries.c
    of_channel = column.channel == channel
    well = select(func.coalesce(func.max(column.sequence), 0)).where(of_channel, column.outcome != DeliveryOutcome.FAILED.value)
    failed = select(column.recorded_at, column.detail).where(of_channel, column.sequence > well.scalar_subquery())
    rows = connection.execute(failed.order_by(column.sequence)).all()
    last = rows[-1] if rows else None
    return ChannelHealth(failures=len(rows), last_failure=last.recorded_at if last else None, detail=last.detail if last else "")


def _recent(connection: Connection, most: int) -> list[tuple[Notice, list[Delivery]]]:
    notices = connection.execute(select(alert_notices).order_by(alert_notices.c.sequence.desc()).limit(most)).all()
    return [(_notice(connection, row), _deliveries(connection, row.notice)) for row in notices]


def _deliveries(connection: Connection, notice: str) -> list[Delivery]:
    query = select(alert_deliveries).where(alert_deliveries.c.notice == notice).order_by(alert_deliveries.c.sequence)
    return [
        Delivery(
            recorded_at=row.recorded_at,
            notice=row.notice,
            channel=row.channel,
            outcome=DeliveryOutcome(row.outcome),
            detail=row.detail,
        )
        for row in connection.execute(query)
    ]


def _notice(connection: Connection, row: Row[tuple[object, ...]]) -> Notice:
    query = select(alert_changes).where(alert_changes.c.notice == row.notice).order_by(alert_changes.c.sequence)
    return Notice(id=row.notice, at=row.recorded_at, changes=tuple(_change(change) for change in connection.execute(query)))


def _change(row: Row[tuple[object, ...]]) -> AlertChange:
    stored = dict(row.alert)
    session = stored.pop("session")
    kind, severity = AlertKind(stored.pop("kind")), AlertSeverity(stored.pop("severity"))
    alert = Alert(kind=kind, severity=severity, session=session and date.fromisoformat(session), **stored)
    return AlertChange(state=AlertState(row.state), scope=row.scope, alert=alert)
