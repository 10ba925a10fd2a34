"""A price does not move without a trade."""

from __future__ import annotations

import polars as pl

from quant.quality.rule import GateView, Rule, Severity, findings


def _find(view: GateView) -> pl.DataFrame:
    moving = (pl.col("high") > pl.col("low")) | (pl.col("close") != pl.col("before_close")) & (pl.col("split") == 1.0)
    bad = view.moves.filter(pl.col("volume") == 0, moving)
    before = pl.col("before_close").cast(pl.String).fill_null("unknown")
    return findings(
        bad,
        expected=pl.format("a volume above 0, or low, high and close at the close before, {}", before),
        observed=pl.format("volume 0, low {}, high {}, close {}", "low", "high", "close"),
    )


RULE = Rule(id="r10_zero_volume", severity=Severity.WARN, find=_find)
