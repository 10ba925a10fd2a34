"""Figures of a book against hand-computed tables, Qlib's risk_analysis, and what must hold for every book."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from importlib.util import find_spec
from math import sqrt

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.errors import InputError
from quant.modelling.information_coefficient import IcSummary
from quant.reports.performance import (
    Performance,
    daily_returns,
    equal_weight_benchmark,
    ic_by_month,
    monthly_returns,
    performance,
    performance_rows,
)
from quant.tables import TABLES

DAY = date(2013, 1, 30)
IC = IcSummary(mean=0.02, sessions=18, names=5.0, standard_deviation=0.4, t_statistic=0.2121)


def nav_rows(results: Sequence[tuple[object, object, object]], *, book: str = "paper", **terms: Sequence[object]) -> pl.DataFrame:
    """daily_nav from (opening, flows, closing) a session; other terms are 0 unless given."""
    zero = Decimal(0)
    rows: list[dict[str, object]] = [
        {
            **{name: zero if column.unit == "USD" else None for name, column in TABLES["daily_nav"].columns.items()},
            "book": book,
            "session": DAY + timedelta(days=n),
            "opening_nav": Decimal(str(opening)),
            "external_flows": Decimal(str(flows)),
            "closing_nav": Decimal(str(closing)),
            **{name: Decimal(str(values[n])) for name, values in terms.items()},
        }
        for n, (opening, flows, closing) in enumerate(results)
    ]
    return pl.DataFrame(rows, schema=TABLES["daily_nav"].schema, orient="row")


def chained(returns: Sequence[float], flows: Mapping[int, int] | None = None, start: int = 1_000_000) -> pl.DataFrame:
    """daily_nav of a book funded with ``start`` that then earns ``returns``, with deposits at the close of some sessions."""
    rows, nav = [(Decimal(0), Decimal(start), Decimal(start))], Decimal(start)
    for n, r in enumerate(returns, start=1):
        deposit = Decimal((flows or {}).get(n, 0))
        closing = (nav * (1 + Decimal(repr(r)))).quantize(Decimal("0.000001")) + deposit
        rows.append((nav, deposit, closing))
        nav = closing
    return nav_rows(rows)


HAND = nav_rows(
    [(0, 1000, 1000), (1000, 0, 1100), (1100, 500, 1490), (1490, -390, 1200)],
    commissions=[0, 1, 2, 3],
    borrow=[0, 0, 0.25, 0.25],
    regulatory_fees=[0, 0, 0.25, 0.25],
    slippage=[0, 2, -1, 4],
    turnover=[0, 500, 1100, 149],
)
HAND_RETURNS = [0.0, 0.1, -0.1, 1590 / 1490 - 1]  # flows taken out: 1490 - 500 = 990 of 1100; 1200 + 390 = 1590 of 1490


def test_returns_take_deposits_and_withdrawals_out_of_their_session() -> None:
    got = daily_returns(HAND)
    assert got["return"].to_list() == pytest.approx(HAND_RETURNS)
    assert got["capital"].to_list() == [1000, 1000, 1100, 1490]
    assert got["index"].to_list() == pytest.approx([1.0, 1.1, 0.99, 0.99 * 1590 / 1490])


def test_every_figure_of_a_small_book_is_what_a_hand_computes() -> None:
    got, r = performance(HAND, IC), np.array(HAND_RETURNS)
    total = 1.1 * 0.9 * (1590 / 1490) - 1
    assert (got.book, got.first_session, got.session, got.sessions) == ("paper", DAY, DAY + timedelta(days=3), 4)
    assert got.closing_nav_usd == 1200.0
    assert got.total_return == pytest.approx(total)
    assert got.annualised_return == pytest.approx((1 + total) ** 63 - 1)
    assert got.annualised_volatility == pytest.approx(np.std(r, ddof=1) * sqrt(252))
    assert got.sharpe_ratio == pytest.approx(r.mean() / np.std(r, ddof=1) * sqrt(252))
    assert got.max_drawdown == pytest.approx(0.1)
    assert (got.drawdown_peak, got.drawdown_trough) == (DAY + timedelta(days=1), DAY + timedelta(days=2))
    assert got.turnover_daily == pytest.approx((0 + 0.5 + 1.0 + 0.1) / 4)
    assert got.turnover_annualised == pytest.approx(0.4 * 252)
    costs = (got.commissions, got.regulatory_fees, got.borrow, got.slippage, got.costs)
    assert [cost.usd for cost in costs] == pytest.approx([6, 0.5, 0.5, 5, 12])
    assert got.costs.ratio == pytest.approx(12 / ((1000 + 1100 + 1490 + 1200) / 4) * 252 / 4)
    assert got.ic is IC
    assert got.short_history


@pytest.mark.skipif(find_spec("qlib") is None, reason="pyqlib has no wheel for this Python")
def test_figures_agree_with_qlib_risk_analysis() -> None:
    returns = np.round(np.random.default_rng(3).normal(0.0004, 0.012, 750), 6).tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # qlib's own imports warn
        import pandas as pd
        from qlib.contrib.evaluate import risk_analysis

        series = pd.Series([0.0, *returns])
        summed, compounded = (risk_analysis(series, N=252, freq=None, mode=mode)["risk"] for mode in ("sum", "product"))
    got = performance(chained(returns), None)
    assert got.sharpe_ratio == pytest.approx(summed["information_ratio"], rel=1e-6)
    assert got.annualised_volatility == pytest.approx(summed["std"] * sqrt(252), rel=1e-6)
    assert got.annualised_return == pytest.approx(compounded["annualized_return"], rel=1e-6)
    assert got.max_drawdown == pytest.approx(-compounded["max_drawdown"], rel=1e-6)
    assert not got.short_history


def test_a_loss_in_the_first_session_is_a_drawdown_from_the_start() -> None:
    got = performance(nav_rows([(1000, 0, 900), (900, 0, 950)]), None)
    assert got.max_drawdown == pytest.approx(0.1)
    assert (got.drawdown_peak, got.drawdown_trough) == (DAY, DAY)


def test_a_funding_session_that_already_trades_is_measured_against_its_deposit() -> None:
    got = performance(nav_rows([(0, 1000, 990)], turnover=[500]), None)
    assert (got.total_return, got.turnover_daily) == (pytest.approx(-0.01), pytest.approx(0.5))


def test_one_session_has_no_volatility_and_equal_returns_have_no_sharpe_ratio() -> None:
    single, flat = performance(chained([]), None), performance(chained([0.0] * 5), None)
    steady = performance(nav_rows([(1000, 0, 1100), (1100, 0, 1210), (1210, 0, 1331)]), None)
    assert (single.annualised_volatility, single.sharpe_ratio, single.max_drawdown) == (None, None, 0.0)
    assert (flat.annualised_volatility, flat.sharpe_ratio, flat.drawdown_trough) == (0.0, None, None)
    assert steady.sharpe_ratio is None


def test_a_book_without_capital_has_no_return_and_one_that_lost_more_has_no_annual_one() -> None:
    empty, ruined = performance(nav_rows([(0, 0, 0)]), None), performance(nav_rows([(100, 0, -50)]), None)
    assert (empty.total_return, empty.max_drawdown, empty.turnover_daily, empty.costs.ratio) == (None, None, None, None)
    assert (ruined.total_return, ruined.annualised_return, ruined.max_drawdown) == (-1.5, None, 1.5)


@pytest.mark.parametrize("nav", [HAND.clear(), pl.concat([HAND, HAND.with_columns(book=pl.lit("backtest"))])], ids=["none", "two"])
def test_anything_but_one_book_is_refused(nav: pl.DataFrame) -> None:
    with pytest.raises(InputError, match="expected rows of one book in daily_nav, found"):
        performance(nav, None)


def test_performance_rows_hold_every_figure_of_the_record_in_the_tables_schema() -> None:
    got = performance(HAND, IC)
    rows = performance_rows(got)
    values = dict(rows.select("figure", "value").rows())
    assert rows.schema == TABLES["performance"].schema
    assert rows.select("book", "session", "figure").is_unique().all()
    assert {name: values[name] for name in ("sharpe_ratio", "total_return", "sessions", "turnover_daily")} == {
        "sharpe_ratio": got.sharpe_ratio,
        "total_return": got.total_return,
        "sessions": 4.0,
        "turnover_daily": got.turnover_daily,
    }
    assert (values["costs_usd"], values["slippage_ratio"]) == (got.costs.usd, got.slippage.ratio)
    assert [values[f"ic_{name}"] for name in ("mean", "names", "sessions", "t_statistic")] == [0.02, 5.0, 18.0, 0.2121]
    assert (values["drawdown_trough"], values["first_session"]) == (20130201.0, 20130130.0)


def test_an_unknown_information_coefficient_is_null_with_no_sessions() -> None:
    rows = performance_rows(performance(HAND, None)).filter(pl.col("figure").str.starts_with("ic_"))
    assert dict(rows.select("figure", "value").rows()) == {
        "ic_mean": None,
        "ic_standard_deviation": None,
        "ic_names": None,
        "ic_sessions": 0.0,
        "ic_t_statistic": None,
    }


returns_of_a_book = st.lists(st.integers(-900, 900).map(lambda bps: bps / 10_000), min_size=2, max_size=40)


def ratios(p: Performance) -> list[float | None]:
    return [
        p.total_return,
        p.annualised_return,
        p.annualised_volatility,
        p.sharpe_ratio,
        p.max_drawdown,
        p.turnover_daily,
        p.costs.ratio,
    ]


@given(returns_of_a_book, st.integers(2, 1000))
def test_ratios_do_not_depend_on_the_size_of_the_book(returns: list[float], scale: int) -> None:
    nav = chained(returns).with_columns(turnover=pl.col("opening_nav"), commissions=pl.col("opening_nav"))
    money = [name for name, column in TABLES["daily_nav"].columns.items() if column.unit == "USD"]
    scaled = nav.with_columns((pl.col(money) * scale).cast(TABLES["daily_nav"].columns["cash"].dtype))
    assert ratios(performance(scaled, None)) == [None if x is None else pytest.approx(x, rel=1e-9) for x in ratios(performance(nav, None))]


@given(returns_of_a_book)
def test_a_drawdown_is_a_share_and_ends_after_it_begins(returns: list[float]) -> None:
    nav = chained(returns)
    got = performance(nav, None)
    assert got.max_drawdown is not None
    assert 0 <= got.max_drawdown <= 1
    assert daily_returns(nav)["drawdown"].is_between(0, 1).all()
    assert (got.drawdown_trough is None) == (got.max_drawdown == 0)
    if got.drawdown_peak and got.drawdown_trough:
        assert got.drawdown_peak < got.drawdown_trough


@given(returns_of_a_book, st.integers(1, 40), st.integers(1, 5_000_000))
def test_a_deposit_moves_no_return(returns: list[float], at: int, deposit: int) -> None:
    plain, funded = (daily_returns(chained(returns, flows))["return"].to_list() for flows in ({}, {at: deposit}))
    assert plain == pytest.approx(funded, abs=1e-9)


def bars(rows: Sequence[tuple[int, str, float, float]]) -> pl.DataFrame:
    named = [{"session": DAY + timedelta(days=n), "symbol": s, "close": close, "total_index": index} for n, s, close, index in rows]
    return pl.DataFrame(named)


def test_the_universe_is_the_mean_total_return_of_the_names_that_have_a_bar() -> None:
    frame = bars(
        [
            (-1, "A", 50, 1.0),  # before the range: not seen
            (0, "A", 100, 1.0),
            (0, "B", 10, 1.0),
            (1, "A", 50, 2.2),  # a 2:1 split and a dividend: 110 against 100
            (1, "B", 11, 1.0),
            (2, "A", 55, 2.2),  # B has no bar
            (2, "C", 7, 1.0),  # C begins: no return yet
            (3, "A", 55, 2.2),
            (3, "B", 22, 1.0),  # both sessions since its last bar: 22 against 11
            (3, "C", 7.7, 1.0),
        ]
    )
    got = equal_weight_benchmark(frame, DAY, DAY + timedelta(days=3))
    assert got["return"].to_list() == pytest.approx([0.0, 0.1, 0.1, (0.0 + 1.0 + 0.1) / 3])
    assert got["nav"].to_list() == pytest.approx([1.0, 1.1, 1.21, 1.21 * (1 + 1.1 / 3)])
    assert equal_weight_benchmark(frame, DAY + timedelta(days=9), DAY + timedelta(days=12)).is_empty()


def test_monthly_returns_compound_within_the_calendar_month() -> None:
    got = monthly_returns(daily_returns(HAND))
    assert got.select("year", "month").rows() == [(2013, 1), (2013, 2)]
    assert got["return"].to_list() == pytest.approx([0.1, 0.9 * 1590 / 1490 - 1])


@pytest.mark.parametrize("sessions", [1, 30, 300])
def test_months_compound_to_the_total_return(book_tables: Callable[..., dict[str, pl.DataFrame]], sessions: int) -> None:
    nav = book_tables(sessions, flows={9: 250_000})["daily_nav"]
    assert (monthly_returns(daily_returns(nav))["return"] + 1).product() - 1 == pytest.approx(performance(nav, None).total_return)


def test_the_cumulative_coefficient_weighs_months_by_their_sessions() -> None:
    rows = pl.DataFrame({"session": [date(2013, 1, 30), date(2013, 1, 31), date(2013, 2, 1)], "ic": [0.1, 0.3, 0.5], "names": [5, 4, 4]})
    got = ic_by_month(rows)
    assert got.select("year", "month", "sessions", "names").rows() == [(2013, 1, 2, 4.5), (2013, 2, 1, 4.0)]
    assert got["ic"].to_list() == pytest.approx([0.2, 0.5])
    assert got["cumulative_ic"].to_list() == pytest.approx([0.2, 0.3])
