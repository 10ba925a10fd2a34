"""The low is not above the open, the close or the high."""

from __future__ import annotations

import polars as pl

from quant.quality.rule import GateView, Rule, Severity, findings

_LOWEST = pl.min_horizontal("open", "close", "high")


def _find(view: GateView) -> pl.DataFrame:
    bad = view.rows.filter(pl.col("low") > _LOWEST)
    return findings(bad, expected=pl.format("low <= min(open, close, high) = {}", _LOWEST), observed=pl.format("low {}", "low"))


RULE = Rule(id="r04_low_is_lowest", severity=Severity.BLOCK, find=_find)
