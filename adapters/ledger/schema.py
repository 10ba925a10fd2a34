"""The ledger's tables, and those of the alerts beside them, as of the newest migration. Every one is append-only
(adapters.ledger.append_only).

A change here needs a new file in migrations/versions and its name in HEAD; tests hold the three together.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    false,
)

from adapters.ledger.types import CanonicalDocument, ScaledDecimal, UtcInstant

HEAD = "0009"

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
    Column("due", Date),
    Column("assumed", Boolean, nullable=False, server_default=false()),
    Column("new_symbol", String),
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

# A cache: one row per state of a book that was folded and kept, so that a fold can go on from it (adapters.ledger.states).
book_states = Table(
    "book_states",
    metadata,
    Column("book", String, primary_key=True),
    Column("session", Date, primary_key=True),
    Column("sequence", SEQUENCE, primary_key=True, autoincrement=False),
    Column("fold", Integer, primary_key=True, autoincrement=False),
    Column("recorded_at", UtcInstant, nullable=False),
    Column("state", JSON, nullable=False),
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
    Column("order_type", String, nullable=False, server_default="market_on_open"),
    Column("limit_price", EXACT),
    UniqueConstraint("book", "session", "symbol", "leg", "generation", name="orders_identity"),
)

# One row per thing that happened to an order. state is the fold of the order's events through this one, by quant.trading.orders,
# so that open orders are found without folding every order ever sent. note is what the broker said.
order_events = Table(
    "order_events",
    metadata,
    Column("sequence", SEQUENCE, primary_key=True),
    Column("recorded_at", UtcInstant, nullable=False),
    Column("client_order_id", String, ForeignKey("orders.client_order_id", name="order_events_order"), nullable=False),
    Column("event", String, nullable=False),
    Column("state", String, nullable=False),
    Column("note", String),
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

# One row per book that trades at a broker apart from us: one account a book, one book an account.
book_accounts = Table(
    "book_accounts",
    metadata,
    Column("book", String, primary_key=True),
    Column("account_id", String, nullable=False),
    Column("recorded_at", UtcInstant, nullable=False),
    UniqueConstraint("account_id", name="book_accounts_account"),
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

# One row per entry of the audit log, numbered without gaps; hash covers the row and the hash before it (quant.audit.chain). No two rows
# have the same key, where there is one.
audit = Table(
    "audit",
    metadata,
    Column("sequence", SEQUENCE, primary_key=True, autoincrement=False),
    Column("recorded_at", UtcInstant, nullable=False),
    Column("kind", String, nullable=False),
    Column("key", String),
    Column("payload", CanonicalDocument, nullable=False),
    Column("hash", String, nullable=False),
    UniqueConstraint("key", name="audit_key"),
    Index("audit_by_kind", "kind", "sequence"),
)

# One row per thing that a broker reported, in the order of arrival. quantity and price are set on executions, status on reports of a state.
broker_events = Table(
    "broker_events",
    metadata,
    Column("sequence", SEQUENCE, primary_key=True),
    Column("recorded_at", UtcInstant, nullable=False),
    Column("account", String, nullable=False),
    Column("event_id", String, nullable=False),
    Column("broker_order_id", String, nullable=False),
    Column("client_order_id", String),
    Column("symbol", String, nullable=False),
    Column("at", UtcInstant, nullable=False),
    Column("channel", String, nullable=False),
    Column("cumulative", EXACT, nullable=False),
    Column("quantity", EXACT),
    Column("price", EXACT),
    Column("status", String),
    UniqueConstraint("account", "event_id", name="broker_events_id"),
    Index("broker_events_by_order", "account", "broker_order_id"),
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
