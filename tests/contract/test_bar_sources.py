"""The suite that every source of bars passes. A new source is one function here and one entry in SOURCES."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from adapters.sources.alpaca import AlpacaKeys, AlpacaSource
from adapters.sources.files import BadRows, FilesSource
from adapters.sources.sample import SampleSource
from quant.calendar import exchange_calendar
from quant.errors import InputError
from quant.ports import AdjustmentConvention, BarSource
from tests.fakes.alpaca_server import KEY_ID, SECRET, AlpacaServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

NOW = datetime(2013, 3, 2, 12, tzinfo=UTC)
EVER = (date(1990, 1, 1), date(2030, 1, 1))
BARS = {"session": pl.Date, "symbol": pl.String, **dict.fromkeys(("open", "high", "low", "close", "volume", "vwap"), pl.Float64)}
ACTIONS = {"ex_date": pl.Date, "symbol": pl.String, "kind": pl.String, "value": pl.Float64, "pay_date": pl.Date}


@dataclass(frozen=True)
class Place:
    """Where a source may put files, and what closes its servers."""

    folder: Path
    open: ExitStack


class Make(Protocol):
    """Makes a source of the sample's rows, or of others; of all symbols, or of a universe."""

    __name__: str

    def __call__(self, place: Place, universe: Sequence[str] | None, bars: pl.DataFrame | None = None) -> BarSource: ...


@dataclass(frozen=True)
class Standing:
    """A clock that stands still."""

    at: datetime = NOW

    def now(self) -> datetime:
        return self.at


def sample(place: Place, universe: Sequence[str] | None, bars: pl.DataFrame | None = None) -> BarSource:
    assert bars is None, "the sample is what it is"
    return SampleSource(universe=universe)


def parquet_files(place: Place, universe: Sequence[str] | None, bars: pl.DataFrame | None = None) -> BarSource:
    rows = SampleSource().bars(*EVER).drop("vwap") if bars is None else bars
    rows.rename({"session": "date"}).write_parquet(place.folder / "bars.parquet")
    SampleSource().actions(*EVER).drop("pay_date").rename({"ex_date": "date"}).write_parquet(place.folder / "actions.parquet")
    return _files(place.folder / "bars.parquet", place.folder / "actions.parquet", universe, columns={"date": "session"})


def csv_folders(place: Place, universe: Sequence[str] | None, bars: pl.DataFrame | None = None) -> BarSource:
    (place.folder / "bars").mkdir()
    (place.folder / "actions").mkdir()
    rows = SampleSource().bars(*EVER) if bars is None else bars
    for (year,), of_year in rows.group_by(pl.col("session").dt.year(), maintain_order=True):
        of_year.write_csv(place.folder / "bars" / f"{year}.csv")
    SampleSource().actions(*EVER).write_csv(place.folder / "actions" / "all.csv")
    return _files(place.folder / "bars", place.folder / "actions", universe, absent=("vwap",) if bars is None else ())


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
        bad_rows=BadRows.QUARANTINE,
        universe=universe,
    )


def required(rows: pl.DataFrame) -> pl.DataFrame:
    """``rows`` without the columns that a source may add."""
    return rows.drop("origin_digest", "new_symbol", strict=False)


def columns(rows: pl.DataFrame) -> pl.Schema:
    return required(rows).schema


def alpaca(place: Place, universe: Sequence[str] | None, bars: pl.DataFrame | None = None) -> BarSource:
    rows = SampleSource().bars(*EVER).with_columns(vwap=(pl.col("high") + pl.col("low")) / 2) if bars is None else bars
    server = place.open.enter_context(AlpacaServer(bars=rows, actions=SampleSource().actions(*EVER)))
    return AlpacaSource(
        universe=rows["symbol"].unique().to_list() if universe is None else universe,
        keys=lambda: AlpacaKeys(key_id=KEY_ID, secret=SECRET),
        calendar=exchange_calendar(),
        clock=Standing(),
        asof=NOW.date(),
        first_session=rows["session"].min(),  # type: ignore[arg-type]
        convention=AdjustmentConvention.PREVIOUS_CLOSE,
        publish_delay_minutes=30,
        data_url=server.url,
    )


