"""The outbox: nothing observed is lost, nothing is told twice, whoever looks and however often."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.ledger import open_outbox
from quant.alerts.alert import AlertState, Observation
from quant.alerts.attempts import MOST_ATTEMPTS
from quant.ports import DeliveryOutcome, Outbox
from tests.alerts.notices import AT, alert

BAD = [Observation(scope="check/a", alerts=(alert("x"), alert("y")))]
WELL = [Observation(scope="check/a")]


@dataclass
class MovingClock:
    at: datetime = AT

    def now(self) -> datetime:
        return self.at


@pytest.fixture
def clock() -> MovingClock:
    return MovingClock()


@pytest.fixture
def outbox(tmp_path: Path, clock: MovingClock) -> Outbox:
    return open_outbox(f"sqlite:///{tmp_path / 'ledger.sqlite'}", clock, ["log", "email"])


def test_it_implements_the_port(outbox: Outbox):
    assert isinstance(outbox, Outbox)


def test_a_notice_comes_back_as_it_was_written(outbox: Outbox):
    notice = outbox.observe(BAD)
    assert notice is not None
    assert [change.alert for change in notice.changes] == [alert("x"), alert("y")]
    assert outbox.pending("log") == outbox.pending("email") == [notice]
    assert outbox.pending("slack") == []
    assert [(since, change.alert) for since, change in outbox.standing()] == [(AT, alert("x")), (AT, alert("y"))]


def test_the_same_finding_makes_one_notice_and_one_more_when_it_clears(outbox: Outbox):
    assert outbox.observe(BAD) is not None
    assert outbox.observe(BAD) is None
    cleared = outbox.observe(WELL)
    assert cleared is not None
    assert {change.state for change in cleared.changes} == {AlertState.CLEARED}
    assert outbox.observe(WELL) is None
    assert outbox.standing() == []
    assert outbox.observe(BAD) is not None  # again: it is news again
    assert len(outbox.pending("log")) == 3


def test_a_run_is_observed_once_so_an_old_one_undoes_no_newer_one(outbox: Outbox):
    earlier, later = AT, AT + timedelta(minutes=1)
    assert outbox.unseen({"r1", "r2"}) == {"r1", "r2"}
    outbox.observe(BAD, run=("r1", earlier))
    outbox.observe(WELL, run=("r2", later))
    assert outbox.observe(BAD, run=("r1", earlier)) is None
    assert outbox.standing() == []
    assert outbox.unseen({"r1", "r2", "r3"}) == {"r3"}
    assert outbox.last_run() == later


def test_a_notice_is_pending_until_it_was_sent_or_refused_and_not_tried_for_ever(outbox: Outbox):
    notice = outbox.observe(BAD)
    assert notice is not None
    for _ in range(MOST_ATTEMPTS - 1):
        outbox.record_delivery(notice.id, "email", DeliveryOutcome.FAILED, "found 451")
    assert outbox.pending("email") == [notice]
    outbox.record_delivery(notice.id, "email", DeliveryOutcome.FAILED, "found 451")
    assert outbox.pending("email") == []
    outbox.record_delivery(notice.id, "log", DeliveryOutcome.REFUSED, "found 413")
    assert outbox.pending("log") == []
    assert outbox.took("log", {notice.id, "other"}) == {notice.id}
    assert outbox.took("email", {notice.id}) == set()


def test_the_health_of_a_channel_is_its_failures_since_it_last_worked(outbox: Outbox, clock: MovingClock):
    notice = outbox.observe(BAD)
    assert notice is not None
    assert (outbox.health("email").failures, outbox.health("email").last_failure) == (0, None)
    for minute in (1, 2):
        clock.at = AT + timedelta(minutes=minute)
        outbox.record_delivery(notice.id, "email", DeliveryOutcome.FAILED, f"failure {minute}")
    health = outbox.health("email")
    assert (health.failures, health.last_failure, health.detail) == (2, AT + timedelta(minutes=2), "failure 2")
    assert outbox.health("log").failures == 0
    outbox.record_delivery(notice.id, "email", DeliveryOutcome.SENT, "")
    assert outbox.health("email").failures == 0


def test_recent_notices_come_with_every_attempt(outbox: Outbox):
    first, second = outbox.observe(BAD), outbox.observe(WELL)
    assert first is not None
    assert second is not None
    outbox.record_delivery(first.id, "email", DeliveryOutcome.FAILED, "found 451")
    outbox.record_delivery(first.id, "email", DeliveryOutcome.SENT, "")
    recent = outbox.recent(2)
    assert [notice for notice, _ in recent] == [second, first]
    assert [delivery.outcome for delivery in recent[1][1]] == [DeliveryOutcome.FAILED, DeliveryOutcome.SENT]
    assert [notice for notice, _ in outbox.recent(1)] == [second]


def test_lookers_at_once_make_one_notice(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    open_outbox(url, MovingClock(), ["log"])
    made: list[object] = []

    def look() -> None:
        mine = open_outbox(url, MovingClock(), ["log"])
        made.append(mine.observe(BAD, run=("r1", datetime(2013, 2, 8, tzinfo=UTC))))
        made.append(mine.observe(BAD))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(made) == 8
    assert len([notice for notice in made if notice is not None]) == 1
