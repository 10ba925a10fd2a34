"""Key, anchors and their copy on disk: made once, torn lines mended, nobody else's taken for one's own."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key

from adapters.notary import FileNotary, read_anchors
from quant.audit.anchor import Anchor, next_anchor
from quant.audit.chain import GENESIS, ChainEntry, entry_hash
from quant.errors import DeliveryError, InputError, LedgerError
from quant.ports import Notary


def entries(first: int, last: int, head: str = GENESIS, kind: str = "orders") -> list[ChainEntry]:
    made: list[ChainEntry] = []
    for sequence in range(first, last + 1):
        entry = ChainEntry(sequence, "2013-03-01T22:00:00.000000Z", kind, None, "{}")
        head = entry_hash(head, entry.content)
        made.append(ChainEntry(sequence, entry.recorded_at, entry.kind, None, "{}", head))
    return made


def signed_next(notary: FileNotary, kind: str = "orders") -> Anchor:
    """An anchor of one more entry."""

    def make(anchors: list[Anchor]) -> Anchor | None:
        last, head = (anchors[-1].last, anchors[-1].head) if anchors else (0, GENESIS)
        some = entries(last + 1, last + 1, head, kind)
        return next_anchor(some, anchors, written_at="2013-03-01T22:15:00.000000Z", public_key=notary.public_key())

    anchor = notary.add(make)
    assert anchor is not None
    return anchor


def test_the_adapter_is_a_notary_and_what_it_signs_verifies(tmp_path: Path) -> None:
    notary = FileNotary(tmp_path / "audit")
    assert isinstance(notary, Notary)
    assert not notary.has_key
    made = [signed_next(notary), signed_next(notary)]
    assert (notary.anchors(), [notary.signed(anchor) for anchor in made]) == (made, [True, True])
    assert FileNotary(tmp_path / "audit").public_key() == notary.public_key()


def test_the_key_is_its_owners_alone_and_another_tool_reads_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        notary = FileNotary(tmp_path / "audit")
        public = notary.public_key()
    finally:
        os.umask(before)
    key = tmp_path / "audit" / "key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    read = load_pem_private_key(key.read_bytes(), password=None)
    assert read.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex() == public


def test_processes_that_ask_at_once_get_one_key_and_anchors_in_a_row(tmp_path: Path) -> None:
    notaries = [FileNotary(tmp_path / "audit") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda notary: notary.public_key(), notaries))) == 1
        list(pool.map(signed_next, notaries))
    held = notaries[0].anchors()
    assert [(anchor.number, anchor.first) for anchor in held] == [(n, n) for n in range(1, 9)]
    assert all(after.previous == before.digest for before, after in pairwise(held))


def test_a_line_that_a_crash_cut_is_no_anchor_and_the_next_one_takes_its_place(tmp_path: Path) -> None:
    notary, file = FileNotary(tmp_path / "audit"), tmp_path / "audit" / "anchors.jsonl"
    signed_next(notary)
    whole = file.read_bytes()
    signed_next(notary)
    file.write_bytes(file.read_bytes()[:-20])
    assert len(notary.anchors()) == 1
    again = signed_next(notary)
    assert file.read_bytes() == whole + again.line + b"\n"


@pytest.mark.parametrize(("content", "told"), [("no key", "a private key in PEM"), ("another kind", "an Ed25519 key")])
def test_a_key_file_that_is_none_is_refused(tmp_path: Path, content: str, told: str) -> None:
    key = tmp_path / "key.pem"
    if content == "another kind":
        key.write_bytes(X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    else:
        key.write_text(content)
    with pytest.raises(InputError, match=f"expected {told}"):
        _ = FileNotary(tmp_path / "audit", key=key).public_key()


def test_the_copy_gets_what_is_missing_there_and_nothing_twice(tmp_path: Path) -> None:
    notary = FileNotary(tmp_path / "audit", copies=tmp_path / "elsewhere" / "deep", name="sample")
    copy = tmp_path / "elsewhere" / "deep" / "sample.jsonl"
    assert notary.copy() == 0
    signed_next(notary)
    signed_next(notary)
    assert (notary.copy(), notary.copy()) == (2, 0)
    copy.write_bytes(copy.read_bytes()[:-20])
    signed_next(notary)
    assert notary.copy() == 2
    assert copy.read_bytes() == (tmp_path / "audit" / "anchors.jsonl").read_bytes()
    assert read_anchors(copy) == notary.anchors()


def test_a_copy_with_other_anchors_is_told_and_left_as_it_is(tmp_path: Path) -> None:
    notary = FileNotary(tmp_path / "audit", copies=tmp_path / "elsewhere")
    signed_next(notary)
    notary.copy()
    held = (tmp_path / "elsewhere" / "anchors.jsonl").read_bytes()
    (tmp_path / "audit" / "anchors.jsonl").unlink()
    signed_next(notary, kind="rewritten")
    with pytest.raises(LedgerError, match=r"expected the anchors of .*, or fewer in .*elsewhere.*, found others"):
        notary.copy()
    assert (tmp_path / "elsewhere" / "anchors.jsonl").read_bytes() == held


def test_a_copy_that_cannot_be_written_is_told_and_the_anchor_stands(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("a file where the folder should be")
    notary = FileNotary(tmp_path / "audit", copies=tmp_path / "elsewhere")
    signed_next(notary)
    with pytest.raises(DeliveryError, match="the next run brings it up to date"):
        notary.copy()
    assert len(notary.anchors()) == 1
