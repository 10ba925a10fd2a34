"""Revisions of what decisions were made on: found when they are stored, put into the audit log once, restating nothing."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import cache
from typing import Any

import polars as pl

from assets.chain import Chain
from quant.market.revisions import decisions_reaching, of_rows, revisions
from quant.ports import Lake, Ledger
from quant.quality.rule import Severity
from quant.tables import TABLES
from quant.trading.market import LIQUIDITY_SESSIONS

REVISION = "revision"
"""Kind of the audit log's records; quant.market.revisions.of_rows has what they hold."""
RULE = "r22_used_row_revised"
_IDENTITY = ("table", "symbol", "session", "kind", "source", "known_at")


def decisions_made(chain: Chain, lake: Lake, ledger: Ledger) -> pl.DataFrame:
    """Every session that a book decided, and up to when it knew things (quant.market.revisions.decisions_reaching)."""
    nav = lake.read("daily_nav", columns=["book", "session", "decision_at"])
    replayed = pl.when(pl.col("book") == chain.backtest_book).then(pl.lit(chain.history_instant(lake, ledger)))
    reach = max(chain.strategy.feature_reach, chain.strategy.library_reach, LIQUIDITY_SESSIONS, chain.universe.window_sessions)
    known = nav.select("book", "session", known_by=replayed.otherwise("decision_at"))
    return decisions_reaching(known, chain.calendar, reach)


def revisions_since(chain: Chain, lake: Lake, ledger: Ledger, since: datetime | None) -> pl.DataFrame:
    """All revisions of bars and actions that are known since an instant (quant.market.revisions.REVISIONS)."""
    return pl.concat(
        _changes(chain, lake, ledger, table, lake.read(table), since) for table in ("raw_bars", "peer_bars", "corporate_actions")
    )


def _changes(chain: Chain, lake: Lake, ledger: Ledger, table: str, rows: pl.DataFrame, since: datetime | None = None) -> pl.DataFrame:
    @cache
    def judged_at(day: date) -> datetime:
        return chain.instant(lake, ledger, chain.calendar.on_or_after(day))

    made = decisions_made(chain, lake, ledger)
    return revisions(rows, table, made, judged_at=None if table == "corporate_actions" else judged_at, since=since)


def as_findings(records: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """``records`` as rows of bar_findings under rule 22, for the check that tells of them: what was used is expected, what came observed.
    They are in no table: what was found on a session stays what was known at its instant.
    """
    rows = [
        {
            "session": date.fromisoformat(record["session"]),
            "symbol": record["symbol"],
            "rule": RULE,
            "severity": Severity.WARN.value,
            "expected": f"{_values(record, 'old')}, as used by {_users(record)}",
            "observed": f"{_values(record, 'new')}, known since {record['known_at']}",
            "evidence": f"{record['table']} of source {record['source']}",
        }
        for record in records
    ]
    return pl.DataFrame(rows, schema=TABLES["bar_findings"].schema)


def _values(record: Mapping[str, Any], side: str) -> str:
    kind = f"{record['kind']} " if record["kind"] else ""
    return kind + ", ".join(f"{change['column']} {change[side] or 'none'}" for change in record["changes"])


def _users(record: Mapping[str, Any]) -> str:
    return ", ".join(f"{use['book']} in {_span(use['sessions'])}" for use in record["used_by"])


def _span(sessions: Sequence[str]) -> str:
    return sessions[0] if len(sessions) == 1 else f"{sessions[0]} to {sessions[-1]} ({len(sessions)} sessions)"


def record_revisions(chain: Chain, lake: Lake, ledger: Ledger, table: str, first: date, last: date) -> list[dict[str, object]]:
    """Put every revision of first..last that a decision used into the audit log, once; returns those that were not there yet.

    A run that was killed between storing a row and recording it records it the next time.
    """
    if ledger.begun(chain.paper_book) is None:
        return []  # the history is not fixed yet: it takes corrections in
    rows = lake.read(table, first=first, last=last)
    if rows["known_at_assumed"].all():
        return []
    changes = _changes(chain, lake, ledger, table, rows).filter(pl.col("used_by").list.len() > 0)
    if changes.is_empty():
        return []
    recorded = {tuple(payload[name] for name in _IDENTITY) for _, _, _, payload in ledger.audit(REVISION)}
    new = [record for record in of_rows(changes) if tuple(record[name] for name in _IDENTITY) not in recorded]
    for record in new:
        ledger.record(REVISION, record)
    return new
