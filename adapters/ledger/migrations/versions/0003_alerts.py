"""Alerts: notices, changes, deliveries, runs observed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")
INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """The outbox of the alerts, append-only like the rest: what stands and what is to be sent are folds of it."""
    op.create_table(
        "alert_notices",
        sa.Column("sequence", SEQUENCE, primary_key=True),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.Column("notice", sa.String, nullable=False),
        sa.Column("channels", sa.JSON, nullable=False),
        sa.UniqueConstraint("notice", name="alert_notices_id"),
    )
    op.create_table(
        "alert_changes",
        sa.Column("sequence", SEQUENCE, primary_key=True),
        sa.Column("notice", sa.String, sa.ForeignKey("alert_notices.notice", name="alert_changes_notice"), nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("scope", sa.String, nullable=False),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("alert", sa.JSON, nullable=False),
    )
    op.create_index("alert_changes_by_key", "alert_changes", ["key", "sequence"])
    op.create_index("alert_changes_by_notice", "alert_changes", ["notice", "sequence"])
    op.create_table(
        "alert_deliveries",
        sa.Column("sequence", SEQUENCE, primary_key=True),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.Column("notice", sa.String, sa.ForeignKey("alert_notices.notice", name="alert_deliveries_notice"), nullable=False),
        sa.Column("channel", sa.String, nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("detail", sa.String, nullable=False),
    )
    op.create_index("alert_deliveries_by_channel", "alert_deliveries", ["channel", "notice"])
    op.create_table(
        "alert_runs",
        sa.Column("run", sa.String, primary_key=True),
        sa.Column("ended_at", INSTANT, nullable=False),
    )
    op.create_index("alert_runs_by_end", "alert_runs", ["ended_at"])
