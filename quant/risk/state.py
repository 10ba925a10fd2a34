"""Whether a book may trade: its state, what changes it, and the values that losses are measured from. All folds: a replay has the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from quant.risk.settings import RiskSettings


class TradingState(StrEnum):
    """ACTIVE: all orders within the limits. REDUCING: only orders that shrink a holding. HALTED: none."""

    ACTIVE = "active"
    REDUCING = "reducing"
    HALTED = "halted"


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """One change of a book's state after the close of ``session``. ``key`` is unique in the book, so that changing twice is changing once;
    ``by`` is "command" or the name of what changed it.
    """

    book: str
    session: date
    key: str
    state: TradingState
    reason: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Watermark:
    """Net asset values (USD) that losses are measured from: ``opening`` of the session with what flowed in, ``peak`` since the start or the
    last resume, with later flows added.
    """

    opening: float = 0.0
    closing: float = 0.0
    peak: float = 0.0

    def after(self, closing: float, flows: float = 0.0) -> Watermark:
        """The next session's."""
        return Watermark(opening=self.closing + flows, closing=closing, peak=max(self.peak + flows, closing))

    def restarted(self) -> Watermark:
        """After a resume: the peak is what the book is worth now."""
        return replace(self, peak=self.closing)

    @property
    def loss(self) -> float:
        """Share of the opening value lost in the session; 0 before there is one."""
        return max(0.0, 1 - self.closing / self.opening) if self.opening > 0 else 0.0

    @property
    def drawdown(self) -> float:
        """Share of the peak lost; 0 before there is one."""
        return max(0.0, 1 - self.closing / self.peak) if self.peak > 0 else 0.0


def automatic_changes(book: str, session: date, state: TradingState, mark: Watermark, settings: RiskSettings) -> list[StateChange]:
    """What the session's result changes by itself: beyond the drawdown limit HALTED, beyond the daily loss REDUCING. Never back."""
    changes: list[StateChange] = []
    if mark.drawdown > settings.max_drawdown_ratio and state is not TradingState.HALTED:
        reason = f"drawdown {mark.drawdown:.4f} of the peak is beyond {settings.max_drawdown_ratio}"
        changes.append(_automatic(book, session, "drawdown", TradingState.HALTED, reason))
    elif mark.loss > settings.max_daily_loss_ratio and state is TradingState.ACTIVE:
        reason = f"loss {mark.loss:.4f} of the opening value is beyond {settings.max_daily_loss_ratio}"
        changes.append(_automatic(book, session, "daily_loss", TradingState.REDUCING, reason))
    return changes


def halt_of_break(book: str, session: date, what: str) -> StateChange:
    """The change that a break found by reconciliation makes: HALTED, once a session."""
    return _automatic(book, session, "reconciliation", TradingState.HALTED, what)


def _automatic(book: str, session: date, by: str, state: TradingState, reason: str) -> StateChange:
    return StateChange(book=book, session=session, key=f"{by}|{session}", state=state, reason=reason, by=by)


def state_after(changes: Iterable[StateChange], before: TradingState = TradingState.ACTIVE) -> TradingState:
    """The state that the newest of ``changes`` leaves."""
    for change in changes:
        before = change.state
    return before
