"""A symbol has one row in a session."""

from __future__ import annotations

import polars as pl

from quant.quality.rule import GateView, Rule, Severity, findings

_KEY = ("session", "symbol")


def _find(view: GateView) -> pl.DataFrame:
    suspects = view.rows.filter(view.rows.select(_KEY).hash_rows().is_duplicated())  # equal hashes first: ten times cheaper
    counted = suspects.sort(*_KEY, "digest").group_by(_KEY, maintain_order=True).agg(pl.len(), pl.col("close").cast(pl.String))
    repeated = counted.filter(pl.col("len") > 1)
    closes = pl.col("close").list.eval(pl.element().fill_null("null")).list.join(", ")
    return findings(repeated, expected=pl.lit("1 row"), observed=pl.format("{} rows with close {}", "len", closes))


RULE = Rule(id="r01_key_unique", severity=Severity.BLOCK, find=_find)
