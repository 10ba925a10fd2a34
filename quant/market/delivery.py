"""What a source delivered -> rows of raw_bars and corporate_actions: content digest and the instant from which a row could be used."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from quant.market.as_of import ACTION_KEY, BAR_KEY, newest
from quant.market.contracts import checked
from quant.tables import TABLES, UTC_INSTANT, Table

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from datetime import date, datetime

    from numpy.typing import NDArray

    from quant.calendar import ExchangeCalendar
    from quant.ports import SourceFacts

PROVENANCE = {"raw_bars": ("origin_digest", "adjusted_return"), "corporate_actions": ("origin_digest",)}
"""Columns that say where a row was read from, and what the source makes of it. No content: a file written again with the same rows
revises nothing, and a published adjustment changes with every later dividend."""
OPTIONAL = {"raw_bars": (), "corporate_actions": ("new_symbol",)}
"""Columns that a source may leave out; where they are null a row's digest is the one it has without them."""
_LONGEST_CLOSURE = timedelta(days=14)
_STAMPED = ("source", "known_at", "received_at", "known_at_assumed", "digest")


def delivery(table: str, source: str, given: Collection[str]) -> Table:
    """What a source owes for a table: its columns without those that are stamped on here; those that a source may leave out if they are
    among ``given``. Rows may be there twice, since the gate is to see that.
    """
    free = (*OPTIONAL[table], *PROVENANCE[table])
    declared = TABLES[table]
    owed = {name: c for name, c in declared.columns.items() if name not in _STAMPED and (name not in free or name in given)}
    return Table(name=f"what {source} delivered for {table}", grain=declared.grain, key=(), clock=declared.clock, columns=owed)


def raw_bar_rows(
    bars: pl.DataFrame,
    *,
    facts: SourceFacts,
    calendar: ExchangeCalendar,
    received_at: datetime,
    known: pl.DataFrame | None = None,
    decided_through: date | None = None,
) -> pl.DataFrame:
    """Rows of raw_bars for what ``BarSource.bars`` delivered, sorted by key. Keys whose newest version ``known`` is what was delivered are
    left out; two different rows delivered under one key both stay (the gate's first rule is to see them), two equal ones are one.

    known_at is received_at, observed: if it came before the open of the session after its own (live), if its key is ``known`` (columns
    session, symbol, source, known_at, digest) with other content (a revision: all that was delivered under the key is a new version, one
    that went back to older content too), or if its session is not after ``decided_through`` (a late addition to a past that decisions were
    made on). Else, in a history load, it is the session's expected publish time and assumed. ContractError for what is no ``delivery``.
    """
    checked(bars, delivery("raw_bars", facts.name, bars.columns))
    return _delivered(
        bars, "raw_bars", BAR_KEY, {day: day for day in bars["session"].unique()}, calendar, facts, received_at, known, decided_through
    )


def action_rows(
    actions: pl.DataFrame,
    *,
    facts: SourceFacts,
    calendar: ExchangeCalendar,
    received_at: datetime,
    known: pl.DataFrame | None = None,
    decided_through: date | None = None,
) -> pl.DataFrame:
    """Rows of corporate_actions for what ``BarSource.actions`` delivered; as raw_bar_rows with the session before the ex_date in the place
    of the row's session: live until the ex_date opens, else assumed known when that session was published, and late if that session was
    decided without it. ``known`` has the columns ex_date, symbol, kind, source, known_at, digest. ContractError as there.
    """
    checked(actions, delivery("corporate_actions", facts.name, actions.columns))
    eves = {day: _previous(calendar, day) for day in actions["ex_date"].unique()}
    return _delivered(actions, "corporate_actions", ACTION_KEY, eves, calendar, facts, received_at, known, decided_through)


def _delivered(
    rows: pl.DataFrame,
    table: str,
    key: tuple[str, ...],
    sessions: Mapping[date, date],
    calendar: ExchangeCalendar,
    facts: SourceFacts,
    received_at: datetime,
    known: pl.DataFrame | None,
    decided_through: date | None,
) -> pl.DataFrame:
    """``sessions``: day of a row -> the session at whose publish time it is expected; it is live until the next one opens."""
    columns, day = list(TABLES[table].columns), TABLES[table].clock
    content = rows.select(name for name in columns if name in rows.columns and name not in PROVENANCE[table])
    said = {"origin_digest": facts.origin_digest}
    marks = [
        pl.col(name) if name in rows.columns else pl.lit(said.get(name), TABLES[table].schema[name]).alias(name)
        for name in PROVENANCE[table]
    ]
    absent = [pl.lit(None, TABLES[table].schema[name]).alias(name) for name in OPTIONAL[table] if name not in rows.columns]
    stamped = rows.select(*content.columns, *marks, *absent, _content_digests(content, table, facts.name), source=pl.lit(facts.name))
    past = {at: eve for at, eve in sessions.items() if received_at >= _next_open(calendar, eve)}
    undecided = {at: eve for at, eve in past.items() if decided_through is None or eve > decided_through}
    assumed = {at: calendar.publish_at(eve, facts.publish_delay_minutes) for at, eve in undecided.items()}
    published = pl.col(day).replace_strict(list(assumed), list(assumed.values()), default=None, return_dtype=UTC_INSTANT)
    expected_at = pl.when(pl.col("replaces").is_null()).then(published)
    # A clock that was set back must not hide a revision behind the version that it replaces.
    arrived = pl.max_horizontal(pl.lit(received_at, UTC_INSTANT), pl.col("replaces") + pl.duration(microseconds=1))
    clocked = _news(stamped, key, known).with_columns(
        known_at=expected_at.fill_null(arrived),
        received_at=pl.lit(received_at, UTC_INSTANT),
        known_at_assumed=expected_at.is_not_null(),
    )
    return clocked.unique(subset="digest", keep="first", maintain_order=True).select(columns).sort(TABLES[table].key)


