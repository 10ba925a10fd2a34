"""A symbol has bars from its listing to its delisting; others belong to another company that had the name.

Finds nothing for a symbol whose listing is not known, and nothing more ``GateSettings.active_sessions`` sessions after a symbol that ended
had a bar again: by then it is somebody else's, as table instruments has it.
"""

from __future__ import annotations

import polars as pl

from quant.quality.rule import GateView, Rule, Severity, findings


def _find(view: GateView) -> pl.DataFrame:
    session, listed, delisted = pl.col("session"), pl.col("listed"), pl.col("delisted")
    spells = view.rows.select("session", "symbol").join(view.beside.listings, on="symbol")
    inside = spells.filter((session >= listed).fill_null(value=True), (session <= delisted).fill_null(value=True))
    over = (session > delisted).fill_null(value=False)  # what comes later is not told: nobody knew it in the session
    nearest = (
        spells.join(inside, on=["session", "symbol"], how="anti")
        .sort("session", "symbol", over, pl.when(over).then(delisted), listed, descending=[False, False, True, True, False])
        .unique(["session", "symbol"], keep="first", maintain_order=True)
        .join(_used_again(view, spells.filter(over)), on=["session", "symbol"], how="anti")
    )
    begin = pl.format("from {} ", listed).fill_null("")
    end = delisted.cast(pl.String).fill_null("now")
    return findings(nearest, expected=pl.format("a session {}to {}", begin, end), observed=session.cast(pl.String))


def _used_again(view: GateView, ended: pl.DataFrame) -> pl.DataFrame:
    """session, symbol of ``ended`` (a row a session after an ending) with a bar after it, ``active_sessions`` or more before."""
    days = view.calendar.days
    places = pl.DataFrame({"session": days, "place": range(len(days))}, schema={"session": pl.Date, "place": pl.Int64})
    every = pl.concat([view.earlier.select("session", "symbol"), view.rows.select("session", "symbol")]).unique()
    held = every.join(places, on="session").select("symbol", bar="session", at="place").sort("at")
    newest = ended.group_by("session", "symbol").agg(pl.col("delisted").max()).join(places, on="session")
    since = newest.with_columns(until=pl.col("place") - view.settings.active_sessions).sort("until")
    before = since.join_asof(held, left_on="until", right_on="at", by="symbol", check_sortedness=False)
    seen = pl.col("at") >= pl.col("place") - view.settings.earlier_sessions  # a verdict looks no further back
    return before.filter(seen, pl.col("bar") > pl.col("delisted")).select("session", "symbol")


RULE = Rule(id="r24_not_listed", severity=Severity.WARN, find=_find)
