"""What an order came from, as a tree, and whether its numbers come out again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quant.audit.canonical import plain

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One thing of the lineage: what it is, its facts, rows that are too many to be links of their own, and what it came from."""

    what: str
    facts: Mapping[str, object]
    rows: Sequence[Mapping[str, object]] = ()
    origins: Sequence[Link] = ()
    values: Mapping[str, float | None] = field(default_factory=dict[str, "float | None"])

    @property
    def document(self) -> Mapping[str, object]:
        """As JSON; empty parts are left out."""
        parts = {"rows": list(self.rows), "values": self.values, "from": [link.document for link in self.origins]}
        return {"what": self.what, **_json({**self.facts, **{name: part for name, part in parts.items() if part}})}

    def walk(self) -> Iterator[Link]:
        """This link and everything that it came from."""
        yield self
        for link in self.origins:
            yield from link.walk()


def _json(values: Mapping[str, object]) -> dict[str, object]:
    return {name: plain(value) for name, value in values.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputed:
    """A number or digest as it was recorded and as it came out again. ``why`` says why it could not be computed; then it is not met."""

    what: str
    recorded: str | None
    again: str | None
    why: str = ""

    @property
    def met(self) -> bool:
        """True if both are the same, bit for bit."""
        return not self.why and self.recorded is not None and self.recorded == self.again

    @property
    def document(self) -> Mapping[str, object]:
        """As JSON."""
        return {"what": self.what, "recorded": self.recorded, "again": self.again, "met": self.met, "why": self.why}


def bits(value: float | None) -> str | None:
    """Text of a float64 that has every bit of it: shortest decimal and hexadecimal form."""
    return None if value is None else f"{value!r} ({value.hex()})"
