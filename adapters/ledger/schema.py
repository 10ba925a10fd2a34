"""The ledger's tables, and those of the alerts beside them, as of the newest migration. Every one is append-only
(adapters.ledger.append_only).

A change here needs a new file in migrations/versions and its name in HEAD; tests hold the three together.
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Date, Float, ForeignKey, Index, Integer, MetaData, String, Table, UniqueConstraint

from adapters.ledger.types import ScaledDecimal, UtcInstant

HEAD = "0006"

CASH = ScaledDecimal(6)
EXACT = ScaledDecimal(9)
SEQUENCE = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only in a column typed INTEGER

metadata = MetaData()

# One row per booking; sequence is the order of booking over all books, without gaps.
entries = Table(
    "entries",
    metadata,
    Column("sequence", SEQUENCE, primary_key=True, autoincrement=False),
    Column("recorded_at", UtcInstant, nullable=False),
    Column("book", String, nullable=False),
    Column("session", Date, nullable=False),
    Column("key", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("symbol", String),
    Column("price", EXACT),
    Column("stale", Boolean, nullable=False),
    UniqueConstraint("book", "key", name="entries_key"),
    Index("entries_by_session", "book", "session", "sequence"),
)

# One row per leg of an entry, legs numbered from 0.
postings = Table(
    "postings",
    metadata,
    Column("entry", SEQUENCE, ForeignKey("entries.sequence", name="postings_entry"), primary_key=True, autoincrement=False),
    Column("leg", Integer, primary_key=True, autoincrement=False),
    Column("account", String, nullable=False),
    Column("amount", CASH, nullable=False),
    Column("quantity", EXACT, nullable=False),
    sqlite_with_rowid=False,
)

# One row per order as intended: nothing in it ever changes. denial_limit is set if and only if the order has a denial; a null
# denial_observed beside it means that the limit saw no number.
orders = Table(
    "orders",
    metadata,
    Column("client_order_id", String, primary_key=True),
    Column("recorded_at", UtcInstant, nullable=False),
    Column("book", String, nullable=False),
    Column("session", Date, nullable=False),
    Column("symbol", String, nullable=False),
    Column("leg", String, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("side", String, nullable=False),
    Column("quantity", EXACT, nullable=False),
    Column("reference_price", EXACT, nullable=False),
    Column("denial_limit", String),
    Column("denial_observed", Float),
    Column("denial_allowed", Float),
    Column("denial_unit", String),
    UniqueConstraint("book", "session", "symbol", "leg", "generation", name="orders_identity"),
)

# One row per thing that happened to an order. state is the fold of the order's events through this one, by quant.trading.orders,
# so that open orders are found without folding every order ever sent.
order_events = Table(
    "order_events",
    metadata,
    Column("sequence", SEQUENCE, primary_key=True),
    Column("recorded_at", UtcInstant, nullable=False),
    Column("client_order_id", String, ForeignKey("orders.client_order_id", name="order_events_order"), nullable=False),
    Column("event", String, nullable=False),
    Column("state", String, nullable=False),
    Index("order_events_by_order", "client_order_id", "sequence"),
)

# One row per book and session.
decisions = Table(
    "decisions",
    metadata,
    Column("book", String, primary_key=True),
    Column("session", Date, primary_key=True),
    Column("decision_at", UtcInstant, nullable=False),
    Column("model_version", String),
    Column("table_versions", JSON, nullable=False),
)

# One row per book and session, written before anything of the session is booked.
session_starts = Table(
    "session_starts",
    metadata,
    Column("book", String, primary_key=True),
    Column("session", Date, primary_key=True),
    Column("decision_at", UtcInstant, nullable=False),
    Column("rules", String, nullable=False),
)

# One row per change of a book's trading state; the newest one holds.
trading_states = Table(
    "trading_states",
    metadata,
    Column("sequence", SEQUENCE, primary_key=True),
    Column("recorded_at", UtcInstant, nullable=False),
    Column("book", String, nullable=False),
    Column("session", Date, nullable=False),
    Column("key", String, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("by", String, nullable=False),
    UniqueConstraint("book", "key", name="trading_states_key"),
)

# One row per coronation; of several with one effective_session the last holds.
champion_history = Table(
    "champion_history",
    metadata,
    Column("sequence", SEQUENCE, primary_key=True),
    Column("recorded_at", UtcInstant, nullable=False),
    Column("strategy", String, nullable=False),
    Column("effective_session", Date, nullable=False),
    Column("version", String, nullable=False),
    Index("champion_history_by_session", "strategy", "effective_session", "sequence"),
)

# One row per record() of the audit log.
audit = Table(
    "audit",
    metadata,
    Column("sequence", SEQUENCE, primary_key=True),
    Column("recorded_at", UtcInstant, nullable=False),
    Column("kind", String, nullable=False),
    Column("payload", JSON, nullable=False),
    Index("audit_by_kind", "kind", "sequence"),
)

# One row per notice: changes of alerts that are told together. channels are those in use when it was written.
alert_notices = Table(
    "alert_notices",
    metadata,
    Column("sequence", SEQUENCE, primary_key=True),
    Column("recorded_at", UtcInstant, nullable=False),
    Column("notice", String, nullable=False),
    Column("channels", JSON, nullable=False),
    UniqueConstraint("notice", name="alert_notices_id"),
)

# One row per alert that opened or cleared. An alert stands if the newest row of its key says opened.
alert_changes = Table(
    "alert_changes",
    metadata,
    Column("sequence", SEQUENCE, primary_key=True),
    Column("notice", String, ForeignKey("alert_notices.notice", name="alert_changes_notice"), nullable=False),
    Column("state", String, nullable=False),
    Column("scope", String, nullable=False),
    Column("key", String, nullable=False),
    Column("alert", JSON, nullable=False),
    Index("alert_changes_by_key", "key", "sequence"),
    Index("alert_changes_by_notice", "notice", "sequence"),
)

# One row per attempt to send a notice on a channel.
alert_deliveries = Table(
    "alert_deliveries",
    metadata,
    Column("sequence", SEQUENCE, primary_key=True),
    Column("recorded_at", UtcInstant, nullable=False),
    Column("notice", String, ForeignKey("alert_notices.notice", name="alert_deliveries_notice"), nullable=False),
    Column("channel", String, nullable=False),
    Column("outcome", String, nullable=False),
    Column("detail", String, nullable=False),
    Index("alert_deliveries_by_channel", "channel", "notice"),
)

# One row per run whose checks and end were observed.
alert_runs = Table(
    "alert_runs",
    metadata,
    Column("run", String, primary_key=True),
    Column("ended_at", UtcInstant, nullable=False),
    Index("alert_runs_by_end", "ended_at"),
)