SOURCES: list[Make] = [sample, parquet_files, csv_folders, alpaca]
FED: list[Make] = [make for make in SOURCES if make is not sample]  # those that deliver what they are given


@pytest.fixture(params=SOURCES, ids=lambda make: make.__name__)
def make(request: pytest.FixtureRequest) -> Make:
    return request.param


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(tmp_path, stack)


@pytest.fixture
def source(make: Make, place: Place) -> BarSource:
    return make(place, None)


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


def test_bars_are_sorted_by_session_and_symbol_and_actions_by_ex_date_and_symbol(source: BarSource):
    bars, actions = source.bars(*EVER), source.actions(*EVER)
    assert_frame_equal(bars, bars.sort("session", "symbol", maintain_order=True))
    assert_frame_equal(actions, actions.sort("ex_date", "symbol", maintain_order=True))


def test_a_range_of_bars_is_its_sessions_put_together(source: BarSource):
    last = source.last_session(NOW)
    days = exchange_calendar().sessions(exchange_calendar().shift(last, -9), last)
    assert_frame_equal(source.bars(days[0], last), pl.concat([source.bars(day, day) for day in days]))


def test_days_without_bars_give_no_rows_but_all_columns(source: BarSource):
    last = source.last_session(NOW)
    for first, until in ((date(1990, 1, 6), date(1990, 1, 7)), (last, exchange_calendar().previous(last))):
        assert columns(source.bars(first, until)) == BARS
        assert source.bars(first, until).is_empty()
        assert columns(source.actions(first, until)) == ACTIONS


def test_what_reaches_beyond_its_ends_gives_what_lies_within(source: BarSource):
    assert_frame_equal(source.bars(*EVER), source.bars(source.first_session(), source.last_session(NOW)))


def test_sessions_of_which_it_has_none_are_an_error_that_says_what_it_has(source: BarSource):
    first, last = source.first_session(), source.last_session(NOW)
    before, after = exchange_calendar().previous(first), exchange_calendar().next(last)
    for asked, until in ((before, before), (after, after + timedelta(days=9))):
        with pytest.raises(InputError, match=rf"expected sessions from {first} to {last} in .*, found {asked}"):
            source.bars(asked, until)


def test_columns_declared_absent_are_null_and_no_other_is(source: BarSource):
    bars = source.bars(*EVER)
    assert {name for name in bars.columns if bars[name].null_count() == bars.height} == source.facts.absent


def test_bars_are_the_rows_that_its_data_has(source: BarSource):
    values = ["open", "high", "low", "close", "volume"]
    assert_frame_equal(source.bars(*EVER).select("session", "symbol", *values), SampleSource().bars(*EVER).drop("vwap"), check_exact=True)


def test_actions_have_the_ports_columns_kinds_and_dates(source: BarSource):
    actions = source.actions(date(2003, 1, 1), date(2005, 12, 31))
    assert columns(actions) == ACTIONS
    assert set(actions["kind"]) == {"split", "dividend"}
    assert actions["ex_date"].is_between(date(2003, 1, 1), date(2005, 12, 31)).all()
    assert (actions["value"] > 0).all()


def test_actions_are_the_rows_that_its_data_has(source: BarSource):
    actions = required(source.actions(*EVER)).drop("pay_date")
    assert_frame_equal(actions, SampleSource().actions(*EVER).drop("pay_date"), check_row_order=False)


def test_a_row_says_which_file_it_was_read_from_if_it_says_anything(source: BarSource):
    for rows in (source.bars(*EVER), source.actions(*EVER)):
        origins = rows["origin_digest"].unique() if "origin_digest" in rows.columns else [source.facts.origin_digest]
        assert all(len(bytes.fromhex(origin)) == 32 for origin in origins if origin is not None)


def test_asking_twice_gives_the_same(source: BarSource):
    assert_frame_equal(source.bars(*EVER), source.bars(*EVER))
    assert_frame_equal(source.actions(*EVER), source.actions(*EVER))


def test_a_finite_source_ends_where_it_ends_whatever_the_time_and_another_one_goes_on(source: BarSource):
    now, later = source.last_session(NOW), source.last_session(NOW.replace(year=2023))
    assert now == later if source.facts.finite else now < later


