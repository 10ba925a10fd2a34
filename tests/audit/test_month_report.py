"""A month for compliance out of entries and rows: what ran and what did not, who did what, and what the log does not have."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import Any

import polars as pl

from adapters.report.audit import audit_document, render_audit_report
from quant.audit.anchor import Anchor, DayRoot, Fault, Verification
from quant.audit.canonical import canonical_json
from quant.audit.chain import GENESIS, ChainEntry
from quant.reports.audit import AuditReport, audit_report, month_entries
from quant.tables import TABLES

DAYS = [date(2013, 2, day) for day in (25, 26, 27, 28)]


def entry(sequence: int, kind: str, payload: dict[str, Any], recorded: str = "2013-02-26T22:00:00.000000Z") -> ChainEntry:
    return ChainEntry(sequence, recorded, kind, None, canonical_json(payload).decode())


def order_row(session: date, symbol: str, denied_by: str | None = None) -> dict[str, Any]:
    return {
        "book": "paper", "session": session, "symbol": symbol, "leg": "open", "generation": 1, "side": "buy",
        "client_order_id": f"paper-{symbol}", "quantity": Decimal(10), "reference_price": Decimal(100), "state": "accepted",
        "denied_by": denied_by, "observed": 0.7 if denied_by else None, "allowed": 0.6 if denied_by else None, "unit": "ratio",
    }  # fmt: skip


def fill_row(session: date, symbol: str, execution: str) -> dict[str, Any]:
    return {
        "book": "paper", "session": session, "symbol": symbol, "leg": "open", "generation": 1, "execution_id": execution,
        "client_order_id": f"paper-{symbol}", "side": "buy", "quantity": Decimal(10), "unfilled": Decimal(0), "price": Decimal(101),
        "reference_price": Decimal(100), "slippage": Decimal(10), "commission": Decimal(1),
    }  # fmt: skip


ENTRIES = [
    entry(1, "halt", {"book": "paper", "reason": "of another month"}, "2013-01-31T23:59:59.999999Z"),
    entry(2, "session", {"book": "paper", "session": "2013-02-25"}),
    entry(3, "decision", {"book": "paper", "session": "2013-02-25", "decision_at": "2013-02-25T21:30:00+00:00"}),
    entry(4, "data", {"book": "paper", "session": "2013-02-25", "settings": "a" * 64, "code": "c" * 64}),
    entry(5, "intents", {"book": "paper", "session": "2013-02-25", "rows": [["paper-IBM"], ["paper-AAPL"]]}),
    entry(6, "session", {"book": "paper", "session": "2013-02-26"}),
    entry(7, "bookings", {"book": "paper", "session": "2013-02-26", "fills": [["trade|x1", "IBM"], ["commission|x1", "IBM"]]}),
    entry(8, "session_skip", {"book": "paper", "session": "2013-02-27", "reason": "no feed <script>"}),
    entry(9, "quarantine", {"verdict": "release", "session": "2003-05-05", "symbol": "IBM", "reason": "checked", "digests": ["d" * 64]}),
    entry(10, "promotion", {"strategy": "s", "effective_session": "2013-02-28", "version": "v"}, "2026-01-01T00:00:00.000000Z"),
    entry(11, "halt", {"book": "another", "reason": "not ours"}),
    entry(12, "decision", {"book": "another", "session": "2013-02-28"}),
]
SOUND = Verification(entries=12, head="f" * 64, anchors=1, anchored=10)


def reported(verification: Verification = SOUND, fills: tuple[str, ...] = ("x1",)) -> AuditReport:
    orders = [order_row(DAYS[0], "IBM"), order_row(DAYS[0], "AAPL", "single_name")]
    root = DayRoot(day="2013-02-26", first=1, last=10, root="e" * 64)
    anchor = Anchor(
        number=1, written_at="2013-02-26T22:00:01.000000Z", first=1, last=10, before=GENESIS, head="f" * 64, days=(root,),
        leaves=("a" * 64,) * 10, previous=GENESIS, public_key="b" * 64,
    )  # fmt: skip
    return audit_report(
        month_entries(ENTRIES, "2013-02"),
        month="2013-02",
        book="paper",
        profile="test",
        source="sample",
        calendar=DAYS,
        orders=pl.DataFrame(orders, schema=TABLES["orders"].schema),
        fills=pl.DataFrame([fill_row(DAYS[1], "IBM", name) for name in fills], schema=TABLES["fills"].schema),
        nav=TABLES["daily_nav"].empty(),
        verification=verification,
        anchors=[anchor],
    )


def test_every_session_of_the_calendar_has_its_state() -> None:
    rows = reported().sessions
    assert rows["state"].to_list() == ["decided", "begun", "skipped", "not run"]
    assert rows.row(0, named=True) | {"session": None} == {
        "session": None, "state": "decided", "known_by": "2013-02-25T21:30:00+00:00", "decided": "2013-02-26 22:00", "submitted": 1,
        "denied": 1, "fills": 0, "closing_nav": None, "pnl": None, "entry": 3,
    }  # fmt: skip


def test_what_people_and_limits_did_is_listed_by_the_day_it_was_recorded_or_is_about() -> None:
    acts = reported().acts
    assert acts["entry"].to_list() == [8, 9, 10]
    assert acts["what"][1] == f"digests {'d' * 16}...; reason checked; session 2003-05-05; symbol IBM; verdict release"
    assert reported().denials.row(0) == (DAYS[0], "AAPL", "buy", 10.0, "single_name", 0.7, 0.6, "ratio", "paper-AAPL")


def test_what_the_log_does_not_have_is_named() -> None:
    assert reported().unlogged == []
    assert reported(fills=("x1", "x2")).unlogged == ["fill x2"]


def test_the_page_says_so_and_shows_text_as_text() -> None:
    page = render_audit_report(reported(fills=("x1", "x2")))
    assert "fill x2" in page
    assert "<script>" not in page
    assert "no feed &lt;script&gt;" in page
    assert "as recorded" in page
    fault = Verification(entries=6, head="f" * 64, anchors=1, anchored=6, faults=(Fault(sequence=7, reason="rewritten"),))
    page = render_audit_report(reported(fault))
    assert all(text in page for text in ("NOT as recorded", "entry 7: rewritten"))


def test_the_document_has_the_whole_month() -> None:
    document = json.loads(audit_document(reported()))
    assert document["verification"] == {"sound": True, "faults": [], "entries": 12, "anchored": 10, "head": "f" * 64}
    assert [row["digest"][0] for row in document["versions"]] == ["c", "a"]
    assert (document["orders"][0]["quantity"], document["anchors"][0]["root"]) == ("10.000000000", "e" * 64)


def test_a_month_without_anything_has_no_entries() -> None:
    assert month_entries(ENTRIES, "2013-03") == []
