"""How often a channel is tried again."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

MOST_ATTEMPTS = 100
"""A notice that a channel did not take so often is not sent there any more: at one attempt in 15 minutes, after a day."""
_FIRST_SECONDS, _MOST_SECONDS = 30.0, 900.0


def may_try(failures: int, last_failure: datetime | None, now: datetime) -> bool:
    """Whether a channel that failed ``failures`` times in a row is tried at ``now``: after 30 s, then after twice as long each time, but
    at most 15 minutes.
    """
    if not failures or last_failure is None:
        return True
    wait = min(_FIRST_SECONDS * 2.0 ** min(failures - 1, 10), _MOST_SECONDS)
    return now >= last_failure + timedelta(seconds=wait)
