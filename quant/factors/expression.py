"""Qlib's factor expressions as frozen, hashable nodes.

Read with a whitelist over Python's ast and never run as code. Two parts of the language are left out on purpose: windows of 0 or below 1
(expanding, exponential), whose value would depend on how much history happens to be stored, and data from elsewhere ($$x,
ChangeInstrument).
"""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from quant.errors import FactorError, expected

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

FIELDS = ("open", "high", "low", "close", "volume", "vwap")
MAX_WINDOW = 2520  # ten years of sessions; every symbol is padded by the longest window, so it has to have a bound
MAX_LENGTH = 2000  # characters; bounds how deep an expression can nest


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A column of the panel: ``$close``."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A finite constant."""

    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Elementwise:
    """An operator of ELEMENTWISE on values of the same row."""

    op: str
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """The value ``by`` rows earlier (``Ref``); later if ``by`` is negative."""

    arg: Node
    by: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolling:
    """An operator of ROLLING over the last ``window`` rows, the current one included; ``level`` is the q of Quantile."""

    op: str
    args: tuple[Node, ...]
    window: int
    level: float | None = None


Node: TypeAlias = Feature | Number | Elementwise | Shift | Rolling

_COMPARE: Mapping[type[ast.cmpop], str] = {
    ast.Gt: "Gt",
    ast.GtE: "Ge",
    ast.Lt: "Lt",
    ast.LtE: "Le",
    ast.Eq: "Eq",
    ast.NotEq: "Ne",
}
_BINARY: Mapping[type[ast.operator], str] = {
    ast.Add: "Add",
    ast.Sub: "Sub",
    ast.Mult: "Mul",
    ast.Div: "Div",
    ast.Pow: "Power",
    ast.BitAnd: "And",
    ast.BitOr: "Or",
}
_LOGICAL = frozenset({*_COMPARE.values(), "And", "Or", "Not"})

ELEMENTWISE: Mapping[str, int] = {  # operator -> number of arguments
    **dict.fromkeys(("Abs", "Sign", "Log", "Not"), 1),
    **dict.fromkeys((*_BINARY.values(), *_COMPARE.values(), "Greater", "Less"), 2),
    "If": 3,
}
ROLLING: Mapping[str, int] = {  # operator -> number of series before the window
    **dict.fromkeys(("Mean", "Sum", "Count", "Std", "Var", "Max", "Min", "IdxMax", "IdxMin"), 1),
    **dict.fromkeys(("Quantile", "Rank", "Slope", "Rsquare", "Resi"), 1),
    **dict.fromkeys(("Corr", "Cov"), 2),
}
OPERATORS = (*ELEMENTWISE, *ROLLING, "Ref", "Delta", "Med")

_ALPHABET = re.compile(r"[\w\s$().,+\-*/<>=!&|]*", re.ASCII)
_FIELD_MARK = "Z"  # in place of $: keeps every position, can start a name, cannot continue a number


def parse(text: str) -> Node:
    """The node that a Qlib expression such as ``Corr($close, Log($volume+1), 5)`` stands for; equal expressions give equal nodes.

    Raises FactorError with the position of whatever is not in the language.
    """
    allowed = _ALPHABET.match(text)
    end = allowed.end() if allowed else 0
    if len(text) > MAX_LENGTH:
        raise _refuse(text[:40] + "...", 0, f"at most {MAX_LENGTH} characters", len(text), "split it into several factors")
    if end < len(text):
        raise _refuse(text, end, "a factor expression", repr(text[end]), "use $fields, numbers, operators and calls")
    plain = re.sub(r"\s", " ", text)
    blank = len(plain) - len(plain.lstrip())  # ast refuses indentation
    try:
        tree = ast.parse(plain[blank:].replace("$", _FIELD_MARK), mode="eval")
        node = _Reader(text=plain, offset=blank).read(tree.body)
    except SyntaxError as fault:
        at = blank + max((fault.offset or 1) - 1, 0)
        raise _refuse(text, at, "a factor expression", fault.msg, "fix the syntax") from None
    except (RecursionError, MemoryError):
        raise _refuse(text, 0, "a factor expression", "too many nested parts", "split it into several factors") from None
    if not features(node):
        raise _refuse(text, 0, "a series", "a constant", "use at least one $field")
    return node


def children(node: Node) -> tuple[Node, ...]:
    """Nodes that ``node`` is computed from, in order."""
    match node:
        case Feature() | Number():
            return ()
        case Shift():
            return (node.arg,)
        case Elementwise() | Rolling():
            return node.args


def walk(node: Node) -> Iterator[Node]:
    """``node`` and everything below it."""
    yield node
    for child in children(node):
        yield from walk(child)


def features(node: Node) -> frozenset[str]:
    """Columns of the panel that ``node`` reads."""
    return frozenset(part.name for part in walk(node) if isinstance(part, Feature))


