"""What was known at an instant: the newest version of each row whose known_at is not after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

BAR_KEY = ("session", "symbol", "source")
ACTION_KEY = ("ex_date", "symbol", "kind", "source")


def bars_as_of(raw_bars: pl.DataFrame, instant: datetime) -> pl.DataFrame:
    """Rows of raw_bars, in the order given, that were the newest of their session, symbol and source at ``instant``. Different rows of one
    delivery under one key share their known_at and all stay: which of them is right is the gate's question.
    """
    return newest(raw_bars.filter(pl.col("known_at") <= instant), BAR_KEY)


def actions_as_of(actions: pl.DataFrame, instant: datetime) -> pl.DataFrame:
    """Rows of corporate_actions, in the order given, that were the newest of their ex_date, symbol, kind and source at ``instant``."""
    return newest(actions.filter(pl.col("known_at") <= instant), ACTION_KEY)


def newest(rows: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """``rows``, in the order given, without those that a later known_at of the same ``key`` took the place of."""
    suspect = rows.select(key).hash_rows().is_duplicated()  # few rows are ever revised: only their keys are compared
    repeated = rows.select(*key, "known_at").with_row_index().filter(suspect)
    stale = repeated.filter(pl.col("known_at") < pl.col("known_at").max().over(key))["index"]
    return rows.filter(~pl.int_range(pl.len(), dtype=pl.UInt32).is_in(stale.implode()))
