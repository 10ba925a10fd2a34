"""The ledger on SQLite through SQLAlchemy, its schema by Alembic."""

from adapters.ledger.store import SqlLedger, open_ledger

__all__ = ["SqlLedger", "open_ledger"]
