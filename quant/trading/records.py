"""Settlements and decisions as rows of the lake's book tables. The same rows from a daily run and from a replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal

import polars as pl

from quant.ledger.book import BookState
from quant.ledger.reconciliation import WHOLE_ACCOUNT
from quant.tables import TABLES
from quant.trading.attribution import COSTS, GAINS, SymbolPnl
from quant.trading.orders import Execution, Order, OrderState
from quant.trading.reconciling import Reconciled
from quant.trading.settlement import Settlement
from quant.units import ZERO

_NOT_TAKEN = (OrderState.DENIED, OrderState.REJECTED, OrderState.MISSED, OrderState.DRY_RUN)
_TERMS = (*GAINS, *COSTS, "long_pnl", "short_pnl", "slippage", "turnover")


def frame(table: str, rows: Sequence[Mapping[str, object]]) -> pl.DataFrame:
    """Rows of a book table in its schema."""
    return pl.DataFrame([dict(row) for row in rows], schema=TABLES[table].schema, orient="row")


def fill_rows(executions: Sequence[Execution]) -> pl.DataFrame:
    """Rows of table fills."""
    return frame(
        "fills",
        [
            {
                "book": x.order.book,
                "session": x.session,
                "symbol": x.order.symbol,
                "leg": str(x.order.leg),
                "generation": x.order.generation,
                "execution_id": x.execution_id,
                "client_order_id": x.order.client_order_id,
                "side": str(x.order.side),
                "quantity": x.quantity,
                "unfilled": x.unfilled,
                "price": x.price,
                "reference_price": x.reference_price,
                "slippage": x.quantity * x.order.side.sign * (x.price - x.reference_price),
                "commission": x.commission,
            }
            for x in executions
        ],
    )


def position_rows(book: str, session: date, state: BookState) -> pl.DataFrame:
    """Rows of table positions."""
    nav = state.nav
    return frame(
        "positions",
        [
            {
                "book": book,
                "session": session,
                "symbol": symbol,
                "quantity": held.quantity,
                "mark": held.mark,
                "market_value": held.market_value,
                "weight": float(held.market_value / nav) if nav else 0.0,
                "stale": held.stale,
            }
            for symbol, held in state.holdings.items()
        ],
    )


def pnl_rows(book: str, session: date, pnl: Sequence[SymbolPnl]) -> pl.DataFrame:
    """Rows of table daily_pnl."""
    rows = [{"book": book, "session": session, "symbol": p.symbol, **{t: getattr(p, t) for t in _TERMS}} for p in pnl]
    return frame("daily_pnl", rows)


def nav_rows(book: str, session: date, settlement: Settlement, decision_at: datetime) -> pl.DataFrame:
    """The row of table daily_nav."""
    closing = settlement.closing
    values = [h.market_value for h in closing.holdings.values()]
    sums: dict[str, Decimal] = {term: sum((getattr(p, term) for p in settlement.pnl), ZERO) for term in _TERMS}
    row: dict[str, object] = {
        "book": book,
        "session": session,
        "opening_nav": settlement.opening.nav,
        **sums,
        "interest": settlement.interest,
        "external_flows": settlement.external_flows,
        "closing_nav": closing.nav,
        "cash": closing.cash,
        "receivables": closing.receivable,
        "broker_divergence": closing.divergence,
        "long_value": sum((v for v in values if v > 0), ZERO),
        "short_value": sum((v for v in values if v < 0), ZERO),
        "decision_at": decision_at,
    }
    return frame("daily_nav", [row])


def reconciliation_rows(book: str, session: date, done: Reconciled) -> pl.DataFrame:
    """Rows of table reconciliations."""
    return frame(
        "reconciliations",
        [
            {
                "book": book,
                "session": session,
                "number": number,
                "symbol": delta.symbol or WHOLE_ACCOUNT,
                "kind": str(delta.kind),
                "quantity": delta.quantity,
                "amount": delta.amount,
                "outcome": str(delta.outcome),
                "evidence": delta.evidence,
                "reason": delta.reason,
            }
            for number, delta in enumerate(done.found.deltas)
        ],
    )


def broker_position_rows(book: str, session: date, done: Reconciled) -> pl.DataFrame:
    """Rows of table broker_positions."""
    theirs, held = {position.symbol: position for position in done.positions}, done.held or {}
    return frame(
        "broker_positions",
        [
            {
                "book": book,
                "session": session,
                "symbol": symbol,
                "broker_quantity": theirs[symbol].quantity if symbol in theirs else ZERO,
                "ledger_quantity": held.get(symbol, ZERO),
                "average_entry_price": theirs[symbol].average_entry_price if symbol in theirs else None,
            }
            for symbol in sorted({*theirs, *held})
        ],
    )


def order_rows(orders: Sequence[Order]) -> pl.DataFrame:
    """Rows of table orders: the state at submission."""
    return frame(
        "orders",
        [
            {
                "book": o.book,
                "session": o.session,
                "symbol": o.symbol,
                "leg": str(o.leg),
                "generation": o.generation,
                "client_order_id": o.client_order_id,
                "side": str(o.side),
                "quantity": o.quantity,
                "reference_price": o.reference_price,
                "state": str(o.state if o.state in _NOT_TAKEN else OrderState.ACCEPTED),
                "denied_by": o.denial.limit if o.denial else None,
                "observed": o.denial.observed if o.denial else None,
                "allowed": o.denial.allowed if o.denial else None,
                "unit": o.denial.unit if o.denial else None,
            }
            for o in orders
        ],
    )
