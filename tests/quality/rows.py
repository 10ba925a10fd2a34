"""Rows of raw_bars for the tests of rules and gate."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from quant.tables import TABLES

RECEIVED = datetime(2013, 3, 4, tzinfo=UTC)
Row = dict[str, Any]


def bar(session: str, symbol: str = "A", **changes: float | None) -> Row:
    """A sound bar with changes."""
    sound = {"open": 10.0, "high": 11.0, "low": 9.0, "close": 10.5, "volume": 1000.0, "vwap": 10.2}
    return {"session": date.fromisoformat(session), "symbol": symbol, **sound, **changes}


def raw(*rows: Row) -> pl.DataFrame:
    """raw_bars of these rows; the digest is their number, so that equal rows stay apart."""
    filled = [
        {**row, "source": "test", "known_at": RECEIVED, "received_at": RECEIVED, "known_at_assumed": False, "digest": f"{n:04}"}
        for n, row in enumerate(rows)
    ]
    return pl.DataFrame(filled, schema=TABLES["raw_bars"].schema)
