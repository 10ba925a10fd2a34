"""Figures of one book: time-weighted returns, risk, turnover, costs, and the equal-weight universe beside it.

All figures are float64 and describe simple returns per session. 252 sessions make a year. None is "not defined on these sessions", never a
stand-in number.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

import polars as pl

from quant.errors import InputError, expected
from quant.tables import TABLES

if TYPE_CHECKING:
    from datetime import date

    import numpy as np
    from numpy.typing import NDArray

    from quant.modelling.information_coefficient import IcSummary

SESSIONS_A_YEAR = 252
SHORT_HISTORY_SESSIONS = 60
COST_KINDS = ("commissions", "regulatory_fees", "borrow", "slippage")
_ROUNDING = 1e-12  # a standard deviation below it is rounding of equal returns


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """A sum of costs: ``usd``, and ``ratio`` = usd / mean closing net asset value x 252 / sessions, a share of net asset value a year."""

    usd: float
    ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """The figures of one book from ``first_session`` to ``session``.

    With r the returns of ``daily_returns`` and n their number:

    - total_return = product of (1 + r) - 1: time-weighted (CFA Institute, Global Investment Performance Standards 2020, 2.A.23).
    - annualised_return = (1 + total_return) ** (252 / n) - 1 (Qlib risk_analysis, mode "product").
    - annualised_volatility = standard deviation of r (sample, ddof 1) x sqrt(252).
    - sharpe_ratio = mean of r / standard deviation of r x sqrt(252), risk-free rate 0 (Sharpe 1994; Qlib's information_ratio, mode "sum").
    - max_drawdown = largest 1 - index / highest index so far, where the index starts at 1 before the first session; in [0, 1] unless net
      asset value turned negative. ``drawdown_peak`` is the session of that highest index (the first session, if it is the start itself),
      ``drawdown_trough`` that of the loss; None without a loss.
    - turnover_daily = mean of (notional traded / capital of the session), buys plus sells, each trade counted once: replacing the whole
      book by another one trades twice its value and reads 2. turnover_annualised = turnover_daily x 252.
    - costs = commissions + regulatory_fees + borrow + slippage. All are in the returns already; slippage by way of the execution prices.
    """

    book: str
    first_session: date
    session: date
    sessions: int
    closing_nav_usd: float
    total_return: float | None
    annualised_return: float | None
    annualised_volatility: float | None
    sharpe_ratio: float | None
    max_drawdown: float | None
    drawdown_peak: date | None
    drawdown_trough: date | None
    turnover_daily: float | None
    turnover_annualised: float | None
    commissions: Cost
    regulatory_fees: Cost
    borrow: Cost
    slippage: Cost
    costs: Cost
    ic: IcSummary | None

    @property
    def short_history(self) -> bool:
        """True while annualised figures say little: fewer than 60 sessions."""
        return self.sessions < SHORT_HISTORY_SESSIONS


def daily_returns(nav: pl.DataFrame) -> pl.DataFrame:
    """session, capital (USD), return, index, drawdown from the daily_nav rows of one book; one row per session, in order.

    capital is what the session's result is measured against: opening_nav, or, where that is 0 (the first session), its own deposit.
    return = (closing_nav - external_flows) / capital - 1: later flows count as made at the close, so they move no return. It is null where
    capital is not positive. index is the product of (1 + return), 1 before the first session; drawdown = 1 - index / highest index so far.
    """
    opening, closing, flows = (pl.col(name).cast(pl.Float64) for name in ("opening_nav", "closing_nav", "external_flows"))
    funding = opening == 0
    capital = pl.when(funding).then(flows).otherwise(opening)
    return (
        nav.sort("session")
        .select("session", capital=pl.when(capital > 0).then(capital), earned=pl.when(funding).then(closing).otherwise(closing - flows))
        .with_columns(pl.col("earned").truediv("capital").sub(1.0).alias("return"))
        .with_columns(index=(pl.col("return").fill_null(0.0) + 1.0).cum_prod())
        .with_columns(drawdown=drawdown(pl.col("index")))
        .drop("earned")
    )


def drawdown(index: pl.Expr) -> pl.Expr:
    """1 - index / highest index so far, the index being 1 before its first row."""
    return 1.0 - index / pl.max_horizontal(index.cum_max(), 1.0)


def performance(nav: pl.DataFrame, ic: IcSummary | None) -> Performance:
    """The figures of the daily_nav rows of one book. No rows, or rows of several books, are an InputError."""
    nav = nav.sort("session")
    if nav["book"].n_unique() != 1:
        found = ", ".join(nav["book"].unique().sort()) or "no rows"
        raise InputError(expected("rows of one book", found=found, where="daily_nav", do="filter by book, and run a session first"))
    returns = daily_returns(nav)
    rates = _return_figures(returns["return"].drop_nulls().to_numpy())
    depth, peak, trough = _worst_drawdown(returns)
    turnover = (nav["turnover"].cast(pl.Float64) / returns["capital"]).drop_nulls().to_numpy()
    return Performance(
        book=str(nav["book"][0]),
        first_session=nav["session"][0],
        session=nav["session"][-1],
        sessions=nav.height,
        closing_nav_usd=float(nav["closing_nav"][-1]),
        total_return=rates.get("total_return"),
        annualised_return=rates.get("annualised_return"),
        annualised_volatility=rates.get("annualised_volatility"),
        sharpe_ratio=rates.get("sharpe_ratio"),
        max_drawdown=depth,
        drawdown_peak=peak,
        drawdown_trough=trough,
        turnover_daily=float(turnover.mean()) if turnover.size else None,
        turnover_annualised=float(turnover.mean()) * SESSIONS_A_YEAR if turnover.size else None,
        commissions=_cost(nav, "commissions"),
        regulatory_fees=_cost(nav, "regulatory_fees"),
        borrow=_cost(nav, "borrow"),
        slippage=_cost(nav, "slippage"),
        costs=_cost(nav, *COST_KINDS),
        ic=ic,
    )


def performance_rows(figures: Performance) -> pl.DataFrame:
    """Rows of table ``performance``: every figure with its unit, one row each; dates as the number yyyymmdd, None as null."""
    ic = figures.ic
    values: dict[str, tuple[float | date | None, str]] = {name: (getattr(figures, name), unit) for name, unit in _UNITS.items()}
    for name in (*COST_KINDS, "costs"):
        cost: Cost = getattr(figures, name)
        values |= {f"{name}_usd": (cost.usd, "USD"), f"{name}_ratio": (cost.ratio, "ratio/year")}
    values |= {
        "ic_mean": (ic and ic.mean, "correlation"),
        "ic_standard_deviation": (ic and ic.standard_deviation, "correlation"),
        "ic_names": (ic and ic.names, "names"),
        "ic_sessions": (ic.sessions if ic else 0, "sessions"),
        "ic_t_statistic": (ic and ic.t_statistic, "ratio"),
    }
    key = {"book": figures.book, "session": figures.session}
    rows = [{**key, "figure": name, "value": _number(value), "unit": unit} for name, (value, unit) in values.items()]
    return pl.DataFrame(rows, schema=TABLES["performance"].schema)


def equal_weight_benchmark(adjusted_bars: pl.DataFrame, first: date, last: date) -> pl.DataFrame:
    """session, return, nav of all accepted names in equal weights, rebalanced at every close from ``first`` to ``last``.

    A name's return is total return (close x total_index) since its own previous bar in the range: a name without a bar leaves the mean
    of that session, and its next bar brings the whole move. It is bought at the close of ``first``, so the first return is 0 and nav, which
    starts at 1, compares with a book that is funded then. No costs. No bars, no rows.
    """
    price = pl.col("close") * pl.col("total_index")
    return (
        adjusted_bars.filter(pl.col("session").is_between(first, last))
        .sort("session", "symbol")
        .select("session", (price / price.shift(1).over("symbol") - 1.0).alias("return"))
        .group_by("session", maintain_order=True)
        .agg(pl.col("return").mean().fill_null(0.0))
        .with_columns(nav=(pl.col("return") + 1.0).cum_prod())
    )


def monthly_returns(returns: pl.DataFrame) -> pl.DataFrame:
    """year, month, return: the product of (1 + return) - 1 over each calendar month of rows that have session and return."""
    return (
        returns.group_by(year=pl.col("session").dt.year(), month=pl.col("session").dt.month(), maintain_order=True)
        .agg((pl.col("return").fill_null(0.0) + 1.0).product() - 1.0)
        .sort("year", "month")
    )


def ic_by_month(per_session: pl.DataFrame) -> pl.DataFrame:
    """year, month, ic, sessions, names, cumulative_ic: means over the sessions of each month that have an information coefficient; the last
    one is the mean over all sessions up to the month's end.
    """
    return (
        per_session.group_by(year=pl.col("session").dt.year(), month=pl.col("session").dt.month(), maintain_order=True)
        .agg(ic=pl.col("ic").mean(), sessions=pl.len().cast(pl.Int64), names=pl.col("names").mean())
        .sort("year", "month")
        .with_columns(cumulative_ic=(pl.col("ic") * pl.col("sessions")).cum_sum() / pl.col("sessions").cum_sum())
    )


_UNITS = {
    "first_session": "yyyymmdd",
    "sessions": "sessions",
    "closing_nav_usd": "USD",
    "total_return": "ratio",
    "annualised_return": "ratio/year",
    "annualised_volatility": "ratio/year",
    "sharpe_ratio": "ratio",
    "max_drawdown": "ratio",
    "drawdown_peak": "yyyymmdd",
    "drawdown_trough": "yyyymmdd",
    "turnover_daily": "ratio/session",
    "turnover_annualised": "ratio/year",
}


def _cost(nav: pl.DataFrame, *columns: str) -> Cost:
    usd = sum(float(nav[column].sum()) for column in columns)
    mean_nav = float(nav["closing_nav"].sum()) / nav.height
    return Cost(usd=usd, ratio=usd / mean_nav * SESSIONS_A_YEAR / nav.height if mean_nav > 0 else None)


def _return_figures(returns: NDArray[np.float64]) -> dict[str, float | None]:
    count = len(returns)
    if not count:
        return {}
    growth = float((returns + 1.0).prod())
    deviation = float(returns.std(ddof=1)) if count > 1 else None
    return {
        "total_return": growth - 1.0,
        "annualised_return": _annualised(growth, count),
        "annualised_volatility": None if deviation is None else deviation * sqrt(SESSIONS_A_YEAR),
        "sharpe_ratio": float(returns.mean()) / deviation * sqrt(SESSIONS_A_YEAR) if deviation and deviation > _ROUNDING else None,
    }


def _annualised(growth: float, sessions: int) -> float | None:
    """None where the loss is larger than the capital, or a freak gain over a few sessions leaves the range of a float."""
    try:
        return growth ** (SESSIONS_A_YEAR / sessions) - 1.0 if growth >= 0 else None
    except OverflowError:
        return None


def _worst_drawdown(returns: pl.DataFrame) -> tuple[float | None, date | None, date | None]:
    if not returns["return"].count():
        return None, None, None
    losses = returns["drawdown"].to_numpy()
    trough = int(losses.argmax())
    if losses[trough] <= 0:
        return 0.0, None, None
    before = returns["index"].to_numpy()[: trough + 1]
    peak = int((before == before.max()).nonzero()[0][-1]) if before.max() >= 1.0 else 0
    return float(losses[trough]), returns["session"][peak], returns["session"][trough]


def _number(value: float | date | None) -> float | None:
    return None if value is None else float(value) if isinstance(value, (int, float)) else float(f"{value:%Y%m%d}")
