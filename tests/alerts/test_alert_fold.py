"""What is told: an alert once, and once more when it clears."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.alerts.alert import (
    LISTED,
    Alert,
    AlertChange,
    AlertSeverity,
    AlertState,
    Observation,
    changes,
    headline,
    one_line,
    subject,
    text,
)
from tests.alerts.notices import alert, notice

WARNING, ERROR = AlertSeverity.WARNING, AlertSeverity.ERROR
SCOPES = ("check/a", "check/b", "sessions")


def told(observed: list[Observation], standing: list[AlertChange]) -> list[tuple[str, str]]:
    return [(change.state.value, change.alert.key) for change in changes(observed, standing)]


def after(standing: list[AlertChange], new: list[AlertChange]) -> list[AlertChange]:
    held = {change.alert.key: change for change in standing}
    for change in new:
        if change.state is AlertState.OPENED:
            held[change.alert.key] = change
        else:
            del held[change.alert.key]
    return list(held.values())


def test_an_alert_is_told_once_and_once_more_when_it_clears():
    seen = [Observation(scope="check/a", alerts=(alert("x"),))]
    standing = after([], changes(seen, []))
    assert told(seen, []) == [("opened", "x")]
    assert told(seen, standing) == []
    cleared = changes([Observation(scope="check/a")], standing)
    assert [(c.state, c.alert) for c in cleared] == [(AlertState.CLEARED, alert("x"))]
    assert after(standing, cleared) == []


def test_what_was_not_looked_at_stays():
    standing = after([], changes([Observation(scope="check/a", alerts=(alert("x"),))], []))
    assert told([Observation(scope="check/b")], standing) == []


def test_a_finding_that_two_checks_show_is_one_and_clears_with_the_last_of_them():
    both = [Observation(scope="check/a", alerts=(alert("x"),)), Observation(scope="check/b", alerts=(alert("x", WARNING),))]
    standing = after([], changes(both, []))
    assert told(both, []) == [("opened", "x")]
    assert told([Observation(scope="check/a"), both[1]], standing) == []
    assert told([Observation(scope="check/a"), Observation(scope="check/b")], standing) == [("cleared", "x")]


def test_a_warning_that_becomes_an_error_is_told_again_and_the_other_way_round_it_is_not():
    warning, error = (Observation(scope="check/a", alerts=(alert("x", severity),)) for severity in (WARNING, ERROR))
    assert told([error], after([], changes([warning], []))) == [("opened", "x")]
    assert told([warning], after([], changes([error], []))) == []


def test_errors_come_before_warnings():
    seen = [Observation(scope="check/a", alerts=(alert("w", WARNING), alert("e", ERROR)))]
    assert [key for _, key in told(seen, [])] == ["e", "w"]


alerts = st.builds(alert, st.sampled_from("pqrs"), st.sampled_from(AlertSeverity))
observations = st.builds(Observation, scope=st.sampled_from(SCOPES), alerts=st.lists(alerts, max_size=3).map(tuple))
looks = st.lists(st.lists(observations, min_size=1, max_size=3), max_size=8)


@given(looks)
def test_whatever_is_observed_nothing_is_told_twice_and_what_stands_is_what_was_seen_last(history: list[list[Observation]]):
    standing: list[AlertChange] = []
    for seen in history:
        new = changes(seen, standing)
        before = {change.alert.key: change.alert for change in standing}
        assert len({change.alert.key for change in new}) == len(new)
        for change in new:
            if change.state is AlertState.CLEARED:
                assert change.alert.key in before
            else:
                known: Alert | None = before.get(change.alert.key)
                assert known is None or (known.severity, change.alert.severity) == (WARNING, ERROR)
        standing = after(standing, new)
        assert changes(seen, standing) == []
        keys = {found.key for observation in seen for found in observation.alerts}
        scopes = {observation.scope for observation in seen}
        held = {change.alert.key: change for change in standing}
        assert keys <= held.keys()
        assert {key for key, change in held.items() if change.scope in scopes} <= keys


def test_the_text_names_what_happened_where_and_links_to_the_check():
    said = text(notice(), "http://127.0.0.1:3000/")
    assert said.splitlines()[:4] == [
        "ERROR session 2013-02-07, symbol AAPL, rule r03_high_is_highest",
        "  expected: high >= max(open, close, low)",
        "  observed: high 44.1, close 44.86 <!channel> & Größe",
        "  http://127.0.0.1:3000/assets/accepted_bars?view=checks&checkDetail=feed_is_sound",
    ]
    assert "notice a1b2c3, 2013-02-08 01:20:03 UTC" in said


def test_a_long_notice_is_cut_and_says_by_how_much():
    said = text(notice(alerts=LISTED + 7), "")
    assert said.count("expected:") == LISTED
    assert "and 7 more: `afterclose alerts list`" in said
    assert subject(notice(alerts=3)).endswith(", and 2 more")


@settings(max_examples=25)
@given(st.text())
def test_a_headline_is_one_line_whatever_is_in_it(anything: str):
    change = notice().changes[0]
    line = headline(replace(change, alert=replace(change.alert, symbol=anything, rule=anything)))
    assert len(line.splitlines()) == 1
    assert len(line) <= 200


@pytest.mark.parametrize(("given_text", "line"), [("a\r\nb\x00c\u2028d", "a b c d"), ("x" * 501, "x" * 497 + "..."), (None, "None")])
def test_one_line_is_one_line(given_text: str, line: str):
    assert one_line(given_text) == line
