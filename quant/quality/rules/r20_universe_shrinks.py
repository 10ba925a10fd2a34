"""A universe does not lose much of itself from one session to the next: that much is a feed cut short."""

from __future__ import annotations

import polars as pl

from quant.quality.rule import WHOLE_SESSION, GateView, Rule, Severity, findings


def _find(view: GateView) -> pl.DataFrame:
    warn, stop, at_least = view.settings.universe_warn_ratio, view.settings.universe_stop_ratio, view.settings.feed_fault_min_symbols
    seen = pl.concat([rows.select("session", "symbol") for rows in (view.earlier, view.rows)])
    sizes = seen.group_by("session").agg(symbols=pl.col("symbol").n_unique().cast(pl.Int64))
    judged = view.sessions()
    before = [view.calendar.previous(judged[0])] if judged and judged[0] > view.calendar.days[0] else []
    days = pl.DataFrame({"session": [*before, *judged]}, schema={"session": pl.Date}).with_columns(eve=pl.col("session").shift(1))
    counted = (
        days.join(sizes, on="session", how="left", maintain_order="left")
        .join(_delisted(view, seen, days), on="session", how="left", maintain_order="left")
        .with_columns(pl.col("symbols", "delisted").fill_null(0))
        .with_columns(before=pl.col("symbols").shift(1) - pl.col("delisted"), symbol=pl.lit(WHOLE_SESSION))
    )
    lost = pl.col("before") - pl.col("symbols")
    share = lost / pl.col("before")
    bad = counted.filter((pl.col("before") > 0) & (share > warn) & (lost >= at_least))
    return findings(
        bad,
        expected=pl.format(f"at most {warn:.0%} fewer symbols than the {{}} of the session before, or less than {at_least}", "before"),
        observed=pl.format("{} symbols, {} % fewer", "symbols", (share * 100).round(1)),
        severity=pl.when(share > stop).then(pl.lit(Severity.STOP.value)).otherwise(pl.lit(Severity.WARN.value)),
    )


def _delisted(view: GateView, seen: pl.DataFrame, days: pl.DataFrame) -> pl.DataFrame:
    """session, delisted: how many symbols of the session before (``eve``) are known to be listed no more. Nobody misses them."""
    ends = view.beside.actions.filter(pl.col("kind") == "delisting").select("symbol", "ex_date")
    gone = seen.rename({"session": "eve"}).join(days, on="eve").join(ends, on="symbol")
    due = gone.filter(pl.col("ex_date") > pl.col("eve"), pl.col("ex_date") <= pl.col("session"))
    return due.group_by("session").agg(delisted=pl.col("symbol").n_unique().cast(pl.Int64))


RULE = Rule(id="r20_universe_shrinks", severity=Severity.STOP, find=_find)
