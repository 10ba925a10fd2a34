"""The instant and the rules with which a book begins a session."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """A table beside the decisions: these stand once a session is booked, those once it is decided."""
    op.create_table(
        "session_starts",
        sa.Column("book", sa.String, primary_key=True),
        sa.Column("session", sa.Date, primary_key=True),
        sa.Column("decision_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("rules", sa.String, nullable=False),
    )
