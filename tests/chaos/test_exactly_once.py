"""Whatever happens on the way, the broker has every order once, the ledger equals the broker, and another recovery changes nothing.

The trader is a process of its own, killed by SIGKILL; the broker is another one's server, and its log is the judge.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path
from threading import Thread

import pytest
import stamina

from quant.errors import BrokerError, LedgerError
from quant.trading.orders import OrderState
from tests.chaos.trial import KILLED, SYMBOLS, Trial, broker_of
from tests.chaos.worker import decide, desk_of, market
from tests.fakes.broker_server import EVENING, NEXT

STEPS = {"decide": 20, "settle": 6}


def steps_of(folder: Path, phase: str) -> int:
    """How many steps a session has that nothing happens to."""
    folder.mkdir()
    with broker_of(folder) as server:
        calm = Trial(server, folder)
        made = len(calm.work("decide")[1])
        if phase == "settle":
            server.run()
            made = len(calm.work("settle")[1])
    return made


def killed_and_recovered(folder: Path, phase: str, first: int, second: int) -> None:
    folder.mkdir()
    with broker_of(folder) as server:
        trial = Trial(server, folder)
        if phase == "settle":
            assert trial.work("decide")[0] == 0
            server.run()
        assert trial.work(phase, first)[0] == KILLED
        trial.work(phase, second)  # dies in the recovery, or comes to its end before that step
        assert trial.work(phase)[0] == 0
        if phase == "decide":
            trial.judge()
            server.run()
            assert trial.work("settle")[0] == 0
        trial.judge_books()
        assert trial.accepted() == Counter(SYMBOLS)
        ledger = desk_of(folder, server.url, EVENING).ledger
        before = ledger.entries("paper"), ledger.orders("paper")
        assert trial.work("settle")[0] == 0
        assert (ledger.entries("paper"), ledger.orders("paper")) == before, "another recovery changes nothing"
        assert trial.accepted() == Counter(SYMBOLS)


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.parametrize("phase", STEPS)
def test_the_steps_that_are_killed_at_are_all_there_are(tmp_path: Path, phase: str):
    assert steps_of(tmp_path / "calm", phase) == STEPS[phase]


@pytest.mark.scenario(19)
@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.parametrize(("phase", "step"), [(phase, step) for phase, most in STEPS.items() for step in range(1, most + 1)])
def test_a_process_killed_at_each_step_and_again_in_its_recovery_trades_once(tmp_path: Path, phase: str, step: int):
    killed_and_recovered(tmp_path / "trial", phase, step, 1 + 7 * step % STEPS[phase])


@pytest.mark.scenario(19)
@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.smoke
def test_a_process_killed_after_an_order_was_posted_finds_it_again(tmp_path: Path):
    with broker_of(tmp_path) as server:
        trial = Trial(server, tmp_path)
        _, made = trial.work("decide", 0)
        posted = made.index("after submit") + 1
    folder = tmp_path / "again"
    killed_and_recovered(folder, "decide", posted, posted)


FAULTS = ["500", "504", "empty", "302", "cut", "half", "headers"]


@pytest.mark.scenario(22)
@pytest.mark.parametrize("accepted", [False, True], ids=["not taken", "taken"])
@pytest.mark.parametrize("kind", FAULTS)
def test_an_answer_that_is_lost_costs_no_order_and_sends_none_twice(trial: Trial, kind: str, accepted: bool):
    trial.server.control("faults", [{"kind": kind, "accepted": accepted, "times": 2}])
    with stamina.set_testing(True, attempts=5, cap=True):
        decide(desk_of(trial.folder, trial.server.url, EVENING))
    trial.judge()


@pytest.mark.scenario(23)
def test_a_storm_of_429_is_waited_out_and_the_rest_is_found_by_the_next_run(trial: Trial):
    trial.server.control("faults", [{"kind": "429", "times": 12}])
    with stamina.set_testing(True, attempts=5, cap=True):
        with pytest.raises(BrokerError, match="an answer to every order"):
            decide(desk_of(trial.folder, trial.server.url, EVENING))
        decide(desk_of(trial.folder, trial.server.url, EVENING))
    trial.judge()


@pytest.mark.scenario(16)
def test_three_racing_workers_trade_once(trial: Trial):
    codes: list[str] = []

    def race() -> None:
        try:
            with stamina.set_testing(True, attempts=5, cap=True):
                decide(desk_of(trial.folder, trial.server.url, EVENING))
            codes.append("done")
        except LedgerError as error:  # somebody else is at it
            codes.append(str(error))

    decide_first = desk_of(trial.folder, trial.server.url, EVENING)  # the schema, before the race
    assert decide_first.ledger.orders("paper") == []
    racers = [Thread(target=race) for _ in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(timeout=60)
    assert "done" in codes
    decide(desk_of(trial.folder, trial.server.url, EVENING))
    trial.judge()


@pytest.mark.scenario(11)
def test_a_clock_that_is_not_the_brokers_sends_nothing(trial: Trial):
    with pytest.raises(BrokerError, match="in our clock"):
        decide(desk_of(trial.folder, trial.server.url, EVENING + timedelta(minutes=5)))
    assert trial.accepted() == Counter()


@pytest.mark.scenario(15)
@pytest.mark.parametrize("late", [timedelta(hours=13), timedelta(days=30)], ids=["after 09:28", "a month later"])
def test_what_was_not_sent_in_time_is_missed_and_never_sent(trial: Trial, late: timedelta):
    at = EVENING + late  # 20:30 in New York
    trial.server.control("clock", {"now": at.isoformat()})
    desk = desk_of(trial.folder, trial.server.url, at)
    decide(desk)
    assert {order.state for order in desk.ledger.orders("paper")} == {OrderState.MISSED}
    assert trial.accepted() == Counter()


@pytest.mark.scenario(14)
def test_a_session_books_what_executed_once_however_often_it_is_run(trial: Trial):
    decide(desk_of(trial.folder, trial.server.url, EVENING))
    trial.server.run()
    desk = desk_of(trial.folder, trial.server.url, EVENING + timedelta(days=1))
    first = desk.settle(market(NEXT))
    entries = desk.ledger.entries("paper")
    again = desk.settle(market(NEXT))
    assert (desk.ledger.entries("paper"), again.entries) == (entries, first.entries)
    trial.judge_books()
