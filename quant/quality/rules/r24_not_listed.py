"""A symbol has bars from its listing to its delisting; others belong to another company that had the name.

Finds nothing for a symbol whose listing is not known.
"""

from __future__ import annotations

import polars as pl

from quant.quality.rule import GateView, Rule, Severity, findings


def _find(view: GateView) -> pl.DataFrame:
    rows = view.rows.select("session", "symbol").join(view.beside.listings, on="symbol")
    outside = (pl.col("session") < pl.col("listed")) | (pl.col("session") > pl.col("delisted")).fill_null(value=False)
    ends = pl.col("delisted").cast(pl.String).fill_null("now")
    return findings(
        rows.filter(outside),
        expected=pl.format("a session from {} to {}", "listed", ends),
        observed=pl.col("session").cast(pl.String),
    )


RULE = Rule(id="r24_not_listed", severity=Severity.WARN, find=_find)
