"""From nodes to instructions: one graph for all expressions, every common part once, windows built from adjacent blocks.

A window's statistic is merged from the statistics of two adjacent blocks, ``newer`` and ``older``, whose lengths follow from the window's
alone (``split``): so a value has the same bits whatever else is computed with it. Moments merge by Chan, Golub and LeVeque (1979),
higher ones by Pebay (2008): as exact as two passes over the window, and exactly 0 for the deviation of a constant. Order statistics
come from sorted blocks, merged by Batcher's odd-even network (1968).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from typing import TYPE_CHECKING

from quant.factors.expression import CrossSection, Elementwise, Feature, Number, Rolling, Shift, walk
from quant.factors.kernels import BAD, EXISTS, POSITION, Op
from quant.factors.program import Instruction, Program, Value, Values, assemble
from quant.factors.reach import reach

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from quant.factors.expression import Node


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


class Lowering(ABC):
    """Emits instructions for nodes; subclasses know what a window is made of."""

    masked: bool

    def __init__(self, nodes: Sequence[Node], *, strict: bool) -> None:
        self.strict = strict
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
        return assemble(self.instructions, fields, self.inputs, self.constants)


COMPARISONS = ("Gt", "Ge", "Lt", "Le", "Eq", "Ne")
_PAIRWISE: Mapping[str, Op] = {
    **{name: Op[name.upper()] for name in ("Add", "Sub", "Mul", "Div", "Power", "Greater", "Less", *COMPARISONS)},
    "And": Op.LESS,  # a comparison is 0 or 1
    "Or": Op.GREATER,
}
_SINGLE: Mapping[str, Op] = {name: Op[name.upper()] for name in ("Abs", "Sign", "Log", "Not")}
SWALLOWING = frozenset((*COMPARISONS, "If", "Power"))  # make a value of missing operands
STRICT = {"If": 1, "Power": 0}  # how many operands must be known in strict mode, if not all


def _slope(low: Lowering, node: Rolling) -> Value:
    _, _, xx, _, xy = low.trend(node)
    return low.two(Op.DIV, xy, xx)


def _residual(low: Lowering, node: Rolling) -> Value:
    x, y, *_ = low.trend(node)
    return low.one(Op.RESIDUAL, low.clean(node), y, _slope(low, node), x)


def _rank(low: Lowering, node: Rolling) -> Value:
    doubled = low.ranked(node, low.clean(node))
    return low.two(Op.DIV, low.two(Op.MUL, doubled, low.constant(0.5)), low.count(node))


def _position(family: str) -> Callable[[Lowering, Rolling], Value]:
    return lambda low, node: low.two(Op.SUB, low.rows(node), low.age(node, family))


def _absolute(low: Lowering, node: Rolling) -> Value:
    total = low.emit(Op.MAD, (low.clean(node), low.mean(node)), k=(float(node.window),), span=node.window)[0]
    return low.two(Op.DIV, total, low.count(node))


def _weighted(low: Lowering, node: Rolling) -> Value:
    """Qlib's WMA: the mean, not the sum, of values times weights 1, 2, ... n over their sum, so about 1 / n of a weighted mean."""
    lagged, total = low.lagged(node)
    rows = low.rows(node)
    weights = low.two(Op.MUL, low.two(Op.MUL, rows, low.two(Op.ADD, rows, low.constant(1.0))), low.constant(0.5))
    return low.two(Op.DIV, low.two(Op.DIV, low.two(Op.SUB, low.two(Op.MUL, rows, total), lagged), weights), low.count(node))


def _skew(low: Lowering, node: Rolling) -> Value:
    _, square, cube, _ = low.higher(node)
    return low.one(Op.SKEW, low.count(node), square, cube)


def _kurt(low: Lowering, node: Rolling) -> Value:
    _, square, _, fourth = low.higher(node)
    return low.one(Op.KURT, low.count(node), square, fourth)


def _known(low: Lowering, node: Rolling) -> Value:
    """Qlib counts infinite values, too, though its other windows leave them out."""
    x = low.clean(node) if low.strict else low.value(node.args[0])  # strict: the dense program has to note what is missing
    return low.over("sum", (low.two(Op.EQ, x, x),), node.window)[0]


_ROLLING: Mapping[str, Callable[[Lowering, Rolling], Value]] = {
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


def kept(family: str, rows: int) -> float:
    """What is left of a weight of the family ``decay N`` after some rows."""
    return (1.0 - 2.0 / (int(family.split()[1]) + 1)) ** rows
