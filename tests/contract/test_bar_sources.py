"""The suite that every source of bars passes. A new source is one function here and one entry in SOURCES."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from adapters.sources.files import FilesSource
from adapters.sources.sample import SampleSource
from quant.calendar import exchange_calendar
from quant.errors import InputError
from quant.ports import AdjustmentConvention, BarSource

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

NOW = datetime(2024, 1, 2, 12, tzinfo=UTC)
EVER = (date(1990, 1, 1), date(2030, 1, 1))
BARS = {"session": pl.Date, "symbol": pl.String, **dict.fromkeys(("open", "high", "low", "close", "volume", "vwap"), pl.Float64)}
ACTIONS = {"ex_date": pl.Date, "symbol": pl.String, "kind": pl.String, "value": pl.Float64, "pay_date": pl.Date}


def sample(folder: Path, universe: Sequence[str] | None) -> BarSource:
    return SampleSource(universe=universe)


def parquet_files(folder: Path, universe: Sequence[str] | None) -> BarSource:
    SampleSource().bars(*EVER).drop("vwap").rename({"session": "date"}).write_parquet(folder / "bars.parquet")
    SampleSource().actions(*EVER).drop("pay_date").rename({"ex_date": "date"}).write_parquet(folder / "actions.parquet")
    return _files(folder / "bars.parquet", folder / "actions.parquet", universe, columns={"date": "session"})


def csv_folders(folder: Path, universe: Sequence[str] | None) -> BarSource:
    (folder / "bars").mkdir()
    (folder / "actions").mkdir()
    for (year,), bars in SampleSource().bars(*EVER).group_by(pl.col("session").dt.year()):
        bars.write_csv(folder / "bars" / f"{year}.csv")
    SampleSource().actions(*EVER).write_csv(folder / "actions" / "all.csv")
    return _files(folder / "bars", folder / "actions", universe, absent=("vwap",))


def _files(
    bars: Path, actions: Path, universe: Sequence[str] | None, *, columns: dict[str, str] | None = None, absent: Sequence[str] = ()
) -> BarSource:
    return FilesSource(
        bars=bars,
        actions=actions,
        calendar=exchange_calendar(),
        convention=AdjustmentConvention.EX_DATE_CLOSE,
        publish_delay_minutes=30,
        columns=columns,
        absent=absent,
        universe=universe,
    )


def columns(rows: pl.DataFrame) -> pl.Schema:
    """Its columns without those that a source may add."""
    return rows.drop("origin_digest", "new_symbol", strict=False).schema


SOURCES = [sample, parquet_files, csv_folders]


@pytest.fixture(params=SOURCES, ids=lambda make: make.__name__)
def make(request: pytest.FixtureRequest) -> Callable[[Path, Sequence[str] | None], BarSource]:
    return request.param


@pytest.fixture
def source(make: Callable[[Path, Sequence[str] | None], BarSource], tmp_path: Path) -> BarSource:
    return make(tmp_path, None)


def test_it_implements_the_port(source: BarSource):
    assert isinstance(source, BarSource)


def test_it_says_what_it_is(source: BarSource):
    assert source.facts.name
    assert source.facts.publish_delay_minutes >= 0
    assert source.facts.convention in AdjustmentConvention


def test_it_begins_and_ends_with_a_session(source: BarSource):
    first, last = source.first_session(), source.last_session(NOW)
    assert exchange_calendar().is_session(first)
    assert exchange_calendar().is_session(last)
    assert first <= last <= NOW.date()
    assert source.bars(first, first).height
    assert source.bars(last, last).height


def test_bars_have_the_ports_columns_and_only_sessions_asked_for(source: BarSource):
    last = source.last_session(NOW)
    first = exchange_calendar().shift(last, -9)
    bars = source.bars(first, last)
    assert columns(bars) == BARS
    assert bars["session"].unique().sort().to_list() == exchange_calendar().sessions(first, last)


def test_a_range_of_bars_is_its_sessions_put_together(source: BarSource):
    last = source.last_session(NOW)
    days = exchange_calendar().sessions(exchange_calendar().shift(last, -9), last)
    assert_frame_equal(source.bars(days[0], last), pl.concat([source.bars(day, day) for day in days]))


def test_days_without_bars_give_no_rows_but_all_columns(source: BarSource):
    assert columns(source.bars(date(1990, 1, 6), date(1990, 1, 7))) == BARS
    assert source.bars(date(1990, 1, 6), date(1990, 1, 7)).is_empty()
    assert columns(source.actions(date(1990, 1, 6), date(1990, 1, 7))) == ACTIONS


def test_columns_declared_absent_are_null_and_no_other_is(source: BarSource):
    bars = source.bars(*EVER)
    assert {name for name in bars.columns if bars[name].null_count() == bars.height} == source.facts.absent


def test_actions_have_the_ports_columns_kinds_and_dates(source: BarSource):
    actions = source.actions(date(2003, 1, 1), date(2005, 12, 31))
    assert columns(actions) == ACTIONS
    assert set(actions["kind"]) == {"split", "dividend"}
    assert actions["ex_date"].is_between(date(2003, 1, 1), date(2005, 12, 31)).all()
    assert (actions["value"] > 0).all()


def test_a_row_says_which_file_it_was_read_from_if_it_says_anything(source: BarSource):
    for rows in (source.bars(*EVER), source.actions(*EVER)):
        origins = rows["origin_digest"].unique() if "origin_digest" in rows.columns else [source.facts.origin_digest]
        assert all(len(bytes.fromhex(origin)) == 32 for origin in origins if origin is not None)


def test_asking_twice_gives_the_same(source: BarSource):
    assert_frame_equal(source.bars(*EVER), source.bars(*EVER))
    assert_frame_equal(source.actions(*EVER), source.actions(*EVER))


def test_a_finite_source_ends_where_it_ends_whatever_the_time(source: BarSource):
    if not source.facts.finite:
        pytest.skip("the source has no end of its own")
    assert source.last_session(NOW) == source.last_session(NOW.replace(year=2030))


def test_the_universe_chooses_bars_and_actions(make: Callable[[Path, Sequence[str] | None], BarSource], tmp_path: Path):
    source = make(tmp_path, ["MSFT", "IBM"])
    assert set(source.bars(*EVER)["symbol"]) == {"IBM", "MSFT"}
    assert set(source.actions(*EVER)["symbol"]) == {"IBM", "MSFT"}


def test_a_symbol_that_the_source_does_not_have_is_named(make: Callable[[Path, Sequence[str] | None], BarSource], tmp_path: Path):
    with pytest.raises(InputError, match=r"among AAPL, FB, GOOG, IBM, MSFT in .*, found unknown NOPE; correct the universe"):
        make(tmp_path, ["MSFT", "NOPE"]).bars(*EVER)
