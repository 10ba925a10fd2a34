"""How checks, runs and missed sessions become alerts."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from quant.alerts.alert import AlertKind, AlertSeverity, Observation, changes
from quant.alerts.observations import CheckOutcome, of_channel, of_check, of_missed, of_run

ROW = {
    "session": "2013-02-07",
    "symbol": "AAPL",
    "rule": "r03_high_is_highest",
    "severity": "block",
    "expected": "high >= max(open, close, low)",
    "observed": "high 44.1",
}


def outcome(**other: object) -> CheckOutcome:
    given = {
        "asset": "accepted_bars",
        "check": "feed_is_sound",
        "partition": "2013-02-07",
        "passed": False,
        "severity": AlertSeverity.ERROR,
        "description": "Stops the session.",
        **other,
    }
    return CheckOutcome(**given)  # type: ignore[arg-type]


def test_a_check_that_did_not_pass_is_an_alert_with_what_it_says():
    (found,) = of_check(outcome(said={"findings_block": "2", "accepted": "3"})).alerts
    assert (found.kind, found.severity, found.session) == (AlertKind.CHECK, AlertSeverity.ERROR, date(2013, 2, 7))
    assert found.rule == "feed_is_sound of accepted_bars"
    assert (found.expected, found.observed) == ("the check to pass. Stops the session.", "findings_block 2, accepted 3")
    assert found.path == "/assets/accepted_bars?view=checks&checkDetail=feed_is_sound"


def test_a_check_says_what_it_expected_and_observed_in_its_own_words():
    (found,) = of_check(outcome(said={"expected": "100 rows", "observed": "50", "session": "x"}, partition=None)).alerts
    assert (found.expected, found.observed, found.session) == ("100 rows", "50", None)
    (bare,) = of_check(outcome(description="")).alerts
    assert (bare.expected, bare.observed) == ("the check to pass.", "it did not pass")


def test_every_finding_a_check_shows_is_an_alert_of_its_own():
    itself, finding = of_check(outcome(findings=[ROW])).alerts
    assert itself.kind is AlertKind.CHECK
    assert finding.key == "finding/2013-02-07/AAPL/r03_high_is_highest"
    assert (finding.kind, finding.severity, finding.symbol) == (AlertKind.FINDING, AlertSeverity.ERROR, "AAPL")
    assert (finding.expected, finding.observed) == (ROW["expected"], ROW["observed"])
    assert finding.path == itself.path


def test_a_warning_of_a_rule_is_an_alert_although_the_check_passed():
    observation = of_check(outcome(passed=True, findings=[{**ROW, "rule": "r17_volume", "severity": "warn"}]))
    assert [(a.rule, a.severity) for a in observation.alerts] == [("r17_volume", AlertSeverity.WARNING)]
    assert of_check(outcome(passed=True)).alerts == ()
    assert of_check(outcome(passed=True)).scope == of_check(outcome()).scope


def test_revisions_of_a_session_are_one_alert_until_the_next_session_has_none():
    def of(session: str, *, passed: bool) -> Observation:
        said = {"revised": "1", "rows": "IBM 2013-02-06: close 10 -> 11, used by paper 2013-02-06"}
        return of_check(outcome(asset="raw_bars", check="no_used_row_was_revised", partition=session, passed=passed, said=said))

    told = changes([of("2013-02-07", passed=False)], [])
    assert [(c.alert.kind, c.alert.session) for c in told] == [(AlertKind.REVISION, date(2013, 2, 7))]
    assert "IBM 2013-02-06" in told[0].alert.observed
    again = changes([of("2013-02-08", passed=False)], told)
    assert [(c.state.value, c.alert.session) for c in again] == [("opened", date(2013, 2, 8)), ("cleared", date(2013, 2, 7))]
    assert [c.state.value for c in changes([of("2013-02-08", passed=True)], told)] == ["cleared"]


def test_a_late_action_is_told_once_however_many_sessions_it_is_late_for():
    split = {**ROW, "rule": "late_split", "severity": "warn", "expected": "known by its ex-date"}

    def of(session: str, *rows: dict[str, str]) -> list[Observation]:
        said = {"asset": "corporate_actions", "check": "actions_came_in_time", "partition": session, "severity": AlertSeverity.WARNING}
        return [of_check(outcome(**said, passed=not rows, findings=rows))]

    told = changes(of("2013-02-11", split), [])
    assert [(c.alert.kind, c.alert.symbol, c.alert.rule) for c in told] == [(AlertKind.REVISION, "AAPL", "late_split")]
    assert changes(of("2013-02-12", split), told) == []
    assert [c.alert.symbol for c in changes(of("2013-02-12", split, {**split, "symbol": "IBM"}), told)] == ["IBM"]
    assert [c.state.value for c in changes(of("2013-02-22"), told)] == ["cleared"]


def test_the_freshness_of_a_table_is_one_alert_whatever_the_session():
    days = [of_check(outcome(check="is_fresh", partition=None, said={"session": day})) for day in ("2013-02-07", "2013-02-08")]
    assert days[0].alerts[0].kind is AlertKind.STALE
    assert days[0].alerts[0].session == date(2013, 2, 7)
    assert len({day.alerts[0].key for day in days}) == 1


def test_a_failed_run_is_an_alert_and_its_success_later_the_same_scope():
    failed = of_run(job="daily", partition="2013-02-07", run="r1", failure="step raw_bars: disk full")
    well = of_run(job="daily", partition="2013-02-07", run="r2", failure=None)
    (found,) = failed.alerts
    assert (found.kind, found.session, found.observed, found.path) == (
        AlertKind.RUN,
        date(2013, 2, 7),
        "step raw_bars: disk full",
        "/runs/r1",
    )
    assert (well.scope, well.alerts) == (failed.scope, ())
    assert of_run(job="history", partition=None, run="r3", failure="x").alerts[0].session is None


def test_each_missed_session_is_an_alert_of_its_own():
    due = {date(2013, 2, day): datetime(2013, 2, day + 1, 2, 15, tzinfo=UTC) for day in (6, 7)}
    found = of_missed(due, path="/assets/performance_report")
    assert [(a.kind, a.session, a.severity) for a in found.alerts] == [(AlertKind.MISSED, session, AlertSeverity.ERROR) for session in due]
    assert found.alerts[1].expected == "the daily run to be done by 2013-02-08 02:15 UTC"
    assert len({a.key for a in found.alerts}) == 2


@pytest.mark.parametrize("failure", [None, "found 500"])
def test_a_channel_that_fails_is_an_alert_until_it_works(failure: str | None):
    assert [a.observed for a in of_channel("email", failure).alerts] == ([] if failure is None else [failure])
