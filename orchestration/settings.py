"""The one typed settings object: profile (afterclose.toml) + environment. Unknown keys and values out of range are refused by name."""

import os
import tomllib
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from quant.errors import InputError, expected
from quant.market.universe import UniverseSettings
from quant.portfolio.weights import PortfolioSettings
from quant.ports import AdjustmentConvention
from quant.quality.gate import GateSettings
from quant.risk.limit import RiskSettings
from quant.trading.execution import CostSettings
from strategies.alpha_baseline.model import FeatureSet

REPOSITORY = Path(__file__).resolve().parent.parent
_PREFIX = "AFTERCLOSE__"
_ALIASES = ("AFTERCLOSE_DATA", "AFTERCLOSE_PROFILE")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SampleSettings(_Section):
    """The bundled sample: nothing to choose but the universe."""

    kind: Literal["sample"]
    universe: Literal["all"] | list[str] = "all"


class FilesSettings(_Section):
    """A folder or file with bars and one with actions; relative paths start at the profile's folder."""

    bars: str
    actions: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    convention: AdjustmentConvention = AdjustmentConvention.PREVIOUS_CLOSE
    absent: list[str] = Field(default_factory=list)
    bad_rows: Literal["refuse", "quarantine"] = "refuse"
    publish_delay_minutes: int = Field(
        default=30,
        ge=0,
        le=16 * 60,
        description="After the close. A decision must be made before the next open: 16:00 + 16 h = 08:00, before the open at 09:30",
    )


class FilesSourceSettings(_Section):
    """Source `files`."""

    kind: Literal["files"]
    universe: Literal["all"] | list[str] = "all"
    files: FilesSettings


class CalendarSettings(_Section):
    """Range of the history and the first session of the daily chain. ``end`` cuts a source short."""

    exchange: str = "XNYS"
    start: date
    paper_start: date
    end: date | None = None


class StrategySettings(_Section):
    """Which folder of strategies/, and the factors of your own that it computes beside its own; a relative path starts at the profile's
    folder. Without `features` the model reads everything that is computed.
    """

    name: Literal["alpha_baseline"] = "alpha_baseline"
    factors: str | None = None
    features: FeatureSet | None = None


class PaperSettings(_Section):
    """The paper book. ``start`` is its first session, by default the first one of the daily chain."""

    book: str = Field(default="paper", pattern=r"^[a-z0-9]{1,14}$")
    start: date | None = None


class BacktestSettings(_Section):
    """Range of the backtest, by default all sessions with scores before the paper start."""

    book: str = Field(default="backtest", pattern=r"^[a-z0-9]{1,14}$")
    start: date | None = None
    end: date | None = None


class BrokerSettings(_Section):
    """Where orders go."""

    kind: Literal["simulated"] = "simulated"


class Settings(BaseSettings):
    """Everything a data root is run with."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True)

    name: str
    source: Annotated[SampleSettings | FilesSourceSettings, Field(discriminator="kind")]
    calendar: CalendarSettings
    strategy: StrategySettings = StrategySettings()
    model: dict[str, Any] = Field(default_factory=dict)
    universe: UniverseSettings = UniverseSettings()
    portfolio: PortfolioSettings = PortfolioSettings()
    costs: CostSettings = CostSettings()
    risk: RiskSettings = RiskSettings()
    gate: GateSettings = GateSettings()
    paper: PaperSettings = PaperSettings()
    backtest: BacktestSettings = BacktestSettings()
    broker: BrokerSettings = BrokerSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the profile."""
        return env_settings, init_settings


def data_root() -> Path:
    """AFTERCLOSE_DATA, by default data/ of the repository."""
    return Path(os.environ.get("AFTERCLOSE_DATA", REPOSITORY / "data")).resolve()


def profile_path() -> Path:
    """AFTERCLOSE_PROFILE, by default afterclose.toml of the repository."""
    return Path(os.environ.get("AFTERCLOSE_PROFILE", REPOSITORY / "afterclose.toml")).resolve()


@cache
def _parsed(path: Path, environment: tuple[tuple[str, str], ...]) -> Settings:
    known = {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields}
    for variable, value in environment:
        if variable not in _ALIASES and not any(variable == k or variable.startswith(f"{k}__") for k in known):
            names = ", ".join([*_ALIASES, f"{_PREFIX}SECTION__KEY"])
            raise InputError(expected(names, found=f"{variable}={value}", where="the environment", do="correct or unset it"))
    try:
        profile = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(expected("a profile", found="no such file", where=str(path), do="name one with --profile")) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(expected("a TOML file", found=str(error), where=str(path), do="fix that line")) from None
    try:
        return Settings(**profile)
    except ValidationError as error:
        raise InputError(_explained(error, path)) from None


def load_settings() -> Settings:
    """The settings of this process's environment; InputError names the first wrong key, its value and what was expected."""
    environment = tuple(sorted((k, v) for k, v in os.environ.items() if k.upper().startswith("AFTERCLOSE")))
    return _parsed(profile_path(), environment)


def _explained(error: ValidationError, path: Path) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return expected("a known setting", found=f"{key} = {first['input']!r}", where=str(path), do="see docs/settings.md for the keys")
    return expected(f"{key}: {first['msg']}", found=repr(first["input"]), where=str(path), do="fix that key")
