"""The baseline strategy: what it wants to know, what it trains, what it holds. The chain asks a strategy nothing else."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from quant.errors import InputError, expected
from strategies.alpha_baseline.features import FEATURE_REACH, alpha158_features
from strategies.alpha_baseline.labels import forward_returns, label_reach
from strategies.alpha_baseline.model import ModelSettings, TrainedFold, predict, train_fold

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import date

    import polars as pl

    from quant.calendar import ExchangeCalendar
    from quant.modelling.walk_forward import Fold
    from quant.ports import TrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class AlphaBaseline:
    """Alpha158 -> LightGBM -> scores, as one value with its settings."""

    settings: ModelSettings
    name: str = "alpha_baseline"

    @classmethod
    def configured(cls, overrides: Mapping[str, Any]) -> AlphaBaseline:
        """The strategy with config.toml of its folder, single keys of it overridden; ``params`` are merged."""
        defaults = tomllib.loads((files("strategies.alpha_baseline") / "config.toml").read_text())
        merged = {**defaults, **overrides, "params": {**defaults["params"], **overrides.get("params", {})}}
        try:
            return cls(settings=ModelSettings.model_validate(merged))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in ("model", *first["loc"]))
            raise InputError(expected(first["msg"], found=repr(first["input"]), where=key, do="fix the profile")) from None

    @property
    def feature_reach(self) -> int:
        """Sessions before a session that its features look at."""
        return FEATURE_REACH

    @property
    def label_reach(self) -> int:
        """Sessions after a session until its label is known."""
        return label_reach(self.settings.label)

    def features(self, adjusted: pl.DataFrame, calendar: ExchangeCalendar, first: date, last: date) -> pl.DataFrame:
        """Rows of table alpha158 for sessions first..last."""
        return alpha158_features(adjusted, calendar, first, last)

    def forward_returns(self, adjusted: pl.DataFrame, calendar: ExchangeCalendar, first_known: date, last_known: date) -> pl.DataFrame:
        """Rows of table forward_returns that become known in first_known..last_known."""
        return forward_returns(adjusted, calendar, self.settings.label, first_known, last_known)

    def train(self, fold: Fold, features: pl.DataFrame, labels: pl.DataFrame, absent: Collection[str]) -> TrainedFold:
        """One fold's model."""
        return train_fold(fold, features, labels, settings=self.settings, absent=absent)

    def score(self, model: TrainedModel, features: pl.DataFrame) -> pl.DataFrame:
        """Rows of table scores."""
        return predict(model, features)
