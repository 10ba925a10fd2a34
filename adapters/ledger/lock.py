"""One at a time sends orders for a book: a lock of the operating system beside the ledger's file, which a process that dies lets go of."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from quant.errors import LedgerError, expected

if TYPE_CHECKING:
    from collections.abc import Generator


@contextmanager
def hold_book(database: str | None, book: str) -> Generator[None]:
    """Hold ``book`` of the ledger in the file ``database`` (None: in memory, for one thread, which has no rival). LedgerError at once if
    somebody holds it.
    """
    if not database:
        yield
        return
    path = Path(f"{database}.{book}.lock")
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = f"process {lock.read().strip() or 'unknown'} at it"
            do = "wait until it ends, then run this again: what it sent is not sent twice"
            raise LedgerError(expected(f"one run at a time to trade book {book}", found=holder, where=str(path), do=do)) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
