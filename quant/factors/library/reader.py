"""A user's factor library: a TOML or Python text of name -> expression, read without running anything and checked as a whole.

TOML: ``NAME = "expression"`` lines. Python: the same lines, and one dict literal ``FACTORS = {"NAME": "expression"}`` instead or as well.
"""

from __future__ import annotations

import ast
import re
import tomllib
import warnings
from collections import defaultdict
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from quant.errors import FactorError, LookaheadError, expected
from quant.factors.expression import parse
from quant.factors.library.user_factors import taken_names
from quant.factors.reach import refuse_lookahead
from quant.factors.scale import scale_faults

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_CHARACTERS = 1_000_000
MAX_FACTORS = 5_000
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}", re.ASCII)
_TOML_LINE = re.compile(
    r"""^[ \t]*(?:\[+[ \t]*(?P<table>[\w-]+)|(?:(?P<bare>[\w-]+)|"(?P<double>[^"\n]*)"|'(?P<single>[^'\n]*)')[ \t]*=)""",
    re.MULTILINE | re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One definition as the text has it; ``value`` is whatever stands there."""

    name: str
    value: object
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fault:
    """What is wrong with one line, and with which factor in it."""

    line: int
    name: str = ""
    error: FactorError


def read_library(text: str, *, kind: Literal["toml", "python"], where: str) -> Mapping[str, str]:
    """Name -> expression, in the order of ``text``; ``where`` names it in errors.

    Names become columns, so none may be one of taken_names, whatever the case. An expression has to be in the language, to reach back
    only and not to depend on the level of prices. Raises FactorError with every problem, a line each;
    LookaheadError if all of them reach forward.
    """
    if len(text) > MAX_CHARACTERS:
        raise FactorError(
            expected(f"at most {MAX_CHARACTERS} characters", found=len(text), where=where, do="split it into several libraries")
        )
    entries, faults = _toml(text, where) if kind == "toml" else _python(text, where)
    if len(entries) > MAX_FACTORS:
        raise FactorError(expected(f"at most {MAX_FACTORS} factors", found=len(entries), where=where, do="split it into several libraries"))
    faults += _named(entries)
    sound: dict[str, _Entry] = {}
    for entry in entries:
        try:
            refuse_lookahead(entry.name, parse(_text(entry)))
            sound.setdefault(entry.name, entry)
        except FactorError as error:
            faults.append(_Fault(line=entry.line, name=entry.name, error=error))
    factors = {name: _text(entry) for name, entry in sound.items()}
    faults += [_Fault(line=sound[name].line, name=name, error=error) for name, error in scale_faults(factors).items()]
    if faults:
        raise _all_of(faults, where)
    if not factors:
        raise FactorError(expected('NAME = "expression"', found="no factor", where=where, do='write a line like MOVE = "$close/$open-1"'))
    return MappingProxyType(factors)


def _all_of(faults: list[_Fault], where: str) -> FactorError:
    kind = LookaheadError if all(isinstance(fault.error, LookaheadError) for fault in faults) else FactorError
    ordered = sorted(faults, key=lambda fault: fault.line)
    lines = [f"line {fault.line}{f', {fault.name}' if _NAME.fullmatch(fault.name) else ''}: {fault.error}" for fault in ordered]
    if len(lines) == 1:
        return kind(f"{where}, {lines[0]}")
    return kind("\n  ".join([f"{where} has {len(lines)} problems", *lines]))


def _text(entry: _Entry) -> str:
    if isinstance(entry.value, dict):
        raise _refuse(
            "lines of names and expressions only", f"table [{entry.name}]", "a factor library", "move its lines above, out of any table"
        )
    if not isinstance(entry.value, str):
        raise _refuse("an expression in quotes", _written(entry.value), f"factor {entry.name}", f'write {entry.name} = "$close/$open-1"')
    return entry.value


def _written(value: object) -> str:
    """``value`` in one short line."""
    try:
        written = ast.unparse(value) if isinstance(value, ast.AST) else repr(value)
    except RecursionError:
        return "something nested too deeply"
    first, *more = written.splitlines() or [""]
    return first if len(first) <= 60 and not more else f"{first[:57]}..."


def _refuse(what: str, found: object, where: str, do: str) -> FactorError:
    return FactorError(expected(what, found=found, where=where, do=do))


def _named(entries: list[_Entry]) -> list[_Fault]:
    """Names that cannot be columns, or not beside those that are there already."""
    taken = dict(taken_names())
    faults: list[_Fault] = []
    for entry in entries:
        name = entry.name
        if not _NAME.fullmatch(name):
            found = repr(name if len(name) <= 70 else f"{name[:67]}...")
            error = _refuse("a name of 1 to 63 letters, digits and _, no digit first", found, "a factor's name", "rename it")
            faults.append(_Fault(line=entry.line, name=entry.name, error=error))
        elif name.lower() in taken:
            found = f"{name}, which is {taken[name.lower()]}"
            error = _refuse("a name that is free (capitals do not tell names apart)", found, f"factor {name}", "rename it")
            faults.append(_Fault(line=entry.line, name=entry.name, error=error))
        else:
            taken[name.lower()] = f"{name} of line {entry.line}"
    return faults


def _toml(text: str, where: str) -> tuple[list[_Entry], list[_Fault]]:
    lines: defaultdict[str, list[int]] = defaultdict(list)
    for match in _TOML_LINE.finditer(text):
        lines[next(filter(None, match.groups()), "")].append(text.count("\n", 0, match.start()) + 1)
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        twice = [f"{name} in lines {' and '.join(map(str, at))}" for name, at in lines.items() if len(at) > 1]
        if twice and "overwrite" in str(error):
            raise _refuse("each name once", ", ".join(twice), where, "keep one of them") from None
        raise _refuse("a TOML file", error, where, 'write lines like MOVE = "$close/$open-1"') from None
    return [_Entry(name=name, value=value, line=lines[name][0] if name in lines else 1) for name, value in table.items()], []


def _python(text: str, where: str) -> tuple[list[_Entry], list[_Fault]]:
    try:
        with warnings.catch_warnings(action="ignore"):  # of Python about its own escapes
            module = ast.parse(text)
    except SyntaxError as error:
        raise _refuse("a Python file", error.msg, f"{where}, line {error.lineno}", "fix the syntax") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise _refuse("a Python file", str(error) or "nesting without end", where, "keep to lines of names and expressions") from None
    parts = [part for statement in module.body for part in _definitions(statement)]
    return [part for part in parts if isinstance(part, _Entry)], [part for part in parts if isinstance(part, _Fault)]


def _definitions(statement: ast.stmt) -> Iterator[_Entry | _Fault]:
    match statement:
        case ast.Expr(value=ast.Constant(value=str())):  # a docstring
            return
        case ast.Assign(targets=[ast.Name(id="FACTORS")], value=ast.Dict(keys=keys, values=values)):
            for key, value in zip(keys, values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    yield _Entry(name=key.value, value=_constant(value), line=key.lineno)
                else:
                    found = f"**{_written(value)}" if key is None else _written(key)
                    error = _refuse("names in quotes", found, "FACTORS", "write every name out")
                    yield _Fault(line=(key or value).lineno, error=error)
        case ast.Assign(targets=[ast.Name(id=name)], value=value) if name != "FACTORS":
            yield _Entry(name=name, value=_constant(value), line=statement.lineno)
        case _:
            do = "the file is read, never run: keep to those"
            error = _refuse('NAME = "expression" or FACTORS = {"NAME": "expression"}', _written(statement), "a factor library", do)
            yield _Fault(line=statement.lineno, error=error)


def _constant(value: ast.expr) -> object:
    return value.value if isinstance(value, ast.Constant) else value
