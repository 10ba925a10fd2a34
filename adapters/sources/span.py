"""The sessions that a source can be asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quant.errors import InputError, expected

if TYPE_CHECKING:
    from datetime import date

    from quant.calendar import ExchangeCalendar


def require_reachable(first: date, last: date, *, has: tuple[date, date], calendar: ExchangeCalendar, where: str, do: str) -> bool:
    """True if first..last shares a session with what the source ``has`` (its first and last one), False if it holds no session at all;
    InputError if it holds sessions and the source has none of them: no rows would read as a day on which nothing traded.
    """
    asked = calendar.sessions(first, last)
    if not asked:
        return False
    begin, end = has
    if asked[-1] < begin or asked[0] > end:
        found = str(asked[0]) if len(asked) == 1 else f"{asked[0]} to {asked[-1]}"
        raise InputError(expected(f"sessions from {begin} to {end}", found=found, where=where, do=do))
    return True
