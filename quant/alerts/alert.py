"""What an alert is, and the fold that decides what is told: the same alert once, and once more when it clears. What is reported, without
anything being wrong, is told once and never stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date, datetime

LISTED = 20
"""Alerts that the text of a notice spells out; the rest is counted. A webhook gets all of them."""


class AlertKind(StrEnum):
    """What an alert is about."""

    FINDING = "finding"  # a rule of the gate found a symbol-session at fault
    REVISION = "revision"  # a row that a decision used came back with other values
    CHECK = "check"  # a check did not pass
    STALE = "stale"  # a table lacks a session that it should have by now
    RUN = "run"  # a run failed
    STATE = "state"  # a book may not trade freely
    MISSED = "missed"  # a session's run did not happen
    CHANNEL = "channel"  # a channel of alerts did not take one
    REPORT = "report"  # nothing is wrong: what a session brought


class AlertSeverity(StrEnum):
    """How bad it is."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something wrong. ``key`` is its identity: while an alert with this key stands, it is not told again. ``path`` leads to it in the UI,
    from the UI's address on.
    """

    key: str
    kind: AlertKind
    severity: AlertSeverity
    rule: str
    expected: str
    observed: str
    session: date | None = None
    symbol: str | None = None
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Everything that is wrong now within ``scope`` (one check of one session, one run, one channel); nothing: all is well."""

    scope: str
    alerts: tuple[Alert, ...] = ()


class AlertState(StrEnum):
    """What became of an alert."""

    OPENED = "opened"
    CLEARED = "cleared"
    TOLD = "told"  # a report: it does not stand


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertChange:
    """An alert that opened or cleared, and the scope in which it was observed."""

    state: AlertState
    scope: str
    alert: Alert


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Changes that are told together. ``id`` stays the same however often it has to be sent."""

    id: str
    at: datetime
    changes: tuple[AlertChange, ...]


def changes(observed: Iterable[Observation], standing: Sequence[AlertChange]) -> list[AlertChange]:
    """What ``observed``, seen together, opens and clears of the alerts that are ``standing`` (each OPENED, one a key).

    An alert opens if no alert of its key stands, and again if it got worse. It clears if its scope was observed and nothing observed has
    its key any more; alerts of other scopes stay.
    """
    seen: dict[str, AlertChange] = {}
    scopes: set[str] = set()
    for observation in observed:
        scopes.add(observation.scope)
        for alert in observation.alerts:
            known = seen.get(alert.key)
            if known is None or _worse(alert, known.alert):
                seen[alert.key] = AlertChange(state=AlertState.OPENED, scope=observation.scope, alert=alert)
    before = {change.alert.key: change for change in standing}
    opened = [change for key, change in seen.items() if key not in before or _worse(change.alert, before[key].alert)]
    cleared = [
        AlertChange(state=AlertState.CLEARED, scope=change.scope, alert=change.alert)
        for key, change in before.items()
        if change.scope in scopes and key not in seen
    ]
    return [*sorted(opened, key=lambda change: change.alert.severity is not AlertSeverity.ERROR), *cleared]


def _worse(alert: Alert, than: Alert) -> bool:
    return alert.severity is AlertSeverity.ERROR and than.severity is AlertSeverity.WARNING


def one_line(text: object, most: int = 500) -> str:
    """``text`` without line breaks, cut to ``most`` characters: what a log line, a subject and a header can take."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def headline(change: AlertChange) -> str:
    """One line: state, severity, session, symbol and rule."""
    alert = change.alert
    state = "CLEARED" if change.state is AlertState.CLEARED else alert.severity.upper()
    named = (("session", alert.session), ("symbol", alert.symbol), ("rule", alert.rule))
    return one_line(f"{state} {', '.join(f'{name} {value}' for name, value in named if value is not None)}", 200)


def subject(notice: Notice) -> str:
    """One line on the whole notice."""
    first = headline(notice.changes[0])
    more = len(notice.changes) - 1
    return first if not more else f"{first}, and {more} more"


def trial(at: datetime, *, source: str) -> Notice:
    """A notice that says no more than that the channel works."""
    alert = Alert(
        key="trial",
        kind=AlertKind.CHANNEL,
        severity=AlertSeverity.WARNING,
        rule="test of the channel",
        expected="this text to arrive",
        observed=f"`afterclose alerts test`, source {source}",
        path="/assets",
    )
    opened = AlertChange(state=AlertState.OPENED, scope="trial", alert=alert)
    return Notice(id=f"test-{at:%Y%m%d%H%M%S%f}", at=at, changes=(opened,))


def described(change: AlertChange, ui: str) -> list[str]:
    """The lines on one change: headline, expected, observed, link."""
    alert, told = change.alert, change.state is AlertState.TOLD
    return [
        headline(change),
        *([] if told else [f"  expected: {one_line(alert.expected)}"]),
        f"  {one_line(alert.observed)}" if told else f"  observed: {one_line(alert.observed)}",
        *([f"  {ui.rstrip('/')}{alert.path}"] if alert.path else []),
    ]


def text(notice: Notice, ui: str) -> str:
    """The whole notice for people; of more than LISTED changes the rest is counted. ``ui`` is the UI's address."""
    parts = ["\n".join(described(change, ui)) for change in notice.changes[:LISTED]]
    more = len(notice.changes) - LISTED
    if more > 0:
        parts.append(f"and {more} more: `afterclose alerts list`")
    return "\n\n".join([*parts, f"notice {notice.id}, {notice.at:%Y-%m-%d %H:%M:%S} UTC"]) + "\n"
