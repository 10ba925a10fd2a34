"""Strategies for expressions from all operators and for panels with everything that makes windows hard.

Two back ends round differently, so an expression that jumps (a comparison, a rank, the place of a maximum, a quotient by what may be 0)
must not be asked about a number that either of them rounded in its own way. Hence three kinds of trees: ``grid`` (eighths, whose sums are
exact), ``exact`` (the same operations on the same bits) and ``smooth`` (continuous operators over those).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import polars as pl
from hypothesis import strategies as st

from quant.calendar import exchange_calendar
from quant.factors.expression import ELEMENTWISE, ROLLING, CrossSection, Elementwise, Feature, Number, Rolling, Shift, walk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from quant.factors.expression import Node

T = TypeVar("T")

SESSIONS = exchange_calendar().days[2600:]
COMPARISONS = ("Gt", "Ge", "Lt", "Le", "Eq", "Ne")
LOGICAL = (*COMPARISONS, "And", "Or", "Not")
LEAST = {"Skew": 3, "Kurt": 4}

DIVISOR = "divisor"  # a kind of its own: never -0, whose sign a sum may lose
KINDS: Mapping[str, Sequence[tuple[str, tuple[str, ...], str]]] = {  # kind -> (what, its operators, the kind of its arguments)
    "grid": (
        ("call", ("Ref", "Max", "Min", "Sum", "Count", "IdxMax", "IdxMin", "Add", "Sub", "Greater", "Less", "Abs", "Sign"), "grid"),
        ("call", ("Sum", "Count", "Max", "Ref"), "condition of grid"),
        ("number", ("Add", "Sub", "Mul", "Greater", "Less"), "grid"),
        ("if", ("grid",), "grid"),
    ),
    DIVISOR: (("call", ("Max", "Min", "Mean"), "field"),),
    "exact": (
        ("kind", ("grid",), ""),
        ("quotient", (), "grid"),
        ("call", ("Mean",), "grid"),
        ("call", ("Mean",), "condition of grid"),
        ("call", ("Ref", "Max", "Min", "Rank", "Quantile", "IdxMax", "IdxMin", "Count", "Add", "Sub", "Mul", "Greater", "Less"), "exact"),
        ("call", ("CSRank",), "exact"),
        ("number", ("Add", "Sub", "Mul"), "exact"),
        ("if", ("exact",), "exact"),
    ),
    "smooth": (
        ("kind", ("exact",), ""),
        ("kind", ("condition of exact",), ""),
        ("power", (), ""),
        ("call", ("Log", "Var", "Skew", "Kurt", "Rsquare", "Corr", "Cov", "CSZScore", "CSScale"), "exact"),
        ("call", tuple(ROLLING), "field"),
        ("call", ("Rank", "IdxMin", "CSRank", "WMA"), "exact"),
        ("call", ("Ref", "Sum", "Mean", "Max", "Min", "Std", "Quantile", "EMA", "WMA", "Mad", "Slope", "Resi", "CSDemean"), "smooth"),
        ("call", ("Greater", "Less", "Abs", "Count"), "smooth"),
        ("number", ("Add", "Sub", "Mul"), "smooth"),
        ("if", ("exact",), "smooth"),
    ),
    "wild": (  # for printing and reading only
        ("call", (*(op for op in ELEMENTWISE if op not in ("And", "Or", "Not", "If")), *ROLLING, "Ref", "CSRank", "CSZScore"), "wild"),
        ("number", ("Add", "Sub", "Mul", "Div", "Power", "Gt", "Ne"), "wild"),
        ("kind", ("condition of wild",), ""),
        ("call", ("Mean", "EMA"), "condition of wild"),
        ("if", ("wild",), "wild"),
    ),
}


@dataclass
class _Trees:
    """Draws trees that are at most so deep."""

    draw: st.DrawFn

    def one(self, values: Sequence[T]) -> T:
        return self.draw(st.sampled_from(values))

    def tree(self, kind: str, depth: int) -> Node:
        if kind.startswith("condition of "):
            return self.condition(kind.removeprefix("condition of "), depth)
        if kind == "field" or depth <= 0:
            return Feature(name=self.one(("open", "high", "low", "close", "volume", "vwap")))
        what, ops, inner = self.one(KINDS[kind])
        match what:
            case "kind":
                return self.tree(ops[0], depth)
            case "number":
                args = (self.tree(inner, depth - 1), self.number(kind))
                op = self.one(ops)
                return Elementwise(op=op, args=args if self.one((True, False)) else args[::-1])
            case "if":
                last = self.number(kind) if self.one((True, False)) else self.tree(inner, depth - 1)
                return Elementwise(op="If", args=(self.condition(ops[0], depth - 1), self.tree(inner, depth - 1), last))
            case "quotient":
                return Elementwise(op="Div", args=(self.tree(inner, depth - 1), self.tree(DIVISOR, depth - 1)))
            case "power":
                powers = (self.tree("field", 0), Number(value=self.one((0.0, 2.0, 0.5, -1.0, 0.3))))
                signs = (Number(value=self.one((1.0, 1.01))), Elementwise(op="Sign", args=(self.tree("exact", depth - 1),)))
                return Elementwise(op="Power", args=self.one((powers, signs)))
            case _:
                return self.call(self.one(ops), inner, depth)

    def number(self, kind: str) -> Number:
        if kind == "wild":
            return Number(value=self.draw(st.floats(-1e300, 1e300)))
        return Number(value=self.one((1.0, 2.0, 0.5, -3.0, 0.0)))

    def condition(self, inner: str, depth: int) -> Node:
        op = self.one(LOGICAL) if depth > 1 else self.one(COMPARISONS)
        if op in COMPARISONS:
            return Elementwise(op=op, args=(self.tree(inner, depth - 1), self.tree(inner, depth - 1)))
        return Elementwise(op=op, args=tuple(self.condition(inner, depth - 1) for _ in range(ELEMENTWISE[op])))

    def call(self, op: str, inner: str, depth: int) -> Node:
        if op == "Ref":
            return Shift(arg=self.tree(inner, depth - 1), by=self.one((1, 2, 5, 7, -1, -3)))
        if op.startswith("CS"):
            return CrossSection(op=op, arg=self.tree(inner, depth - 1), group=self.one((None, "sector")))
        if op in ELEMENTWISE:
            return Elementwise(op=op, args=tuple(self.tree(inner, depth - 1) for _ in range(ELEMENTWISE[op])))
        window = self.one((1, 2, 3)) if op == "EMA" else max(self.one((1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 20)), LEAST.get(op, 1))
        level = self.one((0.0, 0.2, 0.37, 0.5, 0.8, 1.0)) if op == "Quantile" else None
        return Rolling(op=op, args=tuple(self.tree(inner, depth - 1) for _ in range(ROLLING[op])), window=window, level=level)


def _in_the_language(node: Node) -> bool:
    """Not a sum of comparisons, which is refused."""
    return not any(
        isinstance(part, Elementwise)
        and part.op in ("Add", "Sub")
        and all(isinstance(arg, Elementwise) and arg.op in LOGICAL for arg in part.args)
        for part in walk(node)
    )


def trees(kind: str, depth: int) -> st.SearchStrategy[Node]:
    """Trees of a kind of KINDS: all operators of the language are in "smooth" (tests.factors.test_factor_backends asserts that)."""
    return st.composite(lambda draw: _Trees(draw).tree(kind, depth))().filter(_in_the_language)


def _bars(rng: np.random.Generator, rows: int, flaws: set[str]) -> dict[str, np.ndarray]:
    close = np.clip(np.cumsum(rng.integers(-6, 7, rows)) + 160, 8, 500) / 8
    opened = np.clip(close + rng.integers(-3, 4, rows) / 8, 1, None)
    volume = rng.integers(1, 1000, rows).astype(float)
    if "halt" in flaws:
        first = int(rng.integers(0, rows))
        halt = slice(first, first + int(rng.integers(1, 30)))
        close[halt] = opened[halt] = close[first]
        volume[halt] = 0.0
    high, low = np.maximum(close, opened) + rng.integers(0, 3, rows) / 8, np.minimum(close, opened) - rng.integers(0, 3, rows) / 8
    bars = {"open": opened, "high": high, "low": low, "close": close, "volume": volume, "vwap": (high + low) / 2}
    if "infinite" in flaws:
        for name in ("volume", "close"):
            bars[name] = np.where(rng.random(rows) < 0.05, rng.choice([np.inf, -np.inf], rows), bars[name])
    if "gap" in flaws:
        first = int(rng.integers(0, rows))
        for values in bars.values():
            values[first : first + int(rng.integers(1, 25))] = np.nan
    if "holes" in flaws:
        share = rng.choice([0.03, 0.3, 0.8])
        bars = {name: np.where(rng.random(rows) < share, np.nan, values) for name, values in bars.items()}
    return bars


@st.composite
def panels(draw: st.DrawFn) -> pl.DataFrame:
    """One to five symbols of 1 to 90 rows, some in two listings, ending in one of four sessions."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    frames: list[pl.DataFrame] = []
    for number, length in enumerate(draw(st.lists(st.one_of(st.just(1), st.integers(2, 90)), min_size=1, max_size=5))):
        flaws = draw(st.sets(st.sampled_from(["halt", "gap", "holes", "infinite"])))
        last = 95 + int(rng.integers(0, 4))
        listing = (np.arange(length) >= rng.integers(0, 2 * length)).astype(np.int64)
        keys = {"session": SESSIONS[last - length : last], "symbol": [f"S{number}"] * length, "listing": listing}
        sector = rng.choice(np.array(["x", "y", None], dtype=object), length)
        frames.append(pl.DataFrame({**keys, "sector": pl.Series(sector.tolist(), dtype=pl.String), **_bars(rng, length, flaws)}))
    return pl.concat(frames).with_columns(pl.col(pl.Float64).fill_nan(None))
