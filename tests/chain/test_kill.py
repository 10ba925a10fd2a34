"""A job that is killed without warning and run again ends in the same tables, entries and orders."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from adapters.clock import SystemClock
from adapters.lake import open_lake
from adapters.ledger import open_ledger
from quant.ports import Ledger
from quant.tables import TABLES
from tests.chain.command_line import PROFILE, afterclose, command, environment
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.chaos]


def digests(root: Path) -> dict[str, str]:
    lake = open_lake(root)
    return {table: lake.digest(table) for table in TABLES}


def commits(root: Path, table: str) -> int:
    return len(list((root / "lake" / table / "_delta_log").glob("*.json")))


def kill_demo_after(root: Path, profile: Path, table: str, more: int) -> None:
    """Run `afterclose demo` and kill it, without warning, once it has committed ``table`` ``more`` times."""
    demo = command("demo", profile=profile)
    before = commits(root, table)
    with subprocess.Popen(demo, cwd=REPOSITORY, env=environment(root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while commits(root, table) < before + more:
            assert process.poll() is None, f"ended before it was killed after {more} more commits of {table}"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)


def ledger_of(root: Path) -> Ledger:
    return open_ledger(f"sqlite:///{root / 'ledger.sqlite'}", SystemClock())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root that nobody disturbed, with its profile beside it."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "p.toml").write_text(PROFILE)
    done = afterclose(folder / "data", "demo", profile=folder / "p.toml")
    assert done.returncode == 0, done.stderr
    return folder


HISTORY = [
    ("raw_bars", 1),  # bars, no actions yet
    ("alpha158", 2),  # amid the features
    ("scores", 1),  # trained, not yet registered
    ("daily_nav", 1),  # replayed, not yet reported
]
SESSION = [
    ("accepted_bars", 1),  # gated
    ("fills", 1),  # booked, not yet decided
    ("orders", 1),  # decided and sent, not yet reported
    ("performance", 1),  # reported, not yet in the warehouse
]


@pytest.mark.scenario(19)
@pytest.mark.parametrize(
    "kills",
    [
        # The second run does the history again: its backtest commits fills, then the first session does.
        pytest.param([("scores", 1), ("fills", 2)], id="once in the history and once in a session", marks=pytest.mark.smoke),
        pytest.param([*HISTORY, ("raw_bars", 1), *SESSION], id="at every stage"),
    ],
)
def test_a_job_killed_at_any_moment_and_run_again_converges_to_the_same_tables_and_orders(
    whole: Path, tmp_path: Path, kills: list[tuple[str, int]]
):
    profile, broken = whole / "p.toml", tmp_path / "broken"
    for table, more in kills:
        kill_demo_after(broken, profile, table, more)
    last = afterclose(broken, "demo", profile=profile)
    assert last.returncode == 0, last.stderr
    assert digests(broken) == digests(whole / "data")
    assert ledger_of(broken).entries("paper") == ledger_of(whole / "data").entries("paper")
    assert ledger_of(broken).orders("paper") == ledger_of(whole / "data").orders("paper")
