"""What changed in rows that were known before, and which decisions were made on the old values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from quant.market.as_of import ACTION_KEY, BAR_KEY
from quant.tables import TABLES, UTC_INSTANT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import date, datetime

    from quant.calendar import ExchangeCalendar

_KEYS = {"raw_bars": BAR_KEY, "peer_bars": BAR_KEY, "corporate_actions": ACTION_KEY}
_CLOCKS = ("known_at", "received_at", "known_at_assumed", "digest", "origin_digest", "adjusted_return")
_COUNTED = ("volume", "vwap")
_USE = pl.List(pl.Struct({"book": pl.String, "session": pl.Date}))
REVISIONS = pl.Schema({
    "table": pl.String, "symbol": pl.String, "session": pl.Date, "kind": pl.String, "source": pl.String, "known_at": UTC_INSTANT,
    "column": pl.String, "old": pl.String, "new": pl.String, "used_by": _USE,
})  # fmt: skip
_ROW = ["table", "symbol", "session", "kind", "source", "known_at"]


def decisions_reaching(decisions: pl.DataFrame, calendar: ExchangeCalendar, reach: int) -> pl.DataFrame:
    """``decisions`` (book, session, known_by: the instant up to which it knew things) with ``oldest``, the first session of the ``reach``
    ones before it that it looked at, and ``upcoming``, the session after it, whose actions it looked at.
    """
    places = {day: place for place, day in enumerate(calendar.days)}

    def shifted(session: date, by: int) -> date:
        return calendar.days[min(max(places[session] + by, 0), len(calendar.days) - 1)]

    days = decisions["session"].unique().to_list()
    return decisions.with_columns(
        pl.col("session").replace_strict({day: shifted(day, by) for day in days}, return_dtype=pl.Date).alias(name)
        for name, by in (("oldest", -reach), ("upcoming", 1))
    )


def revisions(
    rows: pl.DataFrame,
    table: str,
    decisions: pl.DataFrame,
    *,
    judged_at: Callable[[date], datetime] | None = None,
    since: datetime | None = None,
) -> pl.DataFrame:
    """One row (REVISIONS) for each column that a version of a row of ``table`` (raw_bars, corporate_actions), known since an instant,
    changed; ordered by known_at, symbol and session, which is the ex_date of an action. old and new are text, null for no value, and all
    values joined by "and" where a version has several rows.

    ``used_by``: the ``decisions`` (of decisions_reaching) that looked at the row's session and had the old value; models trained on it are
    not among them. An action is looked at as of the decision's own instant; a bar as of that of its session, ``judged_at``, at which the
    gate accepted it for all that came after. A first version counts if a decision was made without it.
    """
    key, day = _KEYS[table], TABLES[table].clock
    values = [name for name in TABLES[table].columns if name not in (*key, *_CLOCKS)]
    news = rows.filter(~pl.col("known_at_assumed"), pl.lit(since is None) | (pl.col("known_at") >= pl.lit(since, UTC_INSTANT)))
    if news.is_empty():
        return REVISIONS.to_frame()
    versions = _versions(rows.join(news.select(key).unique(), on=key, how="semi"), key, values)
    named = versions.with_columns(table=pl.lit(table), session=day, kind=pl.col("kind") if "kind" in key else pl.lit(None, pl.String)).join(
        news.select(*key, "known_at").unique(), on=[*key, "known_at"], how="semi"
    )
    spans = named.select("session", "replaced", "known_at").unique()
    used = _used(spans, decisions, judged_at)
    found = named.join(used, on=["session", "replaced", "known_at"], how="left", nulls_equal=True)
    counted = found.filter(pl.col("replaced").is_not_null() | pl.col("used_by").is_not_null())
    columns = [
        counted.filter(pl.col(f"old_{name}").ne_missing(pl.col(name))).select(
            *_ROW, column=pl.lit(name), old=f"old_{name}", new=name, used_by=pl.col("used_by").fill_null(pl.lit([], _USE))
        )
        for name in values
    ]
    return pl.concat(columns).cast(REVISIONS).sort("known_at", "symbol", "session", "kind", maintain_order=True)


def _versions(rows: pl.DataFrame, key: Sequence[str], values: Sequence[str]) -> pl.DataFrame:
    """One row for each version of a key, with ``values`` as text, those of the version before as old_*, and ``replaced``, its known_at."""
    texts = [pl.col(name).cast(pl.String).unique(maintain_order=True).str.join(" and ").replace("", None) for name in values]
    versions = rows.sort(*key, "known_at", "digest").group_by(*key, "known_at", maintain_order=True).agg(texts)
    before = [pl.col(name).shift(1).over(key).alias(f"old_{name}") for name in values]
    return versions.with_columns(*before, replaced=pl.col("known_at").shift(1).over(key))


def _used(spans: pl.DataFrame, decisions: pl.DataFrame, judged_at: Callable[[date], datetime] | None) -> pl.DataFrame:
    """``spans`` (session, replaced, known_at) that decisions looked at, with ``used_by``: those that had the version before."""
    made = decisions.rename({"session": "decided"})
    newest, seen_at = ("decided", "judged_at") if judged_at else ("upcoming", "known_by")
    if judged_at:
        judged = [judged_at(day) for day in spans["session"]]
        spans = spans.with_columns(pl.Series("judged_at", judged, dtype=UTC_INSTANT))
    looked = spans.join_where(made, pl.col("session") >= pl.col("oldest"), pl.col("session") <= pl.col(newest))
    in_force = (pl.col("known_at") > pl.col(seen_at)) & (pl.col("replaced").is_null() | (pl.col("replaced") <= pl.col(seen_at)))
    return (
        looked.filter(in_force)
        .sort("book", "decided")
        .group_by("session", "replaced", "known_at", maintain_order=True)
        .agg(used_by=pl.struct("book", session="decided"))
    )


def worth_telling(records: Sequence[Mapping[str, Any]], volume_ratio: float) -> list[Mapping[str, Any]]:
    """Those of ``records`` (of_rows) that change more than a volume, or a volume by more than ``volume_ratio`` of it: feeds count the last
    trades of a session for days.
    """

    def small(change: Mapping[str, Any]) -> bool:
        if change["column"] not in _COUNTED or change["old"] is None or change["new"] is None:
            return False
        old, new = float(change["old"]), float(change["new"])
        return abs(new - old) <= volume_ratio * abs(old)

    return [record for record in records if not all(small(change) for change in record["changes"])]


def of_rows(changes: pl.DataFrame) -> list[dict[str, object]]:
    """``changes`` (REVISIONS) as one record for each revised row, for the audit log: its columns' changes, and the sessions of each book
    that used it. Dates and instants as ISO texts.
    """
    records: list[dict[str, object]] = []
    for part in changes.partition_by(_ROW, maintain_order=True):
        row = part.row(0, named=True)
        uses: dict[str, list[str]] = {}
        for use in row["used_by"]:
            uses.setdefault(use["book"], []).append(use["session"].isoformat())
        records.append({
            **{name: row[name] for name in ("table", "symbol", "kind", "source")},
            "session": row["session"].isoformat(),
            "known_at": row["known_at"].isoformat(),
            "changes": part.select("column", "old", "new").to_dicts(),
            "used_by": [{"book": book, "sessions": sessions} for book, sessions in uses.items()],
        })  # fmt: skip
    return records
