"""Source ``files``: bars and corporate actions as Parquet or CSV, each one file or a folder of files; any universe a user brings.

bars = session, symbol, open, high, low, close, volume [, vwap] [, adj_close: for rule 23 alone]; actions = ex_date, symbol, kind (split |
dividend | spinoff | rename | delisting), value (see table corporate_actions) [, pay_date] [, new_symbol]. Other columns are ignored.
``columns`` maps their names to ours for both: {"date": "session"} makes ``date`` the session of bars and the ex_date of actions.

A folder may grow: before every question the source looks whether files came, went or changed, and if so reads all of them anew, in the
order of their names. Files of a hidden or temporary name (.x, _x, ~x, x.parquet.tmp) are left alone; so are those that a SHA256SUMS beside
them does not list yet. Where a digest is given (adapters.sources.checksums), a file is read only if it has it.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import os
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from polars.exceptions import PolarsError

from adapters.sources.checksums import MANIFEST, SIDECAR, listed_digests, require_whole
from adapters.sources.published import with_published_returns
from adapters.sources.span import require_reachable
from adapters.sources.universe import chosen_symbols
from quant.errors import InputError, SourceUnavailableError, expected
from quant.market.adjustment import KINDS
from quant.market.contracts import first_rows, is_unique
from quant.ports import AdjustmentConvention, SourceFacts
from quant.quality.rule import WHOLE_SESSION

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import date, datetime

    from quant.calendar import ExchangeCalendar

_LOG = logging.getLogger(__name__)
_SETTING = "[source.files]"
_ORIGIN = "origin_digest"
_LOOKS = 5
_SUFFIXES = (".parquet", ".csv")
_PRICES = ("open", "high", "low", "close", "vwap")
_FILE = "file"  # column of rows that are being read: the place of the file that they come from


class BadRows(StrEnum):
    """What becomes of faulty rows of bars: duplicate keys, prices not above zero, nulls, days that are no session."""

    REFUSE = "refuse"  # an InputError: the file is to be fixed
    QUARANTINE = "quarantine"  # delivered as they are, for the gate to keep out


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """What one of the two inputs holds: our columns, those that may be missing, the one that dates a row."""

    name: str
    columns: Mapping[str, pl.DataType]
    optional: tuple[str, ...]
    clock: str
    key: tuple[str, ...]


_DATE, _TEXT, _NUMBER = pl.Date(), pl.String(), pl.Float64()
_NUMBERS = dict.fromkeys(("open", "high", "low", "close", "volume", "vwap", "adj_close"), _NUMBER)
_BARS = _Layout(
    name="bars",
    columns={"session": _DATE, "symbol": _TEXT, **_NUMBERS},
    optional=("vwap", "adj_close"),
    clock="session",
    key=("session", "symbol"),
)
_ACTIONS = _Layout(
    name="actions",
    columns={"ex_date": _DATE, "symbol": _TEXT, "kind": _TEXT, "value": _NUMBER, "pay_date": _DATE, "new_symbol": _TEXT},
    optional=("pay_date", "new_symbol"),
    clock="ex_date",
    key=("ex_date", "symbol", "kind"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """One file of an input: its own types and names, and the name it has for each of our columns."""

    path: Path
    schema: pl.Schema
    names: Mapping[str, str]


class FilesSource:
    """Bars and actions of files. It ends with its newest session, and is finite unless it ``grows``. Nothing is read before the first
    question, and again only if the files changed.

    ``absent`` may name vwap only (the other columns are needed); without it a file simply has no vwap column. A fault in structure
    (columns, types, all-null columns, keys without a date or a symbol, any fault in actions) is an InputError; ``bad_rows`` decides on
    rows of bars.
    """

    def __init__(
        self,
        *,
        bars: Path,
        actions: Path | None,
        calendar: ExchangeCalendar,
        convention: AdjustmentConvention,
        publish_delay_minutes: int,
        columns: Mapping[str, str] | None = None,
        absent: Collection[str] = (),
        bad_rows: BadRows = BadRows.REFUSE,
        universe: Sequence[str] | None = None,
        grows: bool = False,
    ) -> None:
        if needed := sorted(set(absent) - {"vwap"}):
            raise InputError(expected("at most vwap", found=needed, where=_SETTING, do="only vwap can be absent"))
        ours = {*_BARS.columns, *_ACTIONS.columns}
        if unknown := sorted(set((columns or {}).values()) - ours):
            raise InputError(
                expected(f"columns = {{theirs = ours}}, ours one of {_listed(ours)}", found=unknown, where=_SETTING, do="correct it")
            )
        self._paths = {_BARS.name: bars, _ACTIONS.name: actions}
        self._calendar = calendar
        self._convention = convention
        self._delay_minutes = publish_delay_minutes
        self._columns = dict(columns or {})
        self._declared_absent = frozenset(absent)
        self._bad_rows = bad_rows
        self._universe = universe
        self._grows = grows
        self._seen: _Seen = ()

    @property
    def facts(self) -> SourceFacts:
        """Of files that cannot be read, what the profile says of them: whoever asks for their rows is told why."""
        try:
            self._look()
            absent = self._absent
        except InputError:
            if not self._grows:
                raise
            absent = self._declared_absent
        return SourceFacts(
            name="files",
            convention=self._convention,
            publish_delay_minutes=self._delay_minutes,
            absent=absent,
            finite=not self._grows,
        )

    def first_session(self) -> date:
        self._look()
        return self._sessions[0]

    def last_session(self, now: datetime) -> date:
        """Its newest session; a day still to come (a misprint that the gate will catch) does not count."""
        self._look()
        return max((day for day in self._sessions if day <= now.date()), default=self._sessions[0])

    def bars(self, first: date, last: date) -> pl.DataFrame:
        rows = self._still(lambda: self._bars)
        has, where = (self._sessions[0], self._sessions[-1]), str(self._paths["bars"])
        require_reachable(first, last, has=has, calendar=self._calendar, where=where, do="put a file with their bars there")
        return rows.filter(pl.col("session").is_between(first, last))

    def actions(self, first: date, last: date) -> pl.DataFrame:
        return self._still(lambda: self._actions).filter(pl.col("ex_date").is_between(first, last))

    def _still(self, read: Callable[[], pl.DataFrame]) -> pl.DataFrame:
        """What ``read`` gives of files that nobody touched meanwhile: rows and the digest of their file are of one content."""
        for _ in range(_LOOKS):
            self._look()
            rows = read()
            if self._listed() == self._seen:
                return rows
        what, where = "files that stand still while they are read", str(self._paths["bars"])
        do = "run it again once they are written"
        raise SourceUnavailableError(expected(what, found=f"changes in each of {_LOOKS} tries", where=where, do=do))

    def _listed(self) -> _Seen:
        return tuple(_listing(path) for path in self._paths.values() if path is not None)

    def _look(self) -> None:
        """Forget what was read if a file came, went or changed since."""
        seen = self._listed()
        if seen != self._seen:
            for read in ("_files", "_absent", "_bars", "_actions", "_sessions"):
                self.__dict__.pop(read, None)
            self._seen = seen

    @cached_property
    def _files(self) -> dict[str, list[_File]]:
        opened = {
            layout.name: [_opened(file, layout, self._columns) for file in _whole_files(path)]
            for layout in (_BARS, _ACTIONS)
            if (path := self._paths[layout.name]) is not None
        }
        has = {name for files in opened.values() for file in files for name in file.schema}
        if unknown := sorted(set(self._columns) - has):
            raise InputError(
                expected(f"a column {unknown[0]}", found=_listed(has), where=str(self._paths["bars"]), do="correct [source.files] columns")
            )
        return opened

    @cached_property
    def _absent(self) -> frozenset[str]:
        return self._declared_absent if any("vwap" in file.names for file in self._files["bars"]) else frozenset({"vwap"})

    @cached_property
    def _bars(self) -> pl.DataFrame:
        where = str(self._paths["bars"])
        published = any("adj_close" in file.names for file in self._files["bars"])
        rows = _read(self._files["bars"], _BARS, absent=self._absent).sort("session", "symbol", maintain_order=True)
        rows = rows if published else rows.drop("adj_close")
        if not rows.height:
            raise InputError(expected("at least one row", found="none", where=where, do="put bars there"))
        symbols = chosen_symbols(self._universe, rows["symbol"].drop_nulls().unique().to_list(), where=where)
        rows = rows if self._universe is None else rows.filter(pl.col("symbol").is_in(symbols))
        _refuse_empty_columns(rows, absent=self._absent, where=where)
        _refuse(rows, _key_faults(_BARS), where=self._paths["bars"])
        if self._bad_rows is BadRows.REFUSE:
            _refuse(rows, _bar_faults(self._calendar, self._absent), where=self._paths["bars"])
            _refuse_duplicates(rows, _BARS.key, where=where)
        if not published:
            return rows
        return with_published_returns(rows, self._calendar, of=(_ORIGIN,)).sort("session", "symbol", maintain_order=True)

    @cached_property
    def _actions(self) -> pl.DataFrame:
        rows = _read(self._files.get("actions", []), _ACTIONS, absent=frozenset())
        path = self._paths["actions"]
        _refuse(rows, {**_key_faults(_ACTIONS), **_action_faults(self._calendar)}, where=path)
        _refuse_duplicates(rows, _ACTIONS.key, where=str(path))
        known = pl.col("symbol").is_in(self._bars["symbol"].unique().to_list())
        if self._universe is None and (left := rows.filter(~known)["symbol"].unique().to_list()):
            _LOG.warning("left out of %s, as %s has no bars of them: actions of %s", path, self._paths["bars"], _listed(left))
        return rows.filter(known).sort("ex_date", "symbol", "kind")

    @cached_property
    def _sessions(self) -> list[date]:
        days = [day for day in self._bars["session"].unique().sort() if self._calendar.is_session(day)]
        if not days:
            where = str(self._paths["bars"])
            raise InputError(expected(f"sessions of {self._calendar.name}", found="none", where=where, do="check its dates"))
        return days


_Seen = tuple[tuple[tuple[str, int, int], ...], ...]


def _listing(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of change of everything that decides what is read; quickly, as it is asked before every question."""
    if not path.is_dir():
        beside = (path, path.with_name(path.name + SIDECAR), path.with_name(MANIFEST))
        return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in beside if file.is_file())
    found: list[tuple[str, int, int]] = []
    with os.scandir(path) as entries:
        for entry in entries:
            try:
                stat = entry.stat()
            except FileNotFoundError:
                continue  # a temporary file that got its name just now: the next look sees it
            found.append((entry.name, stat.st_size, stat.st_mtime_ns))
    return tuple(sorted(found))


