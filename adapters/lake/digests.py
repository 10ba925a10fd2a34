"""What every Parquet file of a table was when it was written: its SHA-256, to which it is held before a row of it is read.

Parquet does not notice a flipped bit: most read as other numbers. The digests lie in TABLE/_digests, a folder that Delta Lake leaves alone,
one file a data file, as sha256sum writes them.
"""

from __future__ import annotations

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quant.errors import CorruptFileError, expected

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

FOLDER = "_digests"
_WORKERS = 2
_SHA256 = re.compile(r"[0-9a-f]{64}")
_whole: dict[str, tuple[int, int]] = {}  # files that this process found whole, with their mtime and size then


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A data file of a table: its size, whether its SHA-256 was recorded, and what is wrong with it, if anything."""

    path: Path
    size_bytes: int
    recorded: bool
    fault: str | None


def record(table: Path, files: Iterable[Path]) -> None:
    """Write the digest of those ``files`` that have none yet, each atomically. A kill before it leaves files without: the next call, of the
    next commit, gives them theirs.
    """
    folder = table / FOLDER
    held = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set[str]()
    new = [file for file in files if f"{file.name}.sha256" not in held]
    if not new:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for file, digest in zip(new, _digests(new), strict=True):
        target = folder / f"{file.name}.sha256"
        beside = target.with_suffix(f".{os.getpid()}.new")
        beside.write_text(f"{digest}  {os.path.relpath(file, folder.resolve())}\n")  # Delta Lake's paths have no links
        beside.replace(target)
        _remember(file)


def require_whole(table: Path, files: Iterable[Path]) -> None:
    """CorruptFileError for the first of ``files`` that is not there, or not what was written. A file is read once a process for it, and
    again if it changes; one without a recorded digest (from before there were any) passes.
    """
    unseen = [file for file in files if _whole.get(str(file)) != _state(file)]
    for found in inspect(table, unseen):
        if found.fault is not None:
            do = "restore it from a backup; if there is none, fill a new data root (AFTERCLOSE_DATA) from the source"
            wanted = f"the file {found.path.name} as it was written"
            raise CorruptFileError(expected(wanted, found=found.fault, where=f"table {table.name} ({found.path})", do=do))
        if found.recorded:
            _remember(found.path)


def inspect(table: Path, files: Sequence[Path]) -> list[StoredFile]:
    """What each of ``files`` is now, whether or not this process has looked at it before."""
    there = [file for file in files if file.is_file()]
    now = dict(zip(there, _digests(there), strict=True))
    return [_inspected(table, file, now.get(file)) for file in files]


def _inspected(table: Path, file: Path, digest: str | None) -> StoredFile:
    sidecar = table / FOLDER / f"{file.name}.sha256"
    wanted = sidecar.read_bytes().split(b" ", 1)[0].decode("ascii", "replace") if sidecar.is_file() else None
    if digest is None:
        fault = "no such file"
    elif wanted is not None and not _SHA256.fullmatch(wanted):  # the disk lost it with the power, or damaged it
        fault = f"a recorded digest that is none ({sidecar})"
    else:
        fault = f"SHA-256 {digest} where {wanted} was written" if wanted not in (None, digest) else None
    return StoredFile(path=file, size_bytes=file.stat().st_size if digest else 0, recorded=wanted is not None, fault=fault)


def _digests(files: Sequence[Path]) -> list[str]:
    with ThreadPoolExecutor(_WORKERS) as pool:  # hashing lets other threads run
        return list(pool.map(_digest, files))


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _state(file: Path) -> tuple[int, int] | None:
    try:
        stat = file.stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _remember(file: Path) -> None:
    state = _state(file)
    if state is not None:
        _whole[str(file)] = state
