"""An average of a session's prices lies between its low and its high."""

from __future__ import annotations

import polars as pl

from quant.quality.rule import GateView, Rule, Severity, findings, values_of

_ROUNDING = 1e-6  # relative: a vwap is published with few digits


def _find(view: GateView) -> pl.DataFrame:
    if "vwap" in view.absent:  # a column of nulls
        return findings(view.rows.clear(), expected=pl.lit(""), observed=pl.lit(""))
    below, above = pl.col("vwap") < pl.col("low") * (1 - _ROUNDING), pl.col("vwap") > pl.col("high") * (1 + _ROUNDING)
    bad = view.rows.filter(below | above)
    return findings(bad, expected=pl.format("a vwap from {} to {}", "low", "high"), observed=values_of("vwap"))


RULE = Rule(id="r18_vwap_outside", severity=Severity.WARN, find=_find)
