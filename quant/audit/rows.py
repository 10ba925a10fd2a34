"""Digests of rows: equal content has equal digests, whatever wrote it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import polars as pl

from quant.tables import NOT_DIGESTED

if TYPE_CHECKING:
    from quant.tables import Table


def frame_digest(rows: pl.DataFrame, table: Table) -> str:
    """SHA-256 over the rows in key order and the columns in name order, without those of NOT_DIGESTED."""
    digest = hashlib.sha256()
    ordered = rows.sort(table.key)
    for name in sorted(set(table.columns) - set(NOT_DIGESTED)):
        column = ordered.get_column(name)
        digest.update(f"{name}:{column.dtype}:{column.len()}".encode())
        digest.update(column.is_null().to_numpy().tobytes())
        digest.update(_column_bytes(column))
    return digest.hexdigest()


def _column_bytes(column: pl.Series) -> bytes:
    if column.dtype == pl.String or column.dtype.is_decimal():
        return "\x1f".join(column.cast(pl.String).fill_null("").to_list()).encode()
    return column.to_physical().fill_null(0).to_numpy().tobytes()
