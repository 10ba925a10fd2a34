"""Adjustment against adjusted closes that vendors published."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import polars as pl
import pytest

from adapters.sources.sample import SampleSource, embedded_bars
from benchmarks.adjustment import worst_errors as rebuilt_errors
from quant.market.adjustment import adjusted_bars, seen_from
from quant.ports import AdjustmentConvention

if TYPE_CHECKING:
    from pathlib import Path

EVER = (date(1990, 1, 1), date(2030, 1, 1))
EX_DATE, PREVIOUS = AdjustmentConvention.EX_DATE_CLOSE, AdjustmentConvention.PREVIOUS_CLOSE


def worst_errors(published: pl.DataFrame, actions: pl.DataFrame, convention: AdjustmentConvention) -> dict[str, float]:
    """Symbol -> largest relative error of the rebuilt adj_close. ``published``: bars and adj_close."""
    return dict(rebuilt_errors(published, actions, published, convention).select("symbol", "error").iter_rows())


def of_folder(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    bars = pl.read_parquet(folder / "daily.parquet").rename({"date": "session"})
    return bars, pl.read_parquet(folder / "actions.parquet").rename({"date": "ex_date"})


def test_the_wiki_sample_is_rebuilt_to_twelve_digits(shared_data: Path):
    errors = worst_errors(*of_folder(shared_data / "wiki_sample_2014"), EX_DATE)
    assert errors.keys() == {"AAPL", "BRK_A", "MSFT", "ZEN"}
    assert max(errors.values()) < 1e-12


def test_the_other_convention_does_not_rebuild_the_wiki_sample(shared_data: Path):
    errors = worst_errors(*of_folder(shared_data / "wiki_sample_2014"), PREVIOUS)
    assert 1e-5 < max(errors.values()) < 2e-4


def test_the_wiki_sample_seen_before_its_split_is_not_divided_by_seven(shared_data: Path):
    bars, actions = of_folder(shared_data / "wiki_sample_2014")
    apple = bars.filter(pl.col("symbol") == "AAPL").with_columns(pl.col("volume").cast(pl.Float64), vwap=pl.lit(None, pl.Float64))
    rows = adjusted_bars(apple.drop("adj_close"), actions, EX_DATE)
    eve, ex_date = date(2014, 6, 6), date(2014, 6, 9)
    assert seen_from(rows, eve).filter(pl.col("session") == eve)["close"].item() == 645.57
    assert seen_from(rows, ex_date).filter(pl.col("session") == eve)["close"].item() == pytest.approx(645.57 / 7, rel=1e-15)
    assert rows.filter(pl.col("session") == ex_date)["split_index"].item() == 7.0


def test_the_embedded_sample_gives_back_its_published_adjusted_close():
    actions = SampleSource().actions(*EVER)
    errors = worst_errors(embedded_bars().drop("vwap"), actions, EX_DATE)
    assert len(errors) == 5
    assert max(errors.values()) < 1e-12


@pytest.mark.slow
def test_the_sp500_is_rebuilt_as_far_as_its_recorded_actions_go(shared_data: Path):
    folder = shared_data / "sp500_1999_2021"
    bars, actions = of_folder(folder)
    published = pl.read_parquet(folder / "adj_close_published.parquet").rename({"date": "session"})
    errors = worst_errors(bars.drop("adj_factor").join(published, on=["session", "symbol"]), actions, EX_DATE)
    assert len(errors) == 504
    assert sum(error < 1e-9 for error in errors.values()) == 442
    assert sum(error < 1e-4 for error in errors.values()) == 500
