"""Statistics of many factors in one pass are those of each factor on its own, however the rows are cut."""

from __future__ import annotations

from datetime import date
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from quant.calendar import exchange_calendar
from quant.modelling import factor_statistics as module
from quant.modelling.factor_statistics import chance, factor_statistics
from quant.modelling.information_coefficient import information_coefficient, summarise_ic

DAYS = exchange_calendar().sessions(date(2011, 1, 3), date(2011, 6, 30))
NAMES = [f"N{number}" for number in range(9)]
FACTORS = ("good", "noise", "twin", "still", "gaps", "flat", "empty")


def panel() -> pl.DataFrame:
    """Names that come late and leave early, factors with gaps, ties, infinities, no spread and no values."""
    rng = np.random.default_rng(3)
    shape = (len(DAYS), len(NAMES))
    label, noise = rng.normal(size=shape), rng.normal(size=shape).round(1)
    gaps = np.where(rng.random(shape) < 0.3, np.nan, rng.normal(size=shape))
    gaps[5] = np.inf
    values = {
        "label": np.where(rng.random(shape) < 0.05, np.nan, label),
        "good": 0.5 * label + noise,
        "noise": noise,
        "twin": -(noise**3) + 0.01 * rng.normal(size=shape),
        "still": np.tile(rng.normal(size=len(NAMES)), (len(DAYS), 1)),
        "gaps": gaps,
        "flat": np.ones(shape),
        "empty": np.full(shape, np.nan),
    }
    frame = pl.DataFrame({"session": [day for day in DAYS for _ in NAMES], "symbol": NAMES * len(DAYS)})
    frame = frame.with_columns(pl.Series(name, grid.reshape(-1), nan_to_null=name != "gaps") for name, grid in values.items())
    late = (pl.col("symbol") == "N3") & (pl.col("session") < DAYS[40])
    gone = (pl.col("symbol") == "N5") & (pl.col("session") > DAYS[60])
    return frame.filter(~late & ~gone).with_columns(pl.col(FACTORS).cast(pl.Float32))


def test_the_coefficients_are_those_of_each_factor_on_its_own():
    rows = panel()
    measured = factor_statistics([rows], FACTORS)
    for name in FACTORS:
        alone = information_coefficient(rows.select("session", "symbol", score=name), rows.select("session", "symbol", "label"))
        together = measured.ic_sessions.select("session", ic=name).drop_nulls()
        assert together["session"].to_list() == alone["session"].to_list()
        assert together["ic"].to_list() == pytest.approx(alone["ic"].to_list(), abs=1e-12)
        row, judged = measured.statistics.row(by_predicate=pl.col("factor") == name, named=True), summarise_ic(alone)
        if judged is None:
            assert (row["ic_sessions"], row["ic_mean"], row["t_statistic"]) == (0, None, None)
        else:
            assert row["ic_sessions"] == judged.sessions
            assert (row["ic_mean"], row["ic_names"]) == pytest.approx((judged.mean, judged.names))
            assert row["t_statistic"] == pytest.approx(judged.t_statistic)
            assert row["positive_share"] == pytest.approx((alone["ic"] > 0).mean())


@pytest.mark.parametrize(("parts", "cells"), [(1, 60), (5, 10**6), (5, 100)])
def test_how_the_rows_are_cut_changes_nothing(monkeypatch: pytest.MonkeyPatch, parts: int, cells: int):
    rows = panel()
    whole = factor_statistics([rows], FACTORS)
    edges = [DAYS[len(DAYS) * part // parts] for part in range(parts)]
    cut = [rows.filter(pl.col("session") >= a, pl.col("session") < b) for a, b in zip(edges, [*edges[1:], date(2020, 1, 1)], strict=True)]
    monkeypatch.setattr(module, "CELLS", cells)
    again = factor_statistics([cut[0].clear(), *cut], FACTORS)
    assert again.ic_sessions.equals(whole.ic_sessions)
    assert again.rows == whole.rows == rows.height
    numbers = pl.col(pl.Float64).round(12)
    assert again.statistics.with_columns(numbers).equals(whole.statistics.with_columns(numbers))


def test_a_ranking_that_stands_still_is_told_from_one_that_turns_at_once():
    rows = panel()
    told = dict(factor_statistics([rows], FACTORS).statistics.select("factor", "rank_autocorrelation").iter_rows())
    assert told["still"] == pytest.approx(1, abs=0.01)  # one name comes, one goes
    assert abs(told["noise"]) < 0.1
    assert told["flat"] is None
    both = [frame["noise"].to_numpy() for _, frame in rows.filter(pl.col("session") > DAYS[60]).group_by("session", maintain_order=True)]
    pairs = [spearmanr(a, b).statistic for a, b in pairwise(both)]
    alone = factor_statistics([rows.filter(pl.col("session") > DAYS[60])], ["noise"]).statistics["rank_autocorrelation"][0]
    assert alone == pytest.approx(np.mean(pairs))


def test_the_nearest_factor_is_the_one_whose_ranks_are_alike_whatever_the_sign():
    rows = panel()
    near = {
        name: (other, value)
        for name, other, value in factor_statistics([rows], FACTORS)
        .statistics.select("factor", "nearest", "nearest_correlation")
        .iter_rows()
    }
    assert near["noise"][0] == "twin"
    assert near["twin"][0] == "noise"
    expected = [spearmanr(frame["noise"], frame["twin"]).statistic for _, frame in rows.group_by("session", maintain_order=True)]
    assert near["noise"][1] == pytest.approx(np.mean(expected))
    assert near["flat"] == (None, None)


def test_coverage_counts_finite_values():
    rows = panel()
    told = dict(factor_statistics([rows], FACTORS).statistics.select("factor", "coverage").iter_rows())
    assert told["good"] == 1
    assert told["empty"] == 0
    assert told["gaps"] == pytest.approx(rows["gaps"].is_finite().sum() / rows.height)


def test_no_rows_are_no_coefficients():
    measured = factor_statistics([], FACTORS)
    assert measured.statistics["ic_sessions"].to_list() == [0] * len(FACTORS)
    assert measured.ic_sessions.is_empty()


def test_chance_makes_some_of_many_factors_look_good():
    told = chance(pl.Series([2.5, -3.0, 0.1, None, *[0.0] * 97]))
    assert told.factors == 100
    assert told.expected == pytest.approx(4.55, abs=0.01)
    assert told.threshold == pytest.approx(3.481, abs=0.001)
    assert (told.beyond_usual, told.beyond_threshold) == (2, 0)
