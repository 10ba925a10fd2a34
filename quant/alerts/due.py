"""When a session's tables are due: from the exchange's calendar with early closes and daylight saving, never from the wall clock alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import date, time

    from quant.calendar import ExchangeCalendar


def due_at(session: date, *, calendar: ExchangeCalendar, delay_minutes: int, run_at: time | None, grace_minutes: int) -> datetime:
    """UTC instant by which ``session`` is expected to be there: ``grace_minutes`` after its publish time (the exchange's close + the
    source's delay), or after the daily run begins (``run_at``, the exchange's local time; None: as soon as published) if that is later.
    """
    published = calendar.publish_at(session, delay_minutes)
    begins = published if run_at is None else datetime.combine(session, run_at, calendar.zone).astimezone(UTC)
    return max(published, begins) + timedelta(minutes=grace_minutes)


def due_sessions(
    now: datetime,
    *,
    first: date,
    last: date | None,
    calendar: ExchangeCalendar,
    delay_minutes: int,
    run_at: time | None,
    grace_minutes: int,
) -> dict[date, datetime]:
    """Sessions from ``first`` (to ``last``) that are due at ``now``, with the instant at which they became so, oldest first."""
    today = now.astimezone(calendar.zone).date()
    sessions = calendar.sessions(first, today if last is None else min(last, today))
    due = {
        session: due_at(session, calendar=calendar, delay_minutes=delay_minutes, run_at=run_at, grace_minutes=grace_minutes)
        for session in sessions
    }
    return {session: at for session, at in due.items() if at <= now}


def missed(due: dict[date, datetime], done: Collection[date]) -> dict[date, datetime]:
    """Those of ``due`` that are not done."""
    return {session: at for session, at in due.items() if session not in done}
