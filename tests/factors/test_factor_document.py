"""docs/factors.md says what the code does: every operator's example, the library, and the four places of a new operator."""

from __future__ import annotations

import io
import re
from pathlib import Path

import polars as pl
import pytest

from quant.factors import expression, lowering, reference
from quant.factors.compile import Backend, compute
from quant.factors.expression import OPERATORS
from quant.factors.kernels import Op
from quant.factors.library.alpha158 import alpha158
from quant.factors.library.reader import read_library
from quant.factors.library.user_factors import taken_names

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


def last_of_a(text: str, panel: pl.DataFrame, backend: Backend = Backend.COMPILED) -> float:
    return compute({"x": text}, panel, dtype=pl.Float64, backend=backend).filter(pl.col("symbol") == "A")["x"][-1]


def test_every_operator_has_an_example() -> None:
    assert {operator for operator, _, _ in ROWS} == set(OPERATORS)


@pytest.mark.parametrize(("operator", "example", "value"), ROWS)
def test_an_example_has_the_value_that_the_page_says(operator: str, example: str, value: str, panel: pl.DataFrame) -> None:
    for backend in Backend:
        computed = last_of_a(example.replace(r"\|", "|"), panel, backend)
        assert f"{computed:.5g}" == value, backend


def test_both_texts_of_the_page_are_the_same_library() -> None:
    assert read_library(block("toml"), kind="toml", where="page") == read_library(block("python"), kind="python", where="page")


def test_the_page_lists_the_names_that_no_factor_may_have() -> None:
    told = re.search(r"meet in the\s+chain \((.*?)\)", PAGE, re.DOTALL)
    assert told
    assert set(re.findall(r"`(\w+)`", told[1])) == set(taken_names()) - {name.lower() for name in alpha158()}


def test_the_new_operator_of_the_page_works_in_its_places(panel: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    places = dict(re.findall(r"^ +# ([\w.]+)\n +(\{.*\})$", PAGE, re.MULTILINE))
    assert list(places) == ["ROLLING", "reference._ROLLING", "lowering._ROLLING"]
    seen = {"ROLLING": {}, "reference._ROLLING": vars(reference), "lowering._ROLLING": {"Op": Op}}
    entries = {place: eval(text, dict(seen[place])) for place, text in places.items()}
    tables = {"ROLLING": expression.ROLLING, "reference._ROLLING": reference._ROLLING, "lowering._ROLLING": lowering._ROLLING}
    for place, entry in entries.items():
        ((name, value),) = entry.items()
        monkeypatch.setitem(tables[place], name, value)  # type: ignore[arg-type]
    for backend in Backend:
        assert last_of_a("Range($close, 5)", panel, backend) == pytest.approx(0.9)
