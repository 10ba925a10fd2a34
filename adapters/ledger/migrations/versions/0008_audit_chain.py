"""The audit log as a chain of hashes: canonical payloads, keys, and the hash of every entry that is there."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

from quant.audit.canonical import canonical_json
from quant.audit.chain import GENESIS, ChainEntry, entry_hash

revision = "0008"
down_revision = "0007"

SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """The chain starts with the entries that are there: they are copied, with their payloads in canonical form. Hashes of what was
    recorded before say what it was on the day of this migration, no earlier.
    """
    op.execute("ALTER TABLE audit RENAME TO audit_unchained")
    op.drop_index("audit_by_kind", "audit_unchained")
    chained = op.create_table(
        "audit",
        sa.Column("sequence", SEQUENCE, primary_key=True, autoincrement=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("key", sa.String),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("hash", sa.String, nullable=False),
        sa.UniqueConstraint("key", name="audit_key"),
    )
    op.create_index("audit_by_kind", "audit", ["kind", "sequence"])
    # As text: instants as SQLite stores them, which is what is hashed too.
    copy = sa.text(f"INSERT INTO {chained.name} VALUES (:sequence, :recorded_at, :kind, NULL, :payload, :hash)")
    head, rows = GENESIS, op.get_bind().exec_driver_sql("SELECT recorded_at, kind, payload FROM audit_unchained ORDER BY sequence")
    for sequence, (recorded_at, kind, payload) in enumerate(rows.all(), start=1):
        text = canonical_json(json.loads(payload)).decode()
        instant = f"{recorded_at.replace(' ', 'T')}Z"
        head = entry_hash(head, ChainEntry(sequence, instant, kind, None, text).content)
        row = {"sequence": sequence, "recorded_at": recorded_at, "kind": kind, "payload": text, "hash": head}
        op.get_bind().execute(copy, row)
    op.drop_table("audit_unchained")
