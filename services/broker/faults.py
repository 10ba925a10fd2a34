"""What can go wrong on the way between a client and its broker."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """What becomes of one request. "after": the broker did what it was asked, and the client does not hear of it."""

    SLOW = "slow"  # as long as `seconds` says, then an answer
    THROTTLED = "429"
    BROKEN = "500"
    BROKEN_AFTER = "500_after"
    GATEWAY = "504"
    GATEWAY_AFTER = "504_after"
    EMPTY = "empty_200"  # 200 without a body; nothing was done
    EMPTY_AFTER = "empty_200_after"
    REDIRECT = "302"
    REDIRECT_AFTER = "302_after"
    CUT = "cut"  # the connection ends before an answer
    CUT_AFTER = "cut_after"
    HALF = "half"  # half an answer to something that was not done
    HALF_AFTER = "half_after"
    HTML = "html_200"

    @property
    def after(self) -> bool:
        """True if the request takes effect all the same."""
        return self.value.endswith("_after") or self is Fault.SLOW


@dataclass(kw_only=True)
class Plan:
    """A fault for the next ``times`` requests of ``method`` whose path begins with ``path``, once ``skip`` of them got through."""

    fault: Fault
    method: str = "POST"
    path: str = "/v2/orders"
    times: int = 1
    skip: int = 0
    seconds: float = 0.0

    def takes(self, method: str, path: str) -> bool:
        """Whether this request is one of them; counts it."""
        if self.times <= 0 or method != self.method or not path.startswith(self.path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True
