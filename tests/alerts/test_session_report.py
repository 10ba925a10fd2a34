"""The notice on a session's result."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl

from adapters.clock import FixedClock
from adapters.ledger import open_outbox
from quant.alerts.alert import AlertState, subject, text
from quant.alerts.session_report import session_report
from quant.tables import TABLES

DAY, BEFORE = date(2013, 2, 28), date(2013, 2, 27)
AT = datetime(2013, 3, 1, 2, tzinfo=UTC)


def rows(table: str, *given: dict[str, object]) -> pl.DataFrame:
    schema = TABLES[table].schema
    empty = {name: Decimal(0) if isinstance(kind, pl.Decimal) else None for name, kind in schema.items()}
    return pl.DataFrame([{**empty, "book": "paper", "session": DAY, **row} for row in given], schema=schema)


NAV = rows("daily_nav", {"opening_nav": Decimal(1000), "external_flows": Decimal(100), "closing_nav": Decimal("1130.005")})
PNL = rows(
    "daily_pnl",
    {"symbol": "AAA", "price_pnl": Decimal(50), "dividends": Decimal(2), "commissions": Decimal(1)},
    {"symbol": "BBB", "price_pnl": Decimal(-20), "borrow": Decimal("0.5")},
    {"symbol": "CCC"},
)
HELD = rows(
    "positions",
    {"symbol": "AAA", "session": BEFORE, "quantity": Decimal(5)},
    {"symbol": "BBB", "session": BEFORE, "quantity": Decimal(-5)},
    {"symbol": "AAA", "quantity": Decimal(5)},
)
ORDERS = rows("orders", {"symbol": "AAA", "state": "accepted"}, {"symbol": "BBB", "state": "denied"})


def test_it_says_what_the_session_brought_by_side_and_cost() -> None:
    report = session_report("paper", DAY, nav=NAV, pnl=PNL, orders=ORDERS, positions=HELD)
    assert report is not None
    assert report.observed == (
        "NAV 1,130.00 USD; P&L +30.00 (long +52.00, short -20.00, costs -1.50); largest: AAA +52.00, BBB -20.00; "
        "orders: 1 sent, 1 denied or not sent; positions: 1"
    )


def test_a_session_in_which_the_book_did_not_trade_has_none() -> None:
    assert session_report("paper", DAY, nav=NAV.clear(), pnl=PNL, orders=ORDERS, positions=HELD) is None


def test_it_is_told_once_and_nothing_stands_after_it(tmp_path: Path) -> None:
    outbox = open_outbox(f"sqlite:///{tmp_path / 'ledger.sqlite'}", FixedClock(AT), ["log"])
    report = session_report("paper", DAY, nav=NAV, pnl=PNL, orders=ORDERS, positions=HELD)
    assert report is not None
    first = outbox.report(report)
    assert first is not None
    assert outbox.report(report) is None
    assert outbox.pending("log") == [first]
    assert [change.state for change in first.changes] == [AlertState.TOLD]
    assert outbox.standing() == []
    assert subject(first) == "INFO session 2013-02-28, rule result of book paper"
    said = text(first, "http://127.0.0.1:3000")
    assert "expected" not in said
    assert "  NAV 1,130.00 USD; P&L +30.00" in said
