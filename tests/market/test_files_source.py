"""Bad input to source `files`: each one clear message, nothing half read."""

from __future__ import annotations

import hashlib
import os
import re
import struct
from contextlib import suppress
from datetime import UTC, date, datetime
from hashlib import sha256
from itertools import cycle
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from adapters.sources import files
from adapters.sources.files import BadRows, FilesSource
from quant.calendar import exchange_calendar
from quant.errors import InputError, SourceUnavailableError
from quant.market.delivery import raw_bar_rows
from quant.ports import AdjustmentConvention
from quant.quality.gate import gate
from quant.quality.rule import GateSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EVER = (date(1990, 1, 1), date(2030, 1, 1))
THURSDAY, FRIDAY, SATURDAY, MONDAY = date(2013, 2, 28), date(2013, 3, 1), date(2013, 3, 2), date(2013, 3, 4)
BARS = pl.DataFrame({
    "session": [THURSDAY, THURSDAY, FRIDAY, FRIDAY],
    "symbol": ["A", "B", "A", "B"],
    "open": [10.0, 20.0, 10.5, 20.5],
    "high": [11.0, 21.0, 11.5, 21.5],
    "low": [9.0, 19.0, 9.5, 19.5],
    "close": [10.5, 20.5, 11.0, 21.0],
    "volume": [1000, 2000, 1100, 2100],
})  # fmt: skip
ACTIONS = pl.DataFrame({"ex_date": [FRIDAY, FRIDAY], "symbol": ["A", "B"], "kind": ["split", "dividend"], "value": [2.0, 0.5]})
ROW_B_FRIDAY = (pl.col("symbol") == "B") & (pl.col("session") == FRIDAY)


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., FilesSource]:
    """Makes a source of two frames (or of files already there)."""

    def make(bars: pl.DataFrame | Path = BARS, actions: pl.DataFrame | None = ACTIONS, **settings: Any) -> FilesSource:
        if isinstance(bars, pl.DataFrame):
            bars.write_parquet(tmp_path / "bars.parquet")
            bars = tmp_path / "bars.parquet"
        if actions is not None:
            actions.write_parquet(tmp_path / "actions.parquet")
        facts: dict[str, Any] = {
            "convention": AdjustmentConvention.EX_DATE_CLOSE,
            "publish_delay_minutes": 15,
            "calendar": exchange_calendar(),
        }
        return FilesSource(bars=bars, actions=None if actions is None else tmp_path / "actions.parquet", **facts | settings)

    return make


def changed(**columns: pl.Expr | object) -> pl.DataFrame:
    """BARS with the row of B on Friday changed."""
    return BARS.with_columns(pl.when(ROW_B_FRIDAY).then(pl.lit(value)).otherwise(name).alias(name) for name, value in columns.items())


