"""A jump to the price after a simple split, with a volume to match and no split recorded, is a split that the source forgot."""

from __future__ import annotations

import polars as pl

from quant.quality.moves import Kind
from quant.quality.rule import GateView, Rule, Severity, findings


def _find(view: GateView) -> pl.DataFrame:
    bad = view.jumps.filter(pl.col("kind") == Kind.SPLIT_LIKE)
    volume = pl.format("{} x its median", pl.col("volume_ratio").round(1)).fill_null("unknown")
    return findings(
        bad,
        expected=pl.format("a recorded split, or no jump like {} from {} ({})", "like", "from_close", "from_session"),
        observed=pl.format("no split; open {}, close {}: {} times, volume {}", "open", "close", pl.col("times").round_sig_figs(4), volume),
    )


RULE = Rule(id="r16_split_suspect", severity=Severity.BLOCK, find=_find)
