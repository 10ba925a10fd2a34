"""Qlib's Alpha158, read from the installed pyqlib: its definitions are the source, not a copy of them."""

from __future__ import annotations

import ast
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import polars as pl

from quant.errors import ContractError, expected
from quant.tables import TABLES, Column, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

COLUMNS = 158


@cache
def alpha158() -> Mapping[str, str]:
    """Name -> expression of the 158 factors, in Qlib's order: 9 of the bar, 4 prices, 29 rolling ones over 5, 10, 20, 30 and 60 sessions.

    Raises ContractError if the installed pyqlib has not exactly these.
    """
    fields, names = _feature_config()()
    if len(set(names)) != COLUMNS or len(fields) != len(names):
        found = f"{len(fields)} expressions and {len(set(names))} names"
        raise ContractError(expected(f"{COLUMNS} factors", found=found, where="pyqlib's Alpha158DL", do="install pyqlib 0.9.7"))
    return MappingProxyType(dict(zip(names, fields, strict=True)))


@cache
def alpha158_table() -> Table:
    """Table alpha158 with its factor columns: Float32, null where the bars or the window leave nothing to compute from."""
    factors = {name: Column(dtype=pl.Float32, description=text, nullable=True) for name, text in alpha158().items()}
    table = TABLES["alpha158"]
    return replace(table, columns={**table.columns, **factors})


def _feature_config() -> Callable[[], tuple[list[str], list[str]]]:
    """Alpha158DL.get_feature_config, compiled from its own source: importing its module takes seconds and drags in half of pyqlib."""
    package = find_spec("qlib")
    if package is None or not package.submodule_search_locations:
        raise ContractError(expected("package pyqlib", found="none", where="this environment", do="install from requirements.lock"))
    path = Path(package.submodule_search_locations[0]) / "contrib" / "data" / "loader.py"
    loader = next(part for part in ast.parse(path.read_text()).body if isinstance(part, ast.ClassDef) and part.name == "Alpha158DL")
    method = next(part for part in loader.body if isinstance(part, ast.FunctionDef) and part.name == "get_feature_config")
    method.decorator_list.clear()
    namespace: dict[str, object] = {}
    exec(compile(ast.Module(body=[method], type_ignores=[]), str(path), "exec"), namespace)  # noqa: S102  pyqlib's own code, as an import would
    return cast("Callable[[], tuple[list[str], list[str]]]", namespace[method.name])
