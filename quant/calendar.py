"""Exchange sessions: which days trade, when they open, close and are published.

The XNYS calendar is frozen in ``xnys.json`` (weekday closures and early closes; made by ``make calendar`` from
exchange_calendars, and held to it by a test), because importing a calendar library costs a second in every process and its
default range moves with the wall clock.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from quant.errors import InputError, expected

if TYPE_CHECKING:
    from collections.abc import Mapping

_OPEN, _CLOSE = time(9, 30), time(16, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeCalendar:
    """Sessions of one exchange between two dates. Asking outside that range is an InputError, never a guess."""

    name: str
    zone: ZoneInfo
    days: tuple[date, ...]
    holidays: tuple[date, ...]
    early_closes: Mapping[date, time]

    def is_session(self, day: date) -> bool:
        """True if the exchange trades on ``day``."""
        at = bisect_left(self.days, day)
        return at < len(self.days) and self.days[at] == day

    def sessions(self, first: date, last: date) -> list[date]:
        """Sessions from ``first`` to ``last``, both included."""
        return list(self.days[bisect_left(self.days, first) : bisect_right(self.days, last)])

    def require(self, day: date, *, where: str) -> date:
        """``day`` if it is a session; else an InputError that names its neighbours."""
        if self.is_session(day):
            return day
        at = bisect_left(self.days, day)
        near = " or ".join(str(d) for d in self.days[max(at - 1, 0) : at + 1])
        raise InputError(expected(f"a session of {self.name}", found=f"{day} ({day:%A})", where=where, do=f"use {near}"))

    def shift(self, session: date, by: int) -> date:
        """The session ``by`` sessions later (earlier if negative)."""
        at = bisect_left(self.days, self.require(session, where="a session")) + by
        if not 0 <= at < len(self.days):
            span = f"{self.days[0]} to {self.days[-1]}"
            raise InputError(expected(f"a session within {span}", found=f"{session} {by:+d}", where=self.name, do="run `make calendar`"))
        return self.days[at]

    def next(self, session: date) -> date:
        """The session after ``session``."""
        return self.shift(session, 1)

    def previous(self, session: date) -> date:
        """The session before ``session``."""
        return self.shift(session, -1)

    def on_or_after(self, day: date) -> date:
        """The first session not before ``day``."""
        return self.days[bisect_left(self.days, self._covered(day))]

    def on_or_before(self, day: date) -> date:
        """The last session not after ``day``."""
        return self.days[bisect_right(self.days, self._covered(day)) - 1]

    def _covered(self, day: date) -> date:
        if not self.days[0] <= day <= self.days[-1]:
            span = f"a date from {self.days[0]} to {self.days[-1]}"
            raise InputError(expected(span, found=day, where=f"calendar {self.name}", do="run `make calendar` with another range"))
        return day

    def open_at(self, session: date) -> datetime:
        """UTC instant of the opening auction."""
        return datetime.combine(session, _OPEN, self.zone).astimezone(UTC)

    def close_at(self, session: date) -> datetime:
        """UTC instant of the close, early closes included."""
        return datetime.combine(session, self.early_closes.get(session, _CLOSE), self.zone).astimezone(UTC)

    def publish_at(self, session: date, delay_minutes: int) -> datetime:
        """UTC instant at which a source with this delay is expected to have the session's bars."""
        return self.close_at(session) + timedelta(minutes=delay_minutes)

    def last_closed(self, now: datetime) -> date:
        """The last session whose UTC day is over: the newest one that has a partition."""
        return self.on_or_before(now.astimezone(UTC).date() - timedelta(days=1))


@cache
def exchange_calendar(name: str = "XNYS") -> ExchangeCalendar:
    """The frozen calendar of an exchange; only XNYS is frozen."""
    if name != "XNYS":
        raise InputError(expected("calendar XNYS", found=name, where="[calendar] exchange", do="use XNYS"))
    frozen = json.loads((files("quant") / "xnys.json").read_text())
    first, last = date.fromisoformat(frozen["first"]), date.fromisoformat(frozen["last"])
    holidays = tuple(date.fromisoformat(day) for day in frozen["holidays"])
    closed = set(holidays)
    weekdays = (first + timedelta(days=n) for n in range((last - first).days + 1))
    return ExchangeCalendar(
        name=name,
        zone=ZoneInfo(frozen["zone"]),
        days=tuple(day for day in weekdays if day.weekday() < 5 and day not in closed),
        holidays=holidays,
        early_closes={date.fromisoformat(day): time.fromisoformat(at) for day, at in frozen["early_closes"].items()},
    )
