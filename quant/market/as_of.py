"""What was known at an instant: the newest version of each row whose known_at is not after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from datetime import datetime


def bars_as_of(raw_bars: pl.DataFrame, instant: datetime) -> pl.DataFrame:
    """Rows of raw_bars, in the order given, that were the newest of their session, symbol and source at ``instant``. Different rows of one
    delivery under one key share their known_at and all stay: which of them is right is the gate's question.
    """
    return _newest(raw_bars, ["session", "symbol", "source"], instant)


def actions_as_of(actions: pl.DataFrame, instant: datetime) -> pl.DataFrame:
    """Rows of corporate_actions, in the order given, that were the newest of their ex_date, symbol, kind and source at ``instant``."""
    return _newest(actions, ["ex_date", "symbol", "kind", "source"], instant)


def _newest(rows: pl.DataFrame, key: list[str], instant: datetime) -> pl.DataFrame:
    known = rows.filter(pl.col("known_at") <= instant)
    suspect = known.select(key).hash_rows().is_duplicated()  # few rows are ever revised: only their keys are compared
    repeated = known.select(*key, "known_at").with_row_index().filter(suspect)
    stale = repeated.filter(pl.col("known_at") < pl.col("known_at").max().over(key))["index"]
    return known.filter(~pl.int_range(pl.len(), dtype=pl.UInt32).is_in(stale.implode()))
