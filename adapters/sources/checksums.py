"""The SHA-256 that lie beside data files, as sha256sum writes them: NAME.sha256 for one file, SHA256SUMS for those of a folder.

Parquet and CSV do not notice a flipped bit: most read as other numbers.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from quant.errors import InputError, expected

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "SHA256SUMS"
SIDECAR = ".sha256"
_LINE = re.compile(r"([0-9a-fA-F]{64})(?:\s+\*?(?:\./)?(\S.*))?")


def listed_digests(folder: Path) -> dict[str, str] | None:
    """File name -> SHA-256 of the folder's SHA256SUMS; None without one. InputError for a line that is none of its kind."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return None
    digests: dict[str, str] = {}
    for number, line in enumerate(_text(manifest).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or match[2] is None:
            do = "write it with `sha256sum * > SHA256SUMS`"
            raise InputError(expected("64 hexadecimal digits and a file name", found=line[:80], where=f"{manifest} line {number}", do=do))
        digests[match[2]] = match[1].lower()
    return digests


def require_whole(file: Path, listed: str | None) -> None:
    """InputError unless the file has the SHA-256 ``listed`` for it and the one of its sidecar, as far as there are any."""
    sidecar = file.with_name(file.name + SIDECAR)
    wanted = {MANIFEST: listed, sidecar.name: _sidecar_digest(sidecar)}
    if not any(wanted.values()):
        return
    try:
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise InputError(expected("a file that can be read", found=error, where=str(file), do="copy the file again")) from None
    for beside, digest in wanted.items():
        if digest not in (None, found):
            do = f"copy the file again, or write {beside} anew if the change is meant"
            raise InputError(expected(f"SHA-256 {digest} as {beside} has it", found=found, where=str(file), do=do))


def _sidecar_digest(sidecar: Path) -> str | None:
    if not sidecar.is_file():
        return None
    match = _LINE.fullmatch(_text(sidecar).strip())
    if match is None:
        do = "write it with `sha256sum FILE > FILE.sha256`"
        raise InputError(expected("one SHA-256", found=repr(_text(sidecar)[:80]), where=str(sidecar), do=do))
    return match[1].lower()


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")
