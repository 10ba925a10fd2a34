"""From expressions to a program: one graph for all of them, every common part once, windows built from adjacent blocks.

A window's statistic is merged from the statistics of two adjacent blocks, ``newer`` and ``older``, whose lengths follow from the window's
alone (``split``): so a value has the same bits whatever else is computed with it. Moments merge by Chan, Golub and LeVeque (1979),
higher ones by Pebay (2008): as exact as two passes over the window, and exactly 0 for the deviation of a constant. Order statistics
come from sorted blocks, merged by Batcher's odd-even network (1968).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from quant.factors.expression import CrossSection, Elementwise, Feature, Number, Rolling, Shift, walk
from quant.factors.kernels import BAD, BEFORE, EXISTS, FIRST_BEFORE, FIRST_NOW, FIRST_OUT, FLAT, NOW, OUT, POSITION, WIDTH, Op
from quant.factors.reach import reach

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from quant.factors.expression import Node

Value = int  # of an instruction; every value is written once
Values = tuple[Value, ...]


class Mode(Enum):
    """What a window makes of missing values."""

    QLIB = "qlib"  # as pandas' rolling with min_periods=1: whatever is there
    STRICT = (
        "strict"  # missing until the window is full and unless every value in it is known; a comparison with a missing value is missing
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One step: ``out`` from operands at the row (``now``) and ``lag`` rows earlier (``before``)."""

    op: Op
    out: Values
    now: Values = ()
    before: Values = ()
    lag: int = 0
    k: tuple[float, ...] = ()
    span: int = 1  # rows of the first operand that are read, the current one included
    wires: Values = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What quant.factors.kernels runs: see there for the layout of ``code``."""

    code: NDArray[np.int32]
    constants: NDArray[np.float64]
    wires: NDArray[np.int64]
    fields: tuple[str, ...]
    field_registers: NDArray[np.int64]
    registers: int
    presets: Mapping[int, float]
    """Registers that hold a constant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The two programs for some expressions, and how many rows before and after its own a value depends on."""

    dense: Program
    masked: Program
    fields: tuple[str, ...]
    past: int
    future: int
    results: int


@lru_cache(maxsize=64)
def plan(nodes: tuple[Node, ...], mode: Mode) -> Plan:
    """The plan for ``nodes``, without cross-sections, in the order of the results. It is kept: the same factors are asked for every day."""
    fields = tuple(sorted({part.name for node in nodes for part in walk(node) if isinstance(part, Feature)}))
    reaches = [reach(node) for node in nodes]
    return Plan(
        dense=_Dense(nodes, mode).program(nodes, fields),
        masked=_Masked(nodes, mode).program(nodes, fields),
        fields=fields,
        past=max((part.past for part in reaches), default=0),
        future=max((part.future for part in reaches), default=0),
        results=len(nodes),
    )


def split(window: int) -> tuple[int, int]:
    """Lengths of the newer and the older block of a window. Halves and thirds, so that 5, 10, 20, 30 and 60 share their blocks."""
    if window % 4 == 0:
        return window // 2, window // 2
    if window % 3 == 0 and window > 3:
        return window // 3, window - window // 3
    return window // 2, window - window // 2


def merging_network(a: Sequence[int], b: Sequence[int]) -> tuple[list[tuple[int, int]], list[int]]:
    """Comparisons that merge two ascending lists of wires, and the wires in their final order (Batcher's odd-even merge)."""
    pairs: list[tuple[int, int]] = []

    def merged(x: Sequence[int], y: Sequence[int]) -> list[int]:
        if not x or not y:
            return [*x, *y]
        if len(x) == len(y) == 1:
            pairs.append((x[0], y[0]))
            return [x[0], y[0]]
        even, odd = merged(x[0::2], y[0::2]), merged(x[1::2], y[1::2])
        order = [even[0]]
        for i, wire in enumerate(odd):
            if i + 1 < len(even):
                pairs.append((wire, even[i + 1]))
                order += [wire, even[i + 1]]
            else:
                order.append(wire)
        return order + even[len(odd) + 1 :]

    return pairs, merged(a, b)


class _Lowering(ABC):
    """Emits instructions for nodes; subclasses know what a window is made of."""

    masked: bool

    def __init__(self, nodes: Sequence[Node], mode: Mode) -> None:
        self.strict = mode is Mode.STRICT
        self.forward = any(reach(node).future for node in nodes)
        self.instructions: list[Instruction] = []
        self.constants: dict[float, Value] = {}
        self.inputs: dict[str, Value] = {}
        self._values = POSITION + 1
        self._memo: dict[object, Values] = {}
        self._nodes: dict[Node, Value] = {}
        self._windows: dict[tuple[str, Node], set[int]] = defaultdict(set)
        for part in {part for node in nodes for part in walk(node)}:
            if isinstance(part, Rolling):
                self._windows[part.op, part.args[0]].add(part.window)

    # -- values ---------------------------------------------------------------------------------------------------------------------------
    def fresh(self, count: int = 1) -> Values:
        self._values += count
        return tuple(range(self._values - count, self._values))

    def emit(
        self,
        op: Op,
        now: Values = (),
        before: Values = (),
        lag: int = 0,
        k: tuple[float, ...] = (),
        results: int = 1,
        span: int = 1,
        wires: Values = (),
    ) -> Values:
        """One instruction; the same one again gives the same values."""
        key = (op, now, before, lag, k, span, wires)
        if key not in self._memo:
            out = (BAD,) if op is Op.CHECK else self.fresh(results)
            self.instructions.append(Instruction(op=op, out=out, now=now, before=before, lag=lag, k=k, span=span, wires=wires))
            self._memo[key] = out
        return self._memo[key]

    def one(self, op: Op, *now: Value, k: tuple[float, ...] = ()) -> Value:
        return self.emit(op, now, k=k)[0]

    def two(self, op: Op, a: Value, b: Value) -> Value:
        return self.emit(op, (a,), (b,))[0]

    def constant(self, value: float) -> Value:
        if value not in self.constants:
            self.constants[value] = self.fresh()[0]
        return self.constants[value]

    def over(self, family: str, args: Values, window: int) -> Values:
        """The statistic ``family`` of the last ``window`` rows of ``args``."""
        key = (family, args, window)
        if key not in self._memo:
            if window == 1:
                self._memo[key] = self.leaf(family, args)
            else:
                newer, older = split(window)
                self._memo[key] = self.merge(family, args, newer, older)
        return self._memo[key]

    @abstractmethod
    def leaf(self, family: str, args: Values) -> Values:
        """The statistic of a block of one row."""

    @abstractmethod
    def merge(self, family: str, args: Values, newer: int, older: int) -> Values:
        """The statistic of a block from those of its parts."""

    def simple(self, op: Op, family: str, args: Values, newer: int, older: int) -> Values:
        """Merge by an operator of two operands."""
        return self.emit(op, self.over(family, args, newer), self.over(family, args, older), newer)

    def aged(self, op: Op, family: str, args: Values, newer: int, older: int) -> Values:
        a, b = self.over(family, args, newer), self.over(family, args, older)
        return self.emit(op, a, b, newer, (float(newer),), 2)

    def ascending(self, x: Value, window: int) -> list[tuple[Value, int]]:
        """The window's values in ascending order, each with the lag at which to read it."""
        key = ("ascending", x, window)
        if key not in self._memo:
            self._memo[key] = self._sorted(x, window)
        flat = self._memo[key]
        return list(zip(flat[::2], flat[1::2], strict=True))

    def _sorted(self, x: Value, window: int) -> Values:
        if window == 1:
            return (x, 0)
        newer, older = split(window)
        wires = [*self.ascending(x, newer), *((value, lag + newer) for value, lag in self.ascending(x, older))]
        pairs, order = merging_network(range(newer), range(newer, window))
        for low, high in pairs:
            wires[low], wires[high] = self.exchange(wires[low], wires[high])
        return tuple(part for wire in order for part in wires[wire])

    def exchange(self, a: tuple[Value, int], b: tuple[Value, int]) -> tuple[tuple[Value, int], tuple[Value, int]]:
        if a[1]:
            a, b = b, a  # the network's order of the two does not matter: lesser and greater are told apart by value
        low, high = self.emit(Op.EXCHANGE, (self.current(a),), (b[0],), b[1], results=2)
        return (low, 0), (high, 0)

    def current(self, wire: tuple[Value, int]) -> Value:
        """The wire's value as one of the row itself."""
        value, lag = wire
        return self.emit(Op.SHIFT, before=(value,), lag=lag)[0] if lag else value

    def ranked(self, node: Rolling, x: Value) -> Value:
        """Twice the rank of the row's value among the last ``window`` ones, counted on from the next shorter window that is asked for."""
        shorter = [window for window in self._windows["Rank", node.args[0]] if window < node.window]
        first = max(shorter, default=1)
        if first > 1:
            base = self.ranked(Rolling(op="Rank", args=node.args, window=first), x)
        else:
            base = self.two(Op.ADD, self.two(Op.SUB, x, x), self.constant(2.0))
        return self.emit(Op.RANK, (x, base), k=(float(first), float(node.window)), span=node.window)[0]

    # -- nodes ----------------------------------------------------------------------------------------------------------------------------
    def value(self, node: Node) -> Value:
        if node not in self._nodes:
            self._nodes[node] = self._value(node)
        return self._nodes[node]

    def _value(self, node: Node) -> Value:
        match node:
            case Feature(name=name):
                self.inputs.setdefault(name, self.fresh()[0])
                return self.inputs[name]
            case Number(value=value):
                return self.constant(value)
            case Elementwise(op=op, args=args):
                return self.elementwise(op, tuple(self.value(arg) for arg in args))
            case Shift(arg=arg, by=by):
                return self.inside(self.emit(Op.SHIFT, before=(self.value(arg),), lag=by)[0])
            case Rolling():
                return self.inside(self.need(node, _ROLLING[node.op](self, node), self.count(node)))
            case CrossSection():
                raise TypeError("cross-sections are computed before the rest is planned")

    def elementwise(self, op: str, args: Values) -> Value:
        if op == "If":
            return self.one(Op.IF, *args)
        if op in _PAIRWISE:
            return self.two(_PAIRWISE[op], *args)
        return self.one(_SINGLE[op], *args)

    def inside(self, value: Value) -> Value:
        """``value`` on the rows that exist: those before a listing's first look forward into it, those after its last look back."""
        return self.one(Op.ABSENT, value, EXISTS) if self.masked and self.forward else value

    @abstractmethod
    def need(self, node: Rolling, value: Value, n: Value) -> Value:
        """``value`` where the window holds enough."""

    @abstractmethod
    def count(self, node: Rolling) -> Value:
        """Known values in the window: of the pairs for an operator on two series."""

    @abstractmethod
    def rows(self, node: Rolling) -> Value:
        """Existing rows in the window."""

    @abstractmethod
    def clean(self, node: Rolling) -> Value:
        """The first series, missing where it is not finite."""

    @abstractmethod
    def total(self, node: Rolling) -> Value:
        """Sum of the window."""

    @abstractmethod
    def extreme(self, node: Rolling, family: str) -> Value:
        """Greatest (``high``) or least (``low``) value."""

    @abstractmethod
    def age(self, node: Rolling, family: str) -> Value:
        """Rows since the extreme value, the earliest if tied."""

    @abstractmethod
    def variance(self, node: Rolling) -> Value:
        """Sum of squared deviations over n - 1."""

    @abstractmethod
    def trend(self, node: Rolling) -> tuple[Value, Value, Value, Value, Value]:
        """Means of position (0 at the last row) and value, then xx, yy and xy."""

    @abstractmethod
    def rsquare(self, node: Rolling) -> Value:
        """Squared correlation with the position."""

    @abstractmethod
    def correlation(self, node: Rolling) -> Value:
        """Correlation of two series."""

    @abstractmethod
    def covariance(self, node: Rolling) -> Value:
        """Covariance of two series over n - 1."""

    @abstractmethod
    def higher(self, node: Rolling) -> Values:
        """Mean and sums of squared, cubed and fourth deviations."""

    @abstractmethod
    def lagged(self, node: Rolling) -> tuple[Value, Value]:
        """Sum of values times rows since, and sum of values."""

    @abstractmethod
    def decayed(self, node: Rolling) -> tuple[Value, Value]:
        """Sum of values times their weights, and sum of the weights."""

    @abstractmethod
    def quantile(self, node: Rolling, level: float) -> Value:
        """Linear between the two values around the level."""

    def mean(self, node: Rolling) -> Value:
        return self.two(Op.DIV, self.total(node), self.count(node))

    # -- the program ----------------------------------------------------------------------------------------------------------------------
    def program(self, nodes: Sequence[Node], fields: tuple[str, ...]) -> Program:
        for name in fields:
            self.value(Feature(name=name))
        for number, node in enumerate(nodes):
            self.instructions.append(Instruction(op=Op.STORE, out=(), now=(self.value(node),), lag=number))
        return _allocate(_with_quotients_stored(self.instructions), fields, self.inputs, self.constants)


class _Dense(_Lowering):
    """Every window is full and every value finite, so counts are constants. What is not finite is noted for the masked program."""

    masked = False

    def operand(self, node: Node) -> Value:
        value = self.value(node)
        if not (isinstance(node, Elementwise) and node.op in _BOUNDED):
            self.emit(Op.CHECK, (value,))
        return value

    def elementwise(self, op: str, args: Values) -> Value:
        for arg in args[: _STRICT.get(op, 2)] if self.strict and op in _SWALLOWING else ():
            self.emit(Op.CHECK, (arg,))  # or a comparison with a missing value would be 0 here
        return super().elementwise(op, args)

    def need(self, node: Rolling, value: Value, n: Value) -> Value:  # noqa: ARG002
        return value

    def count(self, node: Rolling) -> Value:
        return self.constant(float(node.rows))

    def rows(self, node: Rolling) -> Value:
        return self.constant(float(node.window))

    def leaf(self, family: str, args: Values) -> Values:
        zero = self.constant(0.0)
        match family:
            case "sum" | "high" | "low":
                return args
            case "high_age" | "low_age" | "moments":
                return (*args, zero)
            case "trend" | "cross" | "lagged":
                return (zero,)
            case "higher":
                return (*args, zero, zero, zero)
            case _:
                return args  # decay

    def merge(self, family: str, args: Values, newer: int, older: int) -> Values:
        share = older / (newer + older)
        weight = newer * share
        match family:
            case "sum":
                return self.simple(Op.SUM, family, args, newer, older)
            case "high":
                return self.simple(Op.HIGH, family, args, newer, older)
            case "low":
                return self.simple(Op.LOW, family, args, newer, older)
            case "high_age":
                return self.aged(Op.HIGH_AGE, family, args, newer, older)
            case "low_age":
                return self.aged(Op.LOW_AGE, family, args, newer, older)
            case "moments":
                a, b = self.over(family, args, newer), self.over(family, args, older)
                return self.emit(Op.MOMENTS, a, b, newer, (share, weight), 2)
            case "trend":
                a = (*self.over(family, args, newer), self.over("moments", args, newer)[0])
                b = (*self.over(family, args, older), self.over("moments", args, older)[0])
                step = _positions(older)[0] - newer - _positions(newer)[0]
                return self.emit(Op.TREND, a, b, newer, (step, weight))
            case "cross":
                x, y = args
                a = (*self.over(family, args, newer), self.over("moments", (x,), newer)[0], self.over("moments", (y,), newer)[0])
                b = (*self.over(family, args, older), self.over("moments", (x,), older)[0], self.over("moments", (y,), older)[0])
                return self.emit(Op.CROSS, a, b, newer, (weight,))
            case "higher":
                a = (self.constant(float(newer)), *self.over(family, args, newer))
                b = (self.constant(float(older)), *self.over(family, args, older))
                return self.emit(Op.HIGHER_N, a, b, newer, results=4)
            case "lagged":
                b = (*self.over(family, args, older), *self.over("sum", args, older))
                return self.emit(Op.LAGGED, self.over(family, args, newer), b, newer, (float(newer),))
            case _:
                return self.emit(Op.DECAY, self.over(family, args, newer), self.over(family, args, older), newer, (_kept(family, newer),))

    def total(self, node: Rolling) -> Value:
        return self.over("sum", (self.operand(node.args[0]),), node.window)[0]

    def extreme(self, node: Rolling, family: str) -> Value:
        x = (self.operand(node.args[0]),)
        sought = {"high": "IdxMax", "low": "IdxMin"}[family]
        if node.window in self._windows[sought, node.args[0]]:
            return self.over(f"{family}_age", x, node.window)[0]
        return self.over(family, x, node.window)[0]

    def age(self, node: Rolling, family: str) -> Value:
        x = self.operand(node.args[0])
        if node.window == 1:
            return self.two(Op.SUB, x, x)  # 0, and made of the value: what nobody reads is not checked
        return self.over(family, (x,), node.window)[1]

    def square(self, node: Rolling) -> Value:
        return self.over("moments", (self.operand(node.args[0]),), node.window)[1]

    def variance(self, node: Rolling) -> Value:
        if node.window == 1:
            return self.constant(math.nan)
        return self.two(Op.MUL, self.square(node), self.constant(1.0 / (node.window - 1)))

    def trend(self, node: Rolling) -> tuple[Value, Value, Value, Value, Value]:
        x = (self.operand(node.args[0]),)
        mean, square = self.over("moments", x, node.window)
        (xy,) = self.over("trend", x, node.window)
        position, xx = _positions(node.window)
        return self.constant(position), mean, self.constant(xx), square, xy

    def rsquare(self, node: Rolling) -> Value:
        _, _, xx, yy, xy = self.trend(node)
        return self.one(Op.RSQUARE, xy, xx, yy, k=(_margin(node.window),))

    def pairs(self, node: Rolling) -> Value:
        x, y = (self.operand(arg) for arg in node.args)
        return self.over("cross", (x, y), node.window)[0]

    def correlation(self, node: Rolling) -> Value:
        x, y = (self.over("moments", (self.operand(arg),), node.window)[1] for arg in node.args)
        return self.one(Op.CORRELATION, self.pairs(node), x, y, k=(_margin(node.window),))

    def covariance(self, node: Rolling) -> Value:
        if node.window == 1:
            return self.constant(math.nan)
        return self.two(Op.MUL, self.pairs(node), self.constant(1.0 / (node.window - 1)))

    def higher(self, node: Rolling) -> Values:
        return self.over("higher", (self.operand(node.args[0]),), node.window)

    def lagged(self, node: Rolling) -> tuple[Value, Value]:
        x = (self.operand(node.args[0]),)
        return self.over("lagged", x, node.window)[0], self.over("sum", x, node.window)[0]

    def decayed(self, node: Rolling) -> tuple[Value, Value]:
        family = f"decay {node.window}"
        return self.over(family, (self.operand(node.args[0]),), node.rows)[0], self.constant(_weights(node.window, node.rows))

    def clean(self, node: Rolling) -> Value:
        return self.operand(node.args[0])

    def quantile(self, node: Rolling, level: float) -> Value:
        x, place = self.operand(node.args[0]), level * (node.window - 1)
        low = math.floor(place)
        high = min(low + 1, node.window - 1)
        windows = self._windows["Quantile", node.args[0]]
        newer, older = split(node.window) if node.window > 1 else (1, 0)
        if newer == older and node.window == max(windows):  # nobody needs its full order
            bounds = [self.selected(x, node.window, low), self.selected(x, node.window, high)]
        else:
            ordered = self.ascending(x, node.window)
            bounds = [self.current(ordered[low]), self.current(ordered[high])]
        return self.one(Op.LERP, *bounds, k=(place - low,))

    def selected(self, x: Value, window: int, place: int) -> Value:
        """The value at ``place`` of the window's order from its sorted halves: least of the pairs' greater, or greatest of their lesser."""
        newer, older = split(window)
        a, b = self.ascending(x, newer), self.ascending(x, older)
        b = [(value, lag + newer) for value, lag in b]
        taken = place + 1
        if taken <= min(newer, older):
            bounds = [self.least(a[taken - 1], b[taken - 1])]  # all from one side is a bound of its own
            chosen = self._choose(Op.LEAST_OF_GREATER, bounds[0], [(a[i - 1], b[taken - i - 1]) for i in range(1, taken)])
        else:
            taken = window - place
            first = self.greatest(a[newer - taken], b[older - taken])
            chosen = self._choose(Op.GREATEST_OF_LESS, first, [(a[newer - i], b[older - taken + i]) for i in range(1, taken)])
        return chosen

    def least(self, a: tuple[Value, int], b: tuple[Value, int]) -> Value:
        return self.emit(Op.LOW, (self.current(a),), (b[0],), b[1])[0]

    def greatest(self, a: tuple[Value, int], b: tuple[Value, int]) -> Value:
        return self.emit(Op.HIGH, (self.current(a),), (b[0],), b[1])[0]

    def _choose(self, op: Op, chosen: Value, pairs: Sequence[tuple[tuple[Value, int], tuple[Value, int]]]) -> Value:
        for a, b in pairs:
            (chosen,) = self.emit(op, (self.current(a), chosen), (b[0],), b[1])
        return chosen


class _Masked(_Lowering):
    """Windows hold what there is: missing values are told from rows that do not exist, and both are counted."""

    masked = True

    def elementwise(self, op: str, args: Values) -> Value:
        value = super().elementwise(op, args)
        if op in _SWALLOWING:  # a row that does not exist has no value, whatever the operator makes of missing operands
            value = self.one(Op.ABSENT, value, EXISTS)
            for arg in args[: _STRICT.get(op, 2)] if self.strict else ():
                value = self.one(Op.ABSENT, value, self.two(Op.EQ, arg, arg))
        return value

    def known(self, node: Node) -> Value:
        return self.one(Op.KNOWN, self.value(node))

    def filled(self, node: Node, value: float = 0.0) -> Value:
        return self.one(Op.FILL, self.value(node), k=(value,))

    def need(self, node: Rolling, value: Value, n: Value) -> Value:
        if self.strict:
            return self.one(Op.WHEN, value, n, k=(float(node.rows),))
        if node.op == "Count":  # 0 where all is missing, but no value on a row that does not exist: a Ref or a window may look there
            return self.one(Op.ABSENT, value, EXISTS)
        return self.one(Op.WHEN, value, n, k=(1.0,)) if node.op in _EMPTY else value

    def count(self, node: Rolling) -> Value:
        return self.over("sum", (self.mask(node),), node.rows)[0]

    def mask(self, node: Rolling) -> Value:
        known = [self.known(arg) for arg in node.args]
        return known[0] if len(known) == 1 else self.two(Op.MUL, *known)

    def rows(self, node: Rolling) -> Value:
        return self.two(Op.LESS, POSITION, self.constant(float(node.window)))

    def leaf(self, family: str, args: Values) -> Values:
        zero = self.constant(0.0)
        match family:
            case "moments":  # of (filled, known)
                return (args[0], zero)
            case "trend":
                return (zero, args[0], zero, zero, zero)
            case "cross":  # of (filled x, filled y, known)
                return (args[0], args[1], zero, zero, zero)
            case "higher":
                return (args[0], zero, zero, zero)
            case "high_age" | "low_age":
                return (args[0], zero)
            case "lagged":
                return (zero,)
            case _:
                return args

    def merge(self, family: str, args: Values, newer: int, older: int) -> Values:
        match family:
            case "sum":
                return self.simple(Op.SUM, family, args, newer, older)
            case "high":
                return self.simple(Op.HIGH, family, args, newer, older)
            case "low":
                return self.simple(Op.LOW, family, args, newer, older)
            case "high_age":
                return self.aged(Op.HIGH_AGE, family, args, newer, older)
            case "low_age":
                return self.aged(Op.LOW_AGE, family, args, newer, older)
            case "lagged":
                b = (*self.over(family, args, older), *self.over("sum", args, older))
                return self.emit(Op.LAGGED, self.over(family, args, newer), b, newer, (float(newer),))
            case "moments":
                mean, step, weight = self.means(family, args, 0, newer, older)
                return mean, self.spread(family, args, 1, (step, step, weight), newer, older)
            case "trend" | "cross":
                (x, dx, weight), (y, dy, _) = (self.means(family, args, i, newer, older) for i in (0, 1))
                steps = ((dx, dx, weight), (dy, dy, weight), (dx, dy, weight))
                return x, y, *(self.spread(family, args, 2 + i, step, newer, older) for i, step in enumerate(steps))
            case "higher":
                a = (*self.over("sum", args[-1:], newer), *self.over(family, args, newer))
                b = (*self.over("sum", args[-1:], older), *self.over(family, args, older))
                return self.emit(Op.HIGHER_N, a, b, newer, results=4)
            case _:
                return self.emit(Op.DECAY, self.over(family, args, newer), self.over(family, args, older), newer, (_kept(family, newer),))

    def means(self, family: str, args: Values, part: int, newer: int, older: int) -> Values:
        """Mean number ``part`` of both blocks, the step from the newer block's to the older one's, and the step's weight."""
        (n,), before = self.over("sum", args[-1:], newer), self.over("sum", args[-1:], older)
        (share,) = self.emit(Op.SHARE, (n,), before, newer)
        a, b = self.over(family, args, newer)[part], self.over(family, args, older)[part]
        drift = float(newer) if family == "trend" and part == 0 else 0.0  # positions are measured from each block's own last row
        (step,) = self.emit(Op.STEP, (a,), (b,), newer, (drift,))
        return self.one(Op.BLEND, a, step, share), step, self.two(Op.MUL, n, share)

    def spread(self, family: str, args: Values, part: int, steps: Values, newer: int, older: int) -> Value:
        """Sum of products of deviations, number ``part``, of both blocks."""
        a, b = self.over(family, args, newer)[part], self.over(family, args, older)[part]
        return self.emit(Op.SPREAD, (a, *steps), (b,), newer)[0]

    def total(self, node: Rolling) -> Value:
        return self.over("sum", (self.filled(node.args[0]),), node.window)[0]

    def extreme(self, node: Rolling, family: str) -> Value:
        return self.over(family, (self.filled(node.args[0], {"high": -math.inf, "low": math.inf}[family]),), node.window)[0]

    def age(self, node: Rolling, family: str) -> Value:
        fill = {"high_age": math.inf, "low_age": -math.inf}[family]  # a missing value beats any other, a row that does not exist none
        first = self.one(Op.FIRST, self.value(node.args[0]), EXISTS, k=(fill,))
        return self.over(family, (first,), node.window)[1]

    def deviations(self, node: Node, window: int) -> tuple[Value, Value]:
        """Sum of squared deviations and number of the known values."""
        args = (self.filled(node), self.known(node))
        return self.over("moments", args, window)[1], self.over("sum", args[1:], window)[0]

    def variance(self, node: Rolling) -> Value:
        return self.one(Op.VARIANCE, *self.deviations(node.args[0], node.window))

    def trend(self, node: Rolling) -> tuple[Value, Value, Value, Value, Value]:
        x, y, xx, yy, xy = self.over("trend", (self.filled(node.args[0]), self.known(node.args[0])), node.window)
        return x, y, xx, yy, xy

    def rsquare(self, node: Rolling) -> Value:
        _, _, xx, yy, xy = self.trend(node)
        return self.one(Op.RSQUARE_N, xy, xx, yy, self.count(node))

    def comoments(self, node: Rolling) -> Values:
        both = self.mask(node)
        zero = self.constant(0.0)
        x, y = (self.one(Op.IF, both, self.filled(arg), zero) for arg in node.args)
        return self.over("cross", (x, y, both), node.window)

    def correlation(self, node: Rolling) -> Value:
        _, _, xx, yy, xy = self.comoments(node)
        own = (part for arg in node.args for part in self.deviations(arg, node.window))  # each series' own, as in Qlib, not the pairs'
        return self.one(Op.CORRELATION_N, xy, xx, yy, *own)

    def covariance(self, node: Rolling) -> Value:
        return self.one(Op.VARIANCE, self.comoments(node)[4], self.count(node))

    def higher(self, node: Rolling) -> Values:
        return self.over("higher", (self.filled(node.args[0]), self.known(node.args[0])), node.window)

    def lagged(self, node: Rolling) -> tuple[Value, Value]:
        x = (self.filled(node.args[0]),)
        return self.over("lagged", x, node.window)[0], self.over("sum", x, node.window)[0]

    def decayed(self, node: Rolling) -> tuple[Value, Value]:
        family = f"decay {node.window}"
        parts = (self.filled(node.args[0]), self.known(node.args[0]))
        values, weights = (self.over(family, (part,), node.rows)[0] for part in parts)
        return values, weights

    def clean(self, node: Rolling) -> Value:
        return self.filled(node.args[0], math.nan)

    def quantile(self, node: Rolling, level: float) -> Value:
        ordered = self.ascending(self.filled(node.args[0], math.inf), node.window)
        wires = tuple(self.current(wire) for wire in ordered)
        return self.emit(Op.PICK, (self.count(node),), k=(level,), wires=wires)[0]


_COMPARISONS = ("Gt", "Ge", "Lt", "Le", "Eq", "Ne")
_PAIRWISE: Mapping[str, Op] = {
    **{name: Op[name.upper()] for name in ("Add", "Sub", "Mul", "Div", "Power", "Greater", "Less", *_COMPARISONS)},
    "And": Op.LESS,  # a comparison is 0 or 1
    "Or": Op.GREATER,
}
_SINGLE: Mapping[str, Op] = {name: Op[name.upper()] for name in ("Abs", "Sign", "Log", "Not")}
_BOUNDED = frozenset((*_COMPARISONS, "And", "Or", "Not"))  # finite whatever the operands
_SWALLOWING = frozenset((*_COMPARISONS, "If", "Power"))  # make a value of missing operands
_EMPTY = frozenset(("Sum", "Max", "Min", "IdxMax", "IdxMin"))  # have a value of an empty window, unless told; others divide by its 0
_STRICT = {"If": 1, "Power": 0}  # how many operands must be known in strict mode, if not all


def _slope(low: _Lowering, node: Rolling) -> Value:
    _, _, xx, _, xy = low.trend(node)
    return low.two(Op.DIV, xy, xx)


def _residual(low: _Lowering, node: Rolling) -> Value:
    x, y, *_ = low.trend(node)
    return low.one(Op.RESIDUAL, low.clean(node), y, _slope(low, node), x)


def _rank(low: _Lowering, node: Rolling) -> Value:
    doubled = low.ranked(node, low.clean(node))
    return low.two(Op.DIV, low.two(Op.MUL, doubled, low.constant(0.5)), low.count(node))


def _position(family: str) -> Callable[[_Lowering, Rolling], Value]:
    return lambda low, node: low.two(Op.SUB, low.rows(node), low.age(node, family))


def _absolute(low: _Lowering, node: Rolling) -> Value:
    total = low.emit(Op.MAD, (low.clean(node), low.mean(node)), k=(float(node.window),), span=node.window)[0]
    return low.two(Op.DIV, total, low.count(node))


def _weighted(low: _Lowering, node: Rolling) -> Value:
    """Qlib's WMA: the mean, not the sum, of values times weights 1, 2, ... n over their sum, so about 1 / n of a weighted mean."""
    lagged, total = low.lagged(node)
    rows = low.rows(node)
    weights = low.two(Op.MUL, low.two(Op.MUL, rows, low.two(Op.ADD, rows, low.constant(1.0))), low.constant(0.5))
    return low.two(Op.DIV, low.two(Op.DIV, low.two(Op.SUB, low.two(Op.MUL, rows, total), lagged), weights), low.count(node))


def _skew(low: _Lowering, node: Rolling) -> Value:
    _, square, cube, _ = low.higher(node)
    return low.one(Op.SKEW, low.count(node), square, cube)


def _kurt(low: _Lowering, node: Rolling) -> Value:
    _, square, _, fourth = low.higher(node)
    return low.one(Op.KURT, low.count(node), square, fourth)


def _known(low: _Lowering, node: Rolling) -> Value:
    x = low.clean(node) if low.strict else low.value(node.args[0])  # strict: the dense program has to note what is missing
    return low.over("sum", (low.one(Op.KNOWN, x),), node.window)[0]


_ROLLING: Mapping[str, Callable[[_Lowering, Rolling], Value]] = {
    "Count": _known,
    "Sum": lambda low, node: low.total(node),
    "Mean": lambda low, node: low.mean(node),
    "Var": lambda low, node: low.variance(node),
    "Std": lambda low, node: low.one(Op.SQRT, low.variance(node)),
    "Max": lambda low, node: low.extreme(node, "high"),
    "Min": lambda low, node: low.extreme(node, "low"),
    "IdxMax": _position("high_age"),
    "IdxMin": _position("low_age"),
    "Quantile": lambda low, node: low.quantile(node, node.level or 0.0),
    "Rank": _rank,
    "Slope": _slope,
    "Rsquare": lambda low, node: low.rsquare(node),
    "Resi": _residual,
    "Skew": _skew,
    "Kurt": _kurt,
    "Mad": _absolute,
    "EMA": lambda low, node: low.two(Op.DIV, *low.decayed(node)),
    "WMA": _weighted,
    "Corr": lambda low, node: low.correlation(node),
    "Cov": lambda low, node: low.covariance(node),
}


def _positions(window: int) -> tuple[float, float]:
    """Mean and sum of squared deviations of a full window's positions, 0 at its last row: merged as the masked program merges them."""
    if window == 1:
        return 0.0, 0.0
    newer, older = split(window)
    share = older / (newer + older)
    (a, aa), (b, bb) = _positions(newer), _positions(older)
    step = b - newer - a
    return a + step * share, aa + bb + (step * step) * (newer * share)


def _kept(family: str, rows: int) -> float:
    """What is left of a weight of the family ``decay N`` after some rows."""
    return (1.0 - 2.0 / (int(family.split()[1]) + 1)) ** rows


def _weights(window: int, rows: int) -> float:
    """Sum of an EMA's weights over its full window, merged as the masked program merges them."""
    if rows == 1:
        return 1.0
    newer, older = split(rows)
    return _weights(window, newer) + _kept(f"decay {window}", newer) * _weights(window, older)


def _margin(window: int) -> float:
    return FLAT * FLAT * (window - 1.0)


def _with_quotients_stored(instructions: Sequence[Instruction]) -> list[Instruction]:
    """A quotient that is a result and nothing else goes there at once: most factors end with a division, and writing costs most."""
    uses = Counter(value for step in instructions for value in (*step.now, *step.before, *step.wires))
    quotients = {step.out[0]: step for step in instructions if step.op is Op.DIV and uses[step.out[0]] == 1}
    stored: list[Instruction] = []
    for step in instructions:
        if step.op is Op.STORE and step.now[0] in quotients:
            quotient = quotients[step.now[0]]
            stored.append(replace(step, op=Op.STORE_QUOTIENT, now=(*quotient.now, *quotient.before)))
        else:
            stored.append(step)  # the quotient's own instruction too: nobody needs it any more, so it is left out later
    return stored


def _allocate(
    instructions: Sequence[Instruction], fields: tuple[str, ...], inputs: Mapping[str, Value], constants: Mapping[float, Value]
) -> Program:
    """Leave out what nobody needs, find the rows that each instruction has to write, and give registers to values."""
    past: dict[Value, int] = {}
    future: dict[Value, int] = {}
    kept: list[tuple[Instruction, int, int]] = []
    for step in reversed(instructions):
        needed = step.now if step.op is Op.CHECK else tuple(value for value in step.out if value in past)
        if step.op < Op.STORE and not (needed and needed[0] in past):
            continue
        need = max((past[value] for value in needed), default=0)
        ahead = max((future[value] for value in needed), default=0)
        kept.append((step, need, ahead))
        for number, value in enumerate((*step.now, *step.wires)):
            past[value] = max(past.get(value, need), need + (step.span - 1 if number == 0 else 0))
            future[value] = max(future.get(value, ahead), ahead)
        for value in step.before:
            past[value] = max(past.get(value, need + step.lag), need + step.lag)
            future[value] = max(future.get(value, ahead - step.lag), ahead - step.lag)
    return _registers(kept[::-1], fields, inputs, constants)


def _registers(
    steps: Sequence[tuple[Instruction, int, int]], fields: tuple[str, ...], inputs: Mapping[str, Value], constants: Mapping[float, Value]
) -> Program:
    last = {value: at for at, (step, _, _) in enumerate(steps) for value in (*step.now, *step.before, *step.wires)}
    fixed = [BAD, EXISTS, POSITION, *(inputs[name] for name in fields), *(value for value in constants.values() if value in last)]
    register = {value: number for number, value in enumerate(fixed)}
    free: list[int] = []
    used = len(register)
    code = np.zeros((len(steps), WIDTH), np.int32)
    numbers = np.zeros((len(steps), 3))
    wires: list[int] = []
    for at, (step, need, ahead) in enumerate(steps):
        reads = (*step.now, *step.before, *step.wires)
        for value in step.out:
            if value not in register:
                register[value] = free.pop() if free else used
                used = max(used, register[value] + 1)
        code[at, :FIRST_OUT] = step.op, need, ahead, len(wires) if step.wires else step.lag
        for first, size, values in ((FIRST_OUT, OUT, step.out), (FIRST_NOW, NOW, step.now), (FIRST_BEFORE, BEFORE, step.before)):
            if len(values) > size:
                raise AssertionError(f"{step.op.name} has {len(values)} operands in {size} places")
            code[at, first : first + len(values)] = [register[value] for value in values]
        numbers[at, : len(step.k)] = step.k
        wires += [register[value] for value in step.wires]
        done = {value for value in (*reads, *step.out) if last.get(value, at) <= at and value not in fixed}
        free += sorted(register[value] for value in done)
    return Program(
        code=code,
        constants=numbers,
        wires=np.array(wires or [0], np.int64),
        fields=fields,
        field_registers=np.array([register[inputs[name]] for name in fields], np.int64),
        registers=used,
        presets={register[value]: number for number, value in constants.items() if value in register},
    )
