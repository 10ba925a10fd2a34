"""Scores become signals, sleeves and target weights by fixed rules."""

from __future__ import annotations

from datetime import date, timedelta
from random import Random

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.portfolio.weights import PortfolioSettings, signals, target_weights

DAY = date(2020, 1, 3)


def scored(values: dict[str, float]) -> pl.DataFrame:
    return pl.DataFrame(
        {"session": [DAY] * len(values), "symbol": list(values), "score": list(values.values())},
        schema={"session": pl.Date, "symbol": pl.String, "score": pl.Float64},
    )


def weights(values: dict[str, float], **settings: object) -> dict[str, float]:
    rows = target_weights(scored(values), book="b", settings=PortfolioSettings(**settings))  # type: ignore[arg-type]
    return {s: w for s, w in rows.select("symbol", "target_weight").iter_rows() if w}


def test_signals_have_mean_zero_and_standard_deviation_two_percent():
    made = signals(scored({"A": 0.1, "B": 0.4, "C": -0.2}))["signal"]
    assert made.mean() == pytest.approx(0, abs=1e-15)
    assert made.std() == pytest.approx(0.02)


def test_the_best_are_long_and_the_worst_short_with_half_the_gross_exposure_each():
    assert weights({"A": 1, "B": 2, "C": 3, "D": 4, "E": 5}) == {"E": 0.25, "D": 0.25, "B": -0.25, "A": -0.25}


def test_three_names_allow_one_a_side_however_many_are_asked_for():
    assert weights({"A": 1, "B": 2, "C": 3}, names_per_side=2) == {"C": 0.5, "A": -0.5}


def test_equal_scores_one_name_or_none_give_no_new_signal():
    assert weights({"A": 0.3, "B": 0.3, "C": 0.3}) == {}
    assert weights({"A": 0.1 + 0.2, "B": 0.3}) == {}
    assert weights({"A": 1}) == {}
    assert weights({}) == {}


def test_ties_go_to_the_symbol_that_sorts_first():
    assert weights({"B": 1.0, "A": 1.0, "C": 0.0, "D": 0.0}, names_per_side=1) == {"A": 0.5, "D": -0.5}


def test_a_long_only_book_puts_the_whole_exposure_into_longs():
    assert weights({"A": 1, "B": 2, "C": 3, "D": 4}, sides="long_only", gross_exposure_ratio=0.9) == {"D": 0.45, "C": 0.45}


@given(st.lists(st.floats(-0.1, 0.1), min_size=2, max_size=24), st.randoms(use_true_random=False))
def test_signals_are_the_same_bits_however_the_scores_are_laid_out(values: list[float], random: Random):
    rows = scored({f"S{n:02}": value for n, value in enumerate(values)})
    before, after = (rows.with_columns(session=pl.lit(DAY + timedelta(days=by)), score=pl.col("score") * by) for by in (-1, 1))
    order = random.sample(range(rows.height), rows.height)
    layouts = (
        rows.with_columns(pl.col("session").set_sorted()),
        pl.concat([rows.head(1), rows.tail(-1)], rechunk=False),
        pl.concat([before, rows, after]),
        rows[order],
    )
    wanted = signals(rows)
    assert all(signals(layout).filter(pl.col("session") == DAY).equals(wanted) for layout in layouts)


@given(st.dictionaries(st.sampled_from("ABCDEFGHIJ"), st.floats(-1, 1).map(lambda x: round(x, 6)), min_size=2), st.integers(1, 5))
def test_sleeves_always_sum_to_plus_and_minus_one(values: dict[str, float], n: int):
    rows = target_weights(scored(values), book="b", settings=PortfolioSettings(names_per_side=n))
    if rows.height:
        sleeve = rows["sleeve"]
        assert sleeve.filter(sleeve > 0).sum() == pytest.approx(1)
        assert sleeve.filter(sleeve < 0).sum() == pytest.approx(-1)
        assert (sleeve > 0).sum() == (sleeve < 0).sum() == min(n, len(values) // 2)
    else:
        assert len(set(values.values())) == 1


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=10), st.sampled_from([0.25, 2.0, 1024.0]), st.sampled_from([-64, 0, 32]))
def test_weights_do_not_depend_on_the_scale_or_level_of_scores(values: list[int], scale: float, level: int):
    names = {f"S{i}": float(v) for i, v in enumerate(values)}
    assert weights({s: v * scale + level for s, v in names.items()}) == weights(names)