def _news(stamped: pl.DataFrame, key: tuple[str, ...], known: pl.DataFrame | None) -> pl.DataFrame:
    """The rows of each key whose newest known version is not what is delivered now, with ``replaces``: its known_at, or null."""
    if known is None or known.is_empty():
        return stamped.with_columns(replaces=pl.lit(None, UTC_INSTANT))
    held = newest(known.select(*key, "known_at", "digest"), key)
    came = stamped.join(held, on=[*key, "digest"], how="anti")
    went = held.join(stamped, on=[*key, "digest"], how="anti").join(stamped, on=key, how="semi")
    changed = pl.concat([came.select(key), went.select(key)]).unique()
    replaced = held.join(changed, on=key, how="semi").select(*key, replaces="known_at").unique()
    return stamped.join(changed, on=key, how="semi").join(replaced, on=key, how="left")


def _next_open(calendar: ExchangeCalendar, day: date) -> datetime:
    """Open of the first session after ``day``, a session or not; beyond the calendar's end, the day's own close."""
    later = calendar.sessions(day + timedelta(days=1), day + _LONGEST_CLOSURE)
    return calendar.open_at(later[0]) if later else calendar.close_at(day)


def _previous(calendar: ExchangeCalendar, day: date) -> date:
    """The last session before ``day``, a session or not; before the calendar's start, the day before."""
    eve = day - timedelta(days=1)
    return next(reversed(calendar.sessions(day - _LONGEST_CLOSURE, eve)), eve)


def _content_digests(content: pl.DataFrame, table: str, source: str) -> pl.Series:
    optional = [name for name in OPTIONAL[table] if name in content.columns]
    plain = digests(content.drop(optional), source=source)
    given = content.select(pl.any_horizontal(pl.lit(value=False), *(pl.col(name).is_not_null() for name in optional))).to_series()
    if not given.any():
        return plain
    return pl.select(pl.when(given).then(digests(content, source=source)).otherwise(plain).alias("digest")).to_series()


def digests(content: pl.DataFrame, *, source: str) -> pl.Series:
    """SHA-256 (hex) of each row: over the source, the column names and the row's values, and nothing else, so it does not depend on what
    the row was delivered with. Text counts by length and bytes, the rest by 8 bytes a value, nulls by a flag; all NaN are one, -0 is 0.
    """
    texts = [name for name, dtype in content.schema.items() if dtype == pl.String]
    head = hashlib.sha256("\0".join((source, *content.columns, "")).encode()).digest()
    written = content.select(pl.concat_str(_written(name) for name in texts)).to_series()
    begun = {text: head + text.encode() for text in written.unique()}
    values = _packed(content.drop(texts))
    rows = (hashlib.sha256(begun[text] + value).hexdigest() for text, value in zip(written.to_list(), values, strict=True))
    return pl.Series("digest", rows, dtype=pl.String)


def _written(name: str) -> pl.Expr:
    text = pl.col(name)
    return pl.concat_str(text.str.len_bytes().cast(pl.String), pl.lit(":"), text).fill_null("-:")


def _packed(values: pl.DataFrame) -> Iterator[bytes]:
    """Each row's values as little-endian bytes: flags of the nulls, then 8 bytes each."""
    packed = np.zeros(values.height, dtype=[("null", "?", (values.width,)), ("value", "<i8", (values.width,))])
    for n, column in enumerate(values):
        packed["null"][:, n] = column.is_null().to_numpy()
        packed["value"][:, n] = _bits(column)
    whole, width = packed.tobytes(), packed.dtype.itemsize
    return (whole[at : at + width] for at in range(0, len(whole), width))


def _bits(column: pl.Series) -> NDArray[np.int64]:
    if column.dtype.is_float():
        numbers = column.cast(pl.Float64).fill_null(0.0).to_numpy() + 0.0  # -0.0 + 0.0 is 0.0
        numbers[np.isnan(numbers)] = np.nan
        return numbers.view(np.int64)
    return column.to_physical().cast(pl.Int64).fill_null(0).to_numpy()
