"""A symbol has bars from its listing to its delisting; others belong to another company that had the name.

Finds nothing for a symbol whose listing is not known.
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
    )
    begin = pl.format("from {} ", listed).fill_null("")
    end = delisted.cast(pl.String).fill_null("now")
    return findings(nearest, expected=pl.format("a session {}to {}", begin, end), observed=session.cast(pl.String))


RULE = Rule(id="r24_not_listed", severity=Severity.WARN, find=_find)
