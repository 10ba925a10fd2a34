"""Clocks: the only place that asks the machine what time it is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from quant.errors import InputError, expected


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Current instant, aware, UTC."""
        return datetime.now(UTC)

    def wait(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class FixedClock:
    """A clock that stands at ``at``: replays and tests. InputError if ``at`` is naive."""

    at: datetime

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            raise InputError(expected("an instant with a time zone", found=self.at, where="FixedClock", do="pass tzinfo=UTC"))

    def now(self) -> datetime:
        """``at`` in UTC."""
        return self.at.astimezone(UTC)

    def wait(self, seconds: float) -> None:
        """Nothing: this clock stands."""
