"""Anchors: what the audit log was at an instant, signed and kept where whoever can write the database cannot.

An anchor holds the leaf hash of every entry since the one before it, so that even a log that was written again in full, with all its
hashes, shows its first false entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, cast

from quant.audit.canonical import canonical_json
from quant.audit.chain import GENESIS, ChainEntry, entry_hash
from quant.audit.merkle import MerkleTree, leaf_hash
from quant.errors import LedgerError, expected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DayRoot:
    """Merkle root over the entries that were recorded on one UTC day in a row, first to last."""

    day: str
    first: int
    last: int
    root: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """Entries first to last: their leaf hashes, the chain's hash before and after them, the roots of the days that they are of.
    ``previous`` is the SHA-256 of the anchor before, ``public_key`` and ``signature`` are Ed25519, hex.
    """

    number: int
    written_at: str
    first: int
    last: int
    before: str
    head: str
    days: tuple[DayRoot, ...]
    leaves: tuple[str, ...]
    previous: str
    public_key: str
    signature: str = ""

    @property
    def message(self) -> bytes:
        """What is signed: canonical JSON of everything but the signature."""
        return canonical_json({k: v for k, v in self._document.items() if k != "signature"})

    @property
    def line(self) -> bytes:
        """Canonical JSON of the whole anchor: one line of the file."""
        return canonical_json(self._document)

    @property
    def digest(self) -> str:
        """SHA-256 of the line."""
        return hashlib.sha256(self.line).hexdigest()

    @property
    def _document(self) -> Mapping[str, object]:
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def read(cls, document: object, where: str) -> Anchor:
        """The anchor of a parsed line; LedgerError if it is none."""
        try:
            values: dict[str, Any] = dict(cast("Mapping[str, Any]", document))
            if (version := values.pop("version")) != VERSION:
                values = {"version": version}  # no field of ours
            days = tuple(DayRoot(**day) for day in values.pop("days"))
            return cls(days=days, leaves=tuple(values.pop("leaves")), **values)
        except (TypeError, ValueError, KeyError) as error:
            raise LedgerError(expected("an anchor", found=error, where=where, do="fetch the file from its copy")) from None


def next_anchor(entries: Iterable[ChainEntry], anchors: Sequence[Anchor], *, written_at: str, public_key: str) -> Anchor | None:
    """The unsigned anchor of ``entries``, all that come after the last of ``anchors``; None if there is no entry.

    LedgerError if they do not follow it: nothing is signed that does not verify.
    """
    last = anchors[-1] if anchors else None
    first, before = (last.last + 1, last.head) if last else (1, GENESIS)
    head, added = before, list[tuple[str, bytes]]()
    for sequence, entry in enumerate(entries, start=first):
        content = entry.content
        head = entry_hash(head, content)
        if (entry.sequence, entry.hash) != (sequence, head):
            found = f"entry {entry.sequence} with another hash" if entry.sequence == sequence else f"entry {entry.sequence}"
            raise LedgerError(
                expected(f"entry {sequence} as it was recorded", found=found, where="the audit log", do="run `afterclose audit verify`")
            )
        added.append((entry.day, leaf_hash(content)))
    if not added:
        return None
    return Anchor(
        number=len(anchors) + 1 if last is None else last.number + 1,
        written_at=written_at,
        first=first,
        last=first + len(added) - 1,
        before=before,
        head=head,
        days=tuple(_day_roots(first, added, anchors)),
        leaves=tuple(leaf.hex() for _, leaf in added),
        previous=last.digest if last else GENESIS,
        public_key=public_key,
    )


def _day_roots(first: int, added: Sequence[tuple[str, bytes]], anchors: Sequence[Anchor]) -> Iterable[DayRoot]:
    """The roots of the days of new leaves; a day that an earlier anchor began goes on."""
    at = first
    for day, group in groupby(added, key=lambda pair: pair[0]):
        leaves = [leaf for _, leaf in group]
        begun, earlier = _begun(day, at, anchors)
        tree = MerkleTree()
        for leaf in (*earlier, *leaves):
            tree.add(leaf)
        at += len(leaves)
        yield DayRoot(day=day, first=begun, last=at - 1, root=tree.root)


def _begun(day: str, at: int, anchors: Sequence[Anchor]) -> tuple[int, list[bytes]]:
    """First entry of the day that goes on at ``at``, and the leaves of the day before it."""
    if not anchors or anchors[-1].days[-1].day != day or anchors[-1].last != at - 1:
        return at, []
    first, parts = anchors[-1].days[-1].first, list[tuple[str, ...]]()
    for anchor in reversed(anchors):
        if anchor.last < first:
            break
        parts.append(anchor.leaves[max(first - anchor.first, 0) :])
    return first, [bytes.fromhex(leaf) for part in reversed(parts) for leaf in part]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong: at an entry of the log by its sequence, at an anchor by its number, or in the tables that the log tells of."""

    reason: str
    sequence: int | None = None
    anchor: int | None = None

    def __str__(self) -> str:
        """One line."""
        where = f"anchor {self.anchor}" if self.anchor is not None else "the ledger" if self.sequence is None else f"entry {self.sequence}"
        return f"{where}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a walk through the log found: ``entries`` up to the first fault, of which anchors cover those up to ``anchored``."""

    entries: int
    head: str
    anchors: int
    anchored: int
    faults: tuple[Fault, ...] = ()

    @property
    def sound(self) -> bool:
        """True if nothing is wrong."""
        return not self.faults


