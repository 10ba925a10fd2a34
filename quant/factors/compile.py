"""Computes factor expressions over a panel: parsed, checked for reach, planned, run in chunks that stay in the cache."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from enum import Enum
from functools import lru_cache
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl

from quant.errors import ContractError, FactorError, expected
from quant.factors.columns import frame_of, values_of
from quant.factors.cross_section import cross_section
from quant.factors.expression import FIELDS, CrossSection, Elementwise, Feature, Number, Rolling, Shift, features, groups, parse, walk
from quant.factors.kernels import LANES, LINE, MARGIN, run, unexpected
from quant.factors.memory import empty
from quant.factors.plan import Mode, plan
from quant.factors.reach import refuse_lookahead
from quant.factors.reference import reference
from quant.factors.streaming import LINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from quant.factors.expression import Node
    from quant.factors.plan import Plan
    from quant.factors.program import Program

    Integers = NDArray[np.int64]
    Results = NDArray[np.floating[Any]]
    Floating = type[pl.Float32] | type[pl.Float64]


class Backend(Enum):
    """What computes: both give the same columns, missing values and, to rounding, numbers."""

    COMPILED = "compiled"  # bytecode over numba's kernels: the fast one
    POLARS = "polars"  # plain expressions: the readable reference


class ArrowStream(Protocol):
    """A table of any library that speaks Arrow's C interface: polars, pyarrow, duckdb, pandas."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The table's batches."""
        ...


WORKING_BYTES = 2**20  # of all registers: what a second-level cache holds
CHUNK = 256  # rows computed at a time at least, however many registers there are
PATCH = 128  # the same for rows with missing values in their reach, of which there are few in a row
BESIDE = 8  # listings of which only the last row is wanted are computed side by side
YOUNG = 8  # listings' first rows, which the program for missing values computes, are computed in one go
BATCH_ROWS = 131_072  # rows of a frame of evaluate, made in memory that is used again for the next but one


def compute(
    expressions: Mapping[str, str],
    panel: ArrowStream,
    *,
    dtype: Floating = pl.Float32,
    mode: Mode = Mode.QLIB,
    allow_future: bool = False,
    since: date | None = None,
    threads: int | None = None,
    backend: Backend = Backend.COMPILED,
) -> pl.DataFrame:
    """session, symbol and one column per expression for every row of ``panel`` (from session ``since`` on), in its order.

    ``panel`` has session, symbol and the Float64 fields that the expressions read, sorted by symbol and session, a null row for every
    session that a symbol misses (quant.factors.panel makes it). A column ``listing``, if there, starts a symbol afresh where it changes.
    Values are computed in float64 and depend on the rows of their reach only: not on ``since``, ``threads`` (default: all cores) or what
    else is computed. Null: missing (Qlib's NaN); infinite where Qlib divides by zero. Raises FactorError for a bad expression,
    LookaheadError for one that reaches forward unless ``allow_future``, ContractError for a panel that is not as described.
    """
    frames = [
        *evaluate(expressions, panel, dtype=dtype, mode=mode, allow_future=allow_future, since=since, threads=threads, backend=backend)
    ]
    return frames[-1] if len(frames) <= 2 else pl.concat(frames[1:], rechunk=False)  # the first one is empty


def evaluate(
    expressions: Mapping[str, str],
    panel: ArrowStream,
    *,
    dtype: Floating = pl.Float32,
    mode: Mode = Mode.QLIB,
    allow_future: bool = False,
    since: date | None = None,
    threads: int | None = None,
    batch_rows: int = BATCH_ROWS,
    backend: Backend = Backend.COMPILED,
) -> Iterator[pl.DataFrame]:
    """``compute`` as a stream of frames, each of whole symbols: for callers that write or drop rows before they take more.

    The first frame is empty, so that an empty panel has its columns too. How the rows are cut into frames changes no value. The
    Polars back end knows neither threads nor batches.
    """
    mode, backend = Mode(mode), Backend(backend)
    dtype = _floating(dtype)
    frame = panel if isinstance(panel, pl.DataFrame) else pl.DataFrame(panel)
    floats = (name for name, kind in frame.schema.items() if kind == pl.Float64)
    if threads is not None and threads < 1:
        raise ContractError(expected("at least one thread", found=threads, where="threads", do="leave it out to use every core"))
    if batch_rows < 1:
        raise ContractError(expected("at least one row a batch", found=batch_rows, where="batch_rows", do="leave it out"))
    factors = _parsed(tuple(expressions.items()), tuple(dict.fromkeys((*FIELDS, *floats))), allow_future=allow_future)
    nodes = factors.nodes
    starts = _starts(frame, factors)
    if backend is Backend.POLARS:
        kept = frame["session"] >= since if since else pl.repeat(value=True, n=frame.height, eager=True)
        yield reference(nodes, frame, mode).filter(kept).cast(dict.fromkeys(nodes, dtype()))
        return
    if factors.crossed:
        nodes, frame = _without_cross_sections(nodes, frame, starts, mode, threads or _cores())
        planned = plan(tuple(nodes.values()), mode)
    else:
        planned = _planned(factors, mode)
    names = tuple(nodes)
    yield _without_rows(names, dtype).clone()
    yield from _batches(names, planned, frame, starts, dtype, since, threads or _cores(), batch_rows)


def warm() -> None:
    """Compile the kernels, unless this machine has done so: it takes seconds, so better when installing than in the first run."""
    panel = pl.DataFrame({"session": [date(2000, 1, 3)], "symbol": ["A"], "close": [1.0]})
    compute({"x": "$close"}, panel, threads=1)


@dataclass(
    frozen=True, slots=True, kw_only=True, eq=False
)  # told apart by identity: a hash of all nodes takes as long as a session's values
class _Factors:
    """Parsed expressions, and what they read: found out once, asked for every day."""

    nodes: Mapping[str, Node]
    fields: frozenset[str]
    groups: frozenset[str]
    crossed: bool


@lru_cache(maxsize=64)
def _parsed(expressions: tuple[tuple[str, str], ...], fields: tuple[str, ...], *, allow_future: bool) -> _Factors:
    for name in ("session", "symbol"):
        if name in dict(expressions):
            raise FactorError(expected("a name of its own", found=name, where="the factors' names", do="call the factor something else"))
    nodes = {name: parse(text, fields) for name, text in expressions}
    for name, node in nodes.items() if not allow_future else ():
        refuse_lookahead(name, node)
    return _Factors(
        nodes=nodes,
        fields=frozenset[str]().union(*(features(node) for node in nodes.values())),
        groups=frozenset[str]().union(*(groups(node) for node in nodes.values())),
        crossed=bool(_innermost(nodes.values())),
    )


@lru_cache(maxsize=64)
def _planned(factors: _Factors, mode: Mode) -> Plan:
    return plan(tuple(factors.nodes.values()), mode)


@lru_cache(maxsize=64)
def _without_rows(names: tuple[str, ...], dtype: Floating) -> pl.DataFrame:
    return pl.DataFrame(schema={"session": pl.Date, "symbol": pl.String, **dict.fromkeys(names, dtype)})


def _floating(dtype: object) -> Floating:
    for kind in (pl.Float32, pl.Float64):
        if dtype == kind:
            return kind
    raise ContractError(expected("Float32 or Float64", found=dtype, where="dtype", do="choose one of them"))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _batches(
    names: Sequence[str],
    planned: Plan,
    panel: pl.DataFrame,
    starts: Integers,
    dtype: Floating,
    since: date | None,
    threads: int,
    batch_rows: int,
) -> Iterator[pl.DataFrame]:
    wanted = starts[:-1] if since is None else _first_rows(panel, starts, since)
    kept = np.concatenate([[0], np.cumsum(starts[1:] - wanted)])
    computation = _Computation(names, planned, panel, starts, wanted, dtype, threads)
    batches = threads * -(-int(kept[-1]) // (threads * batch_rows))  # as many for every thread
    pool = ThreadPoolExecutor(threads)
    try:
        begun: deque[Future[pl.DataFrame]] = deque()
        for first, last in _cuts(kept, -(-int(kept[-1]) // max(batches, 1))):
            begun.append(pool.submit(computation.frame, first, last))
            if len(begun) > threads:
                yield begun.popleft().result()
        for batch in begun:
            yield batch.result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Computation:
    """Some factors over a panel: a frame for any range of its listings, by as many threads at a time as there are workers."""

    def __init__(
        self,
        names: Sequence[str],
        planned: Plan,
        panel: pl.DataFrame,
        starts: Integers,
        wanted: Integers,
        dtype: Floating,
        threads: int,
    ) -> None:
        self._names, self._fields, self._panel, self._starts, self._wanted = names, planned.fields, panel, starts, wanted
        self._kind = np.float32 if dtype is pl.Float32 else np.float64
        self._workers: SimpleQueue[_Worker] = SimpleQueue()
        longest = int((starts[1:] - wanted).max(initial=1))
        for _ in range(threads):
            self._workers.put(_Worker(planned, longest))

    def frame(self, first: int, last: int) -> pl.DataFrame:
        """The wanted rows of listings ``first`` to ``last`` with their keys, missing values as nulls."""
        base = self._starts[first]
        rows = self._panel[int(base) : int(self._starts[last])]
        starts, wanted = self._starts[first : last + 1] - base, self._wanted[first:last] - base
        sizes = starts[1:] - wanted
        places = np.cumsum(sizes) - sizes
        height = int(sizes.sum())
        results = empty(len(self._names), height - height % -LINE_BYTES, self._kind)
        known = empty(len(self._names), results.shape[1] // 8, np.uint8)
        columns = empty(max(len(self._fields), 1), rows.height, np.float64)
        for row, name in enumerate(self._fields):
            columns[row] = values_of(rows[name])
        worker = self._workers.get()
        try:
            worker.run(columns, starts, wanted, places, results, known)
        finally:
            self._workers.put(worker)
        keys = rows.select("session", "symbol")
        if height < keys.height:
            keys = keys[np.arange(height) + np.repeat(wanted - places, sizes)]
        return keys.hstack(frame_of(self._names, height, results, known))


class _Worker:
    """One thread's registers, for listings of which at most ``longest`` rows are wanted."""

    def __init__(self, planned: Plan, longest: int) -> None:
        self._planned = planned
        dense, masked, reach = planned.dense, planned.masked, planned.past + planned.future
        self._chunk, self._patch = min(max(CHUNK, _fitting(dense) - reach), longest), min(PATCH, longest)
        last = BESIDE * (planned.past + 1) if longest == 1 else 0
        young = min(YOUNG * (planned.past + reach), _fitting(masked)) if longest > planned.past else 0
        self._dense = _registers(dense, max(reach + self._chunk, last))
        self._masked = _registers(masked, max(reach + self._patch, young))

    def run(
        self, columns: NDArray[np.float64], starts: Integers, wanted: Integers, offsets: Integers, out: Results, known: NDArray[np.uint8]
    ) -> None:
        """Fill the rows of ``out`` and the bits of ``known`` from ``offsets`` on for some listings; see quant.factors.kernels.run."""
        planned = self._planned
        dense, masked = (
            (program.code, program.constants, program.wires, program.field_registers, registers.reshape(-1), registers.shape[1])
            for program, registers in ((planned.dense, self._dense), (planned.masked, self._masked))
        )
        single = out.view(np.float32).reshape(-1) if out.dtype == np.float32 else np.empty(0, np.float32)
        double = out.view(np.float64).reshape(-1) if out.dtype == np.float64 else np.empty(0, np.float64)
        results = single, double, known.reshape(-1), out.shape[1]
        run(dense, masked, planned.past, planned.future, columns, starts, wanted, offsets, results, self._chunk, self._patch)


def _fitting(program: Program) -> int:
    """How many rows of all its registers are WORKING_BYTES."""
    return WORKING_BYTES // (8 * program.registers)


def _registers(program: Program, rows: int) -> NDArray[np.float64]:
    """Every register, those of constants filled, long enough for so many rows."""
    length = MARGIN + rows + LANES
    length += -length % LINE
    memory = np.zeros(program.registers * length + LINE)
    first = -(memory.ctypes.data // memory.itemsize) % LINE  # every register begins with a cache line
    registers = memory[first : first + program.registers * length].reshape(-1, length)
    for number, value in program.presets.items():
        registers[number] = value
    return registers


def _starts(panel: pl.DataFrame, factors: _Factors) -> Integers:
    """First row of every listing, then the number of rows. Raises ContractError if the panel is not what ``compute`` describes."""
    needed: dict[str, object] = {"session": pl.Date, "symbol": pl.String, **dict.fromkeys(sorted(factors.fields), pl.Float64)}
    for name, dtype in needed.items():
        if panel.schema.get(name) != dtype:
            found = panel.schema.get(name, "no such column")
            raise ContractError(expected(f"column {name} of {dtype}", found=found, where="a factor panel", do="use quant.factors.panel"))
    for group in sorted(factors.groups - set(panel.columns)):
        raise ContractError(expected(f"column {group} to group by", found="no such column", where="a factor panel", do="join it"))
    for key in ("session", "symbol", *(["listing"] if "listing" in panel.columns else [])):
        for row in panel[key].is_null().arg_true()[:1] if panel[key].null_count() else ():
            raise ContractError(expected(f"a {key} in every row", found=f"none in row {row}", where="a factor panel", do="fill or drop it"))
    runs = panel["symbol"].rle().struct
    symbols = runs.field("value")
    starts = np.concatenate([[0], np.cumsum(runs.field("len").to_numpy())]).astype(np.int64)
    if not symbols.is_sorted():
        row = int(starts[1:-1][(symbols < symbols.shift())[1:].to_numpy()][0])
        raise ContractError(
            expected(
                "rows sorted by symbol and session", found=f"{_key(panel, row)} out of order or twice", where="a factor panel", do="sort it"
            )
        )
    if "listing" in panel.columns:
        relisted = (panel["listing"] != panel["listing"].shift()).arg_true().to_numpy()
        starts = np.union1d(starts, relisted.astype(np.int64))
    _refuse_gaps(panel, starts)
    return starts


def _refuse_gaps(panel: pl.DataFrame, starts: Integers) -> None:
    """Raises ContractError unless each listing has a row for every session of the panel from its first to its last, once and in order."""
    if panel.is_empty():
        return
    days: NDArray[np.int32] = panel["session"].to_physical().to_numpy()
    first = int(days.min())
    there = np.zeros(int(days.max()) - first + 1, np.int32)
    there[days - first] = 1
    number = np.cumsum(there, dtype=np.int32)  # of a day's session in the panel
    row = unexpected(days, first, number, starts)
    if row < 0:
        return
    gap = number[days[row] - first] > number[days[row - 1] - first]
    what = "a row for every session, null where the symbol has no bar" if gap else "rows sorted by symbol and session"
    found = f"{_key(panel, row)} {'after a gap' if gap else 'out of order or twice'}"
    raise ContractError(expected(what, found=found, where="a factor panel", do="use quant.factors.panel, or fill the gap"))


def _key(panel: pl.DataFrame, row: int) -> str:
    return "{1} {0}".format(*panel.select("session", "symbol").row(row))


def _first_rows(panel: pl.DataFrame, starts: Integers, since: date) -> Integers:
    """Each listing's first row in session ``since`` or later, or its end."""
    early = np.concatenate([[0], np.cumsum((panel["session"] < since).to_numpy())])
    return starts[:-1] + (early[starts[1:]] - early[starts[:-1]])


def _cuts(kept: Integers, rows: int) -> Iterator[tuple[int, int]]:
    """Ranges of listings, each the shortest with at least ``rows`` rows; ``kept`` counts the rows before each listing."""
    first, end = 0, len(kept) - 1
    while kept[first] < kept[end]:
        last = min(max(bisect_left(kept, kept[first] + rows), first + 1), end)
        yield first, last
        first = last


def _without_cross_sections(
    nodes: Mapping[str, Node], panel: pl.DataFrame, starts: Integers, mode: Mode, threads: int
) -> tuple[dict[str, Node], pl.DataFrame]:
    """The same factors with every cross-section, innermost first, computed for the whole panel and read as one more column."""
    left = dict(nodes)
    while pending := _innermost(left.values()):
        names = {part: f"#{panel.width + number}" for number, part in enumerate(pending)}
        arguments = {name: part.arg for part, name in names.items()}
        planned = plan(tuple(arguments.values()), mode)
        batches = list(_batches(tuple(arguments), planned, panel, starts, pl.Float64, None, threads, BATCH_ROWS))
        values = pl.concat(batches).select(list(arguments)) if batches else pl.DataFrame(schema=dict.fromkeys(arguments, pl.Float64))
        panel = panel.with_columns(values.iter_columns())
        panel = panel.with_columns(cross_section(part.op, pl.col(name), part.group).alias(name) for part, name in names.items())
        columns: dict[Node, Feature] = {part: Feature(name=column) for part, column in names.items()}
        left = {name: _replaced(node, columns) for name, node in left.items()}
    return left, panel


def _innermost(nodes: Iterable[Node]) -> list[CrossSection]:
    """Cross-sections without another one inside, each once, in a fixed order."""
    parts = {part for node in nodes for part in walk(node) if isinstance(part, CrossSection)}
    return sorted((part for part in parts if not any(isinstance(inner, CrossSection) for inner in walk(part.arg))), key=repr)


def _replaced(node: Node, columns: Mapping[Node, Feature]) -> Node:
    """``node`` with whatever ``columns`` holds read from there."""
    if node in columns:
        return columns[node]
    match node:
        case Feature() | Number():
            return node
        case Shift() | CrossSection():
            return replace(node, arg=_replaced(node.arg, columns))
        case Elementwise() | Rolling():
            return replace(node, args=tuple(_replaced(arg, columns) for arg in node.args))