def test_the_universe_chooses_bars_and_actions(make: Make, place: Place):
    source = make(place, ["MSFT", "IBM"])
    assert set(source.bars(*EVER)["symbol"]) == {"IBM", "MSFT"}
    assert set(source.actions(*EVER)["symbol"]) == {"IBM", "MSFT"}


def test_a_symbol_that_the_source_does_not_have_is_named(make: Make, place: Place):
    with pytest.raises(InputError, match=r"expected symbols .* in .*, found unknown NOPE; correct the universe"):
        make(place, ["MSFT", "NOPE"]).bars(*EVER)


def test_no_symbol_at_all_is_refused(make: Make, place: Place):
    with pytest.raises(InputError, match=r"expected symbols .*, found no"):
        make(place, []).bars(*EVER)


WEDNESDAY, SATURDAY, MONDAY = date(2013, 2, 27), date(2013, 2, 23), date(2013, 3, 4)
CLEAN = SampleSource().bars(date(2013, 2, 20), date(2013, 3, 1)).with_columns(vwap=(pl.col("high") + pl.col("low")) / 2)
THE_ROW = (pl.col("symbol") == "IBM") & (pl.col("session") == WEDNESDAY)


def _changed(**values: pl.Expr | float | None) -> pl.DataFrame:
    """CLEAN with columns of one row changed."""
    return CLEAN.with_columns(pl.when(THE_ROW).then(value).otherwise(name).alias(name) for name, value in values.items())


FAULTS = {
    "zero prices": _changed(open=0.0, high=0.0, low=0.0, close=0.0),
    "a negative price": _changed(low=-1.0),
    "a missing close": _changed(close=None),
    "high and low swapped": _changed(high=pl.col("low"), low=pl.col("high")),
    "prices a hundredfold": _changed(**{name: pl.col(name) * 100 for name in ("open", "high", "low", "close", "vwap")}),
    "a missed split": CLEAN.with_columns(pl.when(pl.col("symbol") == "IBM").then(pl.col("close") / 2).otherwise("close").alias("close")),
    "negative volume": _changed(volume=-1.0),
    "a row twice": pl.concat([CLEAN, CLEAN.filter(THE_ROW)]),
    "two rows for one key": pl.concat([CLEAN, CLEAN.filter(THE_ROW).with_columns(close=1.0)]),
    "a row repeated the next day": pl.concat([
        CLEAN.filter(~((pl.col("symbol") == "IBM") & (pl.col("session") == date(2013, 2, 28)))),
        CLEAN.filter(THE_ROW).with_columns(session=date(2013, 2, 28)),
    ]),
    "a symbol missing from a session": CLEAN.filter(~THE_ROW),
    "a session missing": CLEAN.filter(pl.col("session") != WEDNESDAY),
    "a row on a Saturday": pl.concat([CLEAN, CLEAN.filter(THE_ROW).with_columns(session=SATURDAY)]),
    "a row of the future": pl.concat([CLEAN, CLEAN.filter(THE_ROW).with_columns(session=MONDAY)]),
    "tickers swapped": CLEAN.with_columns(
        symbol=pl.when(pl.col("session") == WEDNESDAY).then(pl.col("symbol").replace({"IBM": "MSFT", "MSFT": "IBM"})).otherwise("symbol")
    ),
    "half the feed missing": CLEAN.filter(~((pl.col("session") == WEDNESDAY) & pl.col("symbol").is_in(["AAPL", "FB", "GOOG"]))),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("make", FED, ids=lambda make: make.__name__)
def test_faults_are_delivered_as_they_are_because_the_gate_judges(make: Make, place: Place, fault: str):
    source = make(place, None, FAULTS[fault])
    expected = FAULTS[fault].sort("session", "symbol", maintain_order=True)
    assert_frame_equal(required(source.bars(date(2013, 2, 20), MONDAY)), expected, check_exact=True)


@pytest.mark.parametrize("make", FED, ids=lambda make: make.__name__)
def test_a_session_without_a_row_between_others_is_no_rows_for_the_gate_to_stop(make: Make, place: Place):
    source = make(place, None, FAULTS["a session missing"])
    assert source.bars(WEDNESDAY, WEDNESDAY).is_empty()
