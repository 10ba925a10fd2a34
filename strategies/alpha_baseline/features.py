"""The features of this strategy: Qlib's Alpha158 over adjusted bars, and the factors of a user's library."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import polars as pl

from quant.errors import InputError, expected
from quant.factors.compile import evaluate
from quant.factors.expression import parse
from quant.factors.library.alpha158 import alpha158
from quant.factors.library.user_factors import library_digest, user_factors_table
from quant.factors.panel import MAX_GAP, panel_of
from quant.factors.reach import reach
from quant.factors.traded import among_traded

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import date
    from pathlib import Path

    from quant.calendar import ExchangeCalendar


@lru_cache(maxsize=16)
def _reach(expressions: tuple[str, ...]) -> int:
    """Earlier sessions that the farthest-reaching expression reads."""
    return max((reach(parse(text)).past for text in expressions), default=0)


def sessions_needed(expressions: Mapping[str, str]) -> int:
    """Earlier sessions of adjusted bars that features_of needs: those read, and those that tell a missing session from a new listing."""
    return _reach(tuple(expressions.values())) + MAX_GAP


FEATURE_REACH = sessions_needed(alpha158())
"""Earlier sessions of adjusted bars that alpha158_features needs."""

_TRADED = "$close"  # no factor can have this name


def features_of(
    expressions: Mapping[str, str], adjusted: pl.DataFrame, calendar: ExchangeCalendar, first: date, last: date
) -> pl.DataFrame:
    """One row per session and symbol of ``adjusted`` (table adjusted_bars) in sessions ``first`` to ``last``, sorted by symbol and session.

    session, symbol and a Float32 column per name of ``expressions``, null where there is nothing to compute from. ``adjusted`` has to hold
    the sessions_needed(expressions) before ``first`` too; what it holds beyond those changes nothing, so a range computed at once and
    session by session is the same to the bit. Cross-sections are over the symbols with a row in the session.
    """
    reachable = adjusted.filter(pl.col("session").is_between(_earlier(calendar, first, sessions_needed(expressions)), last))
    panel = panel_of(reachable, calendar).filter(pl.col("session") >= _earlier(calendar, first, _reach(tuple(expressions.values()))))
    traded = pl.col(_TRADED).is_not_null()  # the panel has rows for missed sessions too
    named = {name: among_traded(text) for name, text in expressions.items()}
    batches = evaluate({**named, _TRADED: "$close"}, panel, since=first)
    return pl.concat([batch.filter(traded).drop(_TRADED) for batch in batches], rechunk=False)


def alpha158_features(adjusted: pl.DataFrame, calendar: ExchangeCalendar, first: date, last: date) -> pl.DataFrame:
    """Rows of table alpha158 for sessions ``first`` to ``last``: features_of with the 158 columns of quant.factors.library.alpha158."""
    return features_of(alpha158(), adjusted, calendar, first, last)


def user_factor_features(
    library: Mapping[str, str], adjusted: pl.DataFrame, calendar: ExchangeCalendar, first: date, last: date
) -> pl.DataFrame:
    """Rows of table user_factors for sessions ``first`` to ``last``: features_of with the factors of ``library``."""
    rows = features_of(library, adjusted, calendar, first, last)
    return rows.with_columns(pl.lit(library_digest(library)).alias("library")).select(user_factors_table(library).schema.names())


def get_alpha158_features(symbols: Collection[str], start_date: date, end_date: date, data_dir: Path) -> pl.DataFrame:
    """Alpha158 of ``symbols`` from ``start_date`` to ``end_date`` (any days), from table adjusted_bars of the lake in ``data_dir``.

    Rows and columns as of alpha158_features; a symbol listed later has no rows before that. Raises InputError for a range without
    sessions and for a symbol that the table does not know.
    """
    from adapters.lake import open_lake
    from quant.calendar import exchange_calendar

    calendar, lake = exchange_calendar(), open_lake(data_dir)
    sessions = calendar.sessions(start_date, end_date)
    if not sessions:
        where = f"{start_date} to {end_date}"
        raise InputError(expected("at least one session", found="none", where=where, do="give a range with a trading day in it"))
    adjusted = lake.read("adjusted_bars", first=_earlier(calendar, sessions[0], FEATURE_REACH), last=sessions[-1])
    adjusted = adjusted.filter(pl.col("symbol").is_in(list(symbols)))
    for symbol in sorted(set(symbols) - set(adjusted["symbol"].unique())):
        if lake.read("adjusted_bars", where={"symbol": symbol}, columns=["session"]).is_empty():
            do = "use a symbol of the universe, or load its history"
            raise InputError(expected("a known symbol", found=symbol, where=f"table adjusted_bars of {data_dir}", do=do))
    return alpha158_features(adjusted, calendar, sessions[0], sessions[-1])


def _earlier(calendar: ExchangeCalendar, session: date, by: int) -> date:
    """The session ``by`` sessions earlier, or the calendar's first."""
    return calendar.sessions(calendar.days[0], session)[-by - 1 :][0]
