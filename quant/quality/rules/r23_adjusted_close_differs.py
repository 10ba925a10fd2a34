"""The adjusted close that a source publishes moves as its own prices and actions say: if not, one of the three is wrong.

Returns are compared, not prices: a published series knows later actions, and these change all of its prices and none of its returns.
Finds nothing where the source publishes no adjusted close.
"""

from __future__ import annotations

import polars as pl

from quant.quality.rule import GateView, Rule, Severity, change, findings


def _find(view: GateView) -> pl.DataFrame:
    published = view.rows.select("session", "symbol", "adjusted_return").filter(pl.col("adjusted_return") > 0)
    days = pl.DataFrame({"session": view.calendar.days}, schema={"session": pl.Date}).with_columns(eve=pl.col("session").shift(1))
    both = view.moves.join(published, on=["session", "symbol"]).join(days, on="session").filter(pl.col("before_session") == pl.col("eve"))
    new_close = pl.col("close") * pl.col("split")
    ex_date_close = new_close * (pl.col("close") + pl.col("dividend")) / pl.col("close") / pl.col("before_close")
    previous_close = new_close / (pl.col("before_close") - pl.col("dividend"))
    dividend = pl.col("dividend").round(6) + 0.0
    returns = pl.col("adjusted_return")
    apart = pl.min_horizontal(*((returns / ours - 1).abs() for ours in (ex_date_close, previous_close)))
    bad = both.filter(apart > view.settings.adjusted_tolerance)
    return findings(
        bad,
        expected=pl.format("an adjusted return of {}, split {}, dividend {}", change(ex_date_close), "split", dividend),
        observed=pl.format("{} of the adjusted close that the source publishes", change(returns)),
    )


RULE = Rule(id="r23_adjusted_close_differs", severity=Severity.WARN, find=_find)
