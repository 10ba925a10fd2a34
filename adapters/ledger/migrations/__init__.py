"""Alembic's environment. A new revision is a file in versions/ (op.create_table, op.batch_alter_table) and its name in schema.HEAD.

There are no downgrades: the ledger only gains rows, and a downgrade would lose some.
"""
