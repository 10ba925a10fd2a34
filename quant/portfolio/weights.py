"""Scores -> signals -> sleeves -> target weights: what the book wants to hold, before anything about shares or cash."""

from __future__ import annotations

from typing import Literal

import polars as pl
from pydantic import BaseModel, Field

from quant.tables import TABLES

SIGNAL_STANDARD_DEVIATION = 0.02


class PortfolioSettings(BaseModel, frozen=True, extra="forbid"):
    """How scores become weights. ``names_per_side`` is N of the top-N and bottom-N sleeves."""

    names_per_side: int = Field(default=2, ge=1)
    sides: Literal["long_short", "long_only"] = "long_short"
    gross_exposure_ratio: float = Field(default=1.0, gt=0, le=4)
    initial_cash_usd: int = Field(default=1_000_000, gt=0)


def signals(scores: pl.DataFrame) -> pl.DataFrame:
    """``scores`` (session, symbol, score) with ``signal``: the score normalised per session to mean 0 and standard deviation 0.02.

    Sample standard deviation (n - 1). Sessions whose scores have no spread have no rows: they carry no signal.
    Sorted by session and symbol.
    """
    # The last bit of a mean depends on the order of its terms; in Polars also on chunks, and on whether it knows that groups are in order.
    scores, score = scores.sort("session", "symbol").rechunk(), pl.col("score")
    spread = score.std().over("session")
    scaled = (score - score.mean().over("session")) / spread * SIGNAL_STANDARD_DEVIATION
    # A spread below the rounding of the mean is no spread: constant scores must not become a signal of noise.
    has_spread = spread.is_not_null() & (spread > 1e-12 * score.abs().max().over("session"))
    return scores.filter(has_spread).with_columns(scaled.alias("signal"))


def target_weights(scores: pl.DataFrame, *, book: str, settings: PortfolioSettings) -> pl.DataFrame:
    """Rows of table target_weights for every session of ``scores`` (session, symbol, score) that has a signal.

    n = min(N, floor(names / 2)) longs at +1/n and n shorts at -1/n; ties go to the symbol that sorts first. Long-short:
    target weight = sleeve x gross_exposure_ratio / 2. Long-only: no shorts, target weight = sleeve x gross_exposure_ratio. A session with
    fewer than two names or without spread has no rows: no new signal.
    """
    ranked = signals(scores).sort("session", "signal", "symbol", descending=[False, True, False])
    place, names = pl.int_range(pl.len()).over("session"), pl.len().over("session")
    n = pl.min_horizontal(pl.lit(settings.names_per_side), names // 2).cast(pl.Int64)
    long_only = settings.sides == "long_only"
    short = pl.lit(0.0) if long_only else -1.0 / n
    sleeve = pl.when(place < n).then(1.0 / n).when(place >= names - n).then(short).otherwise(0.0)
    scale = settings.gross_exposure_ratio * (1.0 if long_only else 0.5)
    return (
        ranked.with_columns(n.alias("n"), sleeve.alias("sleeve"), book=pl.lit(book))
        .filter(pl.col("n") > 0)
        .with_columns(target_weight=pl.col("sleeve") * scale)
        .select(TABLES["target_weights"].schema.names())
        .sort("session", "symbol")
    )
