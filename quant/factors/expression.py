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
from difflib import get_close_matches
from typing import TYPE_CHECKING, TypeAlias

from quant.errors import FactorError, expected

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

FIELDS = ("open", "high", "low", "close", "volume", "vwap")
PLACE = ("session", "symbol", "listing")  # columns of a panel that say which row it is
MAX_WINDOW = 2520  # ten years of sessions; every symbol is padded by the longest window, so it has to have a bound
MAX_LENGTH = 2000  # characters
MAX_DEPTH = 100  # nested parts; every walk over a tree is recursive
MAX_PARTS = 10_000  # parts in all; a Delta has its argument twice, so nested ones would double them without end
EMA_SPANS = 10  # an EMA over N reads the last 10 N rows: what it leaves out weighs (1 - 2 / (N + 1)) ** (10 N), less than 2.1e-9


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

    @property
    def rows(self) -> int:
        """How many rows it reads: the window, and EMA_SPANS times as many for an EMA."""
        return self.window * EMA_SPANS if self.op == "EMA" else self.window


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossSection:
    """An operator of CROSS_SECTION over the symbols that have a value in the session, within the groups of column ``group`` if given."""

    op: str
    arg: Node
    group: str | None = None


Node: TypeAlias = Feature | Number | Elementwise | Shift | Rolling | CrossSection

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
_SYMBOL = dict(
    zip(
        ("Add", "Sub", "Mul", "Div", "Power", "And", "Or", "Gt", "Ge", "Lt", "Le", "Eq", "Ne"),
        ("+", "-", "*", "/", "**", "&", "|", ">", ">=", "<", "<=", "==", "!="),
        strict=True,
    )
)
_BINDING = {  # how tightly Python binds them
    **dict.fromkeys(_COMPARE.values(), 1),
    "Or": 2,
    "And": 3,
    **dict.fromkeys(("Add", "Sub"), 4),
    **dict.fromkeys(("Mul", "Div"), 5),
    "Power": 6,
}
_LOGICAL = frozenset({*_COMPARE.values(), "And", "Or", "Not"})
_CONDITIONS = {"And": 2, "Or": 2, "Not": 1, "If": 1}  # how many arguments, from the first, are comparisons

ELEMENTWISE: Mapping[str, int] = {  # operator -> number of arguments
    **dict.fromkeys(("Abs", "Sign", "Log", "Not"), 1),
    **dict.fromkeys((*_BINARY.values(), *_COMPARE.values(), "Greater", "Less"), 2),
    "If": 3,
}
ROLLING: Mapping[str, int] = {  # operator -> number of series before the window
    **dict.fromkeys(("Mean", "Sum", "Count", "Std", "Var", "Max", "Min", "IdxMax", "IdxMin"), 1),
    **dict.fromkeys(("Quantile", "Rank", "Slope", "Rsquare", "Resi", "Skew", "Kurt", "Mad", "EMA", "WMA"), 1),
    **dict.fromkeys(("Corr", "Cov"), 2),
}
_LEAST = {"Skew": 3, "Kurt": 4}  # rows; Qlib refuses less, too
CROSS_SECTION = ("CSRank", "CSZScore", "CSDemean", "CSScale")
OPERATORS = (*ELEMENTWISE, *ROLLING, "Ref", "Delta", "Med", *CROSS_SECTION)
_NO_WINDOW = "give 1 or more: Qlib's 0 (expanding) and below 1 (exponential) depend on how much history is stored"
_NOT_OURS: Mapping[type[ast.AST], tuple[str, str]] = {  # Python that is not in the language -> its name, and what to write
    ast.Compare: ("several comparisons in a row", "put each comparison into parentheses and join them by &"),
    ast.IfExp: ("if ... else", "use If(c, x, y)"),
    ast.And: ("and", "use & between comparisons in parentheses"),
    ast.Or: ("or", "use | between comparisons in parentheses"),
    ast.Not: ("not", "use Not(c)"),
    ast.UAdd: ("a + without anything before it", "leave it out"),
    ast.FloorDiv: ("//", "use /"),
    ast.LShift: ("<<", "use <"),
    ast.RShift: (">>", "use >"),
    ast.In: ("in", "use =="),
    ast.NotIn: ("not in", "use !="),
    ast.Is: ("is", "use =="),
    ast.IsNot: ("is not", "use !="),
    ast.Tuple: ("a comma outside of a call", "write one expression"),
    ast.Starred: ("a * without anything before it", "leave it out"),
    ast.keyword: ("an argument with a name", "give the values alone, in their order"),
    ast.Call: ("a call of something else than an operator", "begin a call with the name of an operator"),
    ast.Attribute: ("a dot after something else than a digit", "leave it out"),
}