def _refuse(text: str, at: int, what: str, found: object, do: str) -> FactorError:
    return FactorError(expected(what, found=found, where=f"{text!r} at position {at + 1}", do=do))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """Turns one expression's ast into nodes; ``text`` is the expression on one line, ``offset`` what was cut off its start."""

    text: str
    offset: int

    def read(self, tree: ast.expr) -> Node:
        match tree:
            case ast.Constant():
                return Number(value=self.number(tree))
            case ast.Name():
                return self.feature(tree)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.negative(operand)
            case ast.BinOp(op=op, left=left, right=right) if type(op) in _BINARY:
                return self.elementwise(tree, _BINARY[type(op)], (left, right))
            case ast.Compare(ops=[op], left=left, comparators=[right]) if type(op) in _COMPARE:
                return self.elementwise(tree, _COMPARE[type(op)], (left, right))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return self.call(tree, name, args)
            case _:
                raise self.refuse(tree, "a $field, a number, an operator or a call", type(tree).__name__, "rewrite it with those")

    def refuse(self, tree: ast.expr, what: str, found: object, do: str) -> FactorError:
        return _refuse(self.text, self.offset + tree.col_offset, what, found, do)

    def feature(self, tree: ast.Name) -> Feature:
        name = tree.id.removeprefix(_FIELD_MARK)
        at = self.offset + tree.col_offset
        if self.text[at] != "$" or name not in FIELDS:
            known = ", ".join(f"${field}" for field in FIELDS)
            raise self.refuse(tree, f"one of {known}", self.text[at : at + len(tree.id)], "use one of them")
        return Feature(name=name)

    def number(self, tree: ast.expr) -> float:
        value = tree.value if isinstance(tree, ast.Constant) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
            raise self.refuse(tree, "a finite number", ast.unparse(tree), "write it as 5, 0.8 or 1e-12")
        return float(value)

    def negative(self, operand: ast.expr) -> Node:
        arg = self.read(operand)
        return Number(value=-arg.value) if isinstance(arg, Number) else Elementwise(op="Mul", args=(arg, Number(value=-1.0)))

    def elementwise(self, tree: ast.expr, op: str, args: Sequence[ast.expr]) -> Node:
        nodes = tuple(self.read(arg) for arg in args)
        logical = [isinstance(node, Elementwise) and node.op in _LOGICAL for node in nodes]
        needed = {"And": 2, "Or": 2, "Not": 1, "If": 1}.get(op, 0)
        for arg, flag in list(zip(args, logical, strict=True))[:needed]:
            if not flag:
                raise self.refuse(arg, f"a comparison in {op}", "a number", "compare it with something")
        if op in ("Add", "Sub") and all(logical):  # Qlib's + of two comparisons is "or", its - fails
            raise self.refuse(tree, f"a number in {op}", "two comparisons", "use If(comparison, 1, 0)")
        return Elementwise(op=op, args=nodes)

    def call(self, tree: ast.Call, name: str, args: Sequence[ast.expr]) -> Node:
        if name in ELEMENTWISE:
            self.count(tree, name, args, ELEMENTWISE[name])
            return self.elementwise(tree, name, args)
        if name in ROLLING:
            return self.rolling(tree, name, args)
        if name in ("Ref", "Delta"):
            self.count(tree, name, args, 2)
            return self.shift(name, args[0], args[1])
        if name == "Med":
            self.count(tree, name, args, 2)
            return Rolling(op="Quantile", args=self.series(args[:1]), window=self.window(args[1]), level=0.5)
        raise self.refuse(tree, f"one of {', '.join(OPERATORS)}", name.replace(_FIELD_MARK, "$"), "use one of them")

    def count(self, tree: ast.expr, name: str, args: Sequence[ast.expr], needed: int) -> None:
        if len(args) != needed:
            raise self.refuse(tree, f"{needed} argument(s) of {name}", len(args), "add or drop some")

    def rolling(self, tree: ast.expr, name: str, args: Sequence[ast.expr]) -> Rolling:
        series = ROLLING[name]
        self.count(tree, name, args, series + (2 if name == "Quantile" else 1))
        level = self.number(args[series + 1]) if name == "Quantile" else None
        if level is not None and not 0 <= level <= 1:
            raise self.refuse(args[series + 1], "a quantile between 0 and 1", level, "use 0.8 for the 80 % quantile")
        return Rolling(op=name, args=self.series(args[:series]), window=self.window(args[series]), level=level)

    def shift(self, name: str, arg: ast.expr, by: ast.expr) -> Node:
        (node,) = self.series([arg])
        shifted = Shift(arg=node, by=self.rows(by))
        return shifted if name == "Ref" else Elementwise(op="Sub", args=(node, shifted))

    def series(self, args: Sequence[ast.expr]) -> tuple[Node, ...]:
        nodes = tuple(self.read(arg) for arg in args)
        for arg, node in zip(args, nodes, strict=True):
            if not features(node):
                raise self.refuse(arg, "a series", "a constant", "use at least one $field in it")
        return nodes

    def window(self, tree: ast.expr) -> int:
        window = self.rows(tree)
        if window < 1:
            raise self.refuse(tree, f"a window of 1 to {MAX_WINDOW} rows", window, "a window cannot reach forward")
        return window

    def rows(self, tree: ast.expr) -> int:
        """A whole number of rows; 0 and fractions mean expanding and exponential in Qlib."""
        node = self.read(tree)
        value = node.value if isinstance(node, Number) else math.nan
        if value == 0 or not value.is_integer() or abs(value) > MAX_WINDOW:
            what = f"a whole number of rows other than 0, at most {MAX_WINDOW}"
            raise self.refuse(tree, what, ast.unparse(tree).replace(_FIELD_MARK, "$"), "say how many rows")
        return int(value)
