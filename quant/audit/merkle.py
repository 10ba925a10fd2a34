"""Merkle trees of RFC 6962: the hash of a leaf and that of a node begin with different bytes, so that neither can pass for the other."""

from __future__ import annotations

from hashlib import sha256

EMPTY_ROOT = sha256().hexdigest()


def leaf_hash(entry: bytes) -> bytes:
    """Hash of a leaf: SHA-256(0x00 || entry)."""
    return sha256(b"\0" + entry).digest()


class MerkleTree:
    """A tree that grows by leaves. It holds the roots of its full subtrees only: as many hashes as its size has ones in binary."""

    def __init__(self) -> None:
        self._size = 0
        self._full: list[bytes] = []  # largest first

    def add(self, leaf: bytes) -> None:
        """Append a leaf by its hash."""
        node, size = leaf, self._size
        while size & 1:
            node = _node(self._full.pop(), node)
            size >>= 1
        self._full.append(node)
        self._size += 1

    @property
    def root(self) -> str:
        """Root over the leaves so far, hex."""
        if not self._full:
            return EMPTY_ROOT
        *left, node = self._full
        for subtree in reversed(left):
            node = _node(subtree, node)
        return node.hex()


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()
