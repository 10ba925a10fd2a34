"""The ledger and the outbox of the alerts on SQLite through SQLAlchemy, their schema by Alembic."""

from adapters.ledger.outbox import open_outbox
from adapters.ledger.store import SqlLedger, open_ledger

__all__ = ["SqlLedger", "open_ledger", "open_outbox"]