_ALPHABET = re.compile(r"[\w\s$().,+\-*/<>=!&|]*", re.ASCII)
_FIELD_MARK = "Z"  # in place of $: keeps every position, can start a name, cannot continue a number


def parse(text: str, fields: Sequence[str] = FIELDS) -> Node:
    """The node that a Qlib expression such as ``Corr($close, Log($volume+1), 5)`` stands for; equal expressions give equal nodes.

    ``fields`` are the columns that it may read; a column that symbols are grouped by is checked when the panel is there.
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
        node = _Reader(text=plain, offset=blank, fields=fields).read(tree.body)
        deep = _depth(node) > MAX_DEPTH
    except SyntaxError as fault:
        at = blank + max((fault.offset or 1) - 1, 0)
        raise _refuse(text, at, "a factor expression", fault.msg, "fix the syntax") from None
    except (RecursionError, MemoryError):
        deep, node = True, Number(value=0.0)
    if deep:
        raise _refuse(text, 0, f"at most {MAX_DEPTH} nested parts", "more", "split it into several factors")
    if (written_out := len(_text(node))) > MAX_LENGTH:
        do = "split it into several factors: a Delta has its argument twice"
        raise _refuse(text, 0, f"at most {MAX_LENGTH} characters, written out", written_out, do)
    if not features(node):
        raise _refuse(text, 0, "a series", "a constant", "use at least one $field")
    return node


def _depth(node: Node) -> int:
    return 1 + max((_depth(child) for child in children(node)), default=0)


def children(node: Node) -> tuple[Node, ...]:
    """Nodes that ``node`` is computed from, in order."""
    match node:
        case Feature() | Number():
            return ()
        case Shift() | CrossSection():
            return (node.arg,)
        case Elementwise() | Rolling():
            return node.args


def walk(node: Node) -> Iterator[Node]:
    """``node`` and everything below it."""
    yield node
    for child in children(node):
        yield from walk(child)


def features(node: Node) -> frozenset[str]:
    """Columns of the panel that ``node`` reads as numbers."""
    return frozenset(part.name for part in walk(node) if isinstance(part, Feature))


def groups(node: Node) -> frozenset[str]:
    """Columns of the panel that ``node`` groups symbols by."""
    return frozenset(part.group for part in walk(node) if isinstance(part, CrossSection) and part.group)


def text(node: Node) -> str:
    """``node`` in the language: ``parse(text(node)) == node``."""
    match node:
        case Feature(name=name):
            return f"${name}"
        case Number(value=value):
            return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
        case Elementwise(op=op, args=(left, right)) if op in _SYMBOL:
            return f"{_operand(left, op, first=True)} {_SYMBOL[op]} {_operand(right, op, first=False)}"
        case Elementwise(op=op, args=args):
            return f"{op}({', '.join(map(text, args))})"
        case Shift(arg=arg, by=by):
            return f"Ref({text(arg)}, {by})"
        case Rolling(op=op, args=args, window=window, level=level):
            parts = [*map(text, args), str(window), *([] if level is None else [repr(level)])]
            return f"{op}({', '.join(parts)})"
        case CrossSection(op=op, arg=arg, group=group):
            return f"{op}({text(arg)}, ${group})" if group else f"{op}({text(arg)})"


_text = text  # parse has a parameter of that name


def signature(name: str) -> str:
    """How an operator is called: ``Corr(x, y, N)``, c and d being comparisons and N a number of rows."""
    if name in CROSS_SECTION:
        return f"{name}(x) or {name}(x, $sector)"
    if name in ELEMENTWISE:
        conditions = _CONDITIONS.get(name, 0)
        return f"{name}({', '.join([*'cd'[:conditions], *'xyz'[: ELEMENTWISE[name] - conditions]])})"
    parts = [*"xy"[: ROLLING.get(name, 1)], "N", *(["q"] if name == "Quantile" else [])]
    return f"{name}({', '.join(parts)})"


def _operand(node: Node, op: str, *, first: bool) -> str:
    """``node`` as an operand of ``op``, in parentheses unless Python binds it at least as tightly."""
    inner = _BINDING.get(node.op, 9) if isinstance(node, Elementwise) and len(node.args) == 2 else 9
    negative = isinstance(node, Number) and node.value < 0
    loose = inner < _BINDING[op] or (inner == _BINDING[op] and (not first or op in _COMPARE.values() or op == "Power"))
    return f"({text(node)})" if loose or negative else text(node)


def _refuse(text: str, at: int, what: str, found: object, do: str) -> FactorError:
    return FactorError(expected(what, found=found, where=f"{text!r} at position {at + 1}", do=do), position=at + 1)


def _closest(found: str, known: Sequence[str]) -> str | None:
    """The name of ``known`` that was meant, whatever the capitals."""
    plain = {name.lower(): name for name in known}
    return plain[match[0]] if (match := get_close_matches(found.lower(), plain, n=1)) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """Turns one expression's ast into nodes that read ``fields``.

    ``text`` is the expression on one line, ``offset`` what was cut off its start.
    """

    text: str
    offset: int
    fields: Sequence[str]

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
                raise self.not_ours(tree)

    def refuse(self, tree: ast.expr, what: str, found: object, do: str) -> FactorError:
        return _refuse(self.text, self.offset + tree.col_offset, what, found, do)

    def not_ours(self, tree: ast.expr) -> FactorError:
        match tree:
            case ast.UnaryOp(op=part) | ast.BinOp(op=part) | ast.BoolOp(op=part) | ast.Compare(ops=[part]):
                pass
            case ast.Call(func=ast.Name(), keywords=[part, *_]):
                pass
            case part:
                pass
        found, do = _NOT_OURS.get(type(part), ("other Python", "rewrite it with those"))
        return self.refuse(tree, "a $field, a number, an operator or a call", found, do)

    def feature(self, tree: ast.Name) -> Feature:
        name = tree.id.removeprefix(_FIELD_MARK)
        at = self.offset + tree.col_offset
        if self.text[at] != "$" or name not in self.fields:
            known = [f"${field}" for field in self.fields]
            found = self.text[at : at + len(tree.id)]
            closest = _closest(found.lstrip("$"), self.fields)
            raise self.refuse(tree, f"one of {', '.join(known)}", found, f"perhaps ${closest}" if closest else "use one of them")
        return Feature(name=name)

    def number(self, tree: ast.expr) -> float:
        value = tree.value if isinstance(tree, ast.Constant) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
            raise self.refuse(tree, "a finite number", ast.unparse(tree), "write it as 5, 0.8 or 1e-12")
        return float(value)

    def negative(self, operand: ast.expr) -> Node:
        arg = self.read(operand)
        return Number(value=0.0 - arg.value) if isinstance(arg, Number) else Elementwise(op="Mul", args=(arg, Number(value=-1.0)))

    def elementwise(self, tree: ast.expr, op: str, args: Sequence[ast.expr]) -> Node:
        nodes = tuple(self.read(arg) for arg in args)
        logical = [isinstance(node, Elementwise) and node.op in _LOGICAL for node in nodes]
        for arg, flag in list(zip(args, logical, strict=True))[: _CONDITIONS.get(op, 0)]:
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
        if name in CROSS_SECTION:
            return self.cross_section(tree, name, args)
        if name == "Med":
            self.count(tree, name, args, 2)
            return Rolling(op="Quantile", args=self.series(args[:1]), window=self.window(args[1]), level=0.5)
        found, closest = name.replace(_FIELD_MARK, "$"), _closest(name, OPERATORS)
        if closest:
            raise self.refuse(tree, "an operator", found, f"perhaps {closest}")
        raise self.refuse(tree, f"one of {', '.join(OPERATORS)}", found, "use one of them")

    def count(self, tree: ast.expr, name: str, args: Sequence[ast.expr], needed: int) -> None:
        if len(args) != needed:
            raise self.miscounted(tree, name, args, str(needed))

    def miscounted(self, tree: ast.expr, name: str, args: Sequence[ast.expr], needed: str) -> FactorError:
        return self.refuse(tree, signature(name), f"{len(args)} argument{'s' if len(args) != 1 else ''}", f"give it {needed}")

    def rolling(self, tree: ast.expr, name: str, args: Sequence[ast.expr]) -> Rolling:
        series = ROLLING[name]
        self.count(tree, name, args, series + (2 if name == "Quantile" else 1))
        level = self.number(args[series + 1]) if name == "Quantile" else None
        if level is not None and not 0 <= level <= 1:
            raise self.refuse(args[series + 1], "a quantile between 0 and 1", level, "use 0.8 for the 80 % quantile")
        rolling = Rolling(op=name, args=self.series(args[:series]), window=self.window(args[series]), level=level)
        least = _LEAST.get(name, 1)
        if rolling.window < least:
            raise self.refuse(args[series], f"a {name} over at least {least} rows", rolling.window, "fewer values never have one")
        if rolling.rows > MAX_WINDOW:
            most = MAX_WINDOW // EMA_SPANS
            raise self.refuse(args[series], f"an EMA over at most {most} rows", rolling.window, f"it reads {EMA_SPANS} times as many")
        return rolling

    def cross_section(self, tree: ast.Call, name: str, args: Sequence[ast.expr]) -> CrossSection:
        if len(args) not in (1, 2):
            raise self.miscounted(tree, name, args, "1 or 2")
        (arg,) = self.series(args[:1])
        return CrossSection(op=name, arg=arg, group=self.group(args[1]) if len(args) == 2 else None)

    def group(self, tree: ast.expr) -> str:
        at = self.offset + tree.col_offset
        if not isinstance(tree, ast.Name) or self.text[at] != "$":
            raise self.refuse(tree, "a column to group by", ast.unparse(tree).replace(_FIELD_MARK, "$"), "write it as $sector")
        name = tree.id.removeprefix(_FIELD_MARK)
        if name in (*FIELDS, *PLACE):
            found = f"${name}, {'part of the key of a row' if name in PLACE else 'a number of the bar'}"
            raise self.refuse(tree, "a column of labels to group by", found, "name one such as $sector")
        return name

    def shift(self, name: str, arg: ast.expr, by: ast.expr) -> Node:
        (node,) = self.series([arg])
        zero = "say how many rows: Qlib's 0 is the first value ever stored" if name == "Ref" else "say how many rows"
        shifted = Shift(arg=node, by=self.rows(by, zero, "say how many rows"))
        if name == "Ref":
            return shifted
        if 2 * sum(1 for _ in walk(node)) > MAX_PARTS:
            raise self.refuse(arg, f"at most {MAX_PARTS} parts", "more", "each nested Delta doubles them: use Ref for some")
        return Elementwise(op="Sub", args=(node, shifted))

    def series(self, args: Sequence[ast.expr]) -> tuple[Node, ...]:
        nodes = tuple(self.read(arg) for arg in args)
        for arg, node in zip(args, nodes, strict=True):
            if not features(node):
                raise self.refuse(arg, "a series", "a constant", "use at least one $field in it")
        return nodes

    def window(self, tree: ast.expr) -> int:
        window = self.rows(tree, _NO_WINDOW, _NO_WINDOW)
        if window < 1:
            raise self.refuse(tree, f"a window of 1 to {MAX_WINDOW} rows", window, "a window cannot reach forward")
        return window

    def rows(self, tree: ast.expr, zero: str, below_one: str) -> int:
        """A whole number of rows; ``zero`` and ``below_one`` say what to do about those that mean something else in Qlib."""
        node = self.read(tree)
        value = node.value if isinstance(node, Number) else math.nan
        if value == 0 or not value.is_integer() or abs(value) > MAX_WINDOW:
            what = f"a whole number of rows other than 0, at most {MAX_WINDOW}"
            do = zero if value == 0 else below_one if 0 < value < 1 else "say how many rows"
            raise self.refuse(tree, what, ast.unparse(tree).replace(_FIELD_MARK, "$"), do)
        return int(value)
