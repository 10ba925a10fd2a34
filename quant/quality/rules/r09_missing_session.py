"""A symbol that had a bar in one of the last few sessions has one now.

A finding without a row: there is nothing to quarantine, but the symbol counts as blocked for rule 21.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl

from quant.market.securities import DELISTING, named
from quant.quality.rule import GateView, Rule, Severity, findings

if TYPE_CHECKING:
    from datetime import date


def _find(view: GateView) -> pl.DataFrame:
    within = view.settings.active_sessions
    recent = view.calendar.sessions(view.calendar.days[0], view.first - timedelta(days=1))[-within:]
    earlier = view.earlier.filter(pl.col("session").is_in(recent))
    received = pl.concat([rows.select("session", "symbol") for rows in (earlier, view.rows)])
    days = view.calendar.sessions(received.select(pl.col("session").min()).item() or view.first, view.last)
    numbered = pl.DataFrame({"session": days}, schema={"session": pl.Date}).with_row_index("number")
    securities = named(received, view.ended)
    bars = securities.join(numbered, on="session").sort("symbol", "number")  # of two bars of one key the second has what follows
    following = pl.when(pl.col("symbol") == pl.col("symbol").shift(-1)).then(pl.col("number").shift(-1)).otherwise(len(days))
    gaps = bars.with_columns(until=pl.min_horizontal(following, pl.col("number") + within + 1))
    missing = (
        gaps.filter(pl.col("until") > pl.col("number") + 1)
        .select(symbol="traded_as", seen="session", number=pl.int_ranges(pl.col("number") + 1, "until", dtype=pl.UInt32))
        .explode("number")
        .join(numbered, on="number")
        .filter(pl.col("session").is_between(view.first, view.last_closed))
    )
    listed = _under_new_names(missing, view.ended)
    observed = pl.format("no row, the last one is of {}", "seen")
    return findings(listed, expected=pl.lit(f"a row: the symbol had one in the {within} sessions before"), observed=observed)


def _under_new_names(missing: pl.DataFrame, ended: pl.DataFrame) -> pl.DataFrame:
    """``missing`` under the symbols that they would have in the session, by the renames since they were seen; without what was delisted."""
    if ended.is_empty():
        return missing
    ends: dict[str, list[tuple[date, str | None]]] = {}
    for symbol, at, kind, new_symbol in ended.rows():
        ends.setdefault(symbol, []).append((at, None if kind == DELISTING else new_symbol))

    def name(symbol: str, seen: date, session: date) -> str | None:
        since = next((end for end in ends.get(symbol, ()) if seen < end[0] <= session), None)
        return symbol if since is None else since[1] and name(since[1], since[0], session)

    now = [name(*row) for row in missing.select("symbol", "seen", "session").iter_rows()]
    return missing.with_columns(symbol=pl.Series(now, dtype=pl.String)).filter(pl.col("symbol").is_not_null())


RULE = Rule(id="r09_missing_session", severity=Severity.BLOCK, find=_find)
