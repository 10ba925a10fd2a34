"""From adjusted bars to the panel that factors are computed over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from quant.factors.expression import FIELDS

if TYPE_CHECKING:
    from quant.calendar import ExchangeCalendar

MAX_GAP = 60
"""Sessions without a row after which a symbol that comes back starts afresh, as if newly listed. Qlib keeps such a gap as missing rows
for ever; with a bound, what a factor sees of the past is known from a bounded number of earlier sessions, so that one day's
computation gives the bits of the whole history's."""


def panel_of(adjusted: pl.DataFrame, calendar: ExchangeCalendar) -> pl.DataFrame:
    """One row per session and symbol from a symbol's first to its last row, null where it has none, sorted by symbol and session.

    ``adjusted`` has rows of table adjusted_bars, in any order. Prices become the total-return series price x total_index, volume becomes
    volume / split_index; both indices start at the symbol's first stored row, so the level is arbitrary and the ratios are not.
    ``listing`` counts a symbol's restarts: after more than MAX_GAP missing sessions, which get no rows, it is one higher.
    Columns: session, symbol, listing, open, high, low, close, volume, vwap. Raises InputError for a date that is no session.
    """
    sessions = pl.DataFrame({"session": calendar.days}, schema={"session": pl.Date}).with_row_index("at")
    bars = adjusted.join(sessions, on="session", how="left", validate="m:1").sort("symbol", "session")
    for strange in bars.filter(pl.col("at").is_null())["session"].head(1):
        calendar.require(strange, where="adjusted_bars")
    gap = pl.col("at").cast(pl.Int64).diff().over("symbol") - 1
    bars = bars.select(
        "symbol",
        "at",
        (gap > MAX_GAP).fill_null(value=False).cum_sum().over("symbol").alias("listing"),
        *(pl.col(price) * pl.col("total_index") for price in ("open", "high", "low", "close", "vwap")),
        pl.col("volume") / pl.col("split_index"),
    )
    run = pl.int_range(pl.min("at"), pl.max("at") + 1, dtype=pl.UInt32)
    every = bars.group_by("symbol", "listing", maintain_order=True).agg(run.alias("at")).explode("at")
    dated = every.join(sessions, on="at", how="left", maintain_order="left")
    filled = dated.join(bars, on=["symbol", "listing", "at"], how="left", maintain_order="left")
    return filled.select("session", "symbol", "listing", *FIELDS)
