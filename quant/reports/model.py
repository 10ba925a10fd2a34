"""Everything a report page shows of one book up to one session, as frames and figures; the page itself is drawn at the edge."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import polars as pl
import polars.selectors as cs

from quant.errors import SequenceError, expected
from quant.modelling.information_coefficient import information_coefficient, summarise_ic
from quant.reports.performance import (
    COST_KINDS,
    Performance,
    daily_returns,
    drawdown,
    equal_weight_benchmark,
    ic_by_month,
    monthly_returns,
    performance,
    performance_rows,
)
from quant.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

REPORT_INPUTS = (
    "daily_nav",
    "daily_pnl",
    "positions",
    "fills",
    "orders",
    "target_weights",
    "scores",
    "forward_returns",
    "bar_findings",
    "adjusted_bars",
)
TURNOVER_WINDOW_SESSIONS = 21
_ADDED = ("price_pnl", "dividends", "cash_in_lieu", "write_offs")
_SUBTRACTED = ("commissions", "regulatory_fees", "borrow")
_OF_NO_NAME = ("interest", "external_flows")
_REPEATED = ("long_pnl", "short_pnl", "slippage")
_SEVERITIES = ("stop", "block", "warn")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportModel:
    """What the page of (book, session) shows. Frames are float64, in USD, shares and ratios of net asset value; "to date" starts at the
    book's first session. A book without sessions has no performance and empty frames.

    - figures: rows of table ``performance``.
    - daily: session; nav, flows and identity terms; return, index and drawdown of the book and of the equal-weight universe (indices are 1
      before the first session); long, short and net exposure and turnover as ratios; costs to date by kind.
    - bridge: term, of the session and to date (USD): opening + terms = closing; then the names' terms once more by side, and
      slippage, which repeats a part of price_pnl.
    - months (year, month) and years (year): return of the book and of the universe.
    - ic_sessions, ic_months: information coefficients whose labels are known at the session.
    - positions: held at the close, largest first, with the weight decided for the next session and the P&L, costs taken off.
    - contributions: symbol, the terms of its P&L to date, largest gain first.
    - fills: executed in the session, with notional (USD) and slippage_bps of it. orders_denied: decided in the session and denied.
      order_counts: by outcome (accepted or the limit that denied), of the session and to date.
    - finding_counts: rule and severity, of the session and to date. findings: all rows, worst severity and newest first.
    """

    book: str
    session: date
    profile: str
    source: str
    model_version: str | None
    performance: Performance | None
    figures: pl.DataFrame
    daily: pl.DataFrame
    bridge: pl.DataFrame
    months: pl.DataFrame
    years: pl.DataFrame
    ic_sessions: pl.DataFrame
    ic_months: pl.DataFrame
    positions: pl.DataFrame
    contributions: pl.DataFrame
    fills: pl.DataFrame
    orders_denied: pl.DataFrame
    order_counts: pl.DataFrame
    finding_counts: pl.DataFrame
    findings: pl.DataFrame


def report_model(tables: Mapping[str, pl.DataFrame], *, book: str, session: date, profile: str, source: str) -> ReportModel:
    """The report of ``book`` at ``session`` from the lake tables REPORT_INPUTS, by name.

    Rows of other books, of later sessions, and of the market before the book's first session are left out here, so tables may hold more.
    A book that has sessions but not this one is a SequenceError.
    """
    of_book = {name: _up_to(name, tables[name], session).filter(*_book(name, book)) for name in REPORT_INPUTS}
    nav = of_book["daily_nav"].sort("session")
    first = _first_session(nav, session)
    rows = {name: frame.filter(pl.col("session") >= first) for name, frame in of_book.items()}
    ic_sessions = information_coefficient(rows["scores"], rows["forward_returns"])
    figures = performance(nav, summarise_ic(ic_sessions)) if nav.height else None
    daily = _daily(nav, equal_weight_benchmark(rows["adjusted_bars"], first, session))
    months = _months(daily)
    return ReportModel(
        book=book,
        session=session,
        profile=profile,
        source=source,
        model_version=_model_version(rows["scores"]),
        performance=figures,
        figures=performance_rows(figures) if figures else TABLES["performance"].empty(),
        daily=daily,
        bridge=_bridge(daily, session),
        months=months,
        years=months.group_by("year", maintain_order=True).agg((pl.col("return", "universe_return") + 1.0).product() - 1.0).sort("year"),
        ic_sessions=ic_sessions,
        ic_months=ic_by_month(ic_sessions),
        positions=_positions(rows, session),
        contributions=_contributions(rows["daily_pnl"]),
        fills=_fills(_of(rows["fills"], session)),
        orders_denied=_floats(_of(rows["orders"], session).filter(pl.col("state") == "denied").drop("book", "session", "state")),
        order_counts=_counts(rows["orders"].with_columns(outcome=pl.coalesce("denied_by", "state")), session, "outcome"),
        finding_counts=_finding_counts(rows["bar_findings"], session),
        findings=_worst_first(rows["bar_findings"]),
    )


def report_tables(model: ReportModel) -> dict[str, pl.DataFrame]:
    """Every frame behind the page by its name, to be written beside it; figures go by their table's name, ``performance``."""
    frames = {field.name: getattr(model, field.name) for field in fields(model)}
    named = {"performance" if name == "figures" else name: frame for name, frame in frames.items() if name != "performance"}
    return {name: frame for name, frame in named.items() if isinstance(frame, pl.DataFrame)}


