"""Sending: several channels at once, one that fails falls over to the next and is itself told, a kill loses nothing."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from adapters.ledger import open_outbox
from adapters.notify import LogNotifier, SlackNotifier
from orchestration.alerting import Alerting, Attempt
from orchestration.freshness import Freshness
from quant.alerts.alert import AlertKind, Notice, Observation
from quant.calendar import exchange_calendar
from quant.errors import DeliveryError, SequenceError
from quant.ports import DeliveryOutcome, Notifier
from tests.alerts.notices import AT, alert
from tests.alerts.servers import bare_server, web_server
from tests.conftest import REPOSITORY

SENT, FAILED, REFUSED = DeliveryOutcome.SENT, DeliveryOutcome.FAILED, DeliveryOutcome.REFUSED


@dataclass
class MovingClock:
    at: datetime = AT

    def now(self) -> datetime:
        return self.at


@dataclass
class Pager:
    """A channel that keeps what it took, and takes nothing while ``broken``."""

    broken: DeliveryError | Exception | None = None
    seconds: float = 0.0
    took: list[Notice] = field(default_factory=list)
    refused: Sequence[str] = ()

    def notify(self, notice: Notice, ui: str) -> Sequence[str]:
        time.sleep(self.seconds)
        if self.broken is not None:
            raise self.broken
        self.took.append(notice)
        return self.refused


DOWN = DeliveryError("expected 2xx, found 503")


def alerting(
    root: Path, channels: dict[str, Notifier], fallback: dict[str, Notifier], clock: MovingClock, patience: float = 5.0
) -> Alerting:
    nothing = Freshness(
        tables=(),
        last_table="performance_report",
        source="test",
        calendar=exchange_calendar(),
        first=date(2013, 2, 1),
        finite_end=date(2013, 2, 1),
        delay_minutes=30,
        run_at=None,
        freshness_minutes=30,
        dead_man_minutes=60,
    )
    return Alerting(
        root=root,
        clock=clock,
        outbox=lambda: open_outbox(f"sqlite:///{root / 'ledger.sqlite'}", clock, list(channels)),
        channels=channels,
        fallback=fallback,
        ui=lambda: "http://127.0.0.1:3000",
        patience_seconds=patience,
        descriptions={},
        freshness=nothing,
    )


def bad(key: str) -> list[Observation]:
    return [Observation(scope=f"check/{key}", alerts=(alert(key),))]


def kinds(notices: list[Notice]) -> list[tuple[str, str]]:
    return [(change.state.value, change.alert.key) for notice in notices for change in notice.changes]


def outcomes(attempts: list[Attempt]) -> list[tuple[str, DeliveryOutcome]]:
    return [(attempt.channel, attempt.outcome) for attempt in attempts]


def test_every_channel_gets_every_notice_once_and_in_order(tmp_path: Path):
    first, second = Pager(), Pager()
    desk = alerting(tmp_path, {"email": first, "slack": second}, {}, MovingClock())
    for key in "abc":
        desk.outbox().observe(bad(key))
    assert sorted(outcomes(desk.drain())) == [("email", SENT)] * 3 + [("slack", SENT)] * 3
    assert kinds(first.took) == kinds(second.took) == [("opened", "a"), ("opened", "b"), ("opened", "c")]
    assert desk.drain() == []


def test_channels_are_sent_to_at_once(tmp_path: Path):
    desk = alerting(tmp_path, {name: Pager(seconds=0.25) for name in ("email", "slack", "webhook")}, {}, MovingClock())
    desk.outbox().observe(bad("a"))
    begun = time.monotonic()
    desk.drain()
    assert time.monotonic() - begun < 0.7


def test_one_that_fails_falls_over_to_the_next_is_told_of_tried_again_and_cleared(tmp_path: Path):
    clock, email, slack, next_one, last = MovingClock(), Pager(broken=DOWN), Pager(), Pager(), Pager()
    desk = alerting(tmp_path, {"email": email, "slack": slack}, {"webhook": next_one, "log": last}, clock)
    desk.outbox().observe(bad("a"))
    desk.drain()
    assert kinds(slack.took) == kinds(next_one.took) == [("opened", "a"), ("opened", "channel/email")]
    assert slack.took[1].changes[0].alert.observed == "expected 2xx, found 503"
    assert last.took == []

    clock.at += timedelta(seconds=5)
    desk.outbox().observe(bad("b"))
    assert ("email", FAILED) not in outcomes(desk.drain())  # too early; the next one takes over at once
    assert kinds(next_one.took)[2:] == [("opened", "b")]

    email.broken = None
    clock.at += timedelta(minutes=1)
    desk.drain()
    assert kinds(email.took) == [("opened", "a"), ("opened", "channel/email"), ("opened", "b"), ("cleared", "channel/email")]
    assert kinds(slack.took)[-1] == ("cleared", "channel/email")
    assert len(next_one.took) == 3


def test_the_next_is_passed_over_if_it_fails_too_and_both_are_told_of(tmp_path: Path):
    last = Pager()
    desk = alerting(tmp_path, {"email": Pager(broken=DOWN)}, {"slack": Pager(broken=DOWN), "log": last}, MovingClock())
    desk.outbox().observe(bad("a"))
    desk.drain()
    assert kinds(last.took) == [("opened", "a"), ("opened", "channel/email"), ("opened", "channel/slack")]


def test_a_notice_that_every_channel_fails_is_kept_and_sent_by_hand_at_once(tmp_path: Path):
    email = Pager(broken=DOWN)
    desk = alerting(tmp_path, {"email": email}, {"email": email}, MovingClock())
    desk.outbox().observe(bad("a"))
    desk.drain()
    email.broken = None
    assert desk.drain() == []
    desk.drain(force=True)
    assert ("opened", "a") in kinds(email.took)


def test_a_refused_notice_goes_to_the_next_and_is_not_tried_again(tmp_path: Path):
    clock, webhook, log = MovingClock(), Pager(broken=DeliveryError("found 413", refused=True)), Pager()
    desk = alerting(tmp_path, {"webhook": webhook}, {"log": log}, clock)
    desk.outbox().observe(bad("a"))
    assert ("webhook", REFUSED) in outcomes(desk.drain())
    assert ("opened", "a") in kinds(log.took)
    webhook.broken = None
    clock.at += timedelta(hours=1)
    desk.outbox().observe(bad("b"))
    desk.drain()
    assert ("opened", "a") not in kinds(webhook.took)
    assert ("opened", "b") in kinds(webhook.took)


def test_a_channel_that_raises_what_nobody_expected_stops_no_other_one(tmp_path: Path):
    slack = Pager()
    desk = alerting(tmp_path, {"email": Pager(broken=KeyError("boom")), "slack": slack}, {}, MovingClock())
    desk.outbox().observe(bad("a"))
    desk.drain()
    assert kinds(slack.took) == [("opened", "a"), ("opened", "channel/email")]
    assert "KeyError" in slack.took[1].changes[0].alert.observed


def test_refused_recipients_are_told_although_others_got_the_mail(tmp_path: Path):
    email, slack = Pager(refused=["risk@example.com"]), Pager()
    desk = alerting(tmp_path, {"email": email, "slack": slack}, {}, MovingClock())
    desk.outbox().observe(bad("a"))
    desk.drain()
    (told,) = [change.alert for change in slack.took[-1].changes]
    assert (told.kind, told.observed) == (AlertKind.CHANNEL, "refused recipients risk@example.com")
    assert len([key for _, key in kinds(email.took) if key == "a"]) == 1


def test_a_server_that_never_ends_its_answer_is_left_after_the_time_limit(tmp_path: Path):
    log = tmp_path / "alerts.log"
    with bare_server(says=b"HTTP/1.1 200 OK\r\nX-More: and more, ") as port:  # a byte every 50 ms: no single wait is too long
        slow = SlackNotifier(url=f"http://127.0.0.1:{port}/x", timeout_seconds=0.3)
        desk = alerting(tmp_path, {"slack": slow}, {"log": LogNotifier(log)}, MovingClock(), patience=0.5)
        desk.outbox().observe(bad("a"))
        begun = time.monotonic()
        desk.drain()
        assert time.monotonic() - begun < 3
    assert "expected an end within 0.5 s" in log.read_text()


def test_a_drain_ends_in_time_whatever_is_left(tmp_path: Path):
    email = Pager(seconds=0.1)
    desk = alerting(tmp_path, {"email": email}, {}, MovingClock())
    for number in range(30):
        desk.outbox().observe(bad(str(number)))
    begun = time.monotonic()
    desk.drain(seconds=0.25)
    assert time.monotonic() - begun < 1.5
    assert 2 <= len(email.took) <= 4
    email.seconds = 0.0
    desk.drain()
    assert [key for _, key in kinds(email.took)] == [str(number) for number in range(30)]


def test_two_processes_do_not_send_at_once(tmp_path: Path):
    email = Pager()
    desk = alerting(tmp_path, {"email": email}, {}, MovingClock())
    desk.outbox().observe(bad("a"))
    with (tmp_path / "alerts.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(SequenceError, match="another one at it"):
            desk.drain()
        assert email.took == []
    assert outcomes(desk.drain()) == [("email", SENT)]


KILLED = """
import sys, time
from pathlib import Path
from adapters.notify import SlackNotifier
from tests.alerts import test_drain

class Killed(SlackNotifier):
    def notify(self, notice, ui):
        super().notify(notice, ui)
        print(notice.id, flush=True)
        time.sleep(60)

root, url = Path(sys.argv[1]), sys.argv[2]
channel = Killed(url=url, timeout_seconds=5)
test_drain.alerting(root, {"slack": channel}, {}, test_drain.MovingClock(), patience=60).drain()
"""


@pytest.mark.chaos
def test_a_kill_between_sending_and_marking_sends_the_same_notice_again_and_loses_none(tmp_path: Path):
    with web_server() as server:
        desk = alerting(tmp_path, {"slack": SlackNotifier(url=server.url, timeout_seconds=5)}, {}, MovingClock())
        notice = desk.outbox().observe(bad("a"))
        desk.outbox().observe(bad("b"))
        assert notice is not None
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path), server.url], cwd=REPOSITORY, env=dict(os.environ), stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline().decode().strip() == notice.id
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert outcomes(desk.drain()) == [("slack", SENT), ("slack", SENT)]
        ids = [body.decode().split("notice ")[1].split(",")[0] for _, body in server.posts]
        assert ids[:2] == [notice.id, notice.id]
        assert len(ids) == 3
