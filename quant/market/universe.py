"""Who could be traded in a session, by what was known then: listed, with an accepted bar, not too cheap and not too thin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from datetime import date

    from quant.calendar import ExchangeCalendar


class UniverseSettings(BaseModel, frozen=True, extra="forbid"):
    """Who is scored in a session. At zero and zero everybody who has an accepted bar in it is."""

    min_price_usd: float = Field(default=0.0, ge=0, description="Lowest raw close of the session")
    min_median_dollar_volume_usd: float = Field(default=0.0, ge=0, description="Lowest median of close x volume over the window")
    window_sessions: int = Field(default=20, ge=1, le=252, description="Exchange sessions of that window, the session itself included")

    @property
    def everybody(self) -> bool:
        """True if no bar can be too cheap or too thin."""
        return self.min_price_usd == 0 and self.min_median_dollar_volume_usd == 0


def universe(window: pl.DataFrame, *, first: date, last: date, calendar: ExchangeCalendar, settings: UniverseSettings) -> pl.DataFrame:
    """session, symbol of the members of the sessions first..last, sorted.

    ``window``: session, symbol, close, volume (raw) of accepted bars from ``settings.window_sessions`` - 1 sessions before ``first`` on,
    under the names of securities (quant.market.securities), so that a new symbol has the window of the old one. A session's members
    depend on the rows up to it alone, whoever is listed today. The median is over the bars that the window has: one after a listing.
    """
    places = pl.DataFrame({"session": list(calendar.days)}, schema={"session": pl.Date}).with_row_index("place")
    traded = window.join(places, on="session").with_columns(pl.col("place").cast(pl.Int64), usd=pl.col("close") * pl.col("volume"))
    # Dollars need no adjustment: a split divides the price and multiplies the shares.
    median = pl.col("usd").rolling_median_by("place", f"{settings.window_sessions}i").over("symbol")
    members = (
        traded.sort("symbol", "place")
        .with_columns(median=median)
        .filter(
            pl.col("session").is_between(first, last),
            pl.col("close") >= settings.min_price_usd,
            pl.col("median") >= settings.min_median_dollar_volume_usd,
        )
    )
    names = "traded_as" if "traded_as" in window.columns else "symbol"
    return members.select("session", symbol=names).sort("session", "symbol")
