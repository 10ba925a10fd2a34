"""Instructions for rows whose windows may miss values or rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from quant.factors.kernels import EXISTS, POSITION, Op
from quant.factors.lowering import STRICT, SWALLOWING, Lowering, kept

if TYPE_CHECKING:
    from quant.factors.expression import Node, Rolling
    from quant.factors.program import Value, Values

_EMPTY = frozenset(("Sum", "Max", "Min", "IdxMax", "IdxMin"))  # have a value of an empty window, unless told; others divide by its 0


class Masked(Lowering):
    """Windows hold what there is: missing values are told from rows that do not exist, and both are counted."""

    masked = True

    def elementwise(self, op: str, args: Values) -> Value:
        value = super().elementwise(op, args)
        if op in SWALLOWING:  # a row that does not exist has no value, whatever the operator makes of missing operands
            value = self.one(Op.ABSENT, value, EXISTS)
            for arg in args[: STRICT.get(op, 2)] if self.strict else ():
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
                return self.emit(Op.DECAY, self.over(family, args, newer), self.over(family, args, older), newer, (kept(family, newer),))

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