def _first_session(nav: pl.DataFrame, session: date) -> date:
    if nav.is_empty():
        return session
    if (last := nav["session"][-1]) != session:
        raise SequenceError(expected(f"a row of {session}", found=f"rows up to {last}", where="daily_nav", do=f"run {session} first"))
    return nav["session"][0]


def _up_to(table: str, rows: pl.DataFrame, session: date) -> pl.DataFrame:
    return rows.filter(pl.col(TABLES[table].clock) <= session)


def _book(table: str, book: str) -> list[pl.Expr]:
    return [pl.col("book") == book] if "book" in TABLES[table].columns else []


def _of(rows: pl.DataFrame, session: date) -> pl.DataFrame:
    return rows.filter(pl.col("session") == session)


def _floats(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(cs.decimal().cast(pl.Float64))


def _model_version(scores: pl.DataFrame) -> str | None:
    return scores.sort("session")["model_version"][-1] if scores.height else None


def _daily(nav: pl.DataFrame, universe: pl.DataFrame) -> pl.DataFrame:
    book = _floats(nav.drop("book", "decision_at")).join(daily_returns(nav), on="session")
    market = universe.select("session", universe_return="return", universe_index="nav")
    closing = pl.when(pl.col("closing_nav") != 0).then(pl.col("closing_nav"))
    return (
        book.join(market, on="session", how="left", maintain_order="left")
        .with_columns(pl.col("universe_index").forward_fill())
        .with_columns(
            universe_drawdown=drawdown(pl.col("universe_index")),
            long_ratio=pl.col("long_value") / closing,
            short_ratio=pl.col("short_value") / closing,
            net_ratio=(pl.col("long_value") + pl.col("short_value")) / closing,
            turnover_ratio=pl.col("turnover") / pl.col("capital"),
            **{f"{cost}_to_date": pl.col(cost).cum_sum() for cost in COST_KINDS},
        )
        .with_columns(turnover_mean=pl.col("turnover_ratio").rolling_mean(TURNOVER_WINDOW_SESSIONS))
    )


def _bridge(daily: pl.DataFrame, session: date) -> pl.DataFrame:
    terms = (*_ADDED, *_SUBTRACTED, *_OF_NO_NAME)
    signed = [(-pl.col(name) if name in _SUBTRACTED else pl.col(name)).sum() for name in terms]

    def column(rows: pl.DataFrame, name: str) -> pl.DataFrame:
        one = rows.select(pl.col("opening_nav").first(), *signed, pl.col("closing_nav").last(), pl.col(_REPEATED).sum())
        return one.transpose(include_header=True, header_name="term", column_names=[name])

    return column(_of(daily, session), "session_usd").join(column(daily, "to_date_usd"), on="term", maintain_order="left")


def _months(daily: pl.DataFrame) -> pl.DataFrame:
    universe = monthly_returns(daily.select("session", pl.col("universe_return").alias("return")))
    return monthly_returns(daily).join(
        universe.rename({"return": "universe_return"}), on=["year", "month"], how="left", maintain_order="left"
    )


def _pnl_by_symbol(pnl: pl.DataFrame) -> pl.DataFrame:
    net = sum((pl.col(name) for name in _ADDED), pl.lit(0.0)) - sum((pl.col(name) for name in _SUBTRACTED), pl.lit(0.0))
    terms = (*_ADDED, *_SUBTRACTED, *_REPEATED, "turnover")
    return _floats(pnl).sort("symbol", "session").group_by("symbol", maintain_order=True).agg(pl.col(terms).sum()).with_columns(pnl=net)


def _contributions(pnl: pl.DataFrame) -> pl.DataFrame:
    return _pnl_by_symbol(pnl).sort(["pnl", "symbol"], descending=[True, False])


def _positions(rows: Mapping[str, pl.DataFrame], session: date) -> pl.DataFrame:
    pnl = rows["daily_pnl"]
    return (
        _floats(_of(rows["positions"], session).drop("book", "session"))
        .join(_of(rows["target_weights"], session).select("symbol", "target_weight"), on="symbol", how="left")
        .join(_pnl_by_symbol(_of(pnl, session)).select("symbol", pnl_session="pnl"), on="symbol", how="left")
        .join(_pnl_by_symbol(pnl).select("symbol", pnl_to_date="pnl"), on="symbol", how="left")
        .sort([pl.col("market_value").abs(), pl.col("symbol")], descending=[True, False])
    )


def _fills(fills: pl.DataFrame) -> pl.DataFrame:
    reference = pl.col("quantity") * pl.col("reference_price")
    return _floats(fills.drop("book", "session")).with_columns(
        notional=pl.col("quantity") * pl.col("price"), slippage_bps=pl.col("slippage") / reference * 1e4
    )


def _counts(rows: pl.DataFrame, session: date, *by: str) -> pl.DataFrame:
    return (
        rows.group_by(*by)
        .agg(session=(pl.col("session") == session).sum().cast(pl.Int64), to_date=pl.len().cast(pl.Int64))
        .sort("to_date", *by, descending=[True, *(False for _ in by)])
    )


def _severity() -> pl.Expr:
    order = {severity: rank for rank, severity in enumerate(_SEVERITIES)}
    return pl.col("severity").replace_strict(order, default=len(order), return_dtype=pl.Int64)


def _finding_counts(findings: pl.DataFrame, session: date) -> pl.DataFrame:
    counts = _counts(findings, session, "rule", "severity")
    return counts.sort(_severity(), -pl.col("to_date"), "rule")


def _worst_first(findings: pl.DataFrame) -> pl.DataFrame:
    return findings.sort(_severity(), pl.col("session"), "symbol", "rule", descending=[False, True, False, False])