STRUCTURE = {
    "expected column close in .*bars.parquet, found columns .*; add it or name theirs": BARS.drop("close"),
    r"expected column open \(our open\) of type Float64 in .*, found String; write it with that type": BARS.with_columns(
        pl.col("open").cast(pl.String)
    ),
    r"expected column session \(our session\) of type Date in .*, found Datetime": BARS.with_columns(pl.col("session").cast(pl.Datetime)),
    "expected symbol in every row in .*, found 1 rows otherwise, first session=2013-03-01 symbol=None": changed(symbol=None),
    "expected session in every row in .*, found 1 rows": changed(session=None),
    r"expected symbols that are not blank and not \* .* in .*, found 1 rows otherwise, first session=.* symbol=\* ": changed(symbol="*"),
    r"expected symbols that are not blank .*, found 1 rows otherwise, first session=2013-03-01 symbol= open": changed(symbol=""),
    r"expected symbols that are not blank .*, found 1 rows otherwise, first session=2013-03-01 symbol= \t open": changed(symbol=" \t"),
    "expected symbols without blanks around them in .*, found 1 rows otherwise, first .* symbol=B  open": changed(symbol="B "),
    "expected values in column low in .*, found nulls only; fill it": BARS.with_columns(low=pl.lit(None, pl.Float64)),
    r'expected values in column vwap in .*, found nulls only; declare it: .*absent = \["vwap"\]': BARS.with_columns(
        vwap=pl.lit(None, pl.Float64)
    ),
    "expected at least one row in .*, found none": BARS.clear(),
}
ROWS = {
    "expected one row for each session, symbol in .*, found 2 rows that share theirs, first session=2013-03-01 symbol=B": pl.concat(
        [BARS, BARS.tail(1).with_columns(close=pl.lit(21.1))]
    ),
    "expected prices above zero and finite in .*, found 1 rows otherwise, first session=2013-03-01 symbol=B .*close=-21.0": changed(
        close=-21.0
    ),
    "expected prices above zero and finite in .*, found 1 rows otherwise, first .* low=0.0": changed(low=0.0),
    "expected prices above zero and finite in .*, found 1 rows otherwise, first .* high=inf": changed(high=float("inf")),
    "expected prices above zero and finite in .*, found 1 rows otherwise, first .* open=nan": changed(open=float("nan")),
    "expected volume not negative and finite in .*, found 1 rows otherwise, first .* volume=-1": changed(volume=-1),
    "expected no nulls in .*, found 1 rows otherwise, first .* close=None": changed(close=None),
    "expected a session of XNYS in .*, found 1 rows otherwise, first session=2013-03-02": changed(session=SATURDAY),
}
BAD_ACTIONS = {
    "expected kind split or dividend or .* in .*, found 1 rows otherwise, first .* kind=spin_off": {"kind": "spin_off"},
    r"expected a value above zero \(of a delisting: or zero\) and finite in .*, found 1 rows otherwise, first .* value=-0.5": {
        "value": -0.5
    },
    "expected value 1 and a new_symbol of a rename in .*, found 1 rows otherwise, first .* value=1.0": {"kind": "rename", "value": 1.0},
    "expected an ex_date that is a session of XNYS in .*, found 1 rows otherwise, first ex_date=2013-03-02": {"ex_date": SATURDAY},
    "expected symbol in every row in .*, found 1 rows otherwise": {"symbol": None},
    r"expected symbols that are not blank and not \* .*, found 1 rows otherwise": {"symbol": "*"},
}


@pytest.mark.parametrize("policy", BadRows)
@pytest.mark.parametrize("message", STRUCTURE)
def test_a_fault_in_structure_is_refused_whatever_the_policy_for_rows(source: Callable[..., FilesSource], message: str, policy: BadRows):
    with pytest.raises(InputError, match=message):
        source(STRUCTURE[message], bad_rows=policy).bars(*EVER)


@pytest.mark.parametrize("message", ROWS)
def test_a_faulty_row_is_refused_with_the_row_in_the_message(source: Callable[..., FilesSource], message: str):
    with pytest.raises(InputError, match=message):
        source(ROWS[message]).bars(*EVER)


@pytest.mark.parametrize("message", ROWS)
def test_a_faulty_row_passes_through_for_the_gate_where_that_is_the_policy(source: Callable[..., FilesSource], message: str):
    bars = source(ROWS[message], bad_rows=BadRows.QUARANTINE).bars(*EVER)
    assert_frame_equal(
        bars.drop("vwap", "origin_digest"), ROWS[message].cast({"volume": pl.Float64}).sort("session", "symbol", maintain_order=True)
    )


@pytest.mark.parametrize("policy", BadRows)
@pytest.mark.parametrize("message", BAD_ACTIONS)
def test_a_faulty_action_is_refused_because_no_gate_comes_after(source: Callable[..., FilesSource], message: str, policy: BadRows):
    changes = [pl.when(pl.col("symbol") == "B").then(pl.lit(v)).otherwise(name).alias(name) for name, v in BAD_ACTIONS[message].items()]
    with pytest.raises(InputError, match=message):
        source(actions=ACTIONS.with_columns(changes), bad_rows=policy).actions(*EVER)


@pytest.mark.parametrize("name", ["B", " ", "C ", "*"])
def test_a_rename_to_itself_or_to_no_name_is_refused(source: Callable[..., FilesSource], name: str):
    renamed = ACTIONS.tail(1).with_columns(kind=pl.lit("rename"), value=pl.lit(1.0), new_symbol=pl.lit(name))
    with pytest.raises(InputError, match=rf"expected a new_symbol that is another symbol, .* new_symbol={re.escape(name)}; fix"):
        source(actions=renamed).actions(*EVER)


