"""Every table is held to its contract where it is written, whatever wrote it: a walk over all of them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from adapters.lake import DeltaLake, open_lake
from quant.errors import ContractError
from quant.tables import TABLES, Table

DAY = date(2013, 1, 2)
LIBRARY = {"mine": "$close / $open"}


def value(dtype: pl.DataType) -> object:
    values = {pl.Date: DAY, pl.String: "x", pl.Int64: 1, pl.Float64: 1.0, pl.Float32: 1.0, pl.Boolean: True, pl.Decimal: Decimal(1)}
    return datetime(2013, 1, 2, 22, tzinfo=UTC) if isinstance(dtype, pl.Datetime) else values[dtype.base_type()]


def sound(table: Table) -> pl.DataFrame:
    """One row that fulfils the contract."""
    return pl.DataFrame([{name: value(dtype) for name, dtype in table.schema.items()}], schema=table.schema)


def write(lake: DeltaLake, table: Table, rows: pl.DataFrame) -> None:
    if table.append_only:
        lake.append_new(table.name, rows)
    else:
        lake.replace(table.name, rows, first=DAY, last=DAY)


def faults(table: Table) -> dict[str, pl.DataFrame | pl.LazyFrame]:
    row, names = sound(table), list(table.columns)
    walked = names if len(names) < 40 else [*names[:4], names[-1]]  # factors are all alike
    required = [name for name in walked if not table.columns[name].nullable]
    floats = [name for name in required if table.schema[name].is_float()]
    return {
        **{f"without {name}": row.drop(name) for name in walked},
        **{f"null {name}": row.with_columns(pl.lit(None, table.schema[name]).alias(name)) for name in required},
        **{f"NaN {name}": row.with_columns(pl.lit(float("nan"), table.schema[name]).alias(name)) for name in floats},
        **{f"{name} of another type": row.with_columns(pl.lit(b"x").alias(name)) for name in walked},
        "another column": row.with_columns(note=1),
        "key twice": pl.concat([row, row]),
        "not collected": row.lazy(),
    }


@pytest.mark.parametrize("name", TABLES)
def test_a_table_takes_a_sound_row_and_nothing_that_breaks_its_contract(tmp_path: Path, name: str):
    lake = open_lake(tmp_path, library=LIBRARY)
    table = lake.declared(name)
    for fault, rows in faults(table).items():
        with pytest.raises(ContractError, match=name):
            write(lake, table, rows)  # type: ignore[arg-type]
        assert lake.version(name) is None, fault
    write(lake, table, sound(table))
    assert lake.read(name).equals(sound(table))
