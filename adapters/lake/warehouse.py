"""The analysts' database: views over the exact Parquet files of one version of each table, built beside and renamed into place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import polars as pl

from adapters.lake.delta import DeltaLake
from quant.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import duckdb

    from quant.ports import TableSnapshot


_SQL_TYPES: Mapping[object, str] = {
    pl.Date: "DATE", pl.String: "VARCHAR", pl.Boolean: "BOOLEAN", pl.Int64: "BIGINT", pl.Float64: "DOUBLE", pl.Float32: "FLOAT",
}  # fmt: skip
MACROS = {
    "bars_as_of": """
        CREATE MACRO bars_as_of(ts) AS TABLE
        SELECT * FROM raw_bars WHERE known_at <= CAST(ts AS TIMESTAMPTZ)
        QUALIFY known_at = max(known_at) OVER (PARTITION BY session, symbol, source)""",
    "actions_as_of": """
        CREATE MACRO actions_as_of(ts) AS TABLE
        SELECT * FROM corporate_actions WHERE known_at <= CAST(ts AS TIMESTAMPTZ)
        QUALIFY known_at = max(known_at) OVER (PARTITION BY ex_date, symbol, kind, source)""",
    "adjusted_as_of": """
        CREATE MACRO adjusted_as_of(seen_from) AS TABLE
        SELECT session, symbol, open * total AS open, high * total AS high, low * total AS low, close * total AS close,
            volume / split AS volume, vwap * total AS vwap
        FROM (
            SELECT *, split_index / last_value(split_index) OVER whole AS split, total_index / last_value(total_index) OVER whole AS total
            FROM adjusted_bars WHERE session <= CAST(seen_from AS DATE)
            WINDOW whole AS (PARTITION BY symbol ORDER BY session ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
        )""",
}
"""Table macros by name: as quant.market.as_of and quant.market.adjustment.seen_from have them."""


def _sql_type(dtype: pl.DataType | type[pl.DataType]) -> str:
    if isinstance(dtype, pl.Decimal):
        return f"DECIMAL({dtype.precision}, {dtype.scale})"
    return "TIMESTAMPTZ" if isinstance(dtype, pl.Datetime) else _SQL_TYPES[dtype]


class DuckDBWarehouse:
    """Warehouse port. Readers open the file read-only; a new one takes its place without a lock."""

    def __init__(self, lake: DeltaLake, path: Path) -> None:
        self._lake = lake
        self._path = path

    def publish(self, facts: Mapping[str, str]) -> Mapping[str, int]:
        """See quant.ports.Warehouse.publish."""
        import duckdb

        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_suffix(f".{os.getpid()}.new")
        self._sweep()
        try:
            with duckdb.connect(str(beside)) as connection:
                snapshots = {table: self._lake.snapshot(table) for table in TABLES}
                for table, snapshot in snapshots.items():
                    self._view(connection, table, snapshot.files if snapshot else [])
                for macro in MACROS.values():
                    connection.execute(macro)
                self._describe(connection, snapshots, facts)
                connection.execute("CHECKPOINT")
            beside.chmod(0o444)
            beside.replace(self._path)
        finally:
            self._sweep()
        return {table: snapshot.rows if snapshot else 0 for table, snapshot in snapshots.items()}

    def _sweep(self) -> None:
        """Remove what a build left that was killed or found no room: one run at a time holds a data root."""
        for left in self._path.parent.glob(f"{self._path.stem}.*.new*"):  # DuckDB keeps a .wal beside
            left.unlink(missing_ok=True)

    def _view(self, connection: duckdb.DuckDBPyConnection, table: str, files: Sequence[str]) -> None:
        columns, missing = self._lake.declared(table).columns, self._lake.missing(table)

        def null(name: str) -> str:
            return f'CAST(NULL AS {_sql_type(columns[name].dtype)}) AS "{name}"'

        def stored(name: str) -> str:
            if (earlier := columns[name].earlier) is not None:
                known = "NULL" if name in missing else f'"{name}"'
                return f'CAST(COALESCE({known}, {earlier}) AS {_sql_type(columns[name].dtype)}) AS "{name}"'
            return null(name) if name in missing else f'"{name}"'

        if files:
            listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
            names = ", ".join(stored(name) for name in columns)
            body = f"SELECT {names} FROM read_parquet([{listed}], hive_partitioning = false, union_by_name = true)"
        else:
            body = f"SELECT {', '.join(map(null, columns))} WHERE false"
        connection.execute(f'CREATE VIEW "{table}" AS {body}')

    def _describe(
        self, connection: duckdb.DuckDBPyConnection, snapshots: Mapping[str, TableSnapshot | None], facts: Mapping[str, str]
    ) -> None:
        connection.execute('CREATE TABLE snapshot ("table" VARCHAR, "version" BIGINT, "rows" BIGINT)')
        connection.executemany(
            "INSERT INTO snapshot VALUES (?, ?, ?)", [[table, at and at.version, at.rows if at else 0] for table, at in snapshots.items()]
        )
        connection.execute("CREATE TABLE facts (fact VARCHAR, value VARCHAR)")
        connection.executemany("INSERT INTO facts VALUES (?, ?)", [[fact, value] for fact, value in facts.items()])
