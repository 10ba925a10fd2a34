"""The Lake port on Delta Lake: plain Parquet files, atomic versions, one range of sessions replaced by predicate."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import polars as pl
from deltalake import CommitProperties, DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError

from adapters.lake.digests import StoredFile, inspect, record, require_whole
from quant.audit.rows import frame_digest
from quant.errors import InputError, expected
from quant.factors.library.alpha158 import alpha158_table
from quant.factors.library.user_factors import user_factors_table
from quant.market.contracts import checked
from quant.ports import TableSnapshot
from quant.tables import TABLES, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

_COMMIT_TRIES = 5
_STRANGE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff*?\[\]\\^|]|%[0-9A-Fa-f]{2}")
_WRITER = WriterProperties(compression="ZSTD", compression_level=1)


def table_named(name: str, library: Mapping[str, str] | None = None) -> Table:
    """The declaration of a lake table, user_factors with the columns of ``library``; InputError for an unknown name."""
    if name == "alpha158":
        return alpha158_table()
    if name == "user_factors":
        return user_factors_table(library or {})
    if name not in TABLES:
        known = ", ".join(sorted(TABLES))
        raise InputError(expected(f"one of {known}", found=name, where="a table name", do="use one of them"))
    return TABLES[name]


def open_lake(
    root: Path,
    *,
    run_id: str = "",
    opened: dict[str, DeltaTable] | None = None,
    alone: bool = False,
    library: Mapping[str, str] | None = None,
) -> DeltaLake:
    """The lake under a data root; ``run_id`` is written into every commit. Lakes that share ``opened`` read a table's log once; one that is
    ``alone`` (nobody else writes while it is in use) looks for commits of others once a table. ``library`` are the profile's own factors.
    """
    return DeltaLake(Path(root) / "lake", run_id=run_id, opened=opened, alone=alone, library=library)


def _require_range(rows: pl.DataFrame, table: Table, first: date, last: date) -> None:
    outside = rows.filter(~pl.col(table.clock).is_between(first, last))
    if not outside.is_empty():
        found = f"{outside.height} outside it, e.g. {outside.get_column(table.clock)[0]}"
        raise InputError(
            expected(f"rows from {first} to {last}", found=found, where=f"table {table.name}", do="replace the range that the rows have")
        )


def _missing(table: Table, stored: DeltaTable) -> pl.Schema:
    """Columns that no stored row has: factors that came into a library, and what came into a table since its first rows. InputError for any
    other table without a declared column: it is of an earlier version.
    """
    names = {field.name for field in stored.schema().fields}
    missing = {name: column for name, column in table.columns.items() if name not in names}
    broken = [name for name, column in missing.items() if not column.added and not (_grows(table) and column.nullable)]
    if broken:
        do = "fill a new data root (AFTERCLOSE_DATA) with this version"
        where = f"table {table.name} of this data root"
        raise InputError(expected(f"a column {broken[0]}", found=f"columns {', '.join(sorted(names))}", where=where, do=do))
    return pl.Schema({name: column.dtype for name, column in missing.items()})


def _paths(delta: DeltaTable, partitions: Sequence[tuple[str, str, str]] = ()) -> list[Path]:
    """The data files of a version: Delta Lake gives their addresses with what is strange in a path written as %XX."""
    uris = delta.file_uris(file_pruning_predicate=list(partitions) or None)
    return [Path(unquote(uri.removeprefix("file://"))) for uri in uris]


def _scan(files: list[Path], table: Table) -> pl.LazyFrame:
    """Rows of ``files``; null what a file has no column of. Not scan_delta: it looks for the files under the addresses as they are."""
    return pl.scan_parquet(
        files, schema=table.schema, missing_columns="insert", extra_columns="ignore", hive_partitioning=False, glob=False
    )


def _grows(table: Table) -> bool:
    return table.append_only or table.name == "user_factors" or any(column.added for column in table.columns.values())


class DeltaLake:
    """Lake port. Rows are checked against their table's contract before a byte is written."""

    def __init__(
        self,
        folder: Path,
        *,
        run_id: str = "",
        opened: dict[str, DeltaTable] | None = None,
        alone: bool = False,
        library: Mapping[str, str] | None = None,
    ) -> None:
        strange = sorted(set(_STRANGE.findall(folder.as_posix())))
        if strange:  # Delta Lake cannot write such a folder or takes it for another, or DuckDB takes its name for a pattern
            do = "choose another data root: AFTERCLOSE_DATA"
            what = "a path of readable characters without *?[]\\^| and without % before two hexadecimal digits"
            raise InputError(expected(what, found=strange, where=ascii(str(folder)), do=do))
        self._folder = folder
        self._library = library
        self._run_id = run_id
        self._opened = {} if opened is None else opened
        self._alone = alone
        self._current: set[str] = set()  # tables that are at their newest version as long as this lake is alone

    def declared(self, table: str) -> Table:
        """The declaration of a table of this lake."""
        return table_named(table, self._library)

    def missing(self, table: str) -> pl.Schema:
        """Columns that the stored table does not have: they came since, and read as null, or as what they were before."""
        declared = self.declared(table)
        delta = self._open(declared, None)
        return pl.Schema() if delta is None else _missing(declared, delta)

    def read(
        self,
        table: str,
        *,
        first: date | None = None,
        last: date | None = None,
        where: Mapping[str, str] | None = None,
        columns: Sequence[str] | None = None,
        version: int | None = None,
    ) -> pl.DataFrame:
        """See quant.ports.Lake.read."""
        declared = self.declared(table)
        wanted = list(columns) if columns is not None else list(declared.columns)
        delta = self._open(declared, version)
        if delta is None:
            return declared.empty().select(wanted)
        _missing(declared, delta)
        files = self._files(declared, delta, first, last)
        require_whole(self._path(declared), files)
        clock = pl.col(declared.clock)
        keep = [pl.col(name) == value for name, value in (where or {}).items()]
        keep += [clock >= first] if first is not None else []
        keep += [clock <= last] if last is not None else []
        needed = list(dict.fromkeys([*wanted, *declared.key]))
        earlier = [pl.col(name).fill_null(column.earlier) for name, column in declared.columns.items() if column.earlier is not None]
        frame = _scan(files, declared).with_columns(earlier).filter(*keep).select(needed).sort(declared.key).select(wanted)
        return frame.collect()

    def replace(self, table: str, rows: pl.DataFrame, *, first: date, last: date, where: Mapping[str, str] | None = None) -> int:
        """See quant.ports.Lake.replace."""
        declared = self.declared(table)
        if declared.append_only:
            raise InputError(expected("a derived table", found=f"{table}, append-only", where="replace", do="use append_new"))
        clauses = [f"{declared.clock} >= '{first}'", f"{declared.clock} <= '{last}'"]
        clauses += [f"{name} = '{value}'" for name, value in (where or {}).items()]
        checked(rows, declared)
        _require_range(rows, declared, first, last)
        delta = self._open(declared, None)
        if rows.is_empty() and delta is None:
            return self._commit(declared, rows, mode="append", predicate=None)
        if delta is not None:  # the rows around the range are written again: a damaged file must not become a new one
            require_whole(self._path(declared), self._files(declared, delta, first, last))
        return self._commit(declared, rows, mode="overwrite", predicate=" AND ".join(clauses))

    def append_new(self, table: str, rows: pl.DataFrame) -> int:
        """See quant.ports.Lake.append_new."""
        declared = self.declared(table)
        if not declared.append_only:
            raise InputError(expected("an append-only table", found=table, where="append_new", do="use replace"))
        checked(rows, declared)
        clock = rows.get_column(declared.clock)
        known = declared.empty().select(declared.key)
        if not rows.is_empty():
            known = self.read(table, first=clock.min(), last=clock.max(), columns=declared.key)  # type: ignore[arg-type]
        # By key, which has known_at: a row that went back to what it was before is a version of its own.
        new = rows.join(known, on=declared.key, how="anti")
        if not new.is_empty() or self._open(declared, None) is None:
            self._commit(declared, new, mode="append", predicate=None)
        return new.height

    def version(self, table: str) -> int | None:
        """See quant.ports.Lake.version."""
        delta = self._open(self.declared(table), None)
        return None if delta is None else delta.version()

    def snapshot(self, table: str) -> TableSnapshot | None:
        """See quant.ports.Lake.snapshot."""
        delta = self._open(self.declared(table), None)
        return None if delta is None else TableSnapshot(version=delta.version(), rows=delta.count(), files=sorted(map(str, _paths(delta))))

    def digest(
        self,
        table: str,
        *,
        first: date | None = None,
        last: date | None = None,
        where: Mapping[str, str] | None = None,
        version: int | None = None,
    ) -> str:
        """See quant.ports.Lake.digest."""
        return frame_digest(self.read(table, first=first, last=last, where=where, version=version), self.declared(table))

    def inspected(self, table: str) -> Sequence[StoredFile]:
        """Every data file of the current version against what was written."""
        declared = self.declared(table)
        delta = self._open(declared, None)
        return [] if delta is None else inspect(self._path(declared), sorted(_paths(delta)))

    def _files(self, table: Table, delta: DeltaTable, first: date | None, last: date | None) -> list[Path]:
        """The files that may have rows with the clock in first..last."""
        written = "%Y" if table.partition == "year" else "%Y-%m"
        spans = [(table.partition, op, day.strftime(written)) for op, day in ((">=", first), ("<=", last)) if day is not None]
        return _paths(delta, spans)

    def _path(self, table: Table) -> Path:
        return self._folder / table.name

    def _open(self, table: Table, version: int | None) -> DeltaTable | None:
        """The table at a version, by default the newest one there is now, whoever wrote it; None while there is none."""
        path = str(self._path(table))
        if version is not None:
            held = self._opened.get(table.name)
            if held is not None and held.version() == version:
                return held
            return DeltaTable(path, version=version) if DeltaTable.is_deltatable(path) else None
        if table.name in self._opened:
            if table.name not in self._current:
                self._opened[table.name].update_incremental()  # reads the commits since, instead of the whole log again
        elif DeltaTable.is_deltatable(path):
            self._opened[table.name] = DeltaTable(path)
        if self._alone and table.name in self._opened:
            self._current.add(table.name)
        return self._opened.get(table.name)

    def _commit(self, table: Table, rows: pl.DataFrame, *, mode: str, predicate: str | None) -> int:
        """One atomic commit, retried whole when another writer was first."""
        path = self._path(table)
        path.parent.mkdir(parents=True, exist_ok=True)
        stamp = pl.col(table.clock).dt.strftime("%Y" if table.partition == "year" else "%Y-%m").alias(table.partition)
        ordered = rows.select(list(table.columns)).sort(table.key).with_columns(stamp)
        metadata = {"run_id": self._run_id, "rows": str(rows.height), "digest": frame_digest(rows, table)}
        for attempt in range(_COMMIT_TRIES):
            try:
                write_deltalake(
                    self._open(table, None) or str(path),
                    ordered,
                    mode=mode,  # type: ignore[arg-type]
                    predicate=predicate,
                    schema_mode="merge" if _grows(table) else None,
                    partition_by=[table.partition],
                    writer_properties=_WRITER,
                    commit_properties=CommitProperties(custom_metadata=metadata),
                )
                break
            except CommitFailedError:
                if attempt == _COMMIT_TRIES - 1:
                    raise
                self._current.discard(table.name)
        written = self._open(table, None)
        if written is None:
            return 0
        record(path, _paths(written))
        return written.version()
