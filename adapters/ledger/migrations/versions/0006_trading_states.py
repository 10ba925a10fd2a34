"""The trading state of a book: active, reducing or halted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Every change is a row, so that a halt survives restarts and its reason stays."""
    op.create_table(
        "trading_states",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("book", sa.String, nullable=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("by", sa.String, nullable=False),
        sa.UniqueConstraint("book", "key", name="trading_states_key"),
    )
