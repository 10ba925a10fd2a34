"""How checks, runs and missed sessions become alerts.

A check says what it found in its metadata: a table with columns session, symbol, rule, severity, expected, observed (of quant.quality's
findings) becomes an alert a row, whether the check passed or not; entries `expected`, `observed` and `session` replace the general words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING
from urllib.parse import quote

from quant.alerts.alert import Alert, AlertKind, AlertSeverity, Observation
from quant.quality.rule import Severity
from quant.risk.state import TradingState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from quant.risk.state import StateChange

FINDING_COLUMNS = frozenset({"session", "symbol", "rule", "severity", "expected", "observed"})
FRESHNESS_CHECK = "is_fresh"
REVISION_CHECK = "no_used_row_was_revised"
LATE_ACTION_CHECK = "actions_came_in_time"
_KINDS = {FRESHNESS_CHECK: AlertKind.STALE, REVISION_CHECK: AlertKind.REVISION, LATE_ACTION_CHECK: AlertKind.REVISION}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOutcome:
    """One evaluation of a check. ``partition`` is the session it judged, if it judges one; ``said`` the scalars of its metadata;
    ``findings`` the rows of its table of findings.
    """

    asset: str
    check: str
    partition: str | None
    passed: bool
    severity: AlertSeverity
    description: str
    said: Mapping[str, str] = field(default_factory=dict[str, str])
    findings: Sequence[Mapping[str, str]] = ()

    @property
    def path(self) -> str:
        """The check in the UI."""
        return f"/assets/{quote(self.asset)}?view=checks&checkDetail={quote(self.check)}"


def of_check(outcome: CheckOutcome) -> Observation:
    """The check itself if it did not pass, and every finding it shows.

    A finding has its key from session, symbol and rule alone: two checks that show it show the same one.
    """
    kind = _KINDS.get(outcome.check, AlertKind.CHECK)
    revises = kind is AlertKind.REVISION
    where = f"{outcome.asset}/{outcome.check}/{outcome.partition or '-'}"
    # What is revised in a session is cleared by the next session without it, and told by row, if rows are shown: it may be late for many.
    scope = f"check/{outcome.asset}/{outcome.check}" if revises else f"check/{where}"
    found = tuple(_finding(row, outcome) for row in outcome.findings)
    if outcome.passed or (revises and found):
        return Observation(scope=scope, alerts=found)
    judged = _date(outcome.partition or outcome.said.get("session"))
    itself = Alert(
        key=f"check/{where}",
        kind=kind,
        severity=outcome.severity,
        session=judged,
        rule=f"{outcome.check} of {outcome.asset}",
        expected=outcome.said.get("expected") or f"the check to pass. {outcome.description}".strip(),
        observed=outcome.said.get("observed") or ", ".join(f"{k} {v}" for k, v in outcome.said.items()) or "it did not pass",
        path=outcome.path,
    )
    return Observation(scope=scope, alerts=(itself, *found))


def _finding(row: Mapping[str, str], outcome: CheckOutcome) -> Alert:
    warns = row["severity"] == Severity.WARN or outcome.passed
    return Alert(
        key=f"finding/{row['session']}/{row['symbol']}/{row['rule']}",
        kind=AlertKind.REVISION if outcome.check in (REVISION_CHECK, LATE_ACTION_CHECK) else AlertKind.FINDING,
        severity=AlertSeverity.WARNING if warns else outcome.severity,
        session=_date(row["session"]),
        symbol=row["symbol"],
        rule=row["rule"],
        expected=row["expected"],
        observed=row["observed"],
        path=outcome.path,
    )


def _date(text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        return None


def of_run(*, job: str, partition: str | None, run: str, failure: str | None) -> Observation:
    """A run that failed, or the same job and session gone well: ``failure`` says why, None that it went well."""
    scope = f"run/{job}/{partition or '-'}"
    if failure is None:
        return Observation(scope=scope)
    alert = Alert(
        key=scope,
        kind=AlertKind.RUN,
        severity=AlertSeverity.ERROR,
        session=_date(partition),
        rule=f"run of {job}",
        expected="the run to succeed",
        observed=failure,
        path=f"/runs/{run}",
    )
    return Observation(scope=scope, alerts=(alert,))


def of_missed(missed: Mapping[date, datetime], *, path: str) -> Observation:
    """Sessions whose run should have been done by an instant and was not: the dead man's alert."""
    alerts = tuple(
        Alert(
            key=f"missed/{session}",
            kind=AlertKind.MISSED,
            severity=AlertSeverity.ERROR,
            session=session,
            rule="session has run",
            expected=f"the daily run to be done by {due:%Y-%m-%d %H:%M} UTC",
            observed="it is not done",
            path=path,
        )
        for session, due in missed.items()
    )
    return Observation(scope="sessions", alerts=alerts)


def of_trading(book: str, changes: Sequence[StateChange]) -> Observation:
    """A book that is not ACTIVE, told anew for every change that leaves it so."""
    scope = f"trading/{book}"
    newest = changes[-1] if changes else None
    if newest is None or newest.state is TradingState.ACTIVE:
        return Observation(scope=scope)
    alert = Alert(
        key=f"{scope}/{newest.key}",
        kind=AlertKind.STATE,
        severity=AlertSeverity.ERROR,
        session=newest.session,
        rule=f"trading state of book {book}",
        expected="an active book; `afterclose resume --reason` makes it so",
        observed=f"{newest.state} by {newest.by}: {newest.reason}",
        path="/assets/orders",
    )
    return Observation(scope=scope, alerts=(alert,))


def of_channel(channel: str, failure: str | None) -> Observation:
    """A channel that did not take a notice, or works again."""
    scope = f"channel/{channel}"
    if failure is None:
        return Observation(scope=scope)
    alert = Alert(
        key=scope,
        kind=AlertKind.CHANNEL,
        severity=AlertSeverity.ERROR,
        rule=f"channel {channel}",
        expected="notices to be delivered",
        observed=failure,
    )
    return Observation(scope=scope, alerts=(alert,))
