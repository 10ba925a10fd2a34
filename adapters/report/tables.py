"""The page's tables: which columns of which frame, under which heading, in which format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from adapters.report.figures import measured, number, percent, usd

if TYPE_CHECKING:
    from quant.reports.model import ReportModel

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
TERMS = {
    "opening_nav": "Opening net asset value",
    "price_pnl": "Price P&L, slippage inside",
    "dividends": "Dividends",
    "cash_in_lieu": "Cash in lieu of fractions",
    "write_offs": "Write-offs",
    "commissions": "Commissions",
    "regulatory_fees": "Regulatory fees",
    "borrow": "Borrow fees",
    "interest": "Interest on cash",
    "external_flows": "Deposits less withdrawals",
    "closing_nav": "Closing net asset value",
    "long_pnl": "Of the terms: longs, after costs",
    "short_pnl": "Of the terms: shorts, after costs",
    "slippage": "Of price P&L: cost of slippage",
}
_FULL_HEAT_RETURN = 0.08  # a monthly return of this size has the darkest cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One column of a table: ``text`` formats a value that is there, null shows as an empty cell."""

    label: str
    column: str
    text: Callable[[float], str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table ready to print: one tuple of cells a row; ``numeric`` says which columns align right; ``more`` what was left out."""

    caption: str
    header: Sequence[str]
    numeric: Sequence[bool]
    rows: Sequence[Sequence[str]]
    more: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of the heat-map: ``heat`` in [-1, 1] colours it, 0 is uncoloured."""

    text: str
    heat: float


_SHARES, _PRICE, _USD, _COUNT = partial(number, decimals=0), number, usd, partial(number, decimals=0)
_SIGNED = partial(percent, signed=True)

POSITIONS = (
    Field(label="Symbol", column="symbol"),
    Field(label="Shares", column="quantity", text=_SHARES),
    Field(label="Mark, USD", column="mark", text=_PRICE),
    Field(label="Market value", column="market_value", text=_USD),
    Field(label="Weight", column="weight", text=_SIGNED),
    Field(label="Next target", column="target_weight", text=_SIGNED),
    Field(label="P&L, session", column="pnl_session", text=_USD),
    Field(label="P&L, to date", column="pnl_to_date", text=_USD),
    Field(label="Stale mark", column="stale"),
)
CONTRIBUTIONS = (
    Field(label="Symbol", column="symbol"),
    Field(label="Price P&L", column="price_pnl", text=_USD),
    Field(label="Dividends", column="dividends", text=_USD),
    Field(label="Commissions", column="commissions", text=_USD),
    Field(label="Fees", column="regulatory_fees", text=_USD),
    Field(label="Borrow", column="borrow", text=_USD),
    Field(label="Long", column="long_pnl", text=_USD),
    Field(label="Short", column="short_pnl", text=_USD),
    Field(label="P&L after costs", column="pnl", text=_USD),
)
FILLS = (
    Field(label="Symbol", column="symbol"),
    Field(label="Side", column="side"),
    Field(label="Leg", column="leg"),
    Field(label="Shares", column="quantity", text=_SHARES),
    Field(label="Unfilled", column="unfilled", text=_SHARES),
    Field(label="Open, USD", column="reference_price", text=_PRICE),
    Field(label="Fill, USD", column="price", text=partial(number, decimals=4)),
    Field(label="Notional", column="notional", text=_USD),
    Field(label="Slippage", column="slippage", text=_USD),
    Field(label="Slippage, bps", column="slippage_bps", text=partial(number, decimals=1)),
    Field(label="Commission", column="commission", text=_USD),
)
DENIED = (
    Field(label="Symbol", column="symbol"),
    Field(label="Side", column="side"),
    Field(label="Leg", column="leg"),
    Field(label="Shares", column="quantity", text=_SHARES),
    Field(label="Close, USD", column="reference_price", text=_PRICE),
    Field(label="Limit", column="denied_by"),
    Field(label="Observed", column="observed", text=measured),
    Field(label="Allowed", column="allowed", text=measured),
    Field(label="Unit", column="unit"),
)
ORDER_COUNTS = (
    Field(label="Outcome", column="outcome"),
    Field(label="This session", column="session", text=_COUNT),
    Field(label="To date", column="to_date", text=_COUNT),
)
FINDING_COUNTS = (Field(label="Rule", column="rule"), Field(label="Severity", column="severity"), *ORDER_COUNTS[1:])
FINDINGS = tuple(Field(label=name.capitalize(), column=name) for name in ("session", "symbol", "rule", "severity", "expected", "observed"))
BRIDGE = (
    Field(label="Term", column="term"),
    Field(label="This session", column="session_usd", text=_USD),
    Field(label="To date", column="to_date_usd", text=_USD),
)


def table(caption: str, frame: pl.DataFrame, columns: Sequence[Field], *, limit: int = 20) -> Table:
    """The first ``limit`` rows of a frame as text."""
    shown = frame.head(limit)
    cells = [_column(shown[field.column].to_list(), field.text) for field in columns]
    return Table(
        caption=caption,
        header=[field.label for field in columns],
        numeric=[field.text is not None for field in columns],
        rows=list(zip(*cells, strict=True)),
        more=f"{frame.height - limit:,} more rows are in the table's Parquet file." if frame.height > limit else "",
    )


def bridge(model: ReportModel) -> Table:
    """From opening to closing net asset value."""
    named = model.bridge.with_columns(pl.col("term").replace_strict(TERMS))
    return table("From opening to closing net asset value", named, BRIDGE)


def positions(model: ReportModel) -> Table:
    """Largest holdings first."""
    named = model.positions.with_columns(pl.when("stale").then(pl.lit("yes")).otherwise(pl.lit("no")).alias("stale"))
    return table("Positions at the close, largest first", named, POSITIONS)


def best_and_worst(contributions: pl.DataFrame, each: int = 5) -> pl.DataFrame:
    """The names that gained and lost most; all of them if there are few."""
    few = contributions.height <= 2 * each
    return contributions if few else pl.concat([contributions.head(each), contributions.tail(each)])


def heat_map(model: ReportModel) -> list[tuple[int, list[Cell]]]:
    """(year, 12 months, the book's year, the universe's year), newest year first."""
    by_month: dict[tuple[int, int], float | None] = {(year, month): value for year, month, value, _ in model.months.rows()}
    return [
        (year, [*(_heat(by_month.get((year, month))) for month in range(1, 13)), _heat(book, plain=True), _heat(universe, plain=True)])
        for year, book, universe in reversed(model.years.rows())
    ]


def _heat(value: float | None, *, plain: bool = False) -> Cell:
    if value is None:
        return Cell(text="", heat=0.0)
    return Cell(text=percent(value, 1, signed=True), heat=0.0 if plain else round(max(-1.0, min(1.0, value / _FULL_HEAT_RETURN)), 2))


def _column(values: Sequence[float | str | None], text: Callable[[float], str] | None) -> list[str]:
    return ["" if value is None else text(float(value)) if text else str(value) for value in values]
