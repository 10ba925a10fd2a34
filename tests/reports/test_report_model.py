"""The frames behind the page: they tie to the ledger's tables and know nothing of later sessions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant.errors import SequenceError
from quant.reports.model import REPORT_INPUTS, ReportModel, report_model, report_tables
from quant.tables import TABLES

Tables = Mapping[str, pl.DataFrame]
LAST = date(2013, 3, 1)


def model_of(tables: Tables, session: date = LAST, book: str = "paper") -> ReportModel:
    return report_model(tables, book=book, session=session, profile="sample", source="sample")


@pytest.fixture(scope="module")
def tables(book_tables: Callable[..., Tables]) -> Tables:
    return book_tables(80, flows={40: 300_000})


def test_a_report_seen_from_a_session_is_the_same_once_later_sessions_exist(tables: Tables) -> None:
    session = tables["daily_nav"]["session"][59]
    then = {name: rows.filter(pl.col(TABLES[name].clock) <= session) for name, rows in tables.items()}
    for name, frame in report_tables(model_of(then, session)).items():
        assert_frame_equal(report_tables(model_of(tables, session))[name], frame)


def test_the_order_of_rows_does_not_matter_to_the_last_bit(tables: Tables) -> None:
    shuffled = {name: rows.sample(fraction=1.0, shuffle=True, seed=3) for name, rows in tables.items()}
    for name, frame in report_tables(model_of(shuffled)).items():
        if name not in ("fills", "orders_denied"):  # these keep the order of the lake
            assert_frame_equal(frame, report_tables(model_of(tables))[name], check_exact=True)


def test_rows_of_another_book_do_not_enter(tables: Tables, book_tables: Callable[..., Tables]) -> None:
    other = book_tables(90, book="backtest", seed=11)
    both = {name: pl.concat([tables[name], other[name]]) if "book" in TABLES[name].columns else tables[name] for name in REPORT_INPUTS}
    for name, frame in report_tables(model_of(both)).items():
        assert_frame_equal(frame, report_tables(model_of(tables))[name])


def test_a_label_enters_on_the_session_it_is_known_and_not_before(tables: Tables) -> None:
    sessions = tables["daily_nav"]["session"].to_list()
    assert model_of(tables, sessions[10]).ic_sessions["session"].to_list() == sessions[:9]


def test_the_bridge_sums_to_the_closing_net_asset_value_to_the_cent(tables: Tables) -> None:
    for column in ("session_usd", "to_date_usd"):
        terms = dict(model_of(tables).bridge.select("term", column).rows())
        closing, *sides, _slippage = (terms.pop(name) for name in ("closing_nav", "long_pnl", "short_pnl", "slippage"))
        assert sum(terms.values()) == pytest.approx(closing, abs=0.005)
        others = sum(terms[name] for name in ("opening_nav", "interest", "external_flows"))
        assert sum(sides) == pytest.approx(closing - others, abs=0.005)


def test_contributions_sum_to_the_change_of_net_asset_value_without_flows(tables: Tables) -> None:
    model, nav = model_of(tables), tables["daily_nav"]
    earned = float(nav["closing_nav"][-1] - nav["external_flows"].sum() - nav["interest"].sum())
    assert model.contributions["pnl"].sum() == pytest.approx(earned, abs=0.005)


def test_positions_come_largest_first_with_their_next_target_and_pnl(tables: Tables) -> None:
    got = model_of(tables).positions
    assert got["market_value"].abs().is_sorted(descending=True)
    assert got["market_value"].sum() == pytest.approx(float(tables["positions"].filter(pl.col("session") == LAST)["market_value"].sum()))
    assert got["target_weight"].null_count() == 0
    assert got["pnl_session"].null_count() == 0


def test_daily_ratios_are_those_of_the_ledgers_rows(tables: Tables) -> None:
    daily, nav = model_of(tables).daily, tables["daily_nav"].select(pl.exclude("book", "session", "decision_at").cast(pl.Float64))
    assert daily["long_ratio"].to_list() == pytest.approx((nav["long_value"] / nav["closing_nav"]).to_list())
    assert (daily["net_ratio"] - daily["long_ratio"] - daily["short_ratio"]).abs().max() == pytest.approx(0, abs=1e-12)
    assert daily["commissions_to_date"][-1] == pytest.approx(nav["commissions"].sum())
    assert daily["turnover_mean"].null_count() == 20
    assert daily["turnover_mean"][-1] == pytest.approx(daily["turnover_ratio"].tail(21).mean())


def test_findings_are_counted_by_rule_and_the_worst_come_first() -> None:
    days = [date(2013, 2, 27), date(2013, 2, 28), LAST]
    rows = [(days[0], "A", "r21", "stop"), (days[2], "B", "r17", "warn"), (days[1], "C", "r03", "block"), (days[2], "A", "r03", "block")]
    findings = pl.DataFrame([(*row, "e", "o", "v") for row in rows], schema=TABLES["bar_findings"].schema, orient="row")
    empty = {name: TABLES[name].empty() for name in REPORT_INPUTS}
    nav = pl.DataFrame([{"book": "paper", "session": day, "opening_nav": 1, "closing_nav": 1, "external_flows": 0} for day in days])
    money = [pl.lit(0).cast(c.dtype).alias(n) for n, c in TABLES["daily_nav"].columns.items() if n not in nav.columns]
    tables = empty | {"bar_findings": findings, "daily_nav": nav.with_columns(money).cast(dict(TABLES["daily_nav"].schema))}
    model = model_of(tables)
    assert model.findings.select("rule", "session").rows() == [("r21", days[0]), ("r03", LAST), ("r03", days[1]), ("r17", LAST)]
    assert model.finding_counts.rows() == [("r21", "stop", 0, 1), ("r03", "block", 1, 2), ("r17", "warn", 1, 1)]


def test_orders_are_counted_by_outcome_and_the_denied_of_the_session_listed(tables: Tables) -> None:
    orders = tables["orders"]
    last = orders.filter(pl.col("state") == "denied")["session"].max()
    assert isinstance(last, date)
    model = model_of(tables, last)
    denied = orders.filter(pl.col("session") == last, pl.col("state") == "denied")
    assert model.orders_denied["symbol"].to_list() == denied["symbol"].to_list()
    assert model.order_counts["to_date"].sum() == orders.filter(pl.col("session") <= last).height
    assert dict(model.order_counts.select("outcome", "session").rows())["max_order_notional"] == denied.height


def test_an_empty_book_has_no_figures_and_frames_that_can_be_written(tables: Tables) -> None:
    model = model_of(tables, book="nobody")
    assert model.performance is None
    assert model.figures.is_empty()
    assert {name: list(frame.schema.items()) for name, frame in report_tables(model).items() if name != "bridge"} == {
        name: list(frame.schema.items()) for name, frame in report_tables(model_of(tables)).items() if name != "bridge"
    }


def test_a_session_the_book_has_not_reached_is_refused(tables: Tables) -> None:
    early = {**tables, "daily_nav": tables["daily_nav"].head(70)}
    with pytest.raises(SequenceError, match="expected a row of 2013-03-01 in daily_nav, found rows up to"):
        model_of(early)