def _whole_files(path: Path) -> list[Path]:
    """The file itself, or the data files of a folder by name; each one whole, as far as a digest beside it can tell."""
    if not path.exists():
        raise InputError(expected("a file or a folder", found="nothing", where=str(path), do="correct [source.files] in the profile"))
    listed = listed_digests(path if path.is_dir() else path.parent)
    files = _data_files(path, listed) if path.is_dir() else [file for file in (path,) if file.suffix in _SUFFIXES]
    if not files:
        raise InputError(expected(f"files ending in {' or '.join(_SUFFIXES)}", found="none", where=str(path), do="put the data there"))
    for file in files:
        require_whole(file, None if listed is None else listed.get(file.name))
    return files


def _data_files(folder: Path, listed: Mapping[str, str] | None) -> list[Path]:
    """The .parquet and .csv files of a folder by name. What looks like data and is not read is said."""
    like_data = sorted(f for f in folder.iterdir() if f.is_file() and any(s in f.name.lower() for s in _SUFFIXES) and f.suffix != SIDECAR)
    whole = [file for file in like_data if file.suffix in _SUFFIXES and file.name[0] not in "._~"]
    files = [file for file in whole if listed is None or file.name in listed or file.with_name(file.name + SIDECAR).is_file()]
    if gone := sorted(name for name in listed or () if name.endswith(_SUFFIXES) and not (folder / name).is_file()):
        do = f"put it there, or write {MANIFEST} anew"
        raise InputError(expected(f"file {gone[0]}, which {MANIFEST} lists", found="nothing", where=str(folder), do=do))
    if left := {file.name for file in like_data} - {file.name for file in files}:
        _LOG.warning("left alone in %s (hidden, temporary, another ending or not in its %s): %s", folder, MANIFEST, _listed(left))
    return files


