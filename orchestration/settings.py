"""The one typed settings object: profile (afterclose.toml) + environment. Unknown keys and values out of range are refused by name."""

import os
import tomllib
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from adapters.brokers.alpaca import NEVER_BOOKS, PAPER_URL, AlpacaAccess
from adapters.sources.alpaca import AlpacaKeys
from quant.errors import InputError, expected
from quant.ledger.reconciliation import ReconcileSettings
from quant.ledger.settings import LedgerSettings
from quant.market.universe import UniverseSettings
from quant.portfolio.weights import PortfolioSettings
from quant.ports import AdjustmentConvention
from quant.quality.expectations import ExpectationSettings
from quant.quality.gate import GateSettings
from quant.risk.settings import RiskSettings
from quant.trading.execution import CostSettings
from strategies.alpha_baseline.model import FeatureSet

REPOSITORY = Path(__file__).resolve().parent.parent
_PREFIX = "AFTERCLOSE__"
_ALIASES = ("AFTERCLOSE_DATA", "AFTERCLOSE_PROFILE", "AFTERCLOSE_LIVE_ACCOUNT")


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
    grows: bool = False
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


class AlpacaSettings(_Section):
    """Market data of an Alpaca account. Its keys come from the environment only: APCA_API_KEY_ID and APCA_API_SECRET_KEY."""

    asof: date | Literal["-"]
    feed: Literal["sip", "iex"] = "sip"
    first_session: date = date(2016, 1, 4)
    convention: AdjustmentConvention = AdjustmentConvention.PREVIOUS_CLOSE
    publish_delay_minutes: int = Field(default=30, ge=0, le=16 * 60)
    data_url: str | None = None
    trading_url: str | None = None
    adjusted_closes: bool = False

    @field_validator("data_url", "trading_url")
    @classmethod
    def _keys_travel_encrypted(cls, url: str | None) -> str | None:
        parts = urlsplit(url or "https://")
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in {"127.0.0.1", "localhost"}):
            raise ValueError("an address with https://, or http:// on this machine: the keys travel with every request")
        return url


class AlpacaSourceSettings(_Section):
    """Source `alpaca`."""

    kind: Literal["alpaca"]
    universe: list[str]
    alpaca: AlpacaSettings


SourceSettings = Annotated[SampleSettings | FilesSourceSettings | AlpacaSourceSettings, Field(discriminator="kind")]


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
    """Range of the backtest, by default all sessions with scores before the paper start. Without ``stops_on_losses`` the limits on a
    day's loss and on drawdown, which nobody is there to lift, do not bind it: it shows its whole range.
    """

    book: str = Field(default="backtest", pattern=r"^[a-z0-9]{1,14}$")
    start: date | None = None
    end: date | None = None
    stops_on_losses: bool = True


class BrokerSettings(_Section):
    """Where orders go. Keys of an Alpaca account come from the environment only: APCA_API_KEY_ID and APCA_API_SECRET_KEY. In a dry run
    orders are recorded, and nothing is sent.
    """

    kind: Literal["simulated", "alpaca"] = "simulated"
    dry_run: bool = False
    url: str = PAPER_URL
    allow_live: bool = False
    connect_seconds: float = Field(default=5.0, gt=0, le=60)
    read_seconds: float = Field(default=20.0, gt=0, le=300)
    all_attempts_seconds: float = Field(default=120.0, gt=0, le=3600)
    never_books: list[str] = sorted(NEVER_BOOKS)


Channel = Literal["log", "email", "slack", "webhook"]


