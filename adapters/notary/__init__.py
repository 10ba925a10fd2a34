"""Anchors of the audit log: an Ed25519 key, a file of signed lines, and a copy of it elsewhere."""

from adapters.notary.files import FileNotary, read_anchors, signed

__all__ = ["FileNotary", "read_anchors", "signed"]
