"""Runs the revisions on the connection, already in its transaction, that adapters.ledger.migrate hands over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic import context

from adapters.ledger.append_only import protect

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext


def _protect(ctx: MigrationContext, *_: object, **__: object) -> None:
    if ctx.connection is not None:
        protect(ctx.connection)


context.configure(connection=context.config.attributes["connection"], on_version_apply=_protect)
with context.begin_transaction():
    context.run_migrations()