def test_two_dividends_on_one_day_are_to_be_added_up(source: Callable[..., FilesSource]):
    with pytest.raises(InputError, match=r"one row for each ex_date, symbol, kind .* found 2 rows .*their sum"):
        source(actions=pl.concat([ACTIONS, ACTIONS])[1:4].filter(pl.col("kind") == "dividend")).actions(*EVER)


def test_their_names_are_mapped_to_ours_in_bars_and_actions(source: Callable[..., FilesSource]):
    made = source(
        BARS.rename({"session": "date", "symbol": "ticker"}),
        ACTIONS.rename({"ex_date": "date", "symbol": "ticker"}),
        columns={"date": "session", "ticker": "symbol"},
    )
    assert_frame_equal(made.bars(*EVER).drop("vwap", "origin_digest"), BARS.cast({"volume": pl.Float64}))
    assert_frame_equal(made.actions(*EVER).drop("pay_date", "new_symbol", "origin_digest"), ACTIONS)


def test_an_ex_date_of_its_own_is_not_overruled_by_the_mapping_of_bars(source: Callable[..., FilesSource]):
    announced = ACTIONS.with_columns(date=pl.lit(date(2012, 12, 31)))
    made = source(BARS.rename({"session": "date"}), announced, columns={"date": "session"})
    assert made.actions(*EVER)["ex_date"].to_list() == [FRIDAY, FRIDAY]


def test_columns_that_are_not_ours_are_ignored(source: Callable[..., FilesSource]):
    assert source(BARS.with_columns(adj_factor=0.5)).bars(*EVER).drop("origin_digest").width == 8


MAPPINGS = {
    r"expected columns = \{theirs = ours\}, ours one of .*, found \['sesion'\]": {"date": "sesion"},
    "expected a column nowhere in .*, found close, ex_date, high": {"nowhere": "session"},
    "expected one column for close in .*, found close, high": {"high": "close"},
}


@pytest.mark.parametrize("message", MAPPINGS)
def test_a_wrong_mapping_is_refused(source: Callable[..., FilesSource], message: str):
    with pytest.raises(InputError, match=message):
        source(columns=MAPPINGS[message]).bars(*EVER)


def test_vwap_may_be_missing_and_is_then_absent_and_null(source: Callable[..., FilesSource]):
    assert source().facts.absent == {"vwap"}
    assert source().bars(*EVER)["vwap"].null_count() == 4


def test_a_vwap_that_is_there_is_delivered_unless_declared_absent(source: Callable[..., FilesSource]):
    with_vwap = BARS.with_columns(vwap=pl.col("close"))
    assert source(with_vwap).facts.absent == frozenset()
    assert source(with_vwap).bars(*EVER)["vwap"].to_list() == BARS["close"].to_list()
    assert source(with_vwap, absent=["vwap"]).bars(*EVER)["vwap"].null_count() == 4


def test_only_vwap_can_be_absent(source: Callable[..., FilesSource]):
    with pytest.raises(InputError, match=r"expected at most vwap in \[source.files\], found \['volume'\]"):
        source(absent=["vwap", "volume"])


def test_an_empty_folder_is_refused(source: Callable[..., FilesSource], tmp_path: Path):
    (tmp_path / "bars").mkdir()
    (tmp_path / "bars" / ".half.parquet").write_bytes(b"not data: a dot hides it")
    with pytest.raises(InputError, match=r"expected files ending in .parquet or .csv in .*bars, found none"):
        source(tmp_path / "bars").bars(*EVER)


def test_a_file_of_another_kind_is_refused(source: Callable[..., FilesSource], tmp_path: Path):
    (tmp_path / "bars.xlsx").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"expected files ending in .parquet or .csv in .*bars.xlsx, found none"):
        source(tmp_path / "bars.xlsx").bars(*EVER)


def test_a_path_that_is_not_there_is_refused(source: Callable[..., FilesSource], tmp_path: Path):
    with pytest.raises(InputError, match=r"expected a file or a folder in .*nowhere, found nothing"):
        source(tmp_path / "nowhere").bars(*EVER)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_file_that_is_no_table_is_refused(source: Callable[..., FilesSource], tmp_path: Path, suffix: str):
    path = tmp_path / f"bars.{suffix}"
    path.write_bytes(b"" if suffix == "csv" else b"PAR1 and then nothing")
    with pytest.raises(InputError, match=f"expected a whole {suffix} file in .*; copy or write the file again"):
        source(path).bars(*EVER)


