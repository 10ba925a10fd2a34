"""The baseline strategy: what it wants to know, what it trains, what it holds. The chain asks a strategy nothing else."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from quant.errors import FactorError, InputError, expected
from quant.factors.expression import groups, parse
from quant.factors.library.user_factors import user_factors_table
from quant.factors.traded import among_traded
from strategies.alpha_baseline.features import FEATURE_REACH, alpha158_features, sessions_needed, user_factor_features
from strategies.alpha_baseline.labels import forward_returns, label_reach
from strategies.alpha_baseline.model import FeatureSet, ModelSettings, TrainedFold, predict, train_fold

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import date

    import polars as pl

    from quant.calendar import ExchangeCalendar
    from quant.modelling.walk_forward import Fold
    from quant.ports import TrainedModel

_TABLES: Mapping[FeatureSet, tuple[str, ...]] = {
    "alpha158": ("alpha158",),
    "alpha158+library": ("alpha158", "user_factors"),
    "library": ("user_factors",),
}


def _require_computable(name: str, text: str) -> None:
    """Refuses a factor that the chain could not compute from the table adjusted_bars, before anything is computed."""
    columns = sorted(groups(parse(text)))
    if columns:
        found = f"${columns[0]} to group symbols by"
        do = "leave the group out, or compute it outside of the chain: `afterclose factors compute --bars FILE` groups by any column"
        raise FactorError(expected("columns of table adjusted_bars", found=found, where=f"factor {name}", do=do))
    try:
        parse(among_traded(text))  # longer than what was written
    except FactorError as error:
        raise FactorError(f"factor {name}, once its cross-sections are over traded symbols only: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlphaBaseline:
    """Alpha158 and a user's factors -> LightGBM -> scores, as one value with its settings. ``library`` has name -> expression."""

    settings: ModelSettings
    library: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    feature_set: FeatureSet = "alpha158"
    name: str = "alpha_baseline"

    @classmethod
    def configured(
        cls, overrides: Mapping[str, Any], library: Mapping[str, str] | None = None, feature_set: FeatureSet | None = None
    ) -> AlphaBaseline:
        """The strategy with config.toml of its folder, single keys of it overridden; ``params`` are merged. By default its model reads
        Alpha158 and the factors of the library, if there is one.
        """
        held = library or {}
        user_factors_table(held)  # refuses names that cannot be columns
        for name, text in held.items():
            _require_computable(name, text)
        chosen = feature_set or ("alpha158+library" if held else "alpha158")
        if "library" in chosen and not held:
            do = "name one in [strategy] factors"
            raise InputError(
                expected("a factor library with factors in it", found="none", where=f"[strategy] features = {chosen!r}", do=do)
            )
        defaults = tomllib.loads((files("strategies.alpha_baseline") / "config.toml").read_text())
        merged = {**defaults, **overrides, "params": {**defaults["params"], **overrides.get("params", {})}}
        try:
            return cls(settings=ModelSettings.model_validate(merged), library=held, feature_set=chosen)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in ("model", *first["loc"]))
            raise InputError(expected(first["msg"], found=repr(first["input"]), where=key, do="fix the profile")) from None

    @property
    def feature_reach(self) -> int:
        """Sessions before a session that its features look at."""
        return FEATURE_REACH

    @property
    def library_reach(self) -> int:
        """The same for the factors of the library."""
        return sessions_needed(self.library)

    @property
    def feature_tables(self) -> tuple[str, ...]:
        """Tables whose factor columns the model reads, in this order."""
        return _TABLES[self.feature_set]

    @property
    def label_reach(self) -> int:
        """Sessions after a session until its label is known."""
        return label_reach(self.settings.label)

    def features(self, adjusted: pl.DataFrame, calendar: ExchangeCalendar, first: date, last: date) -> pl.DataFrame:
        """Rows of table alpha158 for sessions first..last."""
        return alpha158_features(adjusted, calendar, first, last)

    def user_factors(self, adjusted: pl.DataFrame, calendar: ExchangeCalendar, first: date, last: date) -> pl.DataFrame:
        """Rows of table user_factors for sessions first..last."""
        return user_factor_features(self.library, adjusted, calendar, first, last)

    def forward_returns(self, adjusted: pl.DataFrame, calendar: ExchangeCalendar, first_known: date, last_known: date) -> pl.DataFrame:
        """Rows of table forward_returns that become known in first_known..last_known."""
        return forward_returns(adjusted, calendar, self.settings.label, first_known, last_known)

    def train(self, fold: Fold, features: pl.DataFrame, labels: pl.DataFrame, absent: Collection[str]) -> TrainedFold:
        """One fold's model."""
        return train_fold(fold, features, labels, settings=self.settings, absent=absent, library=self.library)

    def score(self, model: TrainedModel, features: pl.DataFrame) -> pl.DataFrame:
        """Rows of table scores."""
        return predict(model, features)
