"""The return of the adjusted close that a source publishes: what rule 23 holds against our own prices and actions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quant.calendar import ExchangeCalendar


def with_published_returns(rows: pl.DataFrame, calendar: ExchangeCalendar, *, of: Sequence[str] = ()) -> pl.DataFrame:
    """``rows`` (session, symbol, adj_close, ...) by symbol and session with adjusted_return, the adjusted close over that of the exchange's
    session before, in the place of adj_close; null where that is not there, or is of another ``of`` (columns): a published series is seen
    from the day on which it was written, and two of them do not mix.
    """
    places = pl.DataFrame({"session": calendar.days, "place": range(len(calendar.days))}, schema={"session": pl.Date, "place": pl.Int64})
    placed = rows.sort("symbol", "session", maintain_order=True).join(places, on="session", how="left", maintain_order="left")
    same = pl.all_horizontal(pl.col("symbol", *of) == pl.col("symbol", *of).shift(1), pl.col("place") - pl.col("place").shift(1) == 1)
    before, now = pl.col("adj_close").shift(1), pl.col("adj_close")
    return placed.with_columns(adjusted_return=pl.when(same & (before > 0) & (now > 0)).then(now / before)).drop("adj_close", "place")
