"""docs/factors.md says what the code does: every operator's example, the library, and the four places of a new operator."""

from __future__ import annotations

import io
import re
import tomllib
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from adapters.lake import open_lake
from adapters.sources.sample import SampleSource
from orchestration.settings import StrategySettings
from quant.factors import expression, lowering, reference
from quant.factors.compile import Backend, compute
from quant.factors.expression import OPERATORS
from quant.factors.kernels import Op
from quant.factors.library.alpha158 import alpha158, alpha158_table
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


def test_the_python_of_the_page_computes_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = SampleSource().bars(date(2009, 10, 1), date(2010, 2, 26))
    adjusted = bars.with_columns(pl.lit(1.0).alias("split_index"), pl.lit(1.0).alias("total_index"))
    open_lake(tmp_path / "data").replace("adjusted_bars", adjusted, first=date(2009, 10, 1), last=date(2010, 2, 26))
    monkeypatch.chdir(tmp_path)
    texts = dict(re.findall(r"^```python\n# (Alpha158|Own)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    found: dict[str, pl.DataFrame] = {}
    for text in texts.values():
        exec(text, {}, found)  # type: ignore[arg-type]
    february = bars.filter(pl.col("session") >= date(2010, 2, 1)).sort("symbol", "session")
    keys = february.select("session", "symbol")
    assert found["features"].schema == alpha158_table().schema
    assert found["features"].select("session", "symbol").equals(keys.filter(pl.col("symbol").is_in(["AAPL", "IBM"])))
    assert found["own"].select("session", "symbol").equals(keys)
    assert found["own"]["MOVE"].to_list() == pytest.approx((february["close"] / february["open"] - 1).to_list())


def test_the_profile_of_the_page_names_a_library_and_what_the_model_reads() -> None:
    (lines,) = (text for text in re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if text.startswith("["))
    told = tomllib.loads(lines)["strategy"]
    assert StrategySettings.model_validate(told).model_dump() == told


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
