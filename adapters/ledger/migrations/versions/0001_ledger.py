"""Entries and postings, orders and their events, decisions, champions, audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# Spelt out, not imported from schema.py: a revision never changes once released.
SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")
SCALED = sa.BigInteger()
INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """An empty ledger."""
    _bookings()
    _trading()
    _records()


def _bookings() -> None:
    op.create_table(
        "entries",
        sa.Column("sequence", SEQUENCE, primary_key=True, autoincrement=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.Column("book", sa.String, nullable=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("symbol", sa.String),
        sa.Column("price", SCALED),
        sa.Column("stale", sa.Boolean, nullable=False),
        sa.UniqueConstraint("book", "key", name="entries_key"),
    )
    op.create_index("entries_by_session", "entries", ["book", "session", "sequence"])
    op.create_table(
        "postings",
        sa.Column("entry", SEQUENCE, sa.ForeignKey("entries.sequence", name="postings_entry"), primary_key=True, autoincrement=False),
        sa.Column("leg", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("account", sa.String, nullable=False),
        sa.Column("amount", SCALED, nullable=False),
        sa.Column("quantity", SCALED, nullable=False),
        sqlite_with_rowid=False,
    )


def _trading() -> None:
    op.create_table(
        "orders",
        sa.Column("client_order_id", sa.String, primary_key=True),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.Column("book", sa.String, nullable=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("symbol", sa.String, nullable=False),
        sa.Column("leg", sa.String, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("side", sa.String, nullable=False),
        sa.Column("quantity", SCALED, nullable=False),
        sa.Column("reference_price", SCALED, nullable=False),
        sa.Column("denial_limit", sa.String),
        sa.Column("denial_observed", sa.Float),
        sa.Column("denial_allowed", sa.Float),
        sa.Column("denial_unit", sa.String),
        sa.UniqueConstraint("book", "session", "symbol", "leg", "generation", name="orders_identity"),
    )
    op.create_table(
        "order_events",
        sa.Column("sequence", SEQUENCE, primary_key=True),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.Column("client_order_id", sa.String, sa.ForeignKey("orders.client_order_id", name="order_events_order"), nullable=False),
        sa.Column("event", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
    )
    op.create_index("order_events_by_order", "order_events", ["client_order_id", "sequence"])


def _records() -> None:
    op.create_table(
        "decisions",
        sa.Column("book", sa.String, primary_key=True),
        sa.Column("session", sa.Date, primary_key=True),
        sa.Column("decision_at", INSTANT, nullable=False),
        sa.Column("model_version", sa.String),
        sa.Column("table_versions", sa.JSON, nullable=False),
    )
    op.create_table(
        "champion_history",
        sa.Column("sequence", SEQUENCE, primary_key=True),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.Column("strategy", sa.String, nullable=False),
        sa.Column("effective_session", sa.Date, nullable=False),
        sa.Column("version", sa.String, nullable=False),
    )
    op.create_index("champion_history_by_session", "champion_history", ["strategy", "effective_session", "sequence"])
    op.create_table(
        "audit",
        sa.Column("sequence", SEQUENCE, primary_key=True),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("payload", sa.JSON, nullable=False),
    )
    op.create_index("audit_by_kind", "audit", ["kind", "sequence"])