def anchor_fault(
    anchors: Sequence[Anchor], *, public_key: str | None, signed: Callable[[Anchor], bool]
) -> tuple[Sequence[Anchor], Fault | None]:
    """The anchors before the first one that is not sound, and what is wrong with that one: its signature (``signed``), its key, its place
    after the anchor before, or its roots.
    """
    for place, anchor in enumerate(anchors):
        reason = _own_fault(anchor, anchors[:place], public_key, signed) or (_gap(anchors[place - 1], anchor) if place else None)
        if reason:
            return anchors[:place], Fault(anchor=anchor.number, reason=reason)
    return anchors, None


def _own_fault(anchor: Anchor, earlier: Sequence[Anchor], public_key: str | None, signed: Callable[[Anchor], bool]) -> str | None:
    if public_key is not None and anchor.public_key != public_key:
        return f"signed by key {anchor.public_key}, not by {public_key}"
    if not signed(anchor):
        return "its signature is not that of its content"
    if not anchor.leaves or len(anchor.leaves) != anchor.last - anchor.first + 1:
        return f"{len(anchor.leaves)} leaves for entries {anchor.first} to {anchor.last}"
    days = [(day.day, bytes.fromhex(leaf)) for day, leaf in zip(_days_of(anchor), anchor.leaves, strict=False)]
    at_hand = earlier[0].first if earlier else anchor.first
    unseen = anchor.days[0].first < at_hand  # the day's first leaves are in anchors that are not among these
    made = tuple(_day_roots(anchor.first, days, earlier))
    return "the root of a day is not that of its leaves" if made[unseen:] != anchor.days[unseen:] else None


def _days_of(anchor: Anchor) -> Iterable[DayRoot]:
    for day in anchor.days:
        for _ in range(max(day.first, anchor.first), day.last + 1):
            yield day


def _gap(before: Anchor, after: Anchor) -> str | None:
    if (after.number, after.first) != (before.number + 1, before.last + 1):
        return f"entries {after.first} to {after.last} do not follow anchor {before.number}, which ends with entry {before.last}"
    if (after.previous, after.before) != (before.digest, before.head):
        return f"it does not follow anchor {before.number} as it is here"
    return None


def verify(entries: Iterable[ChainEntry], anchors: Sequence[Anchor]) -> Verification:
    """Walk through all entries, oldest first, to the first that is not what was recorded. ``anchors``: sound ones, in order."""
    covering, at = list(anchors), 0
    sequence, head, fault = 0, GENESIS, None
    for entry in entries:
        while at < len(covering) and covering[at].last <= sequence:
            at += 1
        fault, head_after = _entry_fault(entry, sequence + 1, head, covering[at] if at < len(covering) else None)
        if fault:
            break
        sequence, head = sequence + 1, head_after
    last = covering[-1].last if covering else 0
    if fault is None and sequence < last:
        signed = next(anchor for anchor in covering if anchor.last > sequence)
        reason = f"cut off: anchor {signed.number} of {signed.written_at} signed entries up to {last}, the log ends with {sequence}"
        fault = Fault(sequence=sequence + 1, reason=reason)
    return Verification(
        entries=sequence, head=head, anchors=len(anchors), anchored=min(last, sequence), faults=() if fault is None else (fault,)
    )


def _entry_fault(entry: ChainEntry, sequence: int, head: str, anchor: Anchor | None) -> tuple[Fault | None, str]:
    """What is wrong with the entry that should be ``sequence``, after one with hash ``head``; and its own hash."""
    if entry.sequence != sequence:
        return Fault(sequence=sequence, reason=f"missing: the next one there is {entry.sequence}"), head
    if anchor is not None and sequence == anchor.first and head != anchor.before:
        reason = f"it, or one before it, was rewritten: anchor {anchor.number} of {anchor.written_at} signed another chain"
        return Fault(sequence=sequence - 1, reason=reason), head
    content = entry.content
    made = entry_hash(head, content)
    if entry.hash != made or '"' in entry.recorded_at:
        return Fault(sequence=sequence, reason="its content is not what was hashed when it was recorded"), head
    if anchor is not None and sequence >= anchor.first and leaf_hash(content).hex() != anchor.leaves[sequence - anchor.first]:
        reason = f"rewritten: its content is not what anchor {anchor.number} of {anchor.written_at} signed"
        return Fault(sequence=sequence, reason=reason), head
    if anchor is not None and sequence == anchor.last and made != anchor.head:
        return Fault(sequence=sequence, reason=f"anchor {anchor.number} of {anchor.written_at} signed another chain up to here"), head
    return None, made


def continues(shorter: Sequence[Anchor], longer: Sequence[Anchor]) -> bool:
    """True if ``longer`` begins with ``shorter``."""
    return len(shorter) <= len(longer) and all(a.digest == b.digest for a, b in zip(shorter, longer, strict=False))


def days(anchors: Sequence[Anchor]) -> list[DayRoot]:
    """The last root of every day."""
    roots = [root for anchor in anchors for root in anchor.days]
    return [root for root, after in pairwise([*roots, None]) if root is not None and (after is None or after.first != root.first)]
