"""Rows of raw_bars and corporate_actions for the tests of rules and gate."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from quant.calendar import exchange_calendar
from quant.tables import TABLES

XNYS = exchange_calendar()
RECEIVED = datetime(2013, 3, 4, tzinfo=UTC)
Row = dict[str, Any]


def bar(session: str, symbol: str = "A", **changes: float | None) -> Row:
    """A sound bar with changes. Its open tells its day, 10.0 on 2013-02-28: equal rows of two sessions would be a finding."""
    day = date.fromisoformat(session)
    opened = round(10.0 + (day - date(2013, 2, 28)).days / 1000, 3)
    sound = {"open": opened, "high": 11.0, "low": 9.0, "close": 10.5, "volume": 1000.0, "vwap": 10.2}
    return {"session": day, "symbol": symbol, **sound, **changes}


def raw(*rows: Row) -> pl.DataFrame:
    """raw_bars of these rows; the digest is their number, so that equal rows stay apart."""
    filled = [
        {**row, "source": "test", "known_at": RECEIVED, "received_at": RECEIVED, "known_at_assumed": False, "digest": f"{n:04}"}
        for n, row in enumerate(rows)
    ]
    return pl.DataFrame(filled, schema=TABLES["raw_bars"].schema)


def sound_bars(symbol: str, *, before: str, sessions: int = 6, **changes: float | None) -> list[Row]:
    """Bars of the sessions before a day, the oldest first."""
    days = XNYS.sessions(date(2012, 1, 3), XNYS.previous(date.fromisoformat(before)))[-sessions:]
    return [bar(str(day), symbol, **changes) for day in days]


def times(row: Row, prices: float, volume: float = 1.0) -> Row:
    """``row`` with its prices and its volume multiplied."""
    return {**row, **{name: row[name] * prices for name in ("open", "high", "low", "close", "vwap")}, "volume": row["volume"] * volume}


def actions(*rows: tuple[str, str, str, float] | tuple[str, str, str, float, str]) -> pl.DataFrame:
    """corporate_actions: ex_date, symbol, kind, value, new_symbol of a rename."""
    filled = [
        {
            "ex_date": date.fromisoformat(day),
            "symbol": symbol,
            "kind": kind,
            "value": value,
            "pay_date": None,
            "new_symbol": new_symbol[0] if new_symbol else None,
            "source": "test",
            "known_at": RECEIVED,
            "received_at": RECEIVED,
            "known_at_assumed": False,
            "digest": f"{n:04}",
        }
        for n, (day, symbol, kind, value, *new_symbol) in enumerate(rows)
    ]
    return pl.DataFrame(filled, schema=TABLES["corporate_actions"].schema)
