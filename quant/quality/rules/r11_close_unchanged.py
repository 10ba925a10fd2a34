"""A close that stays the same for sessions on end may be an old one delivered again and again."""

from __future__ import annotations

import polars as pl

from quant.quality.rule import GateView, Rule, Severity, findings


def _find(view: GateView) -> pl.DataFrame:
    count = view.settings.unchanged_sessions
    bad = view.moves.filter("unchanged")
    return findings(
        bad,
        expected=pl.lit(f"a close that changes within {count} sessions"),
        observed=pl.format(f"close {{}} in each of the last {count} sessions", "close"),
    )


RULE = Rule(id="r11_close_unchanged", severity=Severity.WARN, find=_find)
