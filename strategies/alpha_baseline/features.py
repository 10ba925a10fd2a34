"""The features of this strategy: Qlib's Alpha158 over adjusted bars, and the factors of a user's library."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, cast

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

    Rows and columns as of alpha158_features; a symbol listed later has no rows before that. Raises InputError for what are no symbols or
    dates, a range without sessions or with a session after the last one stored, a folder without data and a symbol that the table does not
    know.
    """
    from adapters.lake import open_lake
    from quant.calendar import exchange_calendar

    wanted = _symbols(symbols)
    calendar = exchange_calendar()
    sessions = calendar.sessions(_day(start_date, "start_date"), _day(end_date, "end_date"))
    where = f"{start_date} to {end_date}"
    if start_date > end_date:
        raise InputError(expected("start_date not after end_date", found=where, where="get_alpha158_features", do="swap them"))
    if not sessions:
        raise InputError(expected("at least one session", found="none", where=where, do="give a range with a trading day in it"))
    lake, table = open_lake(data_dir), f"table adjusted_bars of {data_dir}"
    adjusted = lake.read("adjusted_bars", first=_earlier(calendar, sessions[0], FEATURE_REACH), last=sessions[-1])
    if adjusted.is_empty() or adjusted["session"].max() != sessions[-1]:
        stored = lake.read("adjusted_bars", columns=["session"])["session"]
        if stored.is_empty():
            do = "run `afterclose demo` or `afterclose history`, or correct the path"
            raise InputError(expected("bars", found="none", where=table, do=do))
        days = sorted(stored.unique())
        if not days[0] <= sessions[-1] <= days[-1]:
            found = f"{days[0]} to {days[-1]}"
            raise InputError(expected(f"bars for {where}", found=found, where=table, do="choose days among them, or run the sessions"))
    adjusted = adjusted.filter(pl.col("symbol").is_in(wanted))
    for symbol in sorted(set(wanted) - set(adjusted["symbol"].unique())):
        if lake.read("adjusted_bars", where={"symbol": symbol}, columns=["session"]).is_empty():
            do = "use a symbol of the universe, or load its history"
            raise InputError(expected("a known symbol", found=symbol, where=table, do=do))
    return alpha158_features(adjusted, calendar, sessions[0], sessions[-1])


def _symbols(symbols: object) -> list[str]:
    """A text is a collection of its letters, so types alone do not tell what is no list of symbols."""
    shown, several = repr(symbols), isinstance(symbols, Iterable) and not isinstance(symbols, str)
    found = list(cast("Iterable[object]", symbols)) if several else []
    names = [symbol for symbol in found if isinstance(symbol, str)]
    if not names or len(names) < len(found):
        raise InputError(expected("a list of symbols", found=shown, where="symbols", do='write it as ["AAPL", "IBM"]'))
    return names


def _day(day: object, name: str) -> date:
    if isinstance(day, datetime) or not isinstance(day, date):
        raise InputError(expected("a datetime.date", found=repr(day), where=name, do="write it as date(2013, 2, 1)"))
    return day


def _earlier(calendar: ExchangeCalendar, session: date, by: int) -> date:
    """The session ``by`` sessions earlier, or the calendar's first."""
    return calendar.sessions(calendar.days[0], session)[-by - 1 :][0]
