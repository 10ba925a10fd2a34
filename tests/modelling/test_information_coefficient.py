"""The information coefficient against scipy, and what it refuses to say."""

from __future__ import annotations

from datetime import date, timedelta
from math import sqrt

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from quant.errors import ContractError
from quant.modelling.information_coefficient import IcSummary, information_coefficient, summarise_ic

DAY = date(2013, 3, 1)


def panel(values: dict[date, list[float | None]], name: str) -> pl.DataFrame:
    rows = [(day, f"S{i}", value) for day, row in values.items() for i, value in enumerate(row)]
    return pl.DataFrame(rows, schema={"session": pl.Date, "symbol": pl.String, name: pl.Float64}, orient="row")


def one(score: list[float | None], label: list[float | None], method: str = "spearman") -> pl.DataFrame:
    return information_coefficient(panel({DAY: score}, "score"), panel({DAY: label}, "label"), method)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("method", "oracle"), [("spearman", stats.spearmanr), ("pearson", stats.pearsonr)])
def test_it_agrees_with_scipy_on_every_session_ties_included(method: str, oracle: object) -> None:
    random = np.random.default_rng(5)
    days = [DAY + timedelta(days=n) for n in range(50)]
    scores = {day: random.integers(0, 6, 12).astype(float) for day in days}
    labels = {day: np.round(random.normal(0, 0.02, 12), 2) for day in days}
    got = information_coefficient(
        panel({d: list(v) for d, v in scores.items()}, "score"),
        panel({d: list(v) for d, v in labels.items()}, "label"),
        method,  # pyright: ignore[reportArgumentType]
    )
    want = [oracle(scores[day], labels[day]).statistic for day in days]  # pyright: ignore[reportCallIssue]
    assert got["session"].to_list() == days
    np.testing.assert_allclose(got["ic"].to_numpy(), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("score", "label"),
    [
        pytest.param([1.0, 2.0], [1.0, 2.0], id="two names"),
        pytest.param([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], id="no spread in the scores"),
        pytest.param([1.0, 2.0, 3.0], [0.1, 0.1, 0.1], id="no spread in the returns"),
        pytest.param([1.0, 2.0, None], [1.0, 2.0, 3.0], id="three names, one without a score"),
        pytest.param([1.0, 2.0, 3.0], [1.0, 2.0, float("nan")], id="three names, one without a return"),
    ],
)
def test_a_session_that_cannot_tell_has_no_coefficient(score: list[float | None], label: list[float | None]) -> None:
    assert one(score, label).is_empty()


def test_only_names_with_both_a_score_and_a_return_count() -> None:
    got = one([1.0, 2.0, 3.0, 9.0, None], [1.0, 3.0, 2.0, None, 5.0])
    assert got.to_dicts() == [{"session": DAY, "ic": pytest.approx(0.5), "names": 3}]


def test_two_scores_for_one_name_and_session_are_refused() -> None:
    scores = panel({DAY: [1.0, 2.0, 3.0]}, "score")
    with pytest.raises(ContractError, match="one row per session and symbol in the rows that hold score, found 3 more"):
        information_coefficient(pl.concat([scores, scores]), panel({DAY: [1.0, 2.0, 3.0]}, "label"))


def test_the_summary_comes_with_sessions_names_and_t_statistic() -> None:
    rows = pl.DataFrame({"session": [DAY] * 4, "ic": [0.1, -0.1, 0.3, 0.1], "names": [5, 5, 4, 4]})
    deviation = sqrt((0 + 0.04 + 0.04 + 0) / 3)
    assert summarise_ic(rows) == IcSummary(
        mean=pytest.approx(0.1),
        sessions=4,
        names=4.5,
        standard_deviation=pytest.approx(deviation),
        t_statistic=pytest.approx(0.1 / deviation * 2),
    )
    assert summarise_ic(rows).t_statistic == pytest.approx(stats.ttest_1samp(rows["ic"].to_numpy(), 0).statistic)


def test_no_session_has_no_summary_and_equal_coefficients_have_no_t_statistic() -> None:
    rows = pl.DataFrame({"session": [DAY] * 3, "ic": [0.1] * 3, "names": [5] * 3})
    assert summarise_ic(rows.clear()) is None
    single, equal = summarise_ic(rows.head(1)), summarise_ic(rows)
    assert single is not None
    assert equal is not None
    assert (single.mean, single.standard_deviation, single.t_statistic) == (0.1, None, None)
    assert equal.t_statistic is None


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=3, max_size=30))
def test_only_the_order_of_scores_matters_and_reversing_it_turns_the_sign(pairs: list[tuple[int, int]]) -> None:
    score, label = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    plain, stretched, reversed_ = (one(s, label)["ic"].to_list() for s in (score, [x**3 + 7 for x in score], [-x for x in score]))
    assert plain == pytest.approx(stretched)
    assert plain == pytest.approx([-x for x in reversed_])
    assert all(-1 <= x <= 1 for x in plain)
