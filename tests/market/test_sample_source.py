from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from subprocess import run

import polars as pl

from adapters.sources.sample import SampleSource, embedded_bars, recovered_actions

EVER = (date(1990, 1, 1), date(2030, 1, 1))


def test_the_sample_is_twelve_thousand_bars_of_five_names():
    bars = SampleSource().bars(*EVER)
    assert bars.height == 12_154
    assert bars.group_by("symbol").len().sort("symbol").rows() == [
        ("AAPL", 3270),
        ("FB", 196),
        ("GOOG", 2148),
        ("IBM", 3270),
        ("MSFT", 3270),
    ]
    assert (SampleSource().first_session(), SampleSource().last_session(datetime(2026, 1, 1, tzinfo=UTC))) == (
        date(2000, 3, 1),
        date(2013, 3, 1),
    )
    assert bars.sort("session", "symbol").equals(bars)


def test_three_splits_and_ninety_two_dividends_come_out_of_the_adjusted_close():
    actions = SampleSource().actions(*EVER)
    assert actions.filter(pl.col("kind") == "split").select("ex_date", "symbol", "value").rows() == [
        (date(2000, 6, 21), "AAPL", 2.0),
        (date(2003, 2, 18), "MSFT", 2.0),
        (date(2005, 2, 28), "AAPL", 2.0),
    ]
    assert actions.filter(pl.col("kind") == "dividend").height == 92


def test_dividends_are_the_cents_that_were_paid():
    actions = SampleSource().actions(*EVER)
    paid = {(day, symbol): value for day, symbol, kind, value, _ in actions.rows() if kind == "dividend"}
    assert paid[date(2012, 8, 9), "AAPL"] == 2.65
    assert paid[date(2004, 11, 15), "MSFT"] == 3.08  # the special dividend: a tenth of the price, and no split
    assert all(value == round(value, 2) for value in paid.values())


def test_a_dividend_that_whole_cents_would_not_rebuild_keeps_its_digits():
    days = [date(2020, 1, 2), date(2020, 1, 3)]
    exact = 0.1234567
    published = pl.DataFrame({"session": days, "symbol": "X", "close": [20.0, 20.0], "adj_close": [20.0 * 20.0 / (20.0 + exact), 20.0]})
    assert abs(recovered_actions(published)["value"].item() - exact) < 1e-9


def test_the_sample_loads_neither_bokeh_nor_pandas():
    code = "import sys, adapters.sources.sample as s; s.SampleSource(); assert not {'bokeh', 'pandas'} & set(sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_split_of_apple_is_visible_in_raw_prices():
    closes = embedded_bars().filter(pl.col("symbol") == "AAPL", pl.col("session").is_between(date(2005, 2, 25), date(2005, 2, 28)))
    assert closes["close"].to_list() == [88.99, 44.86]
