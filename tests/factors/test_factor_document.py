"""docs/factors.md says what the code does: every operator's example, the library, and the four places of a new operator."""

from __future__ import annotations

import io
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from quant.factors import expression, plan
from quant.factors.compile import compute
from quant.factors.expression import OPERATORS
from quant.factors.kernels import Op
from quant.factors.library.reader import read_library

PAGE = (Path(__file__).parents[2] / "docs" / "factors.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\w+) \| .* \| `(.+)` \| (\S+) \|$", PAGE, re.MULTILINE)


def block(language: str) -> str:
    """The page's first block of code in that language."""
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@pytest.fixture(scope="module")
def panel() -> pl.DataFrame:
    bars = pl.read_csv(io.StringIO(block("csv")), schema_overrides={"session": pl.Date, "volume": pl.Float64})
    return bars.sort("symbol", "session")


def last_of_a(text: str, panel: pl.DataFrame) -> float:
    return compute({"x": text}, panel, dtype=pl.Float64).filter(pl.col("symbol") == "A")["x"][-1]


def test_every_operator_has_an_example() -> None:
    assert {operator for operator, _, _ in ROWS} == set(OPERATORS)


@pytest.mark.parametrize(("operator", "example", "value"), ROWS)
def test_an_example_has_the_value_that_the_page_says(operator: str, example: str, value: str, panel: pl.DataFrame) -> None:
    computed = last_of_a(example.replace(r"\|", "|"), panel)
    assert f"{computed:.5g}" == value


def test_both_texts_of_the_page_are_the_same_library() -> None:
    assert read_library(block("toml"), kind="toml", where="page") == read_library(block("python"), kind="python", where="page")


def test_the_new_operator_of_the_page_works_in_its_places(panel: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    places = dict(re.findall(r"^ +# ([\w.]+)\n +(\{.*\})$", PAGE, re.MULTILINE))
    assert list(places) == ["ROLLING", "reference._ROLLING", "plan._ROLLING"]
    added = {"ROLLING": eval(places["ROLLING"], {}), "plan": eval(places["plan._ROLLING"], {"Op": Op})}
    (name,) = added["ROLLING"]
    monkeypatch.setitem(expression.ROLLING, name, added["ROLLING"][name])  # type: ignore[arg-type]
    monkeypatch.setitem(plan._ROLLING, name, added["plan"][name])  # type: ignore[arg-type]
    assert last_of_a(f"{name}($close, 5)", panel) == pytest.approx(0.9)
    if find_spec("quant.factors.reference"):
        reference = import_module("quant.factors.reference")
        monkeypatch.setitem(reference._ROLLING, name, eval(places["reference._ROLLING"], vars(reference))[name])
        nodes = {"x": expression.parse(f"{name}($close, 5)")}
        assert reference.reference(nodes, panel, plan.Mode.QLIB)["x"][7] == pytest.approx(0.9)
