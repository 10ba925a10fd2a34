"""What a quality rule is: a frame of raw rows in, findings out. A rule finds; the gate decides."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from quant.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date

    from quant.calendar import ExchangeCalendar

PRICES = ("open", "high", "low", "close")
WHOLE_SESSION = "*"
SEEN = ("session", "symbol", *PRICES, "volume")
"""The columns of raw_bars of which rules look at earlier sessions."""


class GateSettings(BaseModel):
    """Thresholds of the gate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    active_sessions: int = Field(default=5, ge=1, description="A symbol is expected while one of so many sessions before had a bar of it")
    feed_fault_ratio: float = Field(default=0.20, ge=0, le=1, description="A larger share of faulty symbols stops the session")
    feed_fault_min_symbols: int = Field(
        default=2,
        ge=1,
        description="So many symbols must be faulty or gone at least: of five names one bad one is already 20 %, and no feed fault",
    )
    unchanged_sessions: int = Field(default=5, ge=2, description="The same close in so many sessions is suspicious")
    volume_sessions: int = Field(default=20, ge=5, description="A volume is compared with the median of so many sessions before")
    volume_multiple: float = Field(default=10.0, gt=1, description="A volume of more than so many medians is suspicious")
    jump_ratio: float = Field(default=0.30, gt=0, lt=1, description="A larger move of the close, actions allowed for, must be explained")
    crash_volume_multiple: float = Field(default=3.0, gt=1, description="A volume of so many medians explains a jump")
    market_multiple: float = Field(default=4.0, ge=1, description="The market explains a jump of so many times its own move")
    market_min_symbols: int = Field(default=20, ge=1, description="The median move of fewer symbols is no move of the market")
    split_tolerance: float = Field(
        default=0.10,
        gt=0,
        lt=0.5,
        description="How far from a split its open may be, of the logarithm of the ratio; its close twice as far",
    )
    split_volume_tolerance: float = Field(
        default=2.5, gt=0, description="A split shifts the volume inversely: how far from that it may be, of the logarithm of the ratio"
    )
    split_move_ratio: float = Field(default=0.15, gt=0, lt=1, description="On the ex-date of a split no larger move is left over")
    hold_sessions: int = Field(
        default=5, ge=0, description="So many sessions a mix-up of units or a missed split of 2:1 or more is held, and a jump may go back"
    )
    scale_tolerance: float = Field(default=0.20, gt=0, lt=1, description="So near to 100 or 0.01 a ratio is a mix-up of units")
    universe_warn_ratio: float = Field(default=0.02, ge=0, le=1, description="A larger share of symbols lost in a session warns")
    universe_stop_ratio: float = Field(default=0.10, ge=0, le=1, description="A larger share of symbols lost stops the session")
    peer_warn_ratio: float = Field(default=0.005, ge=0, description="A larger difference from another source's close warns")
    peer_block_ratio: float = Field(default=0.05, ge=0, description="A larger difference from another source's close blocks")
    revised_volume_ratio: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="A revision of nothing but a used row's volume, by no larger share of it, is stored and not told",
    )
    adjusted_tolerance: float = Field(default=1e-4, gt=0, description="How far a published adjusted return may be from ours")

    @property
    def earlier_sessions(self) -> int:
        """How many sessions before the first one judged a verdict can depend on."""
        return max(self.volume_sessions + 2 * self.hold_sessions, self.active_sessions, self.unchanged_sessions)


class Severity(StrEnum):
    """What follows from a finding."""

    BLOCK = "block"  # the symbol-session is quarantined
    STOP = "stop"  # the session has no accepted row
    WARN = "warn"  # nothing but the finding


def _none(**columns: pl.DataType | type[pl.DataType]) -> Callable[[], pl.DataFrame]:
    return pl.Schema({"session": pl.Date, "symbol": pl.String, **columns}).to_frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What is known besides the bars; what is not known is empty, and rules about it find nothing. ``actions``: corporate_actions known at
    the instant. ``peer_closes``: session, symbol, close of another source. ``listings``: symbol, listed (null: since before anything
    known), delisted (the last session; null: not yet), a row for each time that the symbol was a company's. ``released``: session, symbol,
    decided_through of the rows seen that somebody let out of quarantine: a jump there holds no session after decided_through (null: none
    at all).
    """

    actions: pl.DataFrame = field(default_factory=TABLES["corporate_actions"].empty)
    peer_closes: pl.DataFrame = field(default_factory=_none(close=pl.Float64))
    released: pl.DataFrame = field(default_factory=_none(decided_through=pl.Date))
    listings: pl.DataFrame = field(default_factory=pl.Schema({"symbol": pl.String, "listed": pl.Date, "delisted": pl.Date}).to_frame)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateView:
    """What rules see. ``rows``: raw_bars as of an instant with sessions in first..last. ``earlier``: SEEN of each bar received, whatever
    its faults, of the ``earlier_sessions`` sessions before ``first``. ``moves`` and ``jumps``: see quant.quality.moves. ``absent``: columns
    that the source never has. ``flagged``: session, symbol of the row rules' blocking findings and of those that tell of the feed, but for
    released rows; empty while these run. ``ended``: the renames and delistings that are known (quant.market.securities.endings).
    """

    rows: pl.DataFrame
    earlier: pl.DataFrame
    moves: pl.DataFrame
    jumps: pl.DataFrame
    beside: Beside
    flagged: pl.DataFrame
    first: date
    last: date
    last_closed: date
    calendar: ExchangeCalendar
    absent: frozenset[str]
    settings: GateSettings
    ended: pl.DataFrame

    def sessions(self) -> list[date]:
        """The closed sessions from first to last."""
        return self.calendar.sessions(self.first, min(self.last, self.last_closed))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """``find`` returns session, symbol, expected, observed, the latter two with numbers, and severity where it is not the rule's own. One
    file in quant/quality/rules holds one rule as RULE; its id is the file's name, its reason the first line of the file. ``over_findings``:
    it judges ``GateView.flagged`` and runs after the others. ``tells_of_feed``: its warnings are flagged, too.
    """

    id: str
    severity: Severity
    find: Callable[[GateView], pl.DataFrame]
    over_findings: bool = False
    tells_of_feed: bool = False


def findings(rows: pl.DataFrame, *, expected: pl.Expr, observed: pl.Expr, severity: pl.Expr | None = None) -> pl.DataFrame:
    """The frame that ``Rule.find`` returns, for bad ``rows``."""
    own = {} if severity is None else {"severity": severity}
    whole = rows.rechunk()  # polars 2.1 panics in pl.format when the first chunk of a column is empty
    return whole.select("session", "symbol", expected=expected, observed=observed, **own)


def values_of(*names: str) -> pl.Expr:
    """Text "open 1.0, close null" of the columns named."""
    return pl.concat_str((pl.lit(f"{name} ") + pl.col(name).cast(pl.String).fill_null("null") for name in names), separator=", ")


def change(ratio: pl.Expr) -> pl.Expr:
    """Text "+3.4 %" of a ratio 1.034; "unknown" of null."""
    percent = ((ratio - 1) * 100).round(1) + 0.0  # not -0.0
    sign = pl.when(percent > 0).then(pl.lit("+")).otherwise(pl.lit(""))
    return (sign + percent.cast(pl.String) + pl.lit(" %")).fill_null("unknown")
