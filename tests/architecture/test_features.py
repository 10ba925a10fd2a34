"""Features are computed in one place: a strategy's features.py. Whoever else runs factor expressions is listed here, with the reason."""

from __future__ import annotations

import ast
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.architecture.test_repository import MODULES, REPOSITORY

ENGINE = "quant.factors.compile"
RUNS = {"compute", "evaluate"}
ALLOWED = {
    "strategies/*/features.py": "the one place: research, training, the daily chain and services call its functions",
    "strategies/*/labels.py": "labels are factors of the future: the only ones that may look ahead, and no model reads them as features",
    "orchestration/factor_commands.py": "afterclose factors compute: a table for a person to look at, which nothing of the chain reads",
    "quant/factors/scale.py": "measures whether a factor changes with the price's scale; keeps no value",
    "quant/factors/compile.py": "the engine itself",
}


def runs_expressions(source: str) -> bool:
    """True if the module can call the engine: it imports one of its two functions, or the module they are in."""
    package, _, module = ENGINE.rpartition(".")
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module=origin, names=names) if origin == ENGINE and {"*", *RUNS} & {alias.name for alias in names}:
                return True
            case ast.ImportFrom(module=origin, names=names) if origin == package and module in {alias.name for alias in names}:
                return True
            case ast.Import(names=names) if ENGINE in {alias.name for alias in names}:
                return True
            case ast.Constant(value=value) if value == ENGINE:  # importlib.import_module
                return True
            case _:
                pass
    return False


@pytest.mark.parametrize("path", [path.relative_to(REPOSITORY).as_posix() for path in MODULES])
def test_only_the_listed_modules_run_factor_expressions(path: str) -> None:
    if runs_expressions((REPOSITORY / path).read_text(encoding="utf-8")):
        assert any(fnmatch(path, allowed) for allowed in ALLOWED), f"{path}: call the functions of a strategy's features.py instead"


def test_every_strategy_has_the_place_and_uses_the_engine_there() -> None:
    folders = [path.parent for path in (REPOSITORY / "strategies").glob("*/strategy.py")]
    assert folders
    for folder in folders:
        assert runs_expressions((folder / "features.py").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("source", "runs"),
    [
        ("from quant.factors.compile import evaluate", True),
        ("def f():\n    from quant.factors.compile import compute as c", True),
        ("from quant.factors.compile import *", True),
        ("import quant.factors.compile", True),
        ("from quant.factors import compile", True),
        ("import importlib\nimportlib.import_module('quant.factors.compile')", True),
        ("from quant.factors.compile import ArrowStream", False),
        ("from quant.factors.expression import parse", False),
    ],
)
def test_the_inspection_finds_every_way_in(source: str, runs: bool) -> None:
    assert runs_expressions(source) == runs


def test_the_functions_of_the_chain_are_those_of_the_strategy() -> None:
    from strategies.alpha_baseline import features, strategy

    assert strategy.alpha158_features is features.alpha158_features
    assert strategy.user_factor_features is features.user_factor_features
    source = ast.parse(Path(features.__file__).read_text(encoding="utf-8"))
    callers = [
        f.name
        for f in source.body
        if isinstance(f, ast.FunctionDef) and any(isinstance(n, ast.Name) and n.id == "evaluate" for n in ast.walk(f))
    ]
    assert callers == ["features_of"]
