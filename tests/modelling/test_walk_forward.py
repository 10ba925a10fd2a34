"""Yearly folds, purged: a label that was not known before a segment begins is in no segment before it."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.calendar import exchange_calendar
from quant.errors import InputError
from quant.modelling.walk_forward import training_rows, validation_rows, yearly_folds
from strategies.alpha_baseline.model import ModelSettings, feature_digests, predict, train_fold, usable_columns

CALENDAR = exchange_calendar()
DAYS = CALENDAR.sessions(date(2000, 1, 3), date(2004, 6, 30))


def labelled(reach: int) -> pl.DataFrame:
    return pl.DataFrame({"session": DAYS[:-reach], "known_session": DAYS[reach:]})


@given(reach=st.integers(1, 30), train_years=st.integers(1, 3))
def test_no_label_of_a_segment_is_known_only_in_the_next_one(reach: int, train_years: int):
    rows = labelled(reach)
    for fold in yearly_folds(CALENDAR, first=DAYS[0], last=DAYS[-1], train_years=train_years, max_train_years=None):
        train, valid = training_rows(rows, fold), validation_rows(rows, fold)
        assert train["known_session"].max() < fold.valid_first <= valid["session"].min()  # type: ignore[operator]
        assert valid["known_session"].max() < fold.test_first  # type: ignore[operator]
        purged = rows.filter(pl.col("session") >= fold.train_first, pl.col("session") < fold.valid_first).height - train.height
        assert purged == reach  # exactly the sessions whose labels reach over the border


def test_folds_depend_on_the_calendar_and_not_on_where_the_history_ends():
    long = yearly_folds(CALENDAR, first=DAYS[0], last=date(2004, 6, 30), train_years=2, max_train_years=None)
    short = yearly_folds(CALENDAR, first=DAYS[0], last=date(2004, 1, 2), train_years=2, max_train_years=None)
    assert long == short
    assert [fold.year for fold in long] == [2003, 2004]


def test_a_rolling_window_drops_old_years():
    fold = yearly_folds(CALENDAR, first=DAYS[0], last=DAYS[-1], train_years=2, max_train_years=1)[-1]
    assert fold.train_first == date(2002, 1, 2)


def test_too_little_history_is_refused():
    with pytest.raises(InputError, match="a paper start in 2003 or later"):
        yearly_folds(CALENDAR, first=DAYS[0], last=date(2001, 5, 1), train_years=2, max_train_years=None)


def learnable(seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    noise = np.random.default_rng(seed)
    days, symbols = DAYS[:760], [f"S{i}" for i in range(6)]
    n = len(days) * len(symbols)
    signal = noise.normal(size=n)
    keys = {"session": [d for d in days for _ in symbols], "symbol": symbols * len(days)}
    values = {"F0": signal, "F1": noise.normal(size=n), "VWAP0": [None] * n}
    features = pl.DataFrame(
        {**keys, **values}, schema={"session": pl.Date, "symbol": pl.String, "F0": pl.Float32, "F1": pl.Float32, "VWAP0": pl.Float32}
    )
    known = {day: DAYS[i + 2] for i, day in enumerate(days)}
    labels = pl.DataFrame({**keys, "label": 0.01 * signal + noise.normal(size=n) * 0.01}).with_columns(
        known_session=pl.col("session").replace_strict(known, return_dtype=pl.Date)
    )
    return features, labels


QUICK = ModelSettings(rounds=20, early_stopping_rounds=5, train_years=1, threads=1)


def test_training_twice_on_the_same_rows_gives_the_same_model_and_it_has_learnt():
    features, labels = learnable(1)
    fold = yearly_folds(CALENDAR, first=DAYS[0], last=date(2002, 2, 1), train_years=1, max_train_years=None)[0]
    one, two = (train_fold(fold, features, labels, settings=QUICK, absent={"vwap"}) for _ in range(2))
    assert one.model == two.model
    assert one.dropped == ("VWAP0",)
    tested = features.filter(pl.col("session") >= fold.test_first)
    scored = predict(one.model, tested).join(labels, on=["session", "symbol"])
    assert scored.select(pl.corr("score", "label")).item() > 0.3


def test_a_fold_does_not_see_its_test_year():
    features, labels = learnable(2)
    fold = yearly_folds(CALENDAR, first=DAYS[0], last=date(2002, 2, 1), train_years=1, max_train_years=None)[0]
    later = pl.col("known_session") >= fold.test_first
    shuffled = labels.with_columns(label=pl.when(later).then(-7.0).otherwise(pl.col("label")))
    models = [train_fold(fold, features, rows, settings=QUICK, absent={"vwap"}).model for rows in (labels, shuffled)]
    assert models[0] == models[1]


def test_a_column_without_values_is_refused_unless_its_bar_column_is_declared_absent():
    rows = pl.DataFrame(
        {"session": [DAYS[0]], "symbol": ["A"], "F0": [1.0], "VWAP0": [None], "F9": [None], "label": [0.1], "known_session": [DAYS[2]]}
    )
    with pytest.raises(InputError, match="F9"):
        usable_columns(rows, {"vwap"})
    with pytest.raises(InputError, match="VWAP0"):
        usable_columns(rows.drop("F9"), set())
    assert usable_columns(rows.drop("F9"), {"vwap"}) == (["F0"], ["VWAP0"])


@settings(max_examples=20)
@given(place=st.integers(0, 50))
def test_a_score_and_its_digest_do_not_depend_on_the_rows_around_it(place: int):
    features, labels = learnable(3)
    fold = yearly_folds(CALENDAR, first=DAYS[0], last=date(2002, 2, 1), train_years=1, max_train_years=None)[0]
    model = _trained_once(features, labels, fold)
    whole = predict(model, features[:51])
    assert predict(model, features[place : place + 1]).equals(whole[place : place + 1])
    assert feature_digests(features[place : place + 1])[0] == feature_digests(features[:51])[place]


_CACHE: dict[int, object] = {}


def _trained_once(features: pl.DataFrame, labels: pl.DataFrame, fold):
    if 0 not in _CACHE:
        _CACHE[0] = train_fold(fold, features, labels, settings=QUICK, absent={"vwap"}).model
    return _CACHE[0]
