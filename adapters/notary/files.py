"""The Notary port on files: key.pem (mode 0600), anchors.jsonl (one anchor a line), and a copy in a folder outside the data root."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key

from quant.audit.anchor import Anchor, continues
from quant.errors import DeliveryError, InputError, LedgerError, expected

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

ANCHORS = "anchors.jsonl"
KEY = "key.pem"


def signed(anchor: Anchor) -> bool:
    """True if the signature is that of the anchor's content by the anchor's own key."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(anchor.public_key)).verify(bytes.fromhex(anchor.signature), anchor.message)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def read_anchors(path: Path) -> list[Anchor]:
    """The anchors of a file, none if there is no file. A last line without its end is one that a crash cut, and is none.

    LedgerError for a line that holds no anchor.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [_parsed(line, f"line {number} of {path}") for number, line in enumerate(lines, start=1)]


def _parsed(line: bytes, where: str) -> Anchor:
    try:
        document: Any = json.loads(line)
    except ValueError as error:
        raise LedgerError(expected("an anchor", found=error, where=where, do="fetch the file from its copy")) from None
    return Anchor.read(document, where)


class FileNotary:
    """See quant.ports.Notary. ``folder`` holds key and anchors; ``key`` names another place for the key, ``copies`` the folder of the copy,
    which is called after ``name``.
    """

    def __init__(self, folder: Path, *, key: Path | None = None, copies: Path | None = None, name: str = "anchors") -> None:
        self._folder = folder
        self._file = folder / ANCHORS
        self._key = key or folder / KEY
        self._copy = None if copies is None else copies / f"{name}.jsonl"
        self._held = False

    def public_key(self) -> str:
        raw = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return raw.hex()

    @property
    def has_key(self) -> bool:
        """True once there is a key; asking for the public one makes it."""
        return self._key.exists()

    def anchors(self) -> Sequence[Anchor]:
        return read_anchors(self._file)

    def add(self, make: Callable[[Sequence[Anchor]], Anchor | None]) -> Anchor | None:
        with self._alone():
            whole = _whole_lines(self._file)
            unsigned = make(read_anchors(self._file))
            if unsigned is None:
                return None
            anchor = replace(unsigned, signature=self._private.sign(unsigned.message).hex())
            _append(self._file, whole, anchor.line + b"\n")
            return anchor

    def copy(self) -> int:
        if self._copy is None:
            return 0
        try:
            with self._alone():
                here, there = self.anchors(), read_anchors(self._copy)
                if not continues(there, here):
                    where, do = str(self._copy), "run `afterclose audit verify --anchor` on the copy: one of the two was changed"
                    raise LedgerError(expected(f"the anchors of {self._file}, or fewer", found="others", where=where, do=do))
                if missing := here[len(there) :]:
                    self._copy.parent.mkdir(parents=True, exist_ok=True)
                    _append(self._copy, _whole_lines(self._copy), b"".join(anchor.line + b"\n" for anchor in missing))
                return len(missing)
        except OSError as error:
            do = "make it writable; the next run brings it up to date"
            raise DeliveryError(expected("a copy of the anchors", found=error, where=str(self._copy), do=do)) from error

    def signed(self, anchor: Anchor) -> bool:
        return signed(anchor)

    @cached_property
    def _private(self) -> Ed25519PrivateKey:
        with self._alone():
            if not self._key.exists():
                self._make_key()
            try:
                key: object = load_pem_private_key(self._key.read_bytes(), password=None)
            except (ValueError, TypeError) as error:
                raise InputError(expected("a private key in PEM", found=error, where=str(self._key), do="restore it")) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise InputError(expected("an Ed25519 key", found=type(key).__name__, where=str(self._key), do="name another file"))
        return key

    def _make_key(self) -> None:
        """Once, readable by its owner only from its first byte, whole or not at all."""
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self._key.parent.mkdir(parents=True, exist_ok=True)
        beside = self._key.with_name(f".{self._key.name}.{os.getpid()}")
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            _to_disk(file.fileno())
        beside.replace(self._key)

    @contextmanager
    def _alone(self) -> Generator[None]:
        """One process at a time; a killed holder lets go. The same process may hold it twice."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._held:
            yield
            return
        with (self._folder / "anchors.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._held = True
            try:
                yield
            finally:
                self._held = False


def _whole_lines(path: Path) -> int:
    """Bytes of the file up to the end of its last whole line."""
    return path.read_bytes().rfind(b"\n") + 1 if path.exists() else 0


def _append(path: Path, at: int, data: bytes) -> None:
    """Write at a place, behind which a crash may have left half a line, and have it on the disk."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.truncate(at)
        file.seek(at)
        file.write(data)
        file.flush()
        _to_disk(file.fileno())


def _to_disk(descriptor: int) -> None:
    os.fsync(descriptor)
