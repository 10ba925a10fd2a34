"""Freeze the XNYS calendar of exchange_calendars into quant/xnys.json (``make calendar``)."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

FIRST, LAST = date(1990, 1, 1), date(2035, 12, 31)


def frozen_xnys() -> dict[str, object]:
    """Weekday closures and early closes of XNYS from FIRST to LAST."""
    import exchange_calendars  # pyright: ignore[reportMissingTypeStubs]

    calendar = exchange_calendars.get_calendar("XNYS", start=FIRST.isoformat(), end=LAST.isoformat())
    sessions: list[date] = [day.date() for day in calendar.sessions.to_pydatetime()]
    early: list[date] = [day.date() for day in calendar.early_closes.to_pydatetime()]
    traded = set(sessions)
    days = (FIRST + timedelta(days=n) for n in range((LAST - FIRST).days + 1))
    zone = ZoneInfo(str(calendar.tz))
    return {
        "zone": zone.key,
        "first": FIRST.isoformat(),
        "last": LAST.isoformat(),
        "holidays": [str(day) for day in days if day.weekday() < 5 and day not in traded],
        "early_closes": {str(day): calendar.session_close(str(day)).astimezone(zone).strftime("%H:%M") for day in early},
    }


if __name__ == "__main__":
    target = Path(__file__).parent.parent / "quant" / "xnys.json"
    target.write_text(json.dumps(frozen_xnys(), indent=1) + "\n")
