"""Types and limit prices of orders, and what the broker said of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Every order so far was for the opening auction. Before this, an intent went straight to accepted: these orders keep their steps."""
    op.add_column("orders", sa.Column("order_type", sa.String, nullable=False, server_default="market_on_open"))
    op.add_column("orders", sa.Column("limit_price", sa.BigInteger))
    op.add_column("order_events", sa.Column("note", sa.String))
