"""The account of each book at a broker."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Books so far traded at the embedded exchange: they have none."""
    op.create_table(
        "book_accounts",
        sa.Column("book", sa.String, primary_key=True),
        sa.Column("account_id", sa.String, nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("account_id", name="book_accounts_account"),
    )
