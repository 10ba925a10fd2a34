"""The baseline's model: LightGBM on its features, one booster a year, the same bits from the same rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import polars as pl
from pydantic import BaseModel, Field

from quant.errors import InputError, expected
from quant.factors.expression import features as bar_columns
from quant.factors.expression import parse
from quant.factors.library.alpha158 import alpha158
from quant.modelling.walk_forward import Fold, training_rows, validation_rows
from quant.ports import TrainedModel

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy as np
    from lightgbm import Dataset
    from numpy.typing import NDArray

_KEY = ("session", "symbol")
FeatureSet = Literal["alpha158", "alpha158+library", "library"]  # which factors the model reads: Qlib's, and those of the user's library


class ModelSettings(BaseModel, frozen=True, extra="forbid"):
    """How the baseline is trained. ``params`` go to LightGBM as they are."""

    label: Literal["open_to_open", "close_to_close"] = "open_to_open"
    label_scale: Literal["session_zscore", "none"] = "session_zscore"
    train_years: int = Field(default=2, ge=1)
    max_train_years: int | None = Field(default=None, ge=1)
    rounds: int = Field(default=300, ge=1)
    early_stopping_rounds: int = Field(default=50, ge=1)
    seed: int = 7
    threads: int = Field(default=2, ge=1)
    params: dict[str, float | int | str] = Field(default_factory=dict[str, float | int | str])


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedFold:
    """A fold's model with what people ask of it: rows, rounds, dropped columns, importance (feature, gain, splits)."""

    fold: Fold
    model: TrainedModel
    train_rows: int
    valid_rows: int
    rounds: int
    dropped: tuple[str, ...]
    importance: pl.DataFrame


def train_fold(
    fold: Fold,
    features: pl.DataFrame,
    labels: pl.DataFrame,
    *,
    settings: ModelSettings,
    absent: Collection[str],
    library: Mapping[str, str] = MappingProxyType({}),
) -> TrainedFold:
    """Train one fold from rows of features and forward_returns that cover its training and validation segments.

    ``absent`` are bar columns that the source declares it never has: factor columns that are null throughout because of them are dropped.
    Any other all-null column is an InputError. ``library`` has the expressions of columns that are not of Alpha158.
    """
    import lightgbm as lgb

    labelled = features.join(labels.select(*_KEY, "label", "known_session"), on=_KEY, how="inner").sort(_KEY)
    train, valid = training_rows(labelled, fold), validation_rows(labelled, fold)
    for rows, name in ((train, "training"), (valid, "validation")):
        if rows.is_empty():
            raise InputError(expected(f"{name} rows", found="none", where=f"fold {fold.year}", do="load more history"))
    columns, dropped = usable_columns(train, absent, library)
    booster = lgb.train(  # pyright: ignore[reportUnknownMemberType]  (lightgbm's types are partial)
        _params(settings),
        _dataset(train, columns, settings),
        num_boost_round=settings.rounds,
        valid_sets=[_dataset(valid, columns, settings)],
        callbacks=[lgb.early_stopping(settings.early_stopping_rounds, verbose=False)],
    )
    text = booster.model_to_string(num_iteration=booster.best_iteration)
    version = f"lgbm-{fold.year}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    importance = pl.DataFrame(
        {"feature": columns, "gain": booster.feature_importance("gain"), "splits": booster.feature_importance("split")},
        schema={"feature": pl.String, "gain": pl.Float64, "splits": pl.Int64},
    )
    return TrainedFold(
        fold=fold,
        model=TrainedModel(version=version, text=text, features=tuple(columns)),
        train_rows=train.height,
        valid_rows=valid.height,
        rounds=booster.best_iteration,
        dropped=tuple(dropped),
        importance=importance.sort("gain", "feature", descending=[True, False]),
    )


def usable_columns(
    train: pl.DataFrame, absent: Collection[str], library: Mapping[str, str] = MappingProxyType({})
) -> tuple[list[str], list[str]]:
    """Factor columns with values, and those that are null throughout because they read a bar column that the source does not have."""
    factors = [name for name in train.columns if name not in (*_KEY, "label", "known_session")]
    empty = [name for name in factors if train.get_column(name).null_count() == train.height]
    expressions = {**alpha158(), **library}
    excused = [name for name in empty if name in expressions and bar_columns(parse(expressions[name])) & frozenset(absent)]
    unexplained = sorted(set(empty) - set(excused))
    if unexplained:
        do = "fix the source, or declare the bar column absent in the profile"
        raise InputError(
            expected("values in every factor column", found=f"only nulls in {', '.join(unexplained)}", where="the training rows", do=do)
        )
    return [name for name in factors if name not in empty], excused


def predict(model: TrainedModel, features: pl.DataFrame) -> pl.DataFrame:
    """Rows of table scores (session, symbol, model_version, score, feature_digest) for rows of features. Row by row: a row's score does not
    depend on the rows around it.
    """
    import lightgbm as lgb
    import numpy as np

    booster = lgb.Booster(model_str=model.text)
    score = np.asarray(booster.predict(_matrix(features, model.features))) if features.height else np.zeros(0)
    return features.select(*_KEY).with_columns(
        pl.lit(model.version).alias("model_version"),
        pl.Series("score", score, dtype=pl.Float64),
        pl.Series("feature_digest", feature_digests(features), dtype=pl.String),
    )


def feature_digests(features: pl.DataFrame) -> Sequence[str]:
    """BLAKE2b-128 of every row: session, symbol and the float32 values in column order (nulls as NaN)."""
    columns = [name for name in features.columns if name not in _KEY]
    values = _matrix(features, columns)
    keys = (f"{session}|{symbol}|".encode() for session, symbol in features.select(_KEY).iter_rows())
    return [hashlib.blake2b(key + row.tobytes(), digest_size=16).hexdigest() for key, row in zip(keys, values, strict=True)]


def _matrix(frame: pl.DataFrame, columns: Sequence[str]) -> NDArray[np.float32]:
    import numpy as np

    # One column at a time into one C-ordered block: no second copy of a wide frame. Nulls become NaN.
    block = np.empty((frame.height, len(columns)), dtype=np.float32)
    for place, name in enumerate(columns):
        block[:, place] = frame.get_column(name).to_numpy()
    return block


def _dataset(rows: pl.DataFrame, columns: Sequence[str], settings: ModelSettings) -> Dataset:
    import lightgbm as lgb

    # The weight of a session does not depend on how volatile it was: labels are compared within their session.
    label = pl.col("label")
    centred = label - label.mean().over("session")
    spread = label.std().over("session")
    scaled = pl.when(spread > 0).then(centred / spread).otherwise(0.0)
    y = rows.select(scaled if settings.label_scale == "session_zscore" else label).to_series().to_numpy()
    return lgb.Dataset(_matrix(rows, columns), label=y, params={"verbosity": -1, "max_bin": settings.params.get("max_bin", 255)})


def _params(settings: ModelSettings) -> dict[str, float | int | str | bool]:
    return {
        "objective": "regression",
        "verbosity": -1,
        **settings.params,
        "seed": settings.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": settings.threads,
    }
