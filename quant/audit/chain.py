"""The chain of the audit log: each entry's hash covers its content and the hash of the entry before it.

These formulas never change: entries of years ago are verified with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

import rfc8785

GENESIS = "0" * 64
"""What stands in the place of a hash before the first entry."""


@dataclass(frozen=True, slots=True)
class ChainEntry:
    """One entry as stored. ``recorded_at`` is UTC as 2013-03-01T22:15:00.123456Z, ``payload`` the text of its canonical JSON."""

    sequence: int
    recorded_at: str
    kind: str
    key: str | None
    payload: str
    hash: str = ""

    @property
    def content(self) -> bytes:
        """Canonical JSON (RFC 8785) of {key, kind, payload, recorded_at, sequence}, with the payload as it is stored: a payload that was
        written otherwise since is another one.
        """
        text = f'{{"key":{_quoted(self.key)},"kind":{_quoted(self.kind)},"payload":{self.payload},'
        return f'{text}"recorded_at":"{self.recorded_at}","sequence":{self.sequence}}}'.encode("utf-8", "surrogatepass")

    @property
    def day(self) -> str:
        """UTC day on which it was recorded."""
        return self.recorded_at[:10]


@lru_cache(maxsize=4096)
def _quoted(text: str | None) -> str:
    return rfc8785.dumps(text).decode()


def entry_hash(previous: str, content: bytes) -> str:
    """SHA-256(hash of the entry before || content), hex."""
    return sha256(bytes.fromhex(previous) + content).hexdigest()
