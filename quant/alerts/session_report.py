"""What a session brought, in a line for the channels: nothing is wrong, so it is told once and never stands."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import polars as pl

from quant.alerts.alert import Alert, AlertKind, AlertSeverity
from quant.units import ZERO, cents

if TYPE_CHECKING:
    from datetime import date

LARGEST = 3
"""Contributors that are named."""
_NOT_SENT = ("denied", "rejected", "missed", "dry_run")
_GAINS = ("price_pnl", "dividends", "cash_in_lieu")
_COSTS = ("commissions", "borrow")


def session_report(
    book: str, session: date, *, nav: pl.DataFrame, pnl: pl.DataFrame, orders: pl.DataFrame, positions: pl.DataFrame
) -> Alert | None:
    """The report on a session from the book's rows of daily_nav, daily_pnl and orders of the session, and of positions of it and of the
    session before. None if the book did not trade in it.

    A name's gain belongs to the side it was held on before the session, else after it. Costs are the costs in the ledger; slippage is
    inside the gains. USD, to the cent.
    """
    if nav.is_empty():
        return None
    closing, change = nav["closing_nav"][0], nav["closing_nav"][0] - nav["opening_nav"][0] - nav["external_flows"][0]
    sides = dict(positions.sort("session", descending=True).select("symbol", pl.col("quantity") > 0).iter_rows())
    gains = {row["symbol"]: sum((row[term] for term in _GAINS), ZERO) for row in pnl.iter_rows(named=True)}
    costs = sum((row[term] for row in pnl.iter_rows(named=True) for term in _COSTS), ZERO)
    longs = sum((gain for symbol, gain in gains.items() if sides.get(symbol, True)), ZERO)
    shorts = sum((gain for symbol, gain in gains.items() if not sides.get(symbol, True)), ZERO)
    largest = sorted(gains.items(), key=lambda item: (-abs(item[1]), item[0]))[:LARGEST]
    unsent = orders.filter(pl.col("state").is_in(_NOT_SENT)).height
    held = positions.filter(pl.col("session") == session).height
    parts = [
        f"NAV {_usd(closing)} USD",
        f"P&L {_signed(change)} (long {_signed(longs)}, short {_signed(shorts)}, costs {_signed(-costs)})",
        f"largest: {', '.join(f'{symbol} {_signed(gain)}' for symbol, gain in largest if gain) or 'none'}",
        f"orders: {orders.height - unsent} sent, {unsent} denied or not sent",
        f"positions: {held}",
    ]
    return Alert(
        key=f"report/{book}/{session}",
        kind=AlertKind.REPORT,
        severity=AlertSeverity.INFO,
        session=session,
        rule=f"result of book {book}",
        expected="",
        observed="; ".join(parts),
        path="/assets/performance_report?view=partitions",
    )


def _usd(amount: Decimal) -> str:
    return f"{cents(amount):,.2f}"


def _signed(amount: Decimal) -> str:
    return f"{cents(amount) + ZERO:+,.2f}"
