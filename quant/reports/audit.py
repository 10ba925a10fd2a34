"""A month of a book for compliance: what was decided, denied, executed, and what people and limits did, out of the audit log."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, cast

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quant.audit.anchor import Anchor, Verification
    from quant.audit.chain import ChainEntry

MACHINE = frozenset(
    {"session", "bookings", "intents", "order_events", "decision", "data", "scores", "weights", "risk", "replay", "settings", "code"}
)
"""Kinds of entries that every session has. All others are listed one by one: halts, overrides, releases, promotions, revisions."""
SESSIONS = pl.Schema({
    "session": pl.Date, "state": pl.String, "known_by": pl.String, "decided": pl.String, "submitted": pl.Int64, "denied": pl.Int64,
    "fills": pl.Int64, "closing_nav": pl.Float64, "pnl": pl.Float64, "entry": pl.Int64,
})  # fmt: skip
DENIALS = pl.Schema({
    "session": pl.Date, "symbol": pl.String, "side": pl.String, "quantity": pl.Float64, "limit": pl.String, "observed": pl.Float64,
    "allowed": pl.Float64, "unit": pl.String, "client_order_id": pl.String,
})  # fmt: skip
ACTS = pl.Schema({"entry": pl.Int64, "recorded": pl.String, "kind": pl.String, "what": pl.String})
ANCHORS = pl.Schema({
    "anchor": pl.Int64, "written": pl.String, "first": pl.Int64, "last": pl.Int64, "day": pl.String, "root": pl.String, "head": pl.String,
})  # fmt: skip
VERSIONS = pl.Schema({"kind": pl.String, "digest": pl.String, "first": pl.Date, "last": pl.Date, "sessions": pl.Int64})
_DIGEST = re.compile(r"[0-9a-f]{64}")
_DAYS = ("session", "effective_session", "known_at")  # of a payload: the day that an entry is about


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """One book's month. Frames in the schemas above; orders and fills are rows of the lake's tables.

    - sessions: every session of the month up to the last one there can be: decided, begun, skipped or not run.
    - acts: entries of the log that are no session's routine, recorded in the month or about a day of it.
    - versions: settings and code that the month's decisions were made with.
    - unlogged: orders and fills of the tables that the log does not have. They are from before it was kept, or were never recorded.
    """

    month: str
    book: str
    profile: str
    source: str
    sessions: pl.DataFrame
    orders: pl.DataFrame
    denials: pl.DataFrame
    fills: pl.DataFrame
    acts: pl.DataFrame
    versions: pl.DataFrame
    anchors: pl.DataFrame
    unlogged: Sequence[str]
    verification: Verification

    def tables(self) -> Mapping[str, pl.DataFrame]:
        """Everything by name."""
        names = ("sessions", "orders", "denials", "fills", "acts", "versions", "anchors")
        return {name: getattr(self, name) for name in names}


def month_entries(entries: Iterable[ChainEntry], month: str) -> list[tuple[int, str, str, Mapping[str, Any]]]:
    """(sequence, recorded_at, kind, payload) of the entries that were recorded in a month (YYYY-MM) or are about a day of it."""
    found: list[tuple[int, str, str, Mapping[str, Any]]] = []
    for entry in entries:
        if entry.recorded_at.startswith(month) or f'"{month}-' in entry.payload:
            payload = cast("Mapping[str, Any]", json.loads(entry.payload))
            if entry.recorded_at.startswith(month) or any(str(payload.get(name, "")).startswith(month) for name in _DAYS):
                found.append((entry.sequence, entry.recorded_at, entry.kind, payload))
    return found


def audit_report(
    entries: Sequence[tuple[int, str, str, Mapping[str, Any]]],
    *,
    month: str,
    book: str,
    profile: str,
    source: str,
    calendar: Sequence[date],
    orders: pl.DataFrame,
    fills: pl.DataFrame,
    nav: pl.DataFrame,
    verification: Verification,
    anchors: Sequence[Anchor],
) -> AuditReport:
    """The report on ``entries`` (month_entries), ``calendar`` (the month's sessions so far) and rows of orders, fills and daily_nav."""
    of_book = [entry for entry in entries if entry[3].get("book") == book]
    return AuditReport(
        month=month,
        book=book,
        profile=profile,
        source=source,
        sessions=_sessions(of_book, calendar, orders, fills, nav),
        orders=orders,
        denials=_denials(orders),
        fills=fills,
        acts=_acts(entries, book),
        versions=_versions(of_book),
        anchors=_anchors(anchors, {entry[0] for entry in entries}, month),
        unlogged=_unlogged(of_book, orders, fills),
        verification=verification,
    )


def _sessions(
    entries: Sequence[tuple[int, str, str, Mapping[str, Any]]],
    calendar: Sequence[date],
    orders: pl.DataFrame,
    fills: pl.DataFrame,
    nav: pl.DataFrame,
) -> pl.DataFrame:
    said: dict[tuple[str, str], tuple[int, str, Mapping[str, Any]]] = {}
    for sequence, recorded_at, kind, payload in entries:
        said.setdefault((kind, str(payload.get("session"))), (sequence, recorded_at, payload))
    values = {row["session"]: row for row in nav.iter_rows(named=True)}
    rows: list[dict[str, object]] = []
    for session in calendar:
        day, mine = session.isoformat(), orders.filter(pl.col("session") == session)
        decided, begun = said.get(("decision", day)), said.get(("session", day))
        skipped = any("skip" in kind and at == day for kind, at in said)
        value = values.get(session)
        rows.append({
            "session": session,
            "state": "skipped" if skipped else "decided" if decided else "begun" if begun else "not run",
            "known_by": None if decided is None else decided[2].get("decision_at"),
            "decided": None if decided is None else _minute(decided[1]),
            "submitted": mine.filter(pl.col("denied_by").is_null()).height,
            "denied": mine.filter(pl.col("denied_by").is_not_null()).height,
            "fills": fills.filter(pl.col("session") == session).height,
            "closing_nav": None if value is None else float(value["closing_nav"]),
            "pnl": None if value is None else float(value["closing_nav"] - value["opening_nav"] - value["external_flows"]),
            "entry": None if decided is None else decided[0],
        })  # fmt: skip
    return pl.DataFrame(rows, schema=SESSIONS, orient="row")


def _denials(orders: pl.DataFrame) -> pl.DataFrame:
    denied = orders.filter(pl.col("denied_by").is_not_null()).with_columns(pl.col("quantity").cast(pl.Float64))
    return denied.rename({"denied_by": "limit"}).select(DENIALS.names()).cast(DENIALS)  # type: ignore[arg-type]


def _acts(entries: Sequence[tuple[int, str, str, Mapping[str, Any]]], book: str) -> pl.DataFrame:
    rows = [
        (sequence, _minute(recorded_at), kind, told(payload))
        for sequence, recorded_at, kind, payload in entries
        if kind not in MACHINE and payload.get("book", book) == book
    ]
    return pl.DataFrame(rows, schema=ACTS, orient="row")


def told(payload: Mapping[str, object]) -> str:
    """A payload as one line of names and values, what is empty left out."""
    return "; ".join(f"{name.replace('_', ' ')} {_value(value)}" for name, value in payload.items() if value not in (None, "", [], {}))


def _value(value: object) -> str:
    match value:
        case dict():
            return "(" + told(cast("Mapping[str, object]", value)) + ")"
        case list():
            items = [_value(item) for item in cast("list[object]", value)]
            return ", ".join(items) if len(items) <= 4 else f"{items[0]} to {items[-1]} ({len(items)})"
        case str() if _DIGEST.fullmatch(value):
            return f"{value[:16]}..."
        case _:
            return str(value)


def _versions(entries: Sequence[tuple[int, str, str, Mapping[str, Any]]]) -> pl.DataFrame:
    used: dict[tuple[str, str], list[date]] = {}
    for _, _, kind, payload in entries:
        if kind == "data":
            for name in ("settings", "code"):
                used.setdefault((name, str(payload[name])), []).append(date.fromisoformat(str(payload["session"])))
    rows = [(name, digest, min(days), max(days), len(days)) for (name, digest), days in used.items()]
    return pl.DataFrame(rows, schema=VERSIONS, orient="row").sort("kind", "first")


def _anchors(anchors: Sequence[Anchor], sequences: set[int], month: str) -> pl.DataFrame:
    rows = [
        (anchor.number, _minute(anchor.written_at), anchor.first, anchor.last, day.day, day.root, anchor.head)
        for anchor in anchors
        for day in anchor.days[-1:]
        if anchor.written_at.startswith(month) or not sequences.isdisjoint(range(anchor.first, anchor.last + 1))
    ]
    return pl.DataFrame(rows, schema=ANCHORS, orient="row")


def _unlogged(entries: Sequence[tuple[int, str, str, Mapping[str, Any]]], orders: pl.DataFrame, fills: pl.DataFrame) -> list[str]:
    rows = {kind: [row[0] for _, _, of, payload in entries if of == kind for row in payload[part]] for kind, part in _PARTS.items()}
    intents, booked = set(rows["intents"]), {str(key).partition("|")[2] for key in rows["bookings"]}
    missing = [f"order {name}" for name in orders["client_order_id"] if name not in intents]
    return missing + [f"fill {name}" for name in fills["execution_id"] if name not in booked]


_PARTS = {"intents": "rows", "bookings": "fills"}


def _minute(instant: str) -> str:
    return f"{instant[:10]} {instant[11:16]}"
