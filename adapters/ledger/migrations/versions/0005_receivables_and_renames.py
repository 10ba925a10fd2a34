"""When a receivable is due, whether that date is assumed, the symbol after a rename; and folded states."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Columns of entries; those booked before have no due date, no assumption and no rename."""
    op.add_column("entries", sa.Column("due", sa.Date))
    op.add_column("entries", sa.Column("assumed", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("entries", sa.Column("new_symbol", sa.String))
    op.create_table(
        "book_states",
        sa.Column("book", sa.String, primary_key=True),
        sa.Column("session", sa.Date, primary_key=True),
        sa.Column("sequence", SEQUENCE, primary_key=True, autoincrement=False),
        sa.Column("fold", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.JSON, nullable=False),
    )
