"""Every column has a value, unless the source declares it absent.

The rest of rule 2, column names and types, is the contract of the table raw_bars: it is held before any rule runs.
"""

from __future__ import annotations

import polars as pl

from quant.quality.rule import PRICES, GateView, Rule, Severity, findings, values_of

_COLUMNS = (*PRICES, "volume", "vwap")


def _find(view: GateView) -> pl.DataFrame:
    required = [name for name in _COLUMNS if name not in view.absent]
    bad = view.rows.filter(pl.any_horizontal(pl.col(required).is_null()))
    return findings(bad, expected=pl.lit(f"values in all {len(required)} of {', '.join(required)}"), observed=values_of(*required))


RULE = Rule(id="r02_no_nulls", severity=Severity.BLOCK, find=_find)
