"""The page of a book's month for compliance, its tables as CSV and all of it as one JSON document."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from adapters.report.figures import Figure, measured, number, usd
from adapters.report.html import environment
from adapters.report.tables import Field, Table, table
from quant.audit.canonical import plain

if TYPE_CHECKING:
    from quant.reports.audit import AuditReport

_COUNT = partial(number, decimals=0)
_MOST = 500  # rows of a table on the page; the CSV has all

SESSIONS = (
    Field(label="Session", column="session"),
    Field(label="State", column="state"),
    Field(label="Decided, UTC", column="decided"),
    Field(label="Submitted", column="submitted", text=_COUNT),
    Field(label="Denied", column="denied", text=_COUNT),
    Field(label="Fills", column="fills", text=_COUNT),
    Field(label="P&L", column="pnl", text=usd),
    Field(label="Net asset value", column="closing_nav", text=usd),
    Field(label="Entry", column="entry", text=_COUNT),
)
LIMITS = (
    Field(label="Limit", column="limit"),
    Field(label="Denials", column="denials", text=_COUNT),
    Field(label="Symbols", column="symbols"),
)
DENIALS = (
    Field(label="Session", column="session"),
    Field(label="Symbol", column="symbol"),
    Field(label="Side", column="side"),
    Field(label="Shares", column="quantity", text=_COUNT),
    Field(label="Limit", column="limit"),
    Field(label="Observed", column="observed", text=measured),
    Field(label="Allowed", column="allowed", text=measured),
    Field(label="Unit", column="unit"),
)
ACTS = (
    Field(label="Entry", column="entry"),
    Field(label="Recorded, UTC", column="recorded"),
    Field(label="Kind", column="kind"),
    Field(label="What", column="what"),
)
ORDERS = (
    Field(label="Session", column="session"),
    Field(label="Symbol", column="symbol"),
    Field(label="Side", column="side"),
    Field(label="Leg", column="leg"),
    Field(label="Shares", column="quantity", text=_COUNT),
    Field(label="Close, USD", column="reference_price", text=number),
    Field(label="State", column="state"),
    Field(label="Order", column="client_order_id"),
)
FILLS = (
    Field(label="Session", column="session"),
    Field(label="Symbol", column="symbol"),
    Field(label="Side", column="side"),
    Field(label="Shares", column="quantity", text=_COUNT),
    Field(label="Fill, USD", column="price", text=partial(number, decimals=4)),
    Field(label="Slippage", column="slippage", text=usd),
    Field(label="Commission", column="commission", text=usd),
    Field(label="Order", column="client_order_id"),
)
VERSIONS = (
    Field(label="Of", column="kind"),
    Field(label="SHA-256", column="digest"),
    Field(label="First session", column="first"),
    Field(label="Last session", column="last"),
    Field(label="Sessions", column="sessions", text=_COUNT),
)
ANCHORS = (
    Field(label="Anchor", column="anchor"),
    Field(label="Written, UTC", column="written"),
    Field(label="Entries", column="entries"),
    Field(label="Day", column="day"),
    Field(label="Root of the day up to here", column="root"),
)


def render_audit_report(report: AuditReport) -> str:
    """The page as HTML text."""
    page = environment().get_template("audit.html.jinja")
    return page.render(report=report, figures=_tiles(report), tables=_tables(report), sound=report.verification.sound)


def audit_document(report: AuditReport) -> str:
    """Everything as JSON."""
    head = {name: getattr(report, name) for name in ("month", "book", "profile", "source", "unlogged")}
    found = report.verification
    verified = {"sound": found.sound, "faults": [str(f) for f in found.faults], "entries": found.entries, "anchored": found.anchored}
    tables = {name: rows.to_dicts() for name, rows in report.tables().items()}
    return json.dumps(plain({**head, "verification": {**verified, "head": found.head}, **tables}), indent=1, allow_nan=False) + "\n"


def _tiles(report: AuditReport) -> list[Figure]:
    states = dict(report.sessions["state"].value_counts().iter_rows())
    others = ", ".join(f"{n} {state}" for state, n in sorted(states.items()) if state != "decided")
    found, orders = report.verification, report.orders.height
    return [
        Figure(
            label="Sessions decided", value=f"{states.get('decided', 0)} of {report.sessions.height}", note=others or "all that there were"
        ),
        Figure(label="Orders", value=f"{orders:,}", note=f"{report.denials.height} denied by a limit"),
        Figure(label="Fills", value=f"{report.fills.height:,}", note=f"{_commissions(report)} in commissions"),
        Figure(label="Acts on record", value=f"{report.acts.height:,}", note="halts, overrides, releases, promotions, revisions"),
        Figure(
            label="Audit log",
            value="as recorded" if found.sound else "NOT as recorded",
            note=f"{found.entries:,} entries, {found.anchored:,} of them anchored"
            if found.sound
            else f"up to entry {found.entries:,} it is",
        ),
    ]


def _commissions(report: AuditReport) -> str:
    return usd(float(report.fills["commission"].cast(pl.Float64).sum()))


def _tables(report: AuditReport) -> dict[str, Table]:
    by_limit = report.denials.group_by("limit").agg(denials=pl.len(), symbols=pl.col("symbol").unique().sort().str.join(", "))
    anchors = report.anchors.with_columns(entries=pl.format("{} to {}", "first", "last"))
    several = report.acts.with_columns(pl.col("entry").cast(pl.String))
    return {
        "sessions": table("Sessions", report.sessions, SESSIONS, limit=_MOST),
        "limits": table("By limit", by_limit.sort("denials", "limit", descending=[True, False]), LIMITS, limit=_MOST),
        "denials": table("Denied orders", report.denials, DENIALS, limit=_MOST),
        "acts": table("Everything that is no session's routine", several, ACTS, limit=_MOST),
        "orders": table("Orders, by the session that decided them", report.orders, ORDERS, limit=_MOST),
        "fills": table("Fills, by the session of execution", report.fills, FILLS, limit=_MOST),
        "versions": table("What decisions were made with", report.versions, VERSIONS, limit=_MOST),
        "anchors": table("Anchors", anchors.with_columns(pl.col("anchor").cast(pl.String)), ANCHORS, limit=_MOST),
    }
