"""The inbox: what brokers reported."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0005"

INSTANT = sa.DateTime(timezone=True)
EXACT = sa.BigInteger()  # of 1e-9


def upgrade() -> None:
    """What became of orders is a fold of it, and nothing in it is ever changed."""
    op.create_table(
        "broker_events",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.Column("account", sa.String, nullable=False),
        sa.Column("event_id", sa.String, nullable=False),
        sa.Column("broker_order_id", sa.String, nullable=False),
        sa.Column("client_order_id", sa.String),
        sa.Column("symbol", sa.String, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("channel", sa.String, nullable=False),
        sa.Column("cumulative", EXACT, nullable=False),
        sa.Column("quantity", EXACT),
        sa.Column("price", EXACT),
        sa.Column("status", sa.String),
        sa.UniqueConstraint("account", "event_id", name="broker_events_id"),
    )
    op.create_index("broker_events_by_order", "broker_events", ["account", "broker_order_id"])
