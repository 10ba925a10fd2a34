"""Schema contracts made from quant.tables, held against collected frames at every boundary."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import polars as pl

from quant.errors import ContractError, expected

if TYPE_CHECKING:
    from pandera.api.polars.types import PolarsData
    from pandera.polars import DataFrameSchema

    from quant.tables import Table

_SHOWN = 3


def contract(table: Table) -> DataFrameSchema:
    """The table's contract: exactly its columns in any order, their dtypes, no nulls (nor NaN) unless nullable, its key unique."""
    return _schema(table.name, tuple((name, c.dtype, c.nullable) for name, c in table.columns.items()), table.key)


@cache
def _schema(name: str, columns: tuple[tuple[str, pl.DataType | type[pl.DataType], bool], ...], key: tuple[str, ...]) -> DataFrameSchema:
    import pandera.polars as pa  # a second of import, in processes that check something only

    def unique(data: PolarsData) -> bool:
        return is_unique(data.lazyframe.select(key).collect())

    fields = {column: pa.Column(dtype, nullable=nullable) for column, dtype, nullable in columns}
    return pa.DataFrameSchema(fields, checks=pa.Check(unique, name="unique_key") if key else None, strict=True, name=name)


def is_unique(keys: pl.DataFrame) -> bool:
    """Ten times faster than pandera's own unique=: rows whose hashes differ differ; only if two hashes agree are the rows compared."""
    return keys.hash_rows().n_unique() == keys.height or not keys.is_duplicated().any()


def checked(frame: pl.DataFrame | pl.LazyFrame, table: Table) -> pl.DataFrame:
    """``frame`` itself if it fulfils the contract of ``table``; else a ContractError that says which column or key, what was expected and
    found, in how many rows, and shows the first ones. A LazyFrame is refused: on it the checks would pass without looking at a row.
    """
    from pandera.errors import SchemaErrors

    if isinstance(frame, pl.LazyFrame):
        raise ContractError(expected("a collected frame", found="a LazyFrame", where=table.name, do="collect() it first"))
    try:
        contract(table).validate(frame, lazy=True)
    except SchemaErrors as broken:
        raise ContractError("\n".join(_breaches(frame, table) or [str(broken)])) from None
    return frame


def _breaches(frame: pl.DataFrame, table: Table) -> list[str]:
    """What is wrong, worst first: columns, else dtypes, else nulls and keys (pandera's own texts name neither the rows nor a remedy)."""
    has = ", ".join(frame.columns)
    columns = [
        *(
            expected(f"column {c}", found=f"columns {has}", where=table.name, do=f"add {c}")
            for c in table.columns
            if c not in frame.columns
        ),
        *(
            expected("no other column", found=f"column {c}", where=table.name, do="drop it")
            for c in frame.columns
            if c not in table.columns
        ),
    ]
    dtypes = [
        expected(f"{c} of type {column.dtype}", found=str(frame.schema[c]), where=table.name, do=f"cast {c} where the frame is made")
        for c, column in table.columns.items()
        if c in frame.columns and frame.schema[c] != column.dtype
    ]
    return columns or dtypes or _bad_rows(frame, table)


def _bad_rows(frame: pl.DataFrame, table: Table) -> list[str]:
    empty = {
        f"{c} without nulls or NaN": pl.col(c).is_null() | (pl.col(c).is_nan() if frame.schema[c].is_float() else False)
        for c, column in table.columns.items()
        if not column.nullable
    }
    faults = {what: frame.filter(bad) for what, bad in empty.items()}
    if table.key:
        faults[f"unique keys ({', '.join(table.key)})"] = frame.filter(frame.select(table.key).is_duplicated())
    return [
        expected(what, found=f"{rows.height} bad rows, first {first_rows(rows)}", where=table.name, do="fix the step that made the rows")
        for what, rows in faults.items()
        if rows.height
    ]


def first_rows(rows: pl.DataFrame) -> str:
    """The first rows as text for a message: name=value pairs, rows apart by semicolons."""
    return "; ".join(" ".join(f"{name}={value}" for name, value in row.items()) for row in rows.head(_SHOWN).to_dicts())
