"""Alerts and notices that the tests share."""

from __future__ import annotations

from datetime import UTC, date, datetime

from quant.alerts.alert import Alert, AlertChange, AlertKind, AlertSeverity, AlertState, Notice

AT = datetime(2013, 2, 8, 1, 20, 3, tzinfo=UTC)


def alert(key: str = "finding/2013-02-07/AAPL/r03_high_is_highest", severity: AlertSeverity = AlertSeverity.ERROR) -> Alert:
    return Alert(
        key=key,
        kind=AlertKind.FINDING,
        severity=severity,
        session=date(2013, 2, 7),
        symbol="AAPL",
        rule="r03_high_is_highest",
        expected="high >= max(open, close, low)",
        observed="high 44.1, close 44.86 <!channel> & Größe",
        path="/assets/accepted_bars?view=checks&checkDetail=feed_is_sound",
    )


def notice(identity: str = "a1b2c3", *, alerts: int = 1, state: AlertState = AlertState.OPENED) -> Notice:
    changes = [AlertChange(state=state, scope="check", alert=alert(f"key{number}")) for number in range(alerts)]
    return Notice(id=identity, at=AT, changes=tuple(changes))
