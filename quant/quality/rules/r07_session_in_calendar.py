"""A row's date is a session of the exchange."""

from __future__ import annotations

import polars as pl

from quant.quality.rule import GateView, Rule, Severity, findings


def _find(view: GateView) -> pl.DataFrame:
    bad = view.rows.filter(~pl.col("session").is_in(view.calendar.sessions(view.first, view.last)))
    weekday = pl.col("session").dt.strftime("%Y-%m-%d (%A)")
    return findings(bad, expected=pl.lit(f"a session of {view.calendar.name}"), observed=weekday)


RULE = Rule(id="r07_session_in_calendar", severity=Severity.BLOCK, find=_find)
