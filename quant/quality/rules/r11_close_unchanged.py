"""A close that stays the same for sessions on end may be an old one delivered again and again."""

from __future__ import annotations

import polars as pl

from quant.quality.rule import GateView, Rule, Severity, findings


def _find(view: GateView) -> pl.DataFrame:
    count = view.settings.unchanged_sessions
    seen = pl.concat([rows.select("session", "symbol", "close") for rows in (view.earlier, view.rows)])
    days = view.calendar.sessions(seen.select(pl.col("session").min()).item() or view.first, view.last)
    numbered = pl.DataFrame({"session": days, "number": range(len(days))}, schema={"session": pl.Date, "number": pl.Int64})
    closes = seen.join(numbered, on="session").unique(["symbol", "number"], keep="none").sort("symbol", "number")
    oldest = count - 1
    same = pl.all_horizontal(pl.col("close") == pl.col("close").shift(by) for by in range(1, count))
    there = (pl.col("symbol") == pl.col("symbol").shift(oldest)) & (pl.col("number") - pl.col("number").shift(oldest) == oldest)
    bad = closes.filter(there & same, pl.col("session").is_between(view.first, view.last))
    return findings(
        bad,
        expected=pl.lit(f"a close that changes within {count} sessions"),
        observed=pl.format(f"close {{}} in each of the last {count} sessions", "close"),
    )


RULE = Rule(id="r11_close_unchanged", severity=Severity.WARN, find=_find)
