"""When a session is due: by the exchange's calendar, on half days and over both changes of the clocks."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.alerts.attempts import may_try
from quant.alerts.due import due_at, due_sessions, missed
from quant.calendar import exchange_calendar

CALENDAR = exchange_calendar()
EVENING = time(20, 15)
SESSIONS = CALENDAR.sessions(date(2023, 1, 2), date(2025, 12, 31))


def due(session: date, *, run_at: time | None, delay_minutes: int = 30, grace_minutes: int = 30) -> datetime:
    return due_at(session, calendar=CALENDAR, delay_minutes=delay_minutes, run_at=run_at, grace_minutes=grace_minutes)


@pytest.mark.parametrize(
    ("session", "as_published", "after_the_run"),
    [
        (date(2024, 1, 10), "2024-01-10 22:00", "2024-01-11 01:45"),  # winter: New York is UTC - 5
        (date(2024, 7, 10), "2024-07-10 21:00", "2024-07-11 00:45"),  # summer: UTC - 4
        (date(2024, 3, 8), "2024-03-08 22:00", "2024-03-09 01:45"),  # the Friday before the clocks go forward
        (date(2024, 3, 11), "2024-03-11 21:00", "2024-03-12 00:45"),  # the Monday after
        (date(2024, 11, 1), "2024-11-01 21:00", "2024-11-02 00:45"),
        (date(2024, 11, 4), "2024-11-04 22:00", "2024-11-05 01:45"),  # and back
        (date(2024, 11, 29), "2024-11-29 19:00", "2024-11-30 01:45"),  # closes at 13:00; the run begins in the evening all the same
        (date(2024, 7, 3), "2024-07-03 18:00", "2024-07-04 00:45"),
    ],
)
def test_a_session_is_due_half_an_hour_after_it_is_published_or_after_the_run_begins(session: date, as_published: str, after_the_run: str):
    assert f"{due(session, run_at=None):%Y-%m-%d %H:%M}" == as_published
    assert f"{due(session, run_at=EVENING):%Y-%m-%d %H:%M}" == after_the_run


def test_a_source_that_publishes_after_the_run_begins_is_waited_for():
    assert due(date(2024, 1, 10), run_at=EVENING, delay_minutes=16 * 60) == datetime(2024, 1, 11, 13, 30, tzinfo=UTC)


def sessions_due(now: datetime, last: date | None = None, first: date = date(2024, 11, 25)) -> list[date]:
    return list(due_sessions(now, first=first, last=last, calendar=CALENDAR, delay_minutes=30, run_at=EVENING, grace_minutes=30))


def test_no_session_becomes_due_over_a_weekend_or_a_holiday():
    before_thanksgiving = [date(2024, 11, day) for day in (25, 26, 27)]
    assert sessions_due(datetime(2024, 11, 29, 12, tzinfo=UTC)) == before_thanksgiving  # Thursday was closed
    with_friday = [*before_thanksgiving, date(2024, 11, 29)]
    for day in (30, 31, 32):  # Saturday, Sunday, Monday noon
        assert sessions_due(datetime(2024, 11, 30, 17, tzinfo=UTC) + timedelta(days=day - 30)) == with_friday


def test_a_session_is_due_from_its_instant_on_and_not_before():
    instant = due(date(2024, 11, 26), run_at=EVENING)
    assert date(2024, 11, 26) not in sessions_due(instant - timedelta(microseconds=1))
    assert date(2024, 11, 26) in sessions_due(instant)


def test_none_is_due_before_the_first_and_after_the_last():
    now = datetime(2024, 12, 2, 12, tzinfo=UTC)
    assert sessions_due(now, first=date(2024, 12, 2)) == []
    assert sessions_due(now, last=date(2024, 11, 26)) == [date(2024, 11, 25), date(2024, 11, 26)]


@given(st.sampled_from(SESSIONS), st.integers(0, 960), st.sampled_from([None, EVENING]), st.integers(0, 600))
def test_due_is_never_before_publication_nor_before_the_run_and_later_sessions_are_due_later(
    session: date, delay: int, run_at: time | None, grace: int
):
    at = due(session, run_at=run_at, delay_minutes=delay, grace_minutes=grace)
    assert at >= CALENDAR.publish_at(session, delay) + timedelta(minutes=grace)
    following = CALENDAR.next(session)
    assert at < due(following, run_at=run_at, delay_minutes=delay, grace_minutes=grace)
    if run_at is not None:
        assert (at - timedelta(minutes=grace)).astimezone(CALENDAR.zone).time() >= run_at or at.date() > session


def test_missed_are_those_that_are_due_and_not_done():
    instants = {session: due(session, run_at=EVENING) for session in SESSIONS[:3]}
    assert list(missed(instants, {SESSIONS[1]})) == [SESSIONS[0], SESSIONS[2]]


@pytest.mark.parametrize(("failures", "seconds"), [(1, 30), (2, 60), (3, 120), (5, 480), (6, 900), (99, 900), (10_000, 900)])
def test_a_channel_is_tried_again_after_twice_as_long_each_time_and_at_most_a_quarter_of_an_hour(failures: int, seconds: int):
    failed = datetime(2024, 1, 2, tzinfo=UTC)
    assert not may_try(failures, failed, failed + timedelta(seconds=seconds - 1))
    assert may_try(failures, failed, failed + timedelta(seconds=seconds))
    assert may_try(0, None, failed)