@pytest.mark.parametrize("kept", [0.99, 0.5])
def test_a_truncated_parquet_file_is_refused(source: Callable[..., FilesSource], tmp_path: Path, kept: float):
    BARS.write_parquet(tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "bars.parquet").write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(InputError, match="expected a whole parquet file"):
        source(tmp_path / "bars.parquet").bars(*EVER)


def test_a_csv_file_cut_in_the_middle_of_a_row_is_refused(source: Callable[..., FilesSource], tmp_path: Path):
    text = BARS.write_csv()
    (tmp_path / "bars.csv").write_text(text[: text.rindex(",20.5")])
    with pytest.raises(InputError, match=r"expected no nulls in .*, found 1 rows otherwise, first session=2013-03-01 symbol=B"):
        source(tmp_path / "bars.csv").bars(*EVER)


def test_a_number_or_date_that_is_none_is_shown(source: Callable[..., FilesSource], tmp_path: Path):
    path = tmp_path / "bars.csv"
    path.write_text(BARS.write_csv().replace("21.5", "21;5"))
    with pytest.raises(InputError, match=r"expected high as a number in .*, found 1 rows, first session=2013-03-01 symbol=B .*high=21;5"):
        source(path).bars(*EVER)
    path.write_text(BARS.write_csv().replace("2013-03-01", "03/01/2013"))
    with pytest.raises(InputError, match=r"expected session as yyyy-mm-dd in .*, found 2 rows"):
        source(path).bars(*EVER)


@pytest.mark.parametrize("blank_lines", ["", "\n\n"])
def test_a_column_that_a_csv_file_has_twice_is_refused(source: Callable[..., FilesSource], tmp_path: Path, blank_lines: str):
    header, *rows = BARS.write_csv().splitlines()
    text = "\n".join([header + ",close", *(row + ",1.0" for row in rows)])
    (tmp_path / "bars.csv").write_text(blank_lines + text)
    with pytest.raises(InputError, match=r"expected one column for close in .*bars.csv, found close, close; keep one of them"):
        source(tmp_path / "bars.csv").bars(*EVER)


def test_a_column_that_nobody_reads_may_be_there_twice(source: Callable[..., FilesSource], tmp_path: Path):
    header, *rows = BARS.write_csv().splitlines()
    (tmp_path / "bars.csv").write_text("\ufeff" + "\n".join([header + ",,", *(row + ",," for row in rows)]))
    assert_frame_equal(source(tmp_path / "bars.csv").bars(*EVER).drop("vwap", "origin_digest"), BARS.cast({"volume": pl.Float64}))


def test_symbols_that_look_like_values_stay_symbols_in_csv(source: Callable[..., FilesSource], tmp_path: Path):
    BARS.with_columns(symbol=pl.col("symbol").replace({"A": "TRUE", "B": "NAN"})).write_csv(tmp_path / "bars.csv")
    assert set(source(tmp_path / "bars.csv").bars(*EVER)["symbol"]) == {"TRUE", "NAN"}


def test_a_folder_is_all_its_files(source: Callable[..., FilesSource], tmp_path: Path):
    (tmp_path / "bars").mkdir()
    BARS.head(2).write_parquet(tmp_path / "bars" / "1.parquet")
    BARS.tail(2).write_csv(tmp_path / "bars" / "2.csv")
    assert_frame_equal(source(tmp_path / "bars").bars(*EVER).drop("vwap", "origin_digest"), BARS.cast({"volume": pl.Float64}))


def test_actions_of_symbols_outside_the_universe_are_left_out(source: Callable[..., FilesSource]):
    assert source(universe=["A"]).actions(*EVER)["symbol"].to_list() == ["A"]


@pytest.mark.parametrize("universe", [None, ["A", "B"]])
def test_actions_of_symbols_that_have_no_bars_are_told_unless_a_universe_was_chosen(
    source: Callable[..., FilesSource], caplog: pytest.LogCaptureFixture, universe: list[str] | None
):
    misspelt = ACTIONS.with_columns(pl.col("symbol").replace("A", "a"))
    assert source(actions=misspelt, universe=universe).actions(*EVER)["symbol"].to_list() == ["B"]
    assert ("has no bars of them: actions of a" in caplog.text) is (universe is None)


