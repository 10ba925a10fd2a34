"""A year of buy and hold in the ledger meets the adjusted close that the embedded real bars were published with."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from adapters.sources.sample import embedded_bars, recovered_actions
from benchmarks.buy_and_hold import measure


@pytest.mark.parametrize("year", [2005, 2008])  # AAPL splits in 2005; most dividends in 2008
def test_every_name_of_the_sample_is_within_a_basis_point_and_one_whose_action_is_lost_is_named(
    year: int, capsys: pytest.CaptureFixture[str]
):
    bars = embedded_bars().rename({"session": "date"})
    actions, published = recovered_actions(embedded_bars()).rename({"ex_date": "date"}), bars.select("date", "symbol", "adj_close")
    assert measure(bars, actions, published, year)
    assert "of 4 names within 1 bp (100.0%)" in capsys.readouterr().out
    lost = actions.filter(~((pl.col("symbol") == "IBM") & pl.col("date").is_between(date(year, 1, 1), date(year, 12, 31))))
    assert measure(bars, lost, published, year)  # no fault of the ledger's
    assert "IBM -" in capsys.readouterr().out
