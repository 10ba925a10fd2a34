"""Prices are above zero and finite."""

from __future__ import annotations

import polars as pl

from quant.quality.rule import PRICES, GateView, Rule, Severity, findings, values_of

_ALL = (*PRICES, "vwap")


def _find(view: GateView) -> pl.DataFrame:
    bad = view.rows.filter(pl.any_horizontal((pl.col(_ALL) <= 0) | ~pl.col(_ALL).is_finite()))
    return findings(bad, expected=pl.lit("prices > 0 and finite"), observed=values_of(*_ALL))


RULE = Rule(id="r05_prices_positive", severity=Severity.BLOCK, find=_find)