class EmailSettings(_Section):
    """A mail server. AFTERCLOSE__ALERTS__EMAIL__PASSWORD has the password."""

    host: str
    port: int = Field(default=587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str | None = None
    password: SecretStr | None = None
    sender: str
    recipients: list[str] = Field(min_length=1)


class SlackSettings(_Section):
    """An incoming webhook of Slack. AFTERCLOSE__ALERTS__SLACK__URL has its address, which is a secret."""

    url: SecretStr


class WebhookSettings(_Section):
    """A webhook of your own. AFTERCLOSE__ALERTS__WEBHOOK__SECRET has the key that signs."""

    url: str = Field(pattern=r"^https?://")
    secret: SecretStr = Field(min_length=16)


class AlertSettings(_Section):
    """Who is told when a check does not pass, a run fails, a table is stale or a session did not run: docs/alerts.md. Secrets come from the
    environment only.
    """

    channels: list[Channel] = ["log"]
    daily_pnl: bool = True
    fallback: list[Channel] = ["log"]
    ui: str | None = Field(default=None, pattern=r"^https?://")
    freshness_minutes: int = Field(default=30, ge=0, le=24 * 60)
    dead_man_minutes: int = Field(default=60, ge=0, le=24 * 60)
    timeout_seconds: float = Field(default=10.0, gt=0, le=20)
    email: EmailSettings | None = None
    slack: SlackSettings | None = None
    webhook: WebhookSettings | None = None


class AuditSettings(_Section):
    """Where the audit log's signing key and a copy of its anchors are: docs/audit.md. Relative paths start at the profile's folder."""

    anchors: str | None = None
    key: str | None = None


SECRETS = (
    ("alerts", "email", "password"),
    ("alerts", "slack", "url"),
    ("alerts", "webhook", "secret"),
)
"""Keys that the profile must not have: it is a file that people share."""


class Settings(BaseSettings):
    """Everything a data root is run with."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True)

    name: str
    source: SourceSettings
    cross_check: SourceSettings | None = None
    calendar: CalendarSettings
    strategy: StrategySettings = StrategySettings()
    model: dict[str, Any] = Field(default_factory=dict)
    universe: UniverseSettings = UniverseSettings()
    portfolio: PortfolioSettings = PortfolioSettings()
    costs: CostSettings = CostSettings()
    ledger: LedgerSettings = LedgerSettings()
    risk: RiskSettings = RiskSettings()
    gate: GateSettings = GateSettings()
    expectations: ExpectationSettings = ExpectationSettings()
    paper: PaperSettings = PaperSettings()
    backtest: BacktestSettings = BacktestSettings()
    broker: BrokerSettings = BrokerSettings()
    reconcile: ReconcileSettings = ReconcileSettings()
    alerts: AlertSettings = AlertSettings()
    audit: AuditSettings = AuditSettings()

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


def alpaca_keys() -> AlpacaKeys:
    """Of the environment; InputError if there are none, or if one cannot be a key (it would end up in an error of the HTTP library)."""
    names = ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY")
    values = [os.environ.get(name, "").strip() for name in names]
    wrong = {name: value for name, value in zip(names, values, strict=True) if not (value.isascii() and value.isprintable() and value)}
    if wrong:
        found = ", ".join(f"no {name}" if not value else f"{name} with a character that no key has" for name, value in wrong.items())
        do = "export the key and the secret of your Alpaca account"
        raise InputError(expected(" and ".join(names), found=found, where="the environment", do=do))
    return AlpacaKeys(key_id=values[0], secret=values[1])


def alpaca_access(broker: BrokerSettings) -> AlpacaAccess:
    """Where the account is; InputError for an address that is not of paper trading, unless the profile and the environment both say so."""
    return AlpacaAccess(
        url=broker.url,
        allow_live=broker.allow_live,
        live_account=os.environ.get("AFTERCLOSE_LIVE_ACCOUNT") or None,
        connect_seconds=broker.connect_seconds,
        read_seconds=broker.read_seconds,
        all_attempts_seconds=broker.all_attempts_seconds,
    )


def data_root() -> Path:
    """AFTERCLOSE_DATA, by default data/ of the repository."""
    return Path(os.environ.get("AFTERCLOSE_DATA", REPOSITORY / "data")).resolve()


def profile_path() -> Path:
    """AFTERCLOSE_PROFILE, by default afterclose.toml of the repository."""
    return Path(os.environ.get("AFTERCLOSE_PROFILE", REPOSITORY / "afterclose.toml")).resolve()


@cache
def _parsed(path: Path, environment: tuple[tuple[str, str], ...]) -> Settings:
    known = {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields}
    for variable, _ in environment:  # a value may be a secret under a misspelt name
        if variable not in _ALIASES and not any(variable == k or variable.startswith(f"{k}__") for k in known):
            names = ", ".join([*_ALIASES, f"{_PREFIX}SECTION__KEY"])
            raise InputError(expected(names, found=variable, where="the environment", do="correct or unset it"))
    try:
        profile = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(expected("a profile", found="no such file", where=str(path), do="name one with --profile")) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(expected("a TOML file", found=str(error), where=str(path), do="fix that line")) from None
    for path_of_key in SECRETS:
        _require_absent(profile, path_of_key, path)
    try:
        return Settings(**profile)
    except ValidationError as error:
        raise InputError(_explained(error, path)) from None
    except SettingsError as error:  # of a list or section in a variable; it names the section, never the value
        do = "write lists and sections as JSON: '[\"log\"]'"
        raise InputError(expected("values that can be read", found=str(error), where="the environment", do=do)) from None


def load_settings() -> Settings:
    """The settings of this process's environment; InputError names the first wrong key, its value and what was expected."""
    environment = tuple(sorted((k, v) for k, v in os.environ.items() if k.upper().startswith("AFTERCLOSE")))
    return _parsed(profile_path(), environment)


def _require_absent(profile: dict[str, Any], keys: tuple[str, ...], path: Path) -> None:
    node: Any = profile
    for key in keys:
        if not isinstance(node, dict) or key not in node:
            return
        node = node[key]
    variable = _PREFIX + "__".join(keys).upper()
    found = f"{'.'.join(keys)} in the file"
    raise InputError(expected(f"{variable} in the environment", found=found, where=str(path), do="move it there: it is a secret"))


def _explained(error: ValidationError, path: Path) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return expected(f"{key}", found="nothing", where=str(path), do="set it: docs/settings.md")
    # What stands in [alerts] may be a secret, under its own name or a misspelt one.
    at = first["loc"]
    secret = any(at == keys[: len(at)] for keys in SECRETS) or (at[0] == "alerts" and first["type"] == "extra_forbidden")
    value = "a value that is not shown" if secret else repr(first["input"])
    if first["type"] == "extra_forbidden":
        return expected("a known setting", found=f"{key} = {value}", where=str(path), do="see docs/settings.md for the keys")
    return expected(f"{key}: {first['msg']}", found=value, where=str(path), do="fix that key")
