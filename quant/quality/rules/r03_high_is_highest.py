"""The high is not below the open, the close or the low."""

from __future__ import annotations

import polars as pl

from quant.quality.rule import GateView, Rule, Severity, findings

_HIGHEST = pl.max_horizontal("open", "close", "low")


def _find(view: GateView) -> pl.DataFrame:
    bad = view.rows.filter(pl.col("high") < _HIGHEST)
    return findings(bad, expected=pl.format("high >= max(open, close, low) = {}", _HIGHEST), observed=pl.format("high {}", "high"))


RULE = Rule(id="r03_high_is_highest", severity=Severity.BLOCK, find=_find)
