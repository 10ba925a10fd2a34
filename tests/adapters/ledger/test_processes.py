"""Several processes, locks, a full disk and kill -9: no entry twice, none lost, no half of a transaction."""

from __future__ import annotations

import random
import resource
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from adapters.ledger import open_ledger, sqlite
from quant.audit.anchor import verify
from quant.errors import LedgerError
from tests.adapters.ledger.worker import CLOCK, numbered_entry, numbered_order

if TYPE_CHECKING:
    from sqlalchemy import Connection

ROOT = Path(__file__).parents[3]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.sqlite'}"


def worker(url: str, first: int, last: int, batch: int) -> subprocess.Popen[str]:
    """A worker that is ready to open the ledger."""
    command = [sys.executable, "-W", "error", "-m", "tests.adapters.ledger.worker", url, str(first), str(last), str(batch)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def start(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_two_processes_that_open_a_fresh_ledger_at_once_and_post_the_same_book_everything_once(url: str) -> None:
    workers = [worker(url, 0, 300, 20), worker(url, 100, 400, 30)]
    for process in workers:
        start(process)
    outputs = [process.communicate(timeout=60) for process in workers]
    assert [error for _, error in outputs] == ["", ""]
    ledger = open_ledger(url, CLOCK)
    stored = ledger.entries("paper")
    assert sorted(int(entry.key) for entry in stored) == list(range(400))
    assert all(entry == numbered_entry(int(entry.key)) for entry in stored)
    assert sum(int(new) for output, _ in outputs for new in output.split()) == 400
    assert [order.client_order_id for order in ledger.orders("paper")] == [
        numbered_order(number).client_order_id for number in sorted({*range(0, 300, 20), *range(100, 400, 30)})
    ]
    chained = ledger.walk_audit(lambda entries: verify(entries, []))
    assert (chained.sound, chained.entries) == (True, len(ledger.audit()))
    assert sum(payload["entries"] for *_, payload in ledger.audit("bookings")) == 400


def test_threads_of_one_process_share_a_ledger(url: str) -> None:
    ledger = open_ledger(url, CLOCK)
    batches = [[numbered_entry(number) for number in range(start, start + 20)] for start in range(0, 200, 10)]
    with ThreadPoolExecutor(4) as pool:
        new = sum(pool.map(ledger.post, batches))
    assert new == len(ledger.entries("paper")) == 210


@pytest.mark.chaos
def test_a_process_killed_while_posting_leaves_whole_transactions_and_its_successor_the_rest(url: str) -> None:
    batch, last, waits = 50, 5_000, random.Random(7)
    for _ in range(2):
        process = worker(url, 0, last, batch)
        start(process)
        assert process.stdout is not None
        process.stdout.readline()  # it has posted once
        time.sleep(waits.uniform(0, 0.05))
        process.kill()
        process.communicate()
        ledger = open_ledger(url, CLOCK)
        stored = ledger.entries("paper")
        assert stored == [numbered_entry(number) for number in range(len(stored))]
        assert len(stored) % batch == 0
        assert len(stored) < last
    ledger.post(numbered_entry(number) for number in range(last))
    assert ledger.entries("paper") == [numbered_entry(number) for number in range(last)]


@pytest.mark.scenario(17)
def test_a_writer_waits_for_another_to_finish(url: str) -> None:
    ledger = open_ledger(url, CLOCK)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(1) as pool:
            posted = pool.submit(ledger.post, [numbered_entry(1)])
            time.sleep(0.1)
            assert not posted.done()
            other.execute("COMMIT")
            assert posted.result(timeout=10) == 1


def test_a_writing_transaction_has_the_lock_before_it_reads(url: str) -> None:
    open_ledger(url, CLOCK)

    def read_while_another_wants_to_write(connection: Connection) -> None:
        connection.exec_driver_sql("SELECT count(*) FROM entries")
        other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=0)
        with closing(other), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")

    sqlite.transact(sqlite.writing(sqlite.sqlite_engine(url)), read_while_another_wants_to_write)


def test_readers_do_not_wait_for_a_writer(url: str) -> None:
    ledger = open_ledger(url, CLOCK)
    ledger.post([numbered_entry(1)])
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert ledger.entries("paper") == [numbered_entry(1)]


@pytest.mark.scenario(17)
def test_a_ledger_that_stays_locked_is_given_up_after_a_bound(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_SECONDS", 0.02)
    monkeypatch.setattr(sqlite, "BACKOFF_SECONDS", 0.001)
    ledger = open_ledger(url, CLOCK)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match=r"found database is locked; .* nothing was written"):
            ledger.post([numbered_entry(1)])
        other.execute("ROLLBACK")
    assert ledger.post([numbered_entry(1)]) == 1


@pytest.mark.scenario(18)
def test_a_full_disk_rolls_back_and_says_so(url: str) -> None:
    ledger = open_ledger(url, CLOCK)
    ledger.post([numbered_entry(0)])
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, unlimited[1]))
    try:
        with pytest.raises(LedgerError, match="nothing was written"):
            ledger.post(numbered_entry(number) for number in range(1, 20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert ledger.entries("paper") == [numbered_entry(0)]
    assert ledger.post([numbered_entry(1)]) == 1
