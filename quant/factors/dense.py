"""Instructions for rows whose windows are full and whose values are all finite."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from quant.factors.expression import Elementwise
from quant.factors.kernels import FLAT, Op
from quant.factors.lowering import COMPARISONS, STRICT, SWALLOWING, Lowering, kept, split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quant.factors.expression import Node, Rolling
    from quant.factors.program import Value, Values

_BOUNDED = frozenset((*COMPARISONS, "And", "Or", "Not"))  # finite whatever the operands


class Dense(Lowering):
    """Every window is full and every value finite, so counts are constants. What is not finite is noted for the masked program."""

    masked = False

    def operand(self, node: Node) -> Value:
        value = self.value(node)
        if not (isinstance(node, Elementwise) and node.op in _BOUNDED):
            self.emit(Op.CHECK, (value,))
        return value

    def elementwise(self, op: str, args: Values) -> Value:
        for arg in args[: STRICT.get(op, 2)] if self.strict and op in SWALLOWING else ():
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
                return self.emit(Op.DECAY, self.over(family, args, newer), self.over(family, args, older), newer, (kept(family, newer),))

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


def _positions(window: int) -> tuple[float, float]:
    """Mean and sum of squared deviations of a full window's positions, 0 at its last row: merged as the masked program merges them."""
    if window == 1:
        return 0.0, 0.0
    newer, older = split(window)
    share = older / (newer + older)
    (a, aa), (b, bb) = _positions(newer), _positions(older)
    step = b - newer - a
    return a + step * share, aa + bb + (step * step) * (newer * share)


def _weights(window: int, rows: int) -> float:
    """Sum of an EMA's weights over its full window, merged as the masked program merges them."""
    if rows == 1:
        return 1.0
    newer, older = split(rows)
    return _weights(window, newer) + kept(f"decay {window}", newer) * _weights(window, older)


def _margin(window: int) -> float:
    return FLAT * FLAT * (window - 1.0)
