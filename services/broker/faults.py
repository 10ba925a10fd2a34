"""Faults on demand: what becomes of a request, and of the events of an order. Chosen by counting, never by chance."""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter


class FaultKind(StrEnum):
    """What becomes of one request."""

    LATENCY = "latency"  # answered as it should be, ``seconds`` late
    TOO_MANY = "429"
    BROKEN = "500"
    GATEWAY = "504"
    EMPTY = "empty"  # 200 without a body
    REDIRECT = "302"
    CUT = "cut"  # the connection is cut instead of a reply
    HALF = "half"  # half of the reply's body, then cut
    HEADERS = "headers"  # half of the reply's headers, then cut


class Fault(BaseModel, frozen=True, extra="forbid"):
    """The next ``times`` requests that start with ``on`` (method and path), after ``skip`` of them, meet ``kind``; ``accepted``: after the
    exchange did what was asked, else instead of it.
    """

    kind: FaultKind
    on: str = "POST /v2/orders"
    accepted: bool = False
    times: int = Field(default=1, ge=1)
    skip: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0, le=600)


class EventFaults(BaseModel, frozen=True, extra="forbid"):
    """Of the stream: every event ``copies`` times; ``hold`` events at a time are kept and sent, the last one first. ``lose``: so many are
    never sent. ``hide_fills``: the newest fills that the activities do not show yet.
    """

    copies: int = Field(default=1, ge=1, le=10)
    hold: int = Field(default=1, ge=1, le=10_000)
    lose: int = Field(default=0, ge=0)
    hide_fills: int = Field(default=0, ge=0)


class FaultPlan(BaseModel, extra="forbid"):
    """All that goes wrong. A request meets the first fault that is due for it."""

    requests: list[Fault] = Field(default_factory=list)
    events: EventFaults = EventFaults()


class Faults:
    """The plan at work."""

    def __init__(self, plan: FaultPlan) -> None:
        self.set(plan)

    def set(self, plan: FaultPlan) -> None:
        """Forget what was left of the plan before."""
        self._left = [[fault, fault.skip, fault.times] for fault in plan.requests]
        self._kept: deque[dict[str, Any]] = deque()
        self.set_events(plan.events)

    def set_events(self, events: EventFaults) -> None:
        """What becomes of the events from now on."""
        self.events, self._lose = events, events.lose

    def of(self, request: str) -> Fault | None:
        """The fault that this request (``METHOD path``) meets."""
        for entry in self._left:
            fault, skip, times = entry
            if not request.startswith(fault.on) or not times:
                continue
            if skip:
                entry[1] -= 1
                continue
            entry[2] -= 1
            return fault
        return None

    def sent(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """What the stream sends now that ``event`` happened."""
        if self._lose:
            self._lose -= 1
            return []
        self._kept.append(event)
        return self.flush() if len(self._kept) >= self.events.hold else []

    def flush(self) -> list[dict[str, Any]]:
        """What was kept, the last one first if events are held."""
        kept = list(reversed(self._kept))
        self._kept.clear()
        return [event for event in kept for _ in range(self.events.copies)]


def plan_of(text: str) -> FaultPlan:
    """A plan from JSON: of a list, the requests' faults; of an object, all."""
    return (
        FaultPlan(requests=TypeAdapter(list[Fault]).validate_json(text))
        if text.lstrip().startswith("[")
        else FaultPlan.model_validate_json(text)
    )
