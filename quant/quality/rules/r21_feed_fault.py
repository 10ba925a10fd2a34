"""A session in which too many symbols are faulty is not a few bad rows but a bad feed: all of it stops."""

from __future__ import annotations

import polars as pl

from quant.quality.rule import WHOLE_SESSION, GateView, Rule, Severity, findings


def _find(view: GateView) -> pl.DataFrame:
    ratio, at_least = view.settings.feed_fault_ratio, view.settings.feed_fault_min_symbols
    flagged = view.flagged.group_by("session").agg(flagged=pl.col("symbol").n_unique())
    rows = view.rows.filter(pl.col("session").is_in(flagged["session"].implode())).select("session", "symbol")
    total = pl.concat([rows, view.flagged]).group_by("session").agg(total=pl.col("symbol").n_unique())
    counted = total.join(flagged, on="session").filter(pl.col("session").is_in(view.sessions()))
    share = pl.col("flagged") / pl.col("total")
    stopped = counted.filter((share > ratio) & (pl.col("flagged") >= at_least)).with_columns(symbol=pl.lit(WHOLE_SESSION))
    percent = (share * 100).round(1)
    return findings(
        stopped,
        expected=pl.lit(f"at most {ratio:.0%} of the symbols faulty, or fewer than {at_least}"),
        observed=pl.format("{} of {} faulty ({} %)", "flagged", "total", percent),
    )


RULE = Rule(id="r21_feed_fault", severity=Severity.STOP, find=_find, over_findings=True)
