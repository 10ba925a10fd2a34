"""What a quality rule is: a frame of raw rows in, findings out. A rule finds; the gate decides."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date

    from quant.calendar import ExchangeCalendar

PRICES = ("open", "high", "low", "close")
WHOLE_SESSION = "*"


class GateSettings(BaseModel):
    """Thresholds of the gate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    active_sessions: int = Field(default=5, ge=1, description="A symbol is expected while one of so many sessions before had a bar of it")
    feed_fault_ratio: float = Field(default=0.20, ge=0, le=1, description="A larger share of blocked symbols stops the session")
    feed_fault_min_symbols: int = Field(
        default=2,
        ge=1,
        description="So many symbols must be blocked at least: of five names one bad one is already 20 %, and no feed fault",
    )


class Severity(StrEnum):
    """What follows from a finding."""

    BLOCK = "block"  # the symbol-session is quarantined
    STOP = "stop"  # the session has no accepted row
    WARN = "warn"  # nothing but the finding


@dataclass(frozen=True, slots=True, kw_only=True)
class GateView:
    """What rules see. ``rows``: raw_bars as of an instant with sessions in first..last. ``activity``: session, symbol of each bar received,
    whatever its faults, from ``active_sessions`` sessions before ``first`` on. ``absent``: columns that the source never has.
    ``blocked``: session, symbol of the row rules' blocking findings; empty while these run. ``ended``: symbol, ex_date of the renames and
    delistings that are known.
    """

    rows: pl.DataFrame
    activity: pl.DataFrame
    blocked: pl.DataFrame
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
    """``find`` returns session, symbol, expected, observed, the latter two with numbers. One file in quant/quality/rules holds one rule as
    RULE; its id is the file's name. ``over_findings``: it judges ``GateView.blocked`` and runs after the others.
    """

    id: str
    severity: Severity
    find: Callable[[GateView], pl.DataFrame]
    over_findings: bool = False


def findings(rows: pl.DataFrame, *, expected: pl.Expr, observed: pl.Expr) -> pl.DataFrame:
    """The frame that ``Rule.find`` returns, for bad ``rows``."""
    return rows.select("session", "symbol", expected=expected, observed=observed)


def values_of(*names: str) -> pl.Expr:
    """Text "open 1.0, close null" of the columns named."""
    return pl.concat_str((pl.lit(f"{name} ") + pl.col(name).cast(pl.String).fill_null("null") for name in names), separator=", ")
