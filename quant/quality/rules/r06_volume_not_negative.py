"""Volume is not negative, and finite."""

from __future__ import annotations

import polars as pl

from quant.quality.rule import GateView, Rule, Severity, findings


def _find(view: GateView) -> pl.DataFrame:
    bad = view.rows.filter((pl.col("volume") < 0) | ~pl.col("volume").is_finite())
    return findings(bad, expected=pl.lit("volume >= 0 and finite"), observed=pl.format("volume {}", "volume"))


RULE = Rule(id="r06_volume_not_negative", severity=Severity.BLOCK, find=_find)
