"""A volume of many times its median is news or a fault; somebody should know which."""

from __future__ import annotations

import polars as pl

from quant.quality.rule import GateView, Rule, Severity, findings


def _find(view: GateView) -> pl.DataFrame:
    multiple, sessions = view.settings.volume_multiple, view.settings.volume_sessions
    bad = view.moves.filter(pl.col("volume_ratio") > multiple)
    return findings(
        bad,
        expected=pl.lit(f"a volume of at most {multiple:g} x its median of {sessions} sessions"),
        observed=pl.format("volume {}: {} x", pl.col("volume"), pl.col("volume_ratio").round(1)),
    )


RULE = Rule(id="r17_volume_outlier", severity=Severity.WARN, find=_find)