def test_without_actions_there_are_none(source: Callable[..., FilesSource]):
    assert source(actions=None).actions(*EVER).is_empty()


def test_a_misprinted_future_date_does_not_move_the_end(source: Callable[..., FilesSource]):
    made = source(changed(session=date(2031, 3, 3)), bad_rows=BadRows.QUARANTINE)
    assert made.last_session(datetime(2024, 1, 1, tzinfo=UTC)) == FRIDAY


def test_files_that_did_not_change_are_read_once(source: Callable[..., FilesSource], tmp_path: Path):
    made = source()
    before, path = made.bars(*EVER), tmp_path / "bars.parquet"
    was = path.stat()
    path.write_bytes(bytes(was.st_size))
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))  # a reader that looked again would see zeros
    assert_frame_equal(made.bars(*EVER), before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two files of bars: Thursday's and Friday's."""
    made = tmp_path / "bars"
    made.mkdir()
    BARS.head(2).write_parquet(made / "2013-02-28.parquet")
    BARS.tail(2).write_parquet(made / "2013-03-01.parquet")
    return made


def test_a_new_file_is_picked_up_by_a_source_that_is_open(source: Callable[..., FilesSource], folder: Path):
    made = source(folder, grows=True)
    assert made.last_session(datetime(2024, 1, 1, tzinfo=UTC)) == FRIDAY
    BARS.tail(2).with_columns(session=pl.lit(MONDAY)).write_csv(folder / "2013-03-04.csv")
    assert made.last_session(datetime(2024, 1, 1, tzinfo=UTC)) == MONDAY
    assert made.bars(MONDAY, MONDAY)["close"].to_list() == [11.0, 21.0]


def test_a_faulty_row_of_a_folder_is_refused_with_the_file_that_has_it(source: Callable[..., FilesSource], folder: Path):
    changed(close=-21.0).tail(2).write_parquet(folder / "2013-03-01.parquet")
    with pytest.raises(InputError, match=r"expected prices above zero and finite in .*2013-03-01\.parquet, found 1 rows otherwise"):
        source(folder).bars(*EVER)


def test_a_changed_file_is_delivered_as_it_is_now(source: Callable[..., FilesSource], folder: Path):
    made = source(folder, grows=True)
    assert made.bars(FRIDAY, FRIDAY)["close"].to_list() == [11.0, 21.0]
    changed(close=21.1).tail(2).write_parquet(folder / "2013-03-01.parquet")
    assert made.bars(FRIDAY, FRIDAY)["close"].to_list() == [11.0, 21.1]


def test_rows_and_the_digest_of_their_file_are_of_one_content_while_somebody_writes(source: Callable[..., FilesSource], tmp_path: Path):
    path, stop = tmp_path / "bars.csv", Event()
    contents = [changed(close=close).write_csv() for close in (21.0, 21.5)]
    closes = {sha256(text.encode()).hexdigest(): close for text, close in zip(contents, (21.0, 21.5), strict=True)}
    path.write_text(contents[0])

    def write() -> None:
        for text in cycle(contents):
            path.with_suffix(".tmp").write_text(text)
            path.with_suffix(".tmp").replace(path)
            if stop.wait(0.004):
                return

    writer = Thread(target=write)
    writer.start()
    told = set()
    try:
        for _ in range(60):
            with suppress(SourceUnavailableError):
                row = source(path).bars(FRIDAY, FRIDAY).row(1, named=True)
                told.add((row["close"], closes[row["origin_digest"]]))
    finally:
        stop.set()
        writer.join()
    assert told <= {(21.0, 21.0), (21.5, 21.5)}


def test_an_adjusted_close_that_moves_otherwise_than_the_bars_is_found_by_the_gate(source: Callable[..., FilesSource]):
    published = BARS.with_columns(adj_close=pl.col("close") * pl.when(ROW_B_FRIDAY).then(0.52).otherwise(0.5))
    made = source(published, actions=None)
    rows = made.bars(THURSDAY, FRIDAY)
    assert rows["adjusted_return"].to_list() == [None, None, pytest.approx(11.0 / 10.5), pytest.approx(21.0 * 0.52 / (20.5 * 0.5))]
    calendar = exchange_calendar()
    raw = raw_bar_rows(rows, facts=made.facts, calendar=calendar, received_at=datetime(2013, 3, 2, tzinfo=UTC))
    judged = gate(
        raw,
        first=THURSDAY,
        last=FRIDAY,
        context=raw.clear(),
        calendar=calendar,
        settings=GateSettings(),
        absent=made.facts.absent,
        last_closed_session=FRIDAY,
    )
    assert judged.findings.select("session", "symbol", "rule", "severity").rows() == [(FRIDAY, "B", "r23_adjusted_close_differs", "warn")]
    assert judged.accepted.height == 4


def test_a_published_series_of_another_file_is_not_mixed_in(source: Callable[..., FilesSource], tmp_path: Path):
    made = tmp_path / "days"
    made.mkdir()
    published = BARS.with_columns(adj_close=pl.col("close"))
    published.head(2).write_parquet(made / "2013-02-28.parquet")
    published.tail(2).write_parquet(made / "2013-03-01.parquet")
    assert source(made, actions=None).bars(THURSDAY, FRIDAY)["adjusted_return"].to_list() == [None] * 4


def test_a_new_published_series_alone_revises_nothing(source: Callable[..., FilesSource]):
    facts = {"calendar": exchange_calendar(), "received_at": datetime(2013, 3, 2, tzinfo=UTC)}
    one = source(BARS.with_columns(adj_close=pl.col("close")), actions=None)
    first = raw_bar_rows(one.bars(THURSDAY, FRIDAY), facts=one.facts, **facts)
    other = source(BARS.with_columns(adj_close=pl.col("close") * 0.5), actions=None)
    assert raw_bar_rows(other.bars(THURSDAY, FRIDAY), facts=other.facts, known=first, **facts).is_empty()


def test_a_source_that_grows_is_not_finite(source: Callable[..., FilesSource], folder: Path):
    assert not source(folder, grows=True).facts.finite
    assert source(folder).facts.finite


def test_a_session_whose_file_has_not_come_yet_is_an_error_and_not_a_day_without_trades(source: Callable[..., FilesSource], folder: Path):
    with pytest.raises(InputError, match=r"sessions from 2013-02-28 to 2013-03-01 in .*bars, found 2013-03-04; put a file with their bars"):
        source(folder, grows=True).bars(SATURDAY, MONDAY)


def test_hidden_and_temporary_files_are_left_alone_with_a_word(
    source: Callable[..., FilesSource], folder: Path, caplog: pytest.LogCaptureFixture
):
    for name in (".a.parquet", "_b.csv", "~c.parquet", "d.parquet.tmp", "e.csv.part", "F.CSV", "notes.txt"):
        (folder / name).write_bytes(b"half a file")
    assert source(folder).bars(*EVER).height == 4
    assert (
        "(hidden, temporary, another ending or not in its SHA256SUMS): .a.parquet, F.CSV, _b.csv, d.parquet.tmp, e.csv.part, ~c.parquet"
        in caplog.text
    )
    assert "notes.txt" not in caplog.text


@pytest.mark.parametrize("policy", BadRows)
def test_a_row_that_two_files_tell_differently_is_an_error_that_names_both(
    source: Callable[..., FilesSource], folder: Path, policy: BadRows
):
    changed(close=21.1).tail(1).write_csv(folder / "fix.csv")
    message = (
        r"one row for each session, symbol in all files .* in .*bars: 2013-03-01.parquet and fix.csv, found session=2013-03-01 symbol=B"
    )
    with pytest.raises(InputError, match=message):
        source(folder, bad_rows=policy).bars(*EVER)


def test_a_row_that_two_files_tell_alike_is_one_row(source: Callable[..., FilesSource], folder: Path):
    BARS.slice(1, 2).write_csv(folder / "again.csv")
    bars = source(folder).bars(*EVER)
    assert_frame_equal(bars.drop("vwap", "origin_digest"), BARS.cast({"volume": pl.Float64}))
    again = hashlib.sha256((folder / "again.csv").read_bytes()).hexdigest()
    assert again not in bars["origin_digest"].to_list()  # it is read from the first file by name


def test_a_row_that_one_file_has_twice_is_left_to_the_policy_for_rows_also_beside_other_files(
    source: Callable[..., FilesSource], folder: Path
):
    pl.concat([BARS.tail(2), BARS.tail(1)]).write_parquet(folder / "2013-03-01.parquet")
    BARS.tail(1).write_csv(folder / "again.csv")
    assert source(folder, bad_rows=BadRows.QUARANTINE).bars(*EVER).height == 5
    with pytest.raises(InputError, match=r"one row for each session, symbol in .*, found 2 rows"):
        source(folder).bars(*EVER)


def sums(folder: Path, *names: str) -> str:
    """What `sha256sum NAMES` prints in the folder."""
    return "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names)


def damaged(path: Path, how: str) -> None:
    """Cut a file short, or flip one bit in the middle of its data."""
    data = bytearray(path.read_bytes())
    if how == "truncated":
        data = data[: len(data) * 2 // 3]
    else:
        data[len(data) // 4] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["truncated", "bit-flipped"])
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("beside", ["sidecar", "manifest"])
def test_a_damaged_file_is_refused_by_its_digest_before_a_row_of_it_is_read(
    source: Callable[..., FilesSource], folder: Path, beside: str, suffix: str, how: str, monkeypatch: pytest.MonkeyPatch
):
    bad = folder / f"more.{suffix}"
    rows = BARS.with_columns(session=pl.lit(MONDAY)).head(1)
    rows.write_parquet(bad) if suffix == "parquet" else rows.write_csv(bad)
    if beside == "sidecar":
        (folder / f"{bad.name}.sha256").write_text(sums(folder, bad.name))
    else:
        (folder / "SHA256SUMS").write_text(sums(folder, "2013-02-28.parquet", "2013-03-01.parquet", bad.name))
    assert source(folder).bars(*EVER).height == 5
    damaged(bad, how)

    def opened(path: Path) -> pl.LazyFrame:
        assert path != bad, "a damaged file was opened"
        return scan(path)

    scan = files._scan
    monkeypatch.setattr(files, "_scan", opened)
    with pytest.raises(
        InputError, match=rf"expected SHA-256 [0-9a-f]{{64}} as .* has it in .*{bad.name}, found [0-9a-f]{{64}}; copy the file"
    ):
        source(folder).bars(*EVER)


def test_a_bit_flipped_without_a_digest_would_have_been_read_as_another_number(source: Callable[..., FilesSource], tmp_path: Path):
    path = tmp_path / "bars.parquet"
    BARS.write_parquet(path, compression="uncompressed", statistics=False)
    data = path.read_bytes()
    at = data.index(struct.pack("<d", 20.5)) + 6
    path.write_bytes(data[:at] + bytes([data[at] ^ 0x04]) + data[at + 1 :])
    assert not source(path).bars(*EVER).drop("vwap").equals(BARS.cast({"volume": pl.Float64}))
    path.with_name("bars.parquet.sha256").write_text(hashlib.sha256(data).hexdigest())
    with pytest.raises(InputError, match="expected SHA-256"):
        source(path).bars(*EVER)


def test_a_file_that_the_manifest_does_not_list_yet_waits_and_one_that_it_lists_must_be_there(
    source: Callable[..., FilesSource], folder: Path, caplog: pytest.LogCaptureFixture
):
    (folder / "SHA256SUMS").write_text(sums(folder, "2013-02-28.parquet"))
    made = source(folder, grows=True)
    assert set(made.bars(*EVER)["session"]) == {THURSDAY}
    assert "2013-03-01.parquet" in caplog.text
    (folder / "SHA256SUMS").write_text(sums(folder, "2013-02-28.parquet", "2013-03-01.parquet"))
    assert set(made.bars(*EVER)["session"]) == {THURSDAY, FRIDAY}
    (folder / "2013-02-28.parquet").unlink()
    with pytest.raises(InputError, match=r"file 2013-02-28.parquet, which SHA256SUMS lists in .*bars, found nothing"):
        made.bars(*EVER)


@pytest.mark.parametrize(("name", "found"), [("SHA256SUMS", "line 1, found deadbeef"), ("2013-02-28.parquet.sha256", "found 'deadbeef")])
def test_a_digest_that_is_none_is_told(source: Callable[..., FilesSource], folder: Path, name: str, found: str):
    (folder / name).write_text("deadbeef  2013-02-28.parquet\n")
    with pytest.raises(InputError, match=found):
        source(folder).bars(*EVER)
