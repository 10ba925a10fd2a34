"""How a figure reads, on the page and in a terminal: the one place that turns numbers into text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quant.modelling.information_coefficient import IcSummary
    from quant.reports.performance import Performance

UNKNOWN = "not yet known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One key figure. ``note`` says what to read it with, ``detail`` adds what only the page has room for; ``doubtful`` marks a figure that
    says little on a short history.
    """

    label: str
    value: str
    note: str = ""
    detail: str = ""
    doubtful: bool = False


def percent(ratio: float | None, decimals: int = 2, *, signed: bool = False) -> str:
    """0.01234 -> 1.23%; signed -> +1.23%."""
    return UNKNOWN if ratio is None else f"{_rounded(100 * ratio, decimals):{'+' if signed else ''},.{decimals}f}%"


def number(value: float | None, decimals: int = 2) -> str:
    """1234.5 -> 1,234.50."""
    return UNKNOWN if value is None else f"{_rounded(value, decimals):,.{decimals}f}"


def measured(value: float) -> str:
    """A value of any unit: four decimals below 10, whole numbers above."""
    return number(value, 4 if abs(value) < 10 else 0)


def usd(value: float | None, decimals: int = 2) -> str:
    """-1234.5 -> -$1,234.50."""
    return UNKNOWN if value is None else ("-$" if _rounded(value, decimals) < 0 else "$") + number(abs(value), decimals)


def figures(performance: Performance) -> list[Figure]:
    """The key figures of a book in reading order."""
    p, young = performance, performance.short_history
    short = "short history" if young else ""
    lost = f"{p.drawdown_peak} to {p.drawdown_trough}" if p.drawdown_trough else "no loss so far"
    paid = {"commissions": p.commissions, "slippage": p.slippage, "borrow": p.borrow, "regulatory fees": p.regulatory_fees}
    kinds = ", ".join(f"{kind} {usd(cost.usd)}" for kind, cost in paid.items())
    costs = ", ".join(filter(None, (f"{percent(p.costs.ratio)} of NAV a year", short)))
    traded = ", ".join(filter(None, (f"{number(p.turnover_annualised, 1)} x NAV a year", short)))
    return [
        Figure(label="Sessions", value=f"{p.sessions:,}", note=f"{p.first_session} to {p.session}"),
        Figure(label="Net asset value", value=usd(p.closing_nav_usd), detail="cash, dividends due and market value at the close"),
        Figure(label="Total return", value=percent(p.total_return, signed=True), detail="time-weighted, after costs"),
        Figure(label="Annualised return", value=percent(p.annualised_return, signed=True), note=short, doubtful=young),
        Figure(label="Annualised volatility", value=percent(p.annualised_volatility), note=short, doubtful=young),
        Figure(label="Sharpe ratio", value=number(p.sharpe_ratio), note=short, detail="risk-free rate 0", doubtful=young),
        Figure(label="Maximum drawdown", value=percent(p.max_drawdown), note=lost),
        Figure(label="Turnover a session", value=percent(p.turnover_daily, 1), note=traded, detail="buys plus sells over opening NAV"),
        Figure(label="Costs", value=usd(p.costs.usd), note=costs, detail=kinds),
        _information_coefficient(p.ic),
    ]


def figures_table(performance: Performance) -> list[tuple[str, str]]:
    """(label, text) of every key figure; the labels are the same for every book, so tables of several books line up."""
    return [(f.label, f"{f.value} ({f.note})" if f.note else f.value) for f in figures(performance)]


def _information_coefficient(ic: IcSummary | None) -> Figure:
    if ic is None:
        return Figure(label="Information coefficient", value=UNKNOWN, note="no label of the book's sessions is known yet")
    judged = f"{number(ic.names, 1)} names, {ic.sessions:,} session{'s' * (ic.sessions != 1)}, t-statistic {number(ic.t_statistic)}"
    return Figure(label="Information coefficient", value=number(ic.mean, 4), note=judged)


def _rounded(value: float, decimals: int) -> float:
    return round(value, decimals) + 0.0  # adding zero turns -0.0 into 0.0
