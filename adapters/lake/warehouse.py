"""The analysts' database: views over the exact Parquet files of one version of each table, built beside and renamed into place."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import polars as pl

from adapters.lake.delta import DeltaLake
from quant.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import duckdb

    from quant.ports import TableSnapshot


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
        beside.unlink(missing_ok=True)
        try:
            with duckdb.connect(str(beside)) as connection:
                snapshots = {table: self._lake.snapshot(table) for table in TABLES}
                for table, snapshot in snapshots.items():
                    self._view(connection, table, snapshot.files if snapshot else [])
                self._describe(connection, snapshots, facts)
                connection.execute("CHECKPOINT")
            beside.chmod(0o444)
            beside.replace(self._path)
        finally:
            beside.unlink(missing_ok=True)
        return {table: snapshot.rows if snapshot else 0 for table, snapshot in snapshots.items()}

    def _view(self, connection: duckdb.DuckDBPyConnection, table: str, files: Sequence[str]) -> None:
        columns, missing = self._lake.declared(table).columns, self._lake.missing(table)
        if files:
            listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
            sql_type = {name: "VARCHAR" if dtype == pl.String else "FLOAT" for name, dtype in missing.items()}
            names = ", ".join(f'CAST(NULL AS {sql_type[c]}) AS "{c}"' if c in missing else f'"{c}"' for c in columns)
            body = f"SELECT {names} FROM read_parquet([{listed}], hive_partitioning = false, union_by_name = true)"
        else:
            empty = ", ".join(f'CAST(NULL AS VARCHAR) AS "{column}"' for column in columns)
            body = f"SELECT {empty} WHERE false"
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
