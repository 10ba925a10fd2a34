"""No row is dated after the last closed session."""

from __future__ import annotations

import polars as pl

from quant.quality.rule import GateView, Rule, Severity, findings


def _find(view: GateView) -> pl.DataFrame:
    bad = view.rows.filter(pl.col("session") > view.last_closed)
    return findings(bad, expected=pl.lit(f"a session up to {view.last_closed}"), observed=pl.col("session").cast(pl.String))


RULE = Rule(id="r08_no_future_session", severity=Severity.BLOCK, find=_find)