def _scan(path: Path) -> pl.LazyFrame:
    # CSV has no types: everything is read as text and parsed here, so that a symbol NAN or TRUE stays one and a bad number is shown
    return pl.scan_csv(path, infer_schema=False, glob=False) if path.suffix == ".csv" else pl.scan_parquet(path, glob=False)


def _header(path: Path) -> list[str]:
    """The names of a CSV file as it has them: polars gives the second of two columns with one name another, and it would be ignored."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        return next((row for row in csv.reader(file) if row), list[str]())


def _unreadable(path: Path, error: Exception) -> InputError:
    found = str(error).partition("\n")[0]
    return InputError(expected(f"a whole {path.suffix[1:]} file", found=found, where=str(path), do="copy or write the file again"))


def _opened(path: Path, layout: _Layout, mapping: Mapping[str, str]) -> _File:
    try:
        schema = _scan(path).collect_schema()
        has = _header(path) if path.suffix == ".csv" else list(schema)
    except (PolarsError, OSError, csv.Error) as error:
        raise _unreadable(path, error) from error
    names = _names(has, layout, mapping, where=str(path))
    wrong = {
        ours: schema[theirs]
        for ours, theirs in names.items()
        if path.suffix == ".parquet" and not _fits(schema[theirs], layout.columns[ours])
    }
    for ours, found in wrong.items():
        what = f"column {names[ours]} (our {ours}) of type {layout.columns[ours]}"
        do = f'write it with that type, or name another column: columns = {{their_name = "{ours}"}}'
        raise InputError(expected(what, found=found, where=str(path), do=do))
    return _File(path=path, schema=schema, names=names)


def _names(has: list[str], layout: _Layout, mapping: Mapping[str, str], *, where: str) -> dict[str, str]:
    """Our name -> their name. What is mapped to session dates actions as well, unless something else is their ex_date."""
    given = {ours: [name for name in has if mapping.get(name, name) == ours] for ours in layout.columns}
    if not given[layout.clock]:
        given[layout.clock] = [name for name in has if mapping.get(name) == "session"]
    for ours, names in given.items():
        if len(names) > 1:
            do = "correct [source.files] columns" if len(set(names)) > 1 else "keep one of them, or rename the others"
            raise InputError(expected(f"one column for {ours}", found=_listed(names), where=where, do=do))
    if missing := [ours for ours, names in given.items() if not names and ours not in layout.optional]:
        do = f'add it or name theirs: [source.files] columns = {{their_name = "{missing[0]}"}}'
        raise InputError(expected(f"column {missing[0]}", found=f"columns {_listed(has)}", where=where, do=do))
    return {ours: names[0] for ours, names in given.items() if names}


def _fits(theirs: pl.DataType, ours: pl.DataType) -> bool:
    """Whether a cast loses nothing. A column of type Null fits: that it is empty is said later, with the remedy."""
    if ours == pl.Float64:
        return theirs.is_numeric() or theirs == pl.Null
    return theirs in ((pl.String, pl.Categorical, pl.Enum, pl.Null) if ours == pl.String else (ours, pl.Null))


def _read(files: list[_File], layout: _Layout, *, absent: frozenset[str]) -> pl.DataFrame:
    read = [_rows(file, layout, absent).with_columns(pl.lit(place, pl.UInt32).alias(_FILE)) for place, file in enumerate(files)]
    rows = pl.concat([pl.Schema({**layout.columns, _ORIGIN: _TEXT, _FILE: pl.UInt32()}).to_frame(eager=True), *read])
    return (rows if len(files) < 2 else _one_file_a_key(rows, layout, files)).drop(_FILE)


def _one_file_a_key(rows: pl.DataFrame, layout: _Layout, files: list[_File]) -> pl.DataFrame:
    """``rows`` without what a later file repeats of an earlier one. Which of two that differ counts, nobody could tell: InputError. Rows
    that share their key within one file stay as they are.
    """
    keys, place = rows.select(layout.key), pl.col(_FILE)
    if is_unique(keys):
        return rows
    shared = rows.filter(keys.is_duplicated()).filter(place.n_unique().over(layout.key) > 1)
    if shared.is_empty():
        return rows
    content = pl.struct(list(layout.columns)).n_unique().over(layout.key)
    if (bad := shared.filter(content > 1).sort(*layout.key, _FILE)).height:
        one = bad.join(bad.head(1), on=layout.key, how="semi", nulls_equal=True)
        names = " and ".join(file.path.name for at, file in enumerate(files) if at in one[_FILE])
        what = f"one row for each {', '.join(layout.key)} in all files together"
        found = f"{first_rows(one.drop(_ORIGIN, _FILE))} ({bad.select(layout.key).n_unique()} such keys)"
        raise InputError(expected(what, found=found, where=f"{files[0].path.parent}: {names}", do="keep it in one of them"))
    return rows.filter(place == place.min().over(layout.key))


def _rows(file: _File, layout: _Layout, absent: frozenset[str]) -> pl.DataFrame:
    names = {ours: theirs for ours, theirs in file.names.items() if ours not in absent}
    try:
        rows = _scan(file.path).select(pl.col(theirs).alias(ours) for ours, theirs in names.items()).collect()
    except (PolarsError, OSError) as error:
        raise _unreadable(file.path, error) from error
    columns = [_typed(rows[ours], layout.columns[ours], rows, where=str(file.path)) for ours in names]
    nulls = [pl.lit(None, dtype).alias(ours) for ours, dtype in layout.columns.items() if ours not in names]
    origin = pl.lit(hashlib.sha256(file.path.read_bytes()).hexdigest()).alias(_ORIGIN)
    return pl.DataFrame(columns).with_columns(nulls).select(*layout.columns, origin)


def _typed(column: pl.Series, dtype: pl.DataType, rows: pl.DataFrame, *, where: str) -> pl.Series:
    if column.dtype != pl.String or dtype == pl.String:
        return column.cast(dtype)
    parsed = column.str.to_date("%Y-%m-%d", strict=False) if dtype == pl.Date else column.cast(dtype, strict=False)
    bad = rows.filter(parsed.is_null() & column.is_not_null())
    if bad.height:
        what = f"{column.name} as {'yyyy-mm-dd' if dtype == pl.Date else 'a number'}"
        raise InputError(expected(what, found=f"{bad.height} rows, first {first_rows(bad)}", where=where, do="fix these rows"))
    return parsed


def _key_faults(layout: _Layout) -> dict[str, pl.Expr]:
    """What is expected of the key of a row -> the rows that break it, whatever becomes of other faults."""
    nulls = {f"{name} in every row": pl.col(name).is_null() for name in (layout.clock, "symbol")}
    bare = pl.col("symbol").str.strip_chars()
    return {
        **nulls,
        f"symbols that are not blank and not {WHOLE_SESSION} (it stands for the whole session)": bare.is_in(["", WHOLE_SESSION]),
        "symbols without blanks around them": bare != pl.col("symbol"),
    }


def _bar_faults(calendar: ExchangeCalendar, absent: frozenset[str]) -> dict[str, pl.Expr]:
    """What is expected of a row of bars -> the rows that break it."""
    prices = [name for name in _PRICES if name not in absent]
    return {
        f"a session of {calendar.name}": ~pl.col("session").is_in(calendar.days),
        "no nulls": pl.any_horizontal(pl.col(*prices, "volume").is_null()),
        "prices above zero and finite": pl.any_horizontal((pl.col(prices) <= 0) | ~pl.col(prices).is_finite()),
        "volume not negative and finite": (pl.col("volume") < 0) | ~pl.col("volume").is_finite(),
    }


def _action_faults(calendar: ExchangeCalendar) -> dict[str, pl.Expr]:
    value = pl.col("value")
    bare = (value == 0) & (pl.col("kind") != "delisting")
    new = pl.col("new_symbol")
    no_name = (new.str.strip_chars() != new) | new.is_in(["", WHOLE_SESSION]) | (new == pl.col("symbol"))
    return {
        f"an ex_date that is a session of {calendar.name}": ~pl.col("ex_date").is_in(calendar.days),
        f"kind {' or '.join(KINDS)}": pl.col("kind").is_null() | ~pl.col("kind").is_in(KINDS),
        "a value above zero (of a delisting: or zero) and finite": value.is_null() | ~value.is_finite() | (value < 0) | bare,
        "value 1 and a new_symbol of a rename": (pl.col("kind") == "rename") & ((value != 1) | new.is_null()),
        "a new_symbol that is another symbol, without blanks around it": (pl.col("kind") == "rename") & no_name,
    }


def _refuse(rows: pl.DataFrame, faults: Mapping[str, pl.Expr], *, where: Path | None) -> None:
    for what, broken in faults.items():
        if (bad := rows.filter(broken)).height:
            found = f"{bad.height} rows otherwise, first {first_rows(bad.drop(_ORIGIN))}"
            raise InputError(expected(what, found=found, where=str(_file_of(bad.item(0, _ORIGIN), where)), do="fix these rows"))


def _file_of(digest: str, where: Path | None) -> Path | None:
    """The file of a folder that has this content; ``where`` itself if it is a file, or nothing has it any more."""
    files = sorted(file for file in where.iterdir() if file.suffix in _SUFFIXES) if where is not None and where.is_dir() else list[Path]()
    return next((file for file in files if hashlib.sha256(file.read_bytes()).hexdigest() == digest), where)


def _refuse_duplicates(rows: pl.DataFrame, key: tuple[str, ...], *, where: str) -> None:
    keys = rows.select(key)
    if not is_unique(keys):
        bad = rows.filter(keys.is_duplicated()).sort(key).drop(_ORIGIN)
        found = f"{bad.height} rows that share theirs, first {first_rows(bad)}"
        raise InputError(expected(f"one row for each {', '.join(key)}", found=found, where=where, do="keep one row (dividends: their sum)"))


def _refuse_empty_columns(rows: pl.DataFrame, *, absent: frozenset[str], where: str) -> None:
    for name in rows.columns:
        if name not in {*absent, _ORIGIN} and rows[name].null_count() == rows.height:
            do = 'declare it: [source.files] absent = ["vwap"]' if name == "vwap" else "fill it"
            raise InputError(expected(f"values in column {name}", found="nulls only", where=where, do=do))


def _listed(names: Collection[str]) -> str:
    return ", ".join(repr(name)[1:-1][:40] for name in sorted(names)[:20])
