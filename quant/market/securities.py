"""One security under the symbols it had: renames join them, a delisting ends one, so that a symbol used again is another security.

A row keeps the symbol that it traded under. For everything that looks over sessions (indices, factors, labels, liquidity) the rows of one
security get one name: the last symbol that is known for it, or "SYMBOL until EX_DATE" if it was delisted.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl

from quant.errors import InputError, expected
from quant.market.contracts import first_rows
from quant.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from quant.calendar import ExchangeCalendar

RENAME, DELISTING = "rename", "delisting"
_LISTINGS = pl.Schema({"symbol": pl.String, "listed": pl.Date, "delisted": pl.Date})
_SPELLS = pl.Schema({"symbol": pl.String, "until": pl.Date, "security": pl.String})


def endings(actions: pl.DataFrame) -> pl.DataFrame:
    """symbol, ex_date, kind, new_symbol of the renames and delistings among ``actions``: from the ex_date on the symbol is not theirs. One
    that is renamed and delisted on one day is delisted, as it is in a book.
    """
    return (
        actions.filter(pl.col("kind").is_in((RENAME, DELISTING)))
        .select("symbol", "ex_date", "kind", "new_symbol")
        .sort("ex_date", "symbol", "kind", "new_symbol")
        .unique(["ex_date", "symbol"], keep="first", maintain_order=True)
    )


def instruments(bars: pl.DataFrame, ends: pl.DataFrame, calendar: ExchangeCalendar) -> pl.DataFrame:
    """Rows of table instruments: each time that a symbol of ``bars`` (session, symbol) was a security's, by ``ends`` (see endings).

    It is listed from its first bar; after its last session the symbol is nobody's, until a bar lists somebody else under it.
    """
    spells = pl.DataFrame(_spells(ends.rows()), schema=_SPELLS, orient="row")
    of_bars = _in_spells(bars.select("session", "symbol"), spells, "session", exact=False)
    listed = of_bars.group_by("symbol", "until", "security").agg(first_session=pl.col("session").min())
    last = {until: calendar.sessions(calendar.days[0], until - timedelta(days=1))[-1] for until in spells["until"].unique()}
    ended = ends.select("symbol", "new_symbol", until="ex_date", ended_by="kind")
    rows = listed.join(ended, on=["symbol", "until"], how="left").with_columns(
        last_session=pl.col("until").replace_strict(last, default=None, return_dtype=pl.Date),
        security=pl.coalesce("security", "symbol"),
    )
    return rows.select(TABLES["instruments"].schema.names()).sort(TABLES["instruments"].key)


def listings(ends: pl.DataFrame, calendar: ExchangeCalendar) -> pl.DataFrame:
    """symbol, listed, delisted (session; null: not yet) of each time that a symbol was a security's, as far as ``ends`` (see endings) tell.

    Only symbols that ended have rows: the first, with listed null, is all that is before its first ending; after that a rename to the
    symbol lists it. What covers a session so depends on no ending or rename that comes later.
    """
    columns = ("symbol", "ex_date", "kind", "new_symbol")
    ended: dict[str, list[date]] = {}
    begun: dict[str, list[date]] = {}
    for symbol, at, kind, new_symbol in ends.select(columns).sort("ex_date").iter_rows():
        ended.setdefault(symbol, []).append(at)
        if kind == RENAME and new_symbol is not None:
            begun.setdefault(new_symbol, []).append(at)
    rows: list[tuple[str, date | None, date | None]] = []
    for symbol, stops in sorted(ended.items()):
        for start in (None, *(at for at in begun.get(symbol, ()) if at >= stops[0])):
            stop = next((at for at in stops if start is None or at > start), None)
            rows.append((symbol, start, None if stop is None else calendar.on_or_before(stop - timedelta(days=1))))
    return pl.DataFrame(rows, schema=_LISTINGS, orient="row")


def named(rows: pl.DataFrame, ends: pl.DataFrame) -> pl.DataFrame:
    """``rows`` (session, symbol, ...) as by_security gives them, in whatever number they are there for a session, with traded_as always."""
    if ends.is_empty():
        return rows.with_columns(traded_as="symbol")
    return _named(rows.with_columns(traded_as="symbol"), ends, "session", exact=False)


def by_security(rows: pl.DataFrame, ends: pl.DataFrame) -> pl.DataFrame:
    """``rows`` (session, symbol, ...) by session with the security's name as symbol and ``traded_as``, the symbol that the row has. As they
    are without ``ends`` (see endings). InputError if two rows of a session are of one security.
    """
    if ends.is_empty():
        return rows
    of_securities = named(rows, ends)
    keys = of_securities.select("session", "symbol")
    if (twice := of_securities.filter(keys.is_duplicated()).select("session", "symbol", "traded_as")).height:
        do = "deliver the sessions before a rename under one symbol, or correct the rename"
        raise InputError(expected("one bar a session of each security", found=first_rows(twice), where="bars around a rename", do=do))
    return of_securities


def actions_by_security(actions: pl.DataFrame, ends: pl.DataFrame) -> pl.DataFrame:
    """``actions`` (ex_date, symbol, ...) by ex_date with the security's name as symbol; those of the day of an ending are still its own."""
    return actions if ends.is_empty() else _named(actions, ends, "ex_date", exact=True)


def as_traded(rows: pl.DataFrame, window: pl.DataFrame) -> pl.DataFrame:
    """``rows`` (session, symbol, ...) that were computed from ``window`` (of by_security), sorted by session and symbol, with the symbols
    that they traded under.
    """
    if "traded_as" not in window.columns:
        return rows
    names = window.select("session", "symbol", "traded_as")
    traded = rows.drop("traded_as", strict=False).join(names, on=["session", "symbol"], how="left")
    return traded.with_columns(symbol="traded_as").select(name for name in rows.columns if name != "traded_as").sort("session", "symbol")


def _named(rows: pl.DataFrame, ends: pl.DataFrame, clock: str, *, exact: bool) -> pl.DataFrame:
    spells = pl.DataFrame(_spells(ends.rows()), schema=_SPELLS, orient="row")
    return _in_spells(rows, spells, clock, exact=exact).with_columns(symbol=pl.coalesce("security", "symbol")).select(rows.columns)


def _in_spells(rows: pl.DataFrame, spells: pl.DataFrame, clock: str, *, exact: bool) -> pl.DataFrame:
    """``rows`` by ``clock`` with until and security of the spell that each is in; null in the one that has not ended."""
    return rows.sort(clock, maintain_order=True).join_asof(
        spells.sort("until"),
        left_on=clock,
        right_on="until",
        by="symbol",
        strategy="forward",
        allow_exact_matches=exact,
        coalesce=False,
        check_sortedness=False,  # both are sorted within a symbol, which polars cannot check
    )


def _spells(ends: Iterable[tuple[str, date, str, str | None]]) -> list[tuple[str, date, str]]:
    """(symbol, until, security) of each time that a symbol was a security's."""
    by_date = sorted(ends, key=lambda end: end[1], reverse=True)
    spells: list[tuple[str, date, str]] = []
    for symbol, until, kind, new_symbol in by_date:  # the later ones are named already
        if kind == DELISTING or new_symbol is None:
            security = f"{symbol} until {until}"
        else:
            later = [(at, name) for known, at, name in spells if known == new_symbol and at > until]
            security = min(later)[1] if later else new_symbol
        spells.append((symbol, until, security))
    return spells
