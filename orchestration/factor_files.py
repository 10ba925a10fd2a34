"""What `afterclose factors` reads and writes: libraries by name or file, bars as a panel, results as Parquet."""

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from polars.exceptions import PolarsError

from adapters.factor_library import load_library
from adapters.lake import open_lake
from adapters.sources.files import FilesSource
from orchestration.settings import FilesSourceSettings, load_settings
from quant.calendar import exchange_calendar
from quant.errors import AftercloseError, InputError, expected
from quant.factors.library.frozen import LIBRARIES, frozen_library
from quant.factors.panel import panel_of
from quant.ports import AdjustmentConvention


def library_of(name: str) -> Mapping[str, str]:
    """The library of that name, or of that file."""
    if name in LIBRARIES:
        return frozen_library(name)
    if not name.lower().endswith((".toml", ".py")):
        what = f"{', '.join(LIBRARIES)} or a file ending in .toml or .py"
        raise InputError(expected(what, found=name, where="--library", do="choose one"))
    return load_library(Path(name))


def panel_from_file(path: Path, groups: Collection[str]) -> pl.DataFrame:
    """The panel of bars as they are in a file or folder that source `files` reads; ``groups`` are columns to group by, read as text.

    The profile's [source.files] columns hold here, too; without them, a column date is the session. A vwap that is all null counts as
    absent.
    """
    source = load_settings().source
    files = source.files if isinstance(source, FilesSourceSettings) else None
    lazy = _scanned(path)
    has = lazy.collect_schema().names() if lazy is not None else []
    mapping = dict(files.columns) if files else {"date": "session"} if "date" in has and "session" not in has else {}
    empty = lazy is not None and "vwap" in has and _is_empty(lazy, "vwap")
    bars = FilesSource(
        bars=path,
        actions=None,
        calendar=exchange_calendar(),
        convention=AdjustmentConvention.PREVIOUS_CLOSE,
        publish_delay_minutes=0,
        columns=mapping,
        absent=["vwap"] if empty else files.absent if files else (),
    )
    days = exchange_calendar().days
    rows = bars.bars(days[0], days[-1]).with_columns(pl.lit(1.0).alias("split_index"), pl.lit(1.0).alias("total_index"))
    panel = panel_of(rows, exchange_calendar())
    if not groups:
        return panel
    if lazy is None:
        raise InputError(expected(f"one file with {', '.join(groups)}", found="a folder", where=str(path), do="put the bars into one file"))
    if missing := sorted(set(groups) - set(has)):
        found = f"columns {', '.join(has)}"
        raise InputError(expected(f"column {missing[0]} to group by", found=found, where=str(path), do="add it"))
    kinds = lazy.collect_schema()
    for group in groups:
        if kinds[group].is_nested():
            what, found = "a column of text or numbers to group by", f"{group} of {kinds[group]}"
            raise InputError(expected(what, found=found, where=str(path), do="name another column"))
    return panel.join(_labels(lazy, mapping, groups), on=["session", "symbol"], how="left", maintain_order="left")


def _scanned(path: Path) -> pl.LazyFrame | None:
    """The file, if it is one that can be read: what is wrong with it is said by source `files`."""
    if path.is_dir():
        return None
    try:
        lazy = pl.scan_csv(path, infer_schema=False, glob=False) if path.suffix == ".csv" else pl.scan_parquet(path, glob=False)
        lazy.collect_schema()
    except (PolarsError, OSError):
        return None
    return lazy


def _is_empty(lazy: pl.LazyFrame, column: str) -> bool:
    try:
        return lazy.select(pl.col(column).count()).collect().item() == 0
    except (PolarsError, OSError):
        return False


def _labels(lazy: pl.LazyFrame, mapping: Mapping[str, str], groups: Collection[str]) -> pl.DataFrame:
    theirs, kinds = {ours: name for name, ours in mapping.items()}, lazy.collect_schema()
    session = pl.col(theirs.get("session", "session"))
    rows = lazy.select(
        session.cast(pl.String).str.to_date("%Y-%m-%d").alias("session"),
        pl.col(theirs.get("symbol", "symbol")).cast(pl.String).alias("symbol"),
        *((pl.col(group).fill_nan(None) if kinds[group].is_float() else pl.col(group)).cast(pl.String) for group in groups),
    )
    return rows.collect()


def panel_from_lake(root: Path, groups: Collection[str]) -> pl.DataFrame:
    """The panel of all adjusted bars of a data root."""
    if not (root / "lake").exists():
        raise InputError(expected("adjusted bars", found="no data", where=str(root), do="run `afterclose demo`, or use --bars"))
    if groups:
        do = "name a file with it: --bars FILE"
        raise InputError(expected(f"column {', '.join(sorted(groups))}", found="no such column", where="adjusted bars", do=do))
    bars = open_lake(root).read("adjusted_bars")
    if bars.is_empty():
        raise InputError(expected("adjusted bars", found="none", where=str(root), do="run `afterclose history`, or use --bars"))
    return panel_of(bars, exchange_calendar())


def write_parquet(frames: Iterable[pl.DataFrame], path: Path, told: Callable[[int], None]) -> int:
    """Rows of the Parquet file made of ``frames``, a row group each; ``told`` hears how many rows are there.

    The file is there whole or not at all: it is written under another name beside ``path`` and takes the place of what was there.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    rows = 0
    try:
        writer: pq.ParquetWriter | None = None
        for frame in frames:
            table = _plain(frame)
            if writer is None:
                keys = ["session", "symbol"]  # a dictionary of floats that are all different takes five times as long and more room
                writer = pq.ParquetWriter(partial, table.schema, compression="zstd", use_dictionary=keys)  # pyright: ignore[reportArgumentType]
            if table.num_rows:
                writer.write_table(table)
                rows += table.num_rows
                told(rows)
        if writer is not None:
            writer.close()
            partial.replace(path)
    except OSError as error:
        found = error.strerror or str(error)
        raise AftercloseError(expected("a place to write", found=found, where=str(path), do="make room, or choose another file")) from error
    finally:
        partial.unlink(missing_ok=True)
    return rows


def _plain(frame: pl.DataFrame) -> pa.Table:
    """``frame`` with text as Parquet readers of any age know it."""
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    wide = (pa.large_string(), pa.large_binary())
    return table.cast(pa.schema([pa.field(field.name, pa.string() if field.type in wide else field.type) for field in table.schema]))
