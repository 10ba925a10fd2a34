"""A data root belongs to one source and calendar, and to one run at a time."""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from orchestration.settings import Settings
from quant.errors import InputError, SequenceError, expected

WAIT_SECONDS = 900.0
_POLL_SECONDS = 0.2


def require_same_data(root: Path, settings: Settings) -> None:
    """InputError if the data root was filled with another source or calendar: mixing two would corrupt both."""
    marker = root / "identity.json"
    if not marker.exists():
        return
    held, wanted = json.loads(marker.read_text()), _identity(settings)
    if held != wanted:
        changed = ", ".join(k for k in wanted if held.get(k) != wanted[k])
        do = "use another data root (AFTERCLOSE_DATA) for this profile"
        raise InputError(expected(f"the [{changed}] settings this data root was filled with", found="others", where=str(root), do=do))


@contextmanager
def at_work(root: Path, settings: Settings, waiting: Callable[[str], None], *, seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold the data root for one run; a killed holder lets go. ``waiting`` is told once if another run is at work.

    SequenceError if it still is after ``seconds``; InputError if the root was filled with other data.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / "run.lock").open("a+") as lock:
        _take(lock, root, waiting, seconds)
        require_same_data(root, settings)
        _claim(root, settings)
        yield


def _take(lock: IO[str], root: Path, waiting: Callable[[str], None], seconds: float) -> None:
    deadline, told = time.monotonic() + seconds, False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = f"process {lock.read().strip() or 'unknown'}"
            if time.monotonic() >= deadline:
                raise SequenceError(
                    expected("one run at a time", found=f"{holder} at work", where=str(root), do="wait until it ends, then run this again")
                ) from None
            if not told:
                waiting(f"waits for {holder}")
                told = True
            time.sleep(_POLL_SECONDS)
        else:
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            return


def _claim(root: Path, settings: Settings) -> None:
    marker = root / "identity.json"
    if not marker.exists():
        beside = marker.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps(_identity(settings), indent=1))
        beside.replace(marker)


def _identity(settings: Settings) -> dict[str, object]:
    return settings.model_dump(
        mode="json",
        include={"source": True, "calendar": {"exchange", "start", "paper_start"}},
        exclude={"source": {"files": {"grows"}, "alpaca": {"data_url", "trading_url"}}},  # the same data, by another road
    )
