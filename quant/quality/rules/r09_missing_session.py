"""A symbol that had a bar in one of the last few sessions has one now.

A finding without a row: there is nothing to quarantine, but the symbol counts as blocked for rule 21.
"""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from quant.quality.rule import GateView, Rule, Severity, findings


def _find(view: GateView) -> pl.DataFrame:
    within = view.settings.active_sessions
    recent = view.calendar.sessions(view.calendar.days[0], view.first - timedelta(days=1))[-within:]
    earlier = view.earlier.filter(pl.col("session").is_in(recent))
    received = pl.concat([rows.select("session", "symbol") for rows in (earlier, view.rows)])
    days = view.calendar.sessions(received.select(pl.col("session").min()).item() or view.first, view.last)
    numbered = pl.DataFrame({"session": days}, schema={"session": pl.Date}).with_row_index("number")
    bars = received.join(numbered, on="session").sort("symbol", "number")  # of two bars of one key the second has what follows
    following = pl.when(pl.col("symbol") == pl.col("symbol").shift(-1)).then(pl.col("number").shift(-1)).otherwise(len(days))
    gaps = bars.with_columns(until=pl.min_horizontal(following, pl.col("number") + within + 1))
    missing = (
        gaps.filter(pl.col("until") > pl.col("number") + 1)
        .select("symbol", seen="session", number=pl.int_ranges(pl.col("number") + 1, "until", dtype=pl.UInt32))
        .explode("number")
        .join(numbered, on="number")
        .filter(pl.col("session").is_between(view.first, view.last_closed))
    )
    gone = missing.join(view.ended, on="symbol").filter(pl.col("ex_date").is_between("seen", "session"))  # renamed or delisted since
    missing = missing.join(gone, on=["session", "symbol"], how="anti")
    observed = pl.format("no row, the last one is of {}", "seen")
    return findings(missing, expected=pl.lit(f"a row: the symbol had one in the {within} sessions before"), observed=observed)


RULE = Rule(id="r09_missing_session", severity=Severity.BLOCK, find=_find)
