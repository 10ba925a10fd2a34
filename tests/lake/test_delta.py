"""The lake replaces ranges atomically, keeps versions, and tells equal content by its digest."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given
from hypothesis import strategies as st

from adapters.lake import open_lake
from adapters.lake.delta import frame_digest
from adapters.lake.warehouse import DuckDBWarehouse
from quant.errors import ContractError, InputError
from quant.market.adjustment import seen_from
from quant.market.as_of import bars_as_of
from quant.ports import Lake, Warehouse
from quant.tables import TABLES

D1, D2, D3 = date(2012, 12, 31), date(2013, 1, 2), date(2013, 1, 3)
AT = datetime(2013, 1, 3, 22, tzinfo=UTC)


def scores(*rows: tuple[date, str, float]) -> pl.DataFrame:
    full = [(day, symbol, "m", score, "d") for day, symbol, score in rows]
    return pl.DataFrame(full, schema=TABLES["scores"].schema, orient="row")


def fills(book: str, day: date) -> pl.DataFrame:
    row = {
        "book": book,
        "session": day,
        "symbol": "A",
        "leg": "open",
        "generation": 1,
        "execution_id": "x",
        "client_order_id": "c",
        "side": "buy",
        "quantity": Decimal(1),
        "unfilled": Decimal(0),
        "price": Decimal("1.123456789"),
        "reference_price": Decimal(1),
        "slippage": Decimal("0.000001"),
        "commission": Decimal("0.01"),
    }
    return pl.DataFrame([row], schema=TABLES["fills"].schema)


def test_it_is_a_lake(tmp_path: Path):
    lake = open_lake(tmp_path)
    assert isinstance(lake, Lake)
    assert isinstance(DuckDBWarehouse(lake, tmp_path / "w.duckdb"), Warehouse)


def test_a_table_that_does_not_exist_reads_as_no_rows(tmp_path: Path):
    lake = open_lake(tmp_path)
    assert lake.read("scores").schema == TABLES["scores"].schema
    assert lake.version("scores") is None
    assert lake.snapshot("scores") is None


def test_replacing_a_range_touches_nothing_outside_it(tmp_path: Path):
    lake = open_lake(tmp_path)
    lake.replace("scores", scores((D1, "A", 1), (D2, "A", 2), (D3, "A", 3)), first=D1, last=D3)
    lake.replace("scores", scores((D2, "B", 20)), first=D2, last=D2)
    assert lake.read("scores").select("session", "symbol", "score").rows() == [(D1, "A", 1), (D2, "B", 20), (D3, "A", 3)]
    lake.replace("scores", scores(), first=D1, last=D2)
    assert lake.read("scores")["session"].to_list() == [D3]


def test_a_book_is_replaced_without_touching_another(tmp_path: Path):
    lake = open_lake(tmp_path)
    for book in ("paper", "backtest", "paper"):
        lake.replace("fills", fills(book, D2), first=D2, last=D2, where={"book": book})
    assert lake.read("fills")["book"].to_list() == ["backtest", "paper"]
    assert lake.read("fills", where={"book": "paper"})["price"].to_list() == [Decimal("1.123456789")]


def test_an_older_version_stays_readable(tmp_path: Path):
    lake = open_lake(tmp_path)
    old = lake.replace("scores", scores((D1, "A", 1)), first=D1, last=D1)
    lake.replace("scores", scores((D1, "A", 2)), first=D1, last=D1)
    assert lake.read("scores", version=old)["score"].to_list() == [1]


def test_rows_that_break_the_contract_or_the_range_are_refused_and_nothing_is_written(tmp_path: Path):
    lake = open_lake(tmp_path)
    with pytest.raises(ContractError, match="scores"):
        lake.replace("scores", scores((D1, "A", 1), (D1, "A", 2)), first=D1, last=D1)
    with pytest.raises(InputError, match="2013-01-03"):
        lake.replace("scores", scores((D3, "A", 1)), first=D1, last=D2)
    assert lake.version("scores") is None


def test_appending_the_same_delivery_twice_is_appending_it_once(tmp_path: Path):
    lake = open_lake(tmp_path)
    row = {"ex_date": D2, "symbol": "A", "kind": "split", "value": 2.0, "pay_date": None, "source": "s", "known_at": AT}
    rows = pl.DataFrame([row | {"received_at": AT, "known_at_assumed": True, "digest": "1"}], schema=TABLES["corporate_actions"].schema)
    assert lake.append_new("corporate_actions", rows) == 1
    assert lake.append_new("corporate_actions", rows.with_columns(received_at=pl.lit(AT.replace(hour=23)))) == 0
    changed = rows.with_columns(value=pl.lit(3.0), digest=pl.lit("2"), known_at=pl.lit(AT + timedelta(hours=1)))
    assert lake.append_new("corporate_actions", changed) == 1
    back = rows.with_columns(known_at=pl.lit(AT + timedelta(hours=2)))
    assert lake.append_new("corporate_actions", back) == 1  # back to what it was: a third version
    assert lake.read("corporate_actions")["value"].to_list() == [2.0, 3.0, 2.0]
    with pytest.raises(InputError, match="append_new"):
        lake.replace("corporate_actions", rows, first=D2, last=D2)


def test_a_table_of_rows_as_received_that_is_older_than_a_column_reads_and_grows_with_it(tmp_path: Path):
    table = TABLES["corporate_actions"]
    row = {"ex_date": D2, "symbol": "A", "kind": "split", "value": 2.0, "pay_date": None, "source": "s", "known_at": AT}
    rows = pl.DataFrame([row | {"received_at": AT, "known_at_assumed": True, "digest": "1"}], schema=table.schema)
    older = rows.drop("origin_digest").with_columns(year=pl.lit("2013"))
    write_deltalake(str(tmp_path / "lake" / "corporate_actions"), older, partition_by=["year"])
    lake = open_lake(tmp_path)
    assert lake.read("corporate_actions").equals(rows)
    DuckDBWarehouse(lake, tmp_path / "w.duckdb").publish({"profile": "test"})
    lake.append_new("corporate_actions", rows.with_columns(known_at=pl.lit(AT + timedelta(hours=1)), origin_digest=pl.lit("f")))
    assert lake.read("corporate_actions")["origin_digest"].to_list() == [None, "f"]
    DuckDBWarehouse(lake, tmp_path / "w.duckdb").publish({"profile": "test"})
    with duckdb.connect(str(tmp_path / "w.duckdb"), read_only=True) as reader:
        assert reader.execute("SELECT origin_digest FROM corporate_actions ORDER BY known_at").fetchall() == [(None,), ("f",)]


def test_a_term_of_the_result_that_came_later_is_zero_in_older_rows_and_the_sides_are_unknown(tmp_path: Path):
    table = TABLES["daily_pnl"]
    row = {"book": "paper", "symbol": "A", **{name: Decimal(7) for name, column in table.columns.items() if column.unit == "USD"}}
    first, second = (pl.DataFrame([row | {"session": day}], schema=table.schema) for day in (D1, D2))
    older = first.drop(name for name, column in table.columns.items() if column.added).with_columns(year=pl.lit("2013"))
    write_deltalake(str(tmp_path / "lake" / "daily_pnl"), older, partition_by=["year"])
    wanted = first.with_columns(write_offs=pl.lit(0), regulatory_fees=pl.lit(0), long_pnl=None, short_pnl=None).cast(dict(table.schema))
    lake = open_lake(tmp_path)
    for stored in (wanted, pl.concat([wanted, second])):
        assert lake.read("daily_pnl").equals(stored)
        DuckDBWarehouse(lake, tmp_path / "w.duckdb").publish({"profile": "test"})
        with duckdb.connect(str(tmp_path / "w.duckdb"), read_only=True) as reader:
            rows = reader.execute("SELECT regulatory_fees, long_pnl FROM daily_pnl ORDER BY session").fetchall()
        assert rows == stored.select("regulatory_fees", "long_pnl").rows()
        if stored is wanted:
            lake.replace("daily_pnl", second, first=D2, last=D2)


def known_bars(*versions: tuple[date, float, datetime]) -> pl.DataFrame:
    """raw_bars of one symbol: session, price, known_at."""
    rows = [
        {
            "session": day,
            "symbol": "A",
            "source": "s",
            **dict.fromkeys(("open", "high", "low", "close"), price),
            "volume": 100.0,
            "vwap": None,
        }
        | {"known_at": at, "received_at": at, "known_at_assumed": False, "digest": str(price), "origin_digest": None}
        for day, price, at in versions
    ]
    return pl.DataFrame(rows, schema=TABLES["raw_bars"].schema)


@pytest.mark.scenario(21)
def test_the_warehouse_answers_what_was_known_at_an_instant_and_a_later_revision_changes_no_byte_of_it(tmp_path: Path):
    lake, path = open_lake(tmp_path), tmp_path / "w.duckdb"

    def as_of(instant: str) -> str:
        DuckDBWarehouse(lake, path).publish({"profile": "test"})
        with duckdb.connect(str(path), read_only=True) as reader:
            reader.execute("SET TimeZone = 'UTC'")
            rows = reader.sql(f"FROM bars_as_of('{instant}')").to_arrow_table()
        table = TABLES["raw_bars"]
        return frame_digest(pl.DataFrame(rows).cast(dict(table.schema)), table)  # type: ignore[arg-type]

    later = AT + timedelta(hours=1)
    first = known_bars((D2, 10.0, AT), (D3, 11.0, AT))
    lake.append_new("raw_bars", first)
    then = as_of("2013-01-03 22:00")
    assert then == frame_digest(first, TABLES["raw_bars"])
    lake.append_new("raw_bars", known_bars((D2, 10.5, later)))
    lake.append_new("raw_bars", known_bars((D2, 10.0, later + timedelta(hours=1))))
    assert as_of("2013-01-03 22:00") == then
    assert as_of("2013-01-03 17:00-05:00") == then
    for instant in (later, later + timedelta(hours=1)):
        assert as_of(str(instant)) == frame_digest(bars_as_of(lake.read("raw_bars"), instant), TABLES["raw_bars"]) != then


def test_the_warehouse_adjusts_as_seen_from_a_session(tmp_path: Path):
    lake, path = open_lake(tmp_path), tmp_path / "w.duckdb"
    indices = pl.DataFrame({"session": [D1, D2, D3], "split_index": [1.0, 2.0, 2.0], "total_index": [1.0, 2.0, 2.5]})
    bars = known_bars(*((day, price, AT) for day, price in ((D1, 10.0), (D2, 5.0), (D3, 4.0)))).join(indices, on="session")
    rows = bars.select(TABLES["adjusted_bars"].schema.names())
    lake.replace("adjusted_bars", rows, first=D1, last=D3)
    DuckDBWarehouse(lake, path).publish({"profile": "test"})
    with duckdb.connect(str(path), read_only=True) as reader:
        for session in (D1, D2, D3):
            seen = reader.execute(f"FROM adjusted_as_of('{session}') ORDER BY session").fetchall()
            assert seen == seen_from(rows, session).rows()


@given(st.permutations([(D1, "A", 1.0), (D1, "B", 2.0), (D2, "A", -0.5), (D3, "A", 0.0)]))
def test_the_digest_knows_content_and_not_row_order(rows: list[tuple[date, str, float]]):
    table = TABLES["scores"]
    reference = frame_digest(scores((D1, "A", 1.0), (D1, "B", 2.0), (D2, "A", -0.5), (D3, "A", 0.0)), table)
    assert frame_digest(scores(*rows), table) == reference
    changed = [(d, s, v + 1e-15 if (d, s) == (D1, "A") else v) for d, s, v in rows]
    assert frame_digest(scores(*changed), table) != reference


def test_a_run_sees_what_others_committed_before_it_and_what_it_commits_itself(tmp_path: Path):
    opened: dict[str, DeltaTable] = {}
    open_lake(tmp_path, opened=opened, alone=True).replace("scores", scores((D1, "A", 1)), first=D1, last=D1)
    open_lake(tmp_path).replace("scores", scores((D2, "A", 2)), first=D2, last=D2)
    run = open_lake(tmp_path, opened=opened, alone=True)
    assert run.read("scores")["session"].to_list() == [D1, D2]
    run.replace("scores", scores((D3, "A", 3)), first=D3, last=D3)
    assert run.read("scores")["session"].to_list() == [D1, D2, D3]
    assert run.version("scores") == 2


def factors(day: date, **values: float) -> pl.DataFrame:
    row = {"session": [day], "symbol": ["A"], "library": ["l"], **{name: [value] for name, value in values.items()}}
    return pl.DataFrame(row).with_columns(pl.col(list(values)).cast(pl.Float32))


def test_a_factor_that_comes_into_the_library_later_is_null_in_older_rows_and_one_that_left_is_not_shown(tmp_path: Path):
    open_lake(tmp_path, library={"one": "$close", "two": "$open"}).replace("user_factors", factors(D1, one=1, two=2), first=D1, last=D1)
    changed, path = open_lake(tmp_path, library={"three": "$high", "two": "$open"}), tmp_path / "afterclose.duckdb"
    assert changed.read("user_factors").row(0) == (D1, "A", "l", None, 2.0)
    DuckDBWarehouse(changed, path).publish({"profile": "test"})
    with duckdb.connect(str(path), read_only=True) as reader:
        assert reader.execute("SELECT * FROM user_factors").fetchall() == [(D1, "A", "l", None, 2.0)]
    changed.replace("user_factors", factors(D2, three=3, two=4), first=D2, last=D2)
    assert changed.read("user_factors")["three"].to_list() == [None, 3.0]
    DuckDBWarehouse(changed, path).publish({"profile": "test"})
    with duckdb.connect(str(path), read_only=True) as reader:
        assert reader.execute("SELECT three, two FROM user_factors ORDER BY session").fetchall() == [(None, 2.0), (3.0, 4.0)]


@pytest.mark.parametrize("name", ["KMID", "kmid", "library", "Session"])
def test_a_factor_cannot_take_the_name_of_another_column(tmp_path: Path, name: str):
    with pytest.raises(InputError, match=f"found {name}, which is taken by"):
        open_lake(tmp_path, library={name: "$close"}).read("user_factors")


def test_the_warehouse_has_a_view_a_table_and_is_swapped_under_open_readers(tmp_path: Path):
    lake, path = open_lake(tmp_path), tmp_path / "afterclose.duckdb"
    lake.replace("scores", scores((D1, "A", 1)), first=D1, last=D1)
    assert DuckDBWarehouse(lake, path).publish({"profile": "test"})["scores"] == 1
    reader = duckdb.connect(str(path), read_only=True)
    lake.replace("scores", scores((D2, "A", 2)), first=D2, last=D2)
    assert DuckDBWarehouse(lake, path).publish({"profile": "test"})["scores"] == 2
    assert reader.execute("SELECT count(*) FROM scores").fetchall() == [(1,)]
    reader.close()
    with duckdb.connect(str(path), read_only=True) as fresh:
        assert fresh.execute("SELECT score FROM scores ORDER BY session").fetchall() == [(1.0,), (2.0,)]
        names = {name for (name,) in fresh.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()}
    assert names == set(TABLES)
    assert path.stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize("name", ["a*b", "a?b", "a[1]", "a\\b", "a|b", "a^b", "a\tb", "a\udcffb", "a%20b"])
def test_a_path_that_could_not_be_read_back_is_refused_before_anything_is_written(tmp_path: Path, name: str):
    with pytest.raises(InputError, match=r"path of readable characters.*AFTERCLOSE_DATA"):
        open_lake(tmp_path / name)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["a+b,(c)&~@'d", "with space", "für 日本", "50%", "%%zz", "a#b", "year=1999", 'a{b};"c"$D<e>!`'])
def test_a_path_of_any_other_characters_is_written_replaced_and_read(tmp_path: Path, name: str):
    lake, path = open_lake(tmp_path / name), tmp_path / name / "w.duckdb"
    lake.replace("scores", scores((D1, "A", 1), (D2, "A", 2), (D3, "A", 3)), first=D1, last=D3)
    lake.replace("scores", scores((D2, "B", 20)), first=D2, last=D2)
    assert open_lake(tmp_path / name).read("scores", first=D2)["score"].to_list() == [20.0, 3.0]
    assert lake.read("scores", version=0)["score"].to_list() == [1.0, 2.0, 3.0]
    assert {(file.recorded, file.fault) for file in lake.inspected("scores")} == {(True, None)}
    DuckDBWarehouse(lake, path).publish({"profile": "test"})
    with duckdb.connect(str(path), read_only=True) as reader:
        assert reader.execute("SELECT score FROM scores ORDER BY session").fetchall() == [(1.0,), (20.0,), (3.0,)]
