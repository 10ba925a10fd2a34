"""Qlib's own operators, on float64, are the oracle: stored results where the shared data is, and run live on random bars anywhere."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from quant.factors.compile import compute
from quant.factors.expression import FIELDS, OPERATORS
from quant.factors.library.alpha158 import alpha158, alpha158_table
from quant.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ORACLE = Path(__file__).parents[2] / "../shared/data/alpha158_oracle"
needs_oracle = pytest.mark.skipif(not ORACLE.exists(), reason="the shared data set alpha158_oracle is not here")
needs_pyqlib = pytest.mark.skipif(find_spec("qlib") is None, reason="pyqlib has no wheel for this Python")
# Differences are Qlib's rounding: pandas' running sums, and a quotient of two of them in these families.
TOLERANCES = dict.fromkeys(("CORR", "RSQR", "CORD", "WVMA", "Corr", "Cov", "Rsquare", "nested", "wq", "deep", "EMA", "macd", "Skewc"), 1e-7)
# pandas' running variance leaves about 1e-13 behind when a price stands still; its root is far from the exact 0.
STANDSTILL = {**TOLERANCES, "STD": 1e-7, "Std": 1e-6}


def _assert_parity(ours: pl.DataFrame, theirs: Mapping[str, np.ndarray], tolerances: Mapping[str, float]) -> None:
    for name, truth in theirs.items():
        column = ours[name].fill_null(float("nan")).to_numpy()
        assert np.array_equal(np.isnan(column), np.isnan(truth)), f"{name}: missing values differ"
        assert np.array_equal(np.isinf(column), np.isinf(truth)), f"{name}: infinite values differ"
        finite = np.isfinite(truth)
        error = np.abs(column[finite] - truth[finite]) / np.maximum(1, np.abs(truth[finite]))
        assert error.max(initial=0) <= tolerances.get(re.split(r"[\d_]", name)[0], 1e-9), name


def _stored(name: str, rows: int) -> dict[str, np.ndarray]:
    frame = pl.read_parquet(ORACLE / f"{name}.parquet").drop("symbol", "date")
    assert frame.height == rows
    return {column.name: column.fill_null(float("nan")).to_numpy() for column in frame.iter_columns()}


@pytest.fixture(scope="module")
def stored_panel() -> pl.DataFrame:
    panel = pl.read_parquet(ORACLE / "tiny_panel.parquet").rename({"date": "session"})
    return panel.with_columns(pl.col("session").cast(pl.Date), pl.col(*FIELDS).fill_nan(None))


@needs_oracle
def test_alpha158_is_qlibs_to_its_rounding(stored_panel: pl.DataFrame) -> None:
    stored = _stored("tiny_qlib_alpha158_f64", stored_panel.height)
    assert list(stored) == list(alpha158())
    _assert_parity(compute(alpha158(), stored_panel, dtype=pl.Float64), stored, TOLERANCES)


@needs_oracle
def test_every_other_operator_is_qlibs_to_its_rounding(stored_panel: pl.DataFrame) -> None:
    panel = stored_panel.filter(pl.col("symbol").is_in(stored_panel["symbol"].unique().sort()[:20].implode()))
    stated: dict[str, str] = json.loads((ORACLE / "expressions.json").read_text())["ops"]
    ours = {name: text for name, text in stated.items() if name != "EMA_alpha"}
    assert len(ours) == 173
    stored = _stored("tiny20_qlib_ops_f64", panel.height)
    _assert_parity(compute(ours, panel, dtype=pl.Float64, allow_future=True), {name: stored[name] for name in ours}, TOLERANCES)


def _run_qlib(expressions: Mapping[str, str], panel: pl.DataFrame) -> dict[str, np.ndarray]:
    """Qlib's parser and operators, unmodified; only its feature loader, which reads float32 files, is replaced by the panel's columns."""
    import pandas as pd
    from qlib.data import ops
    from qlib.data.base import Feature
    from qlib.utils import parse_field

    bars = {str(symbol): part.fill_null(float("nan")) for (symbol,), part in panel.group_by("symbol", maintain_order=True)}

    class Column(Feature):
        def load(self, instrument: str, *_: object) -> Any:
            return pd.Series(bars[instrument][self._name].to_numpy().copy())

    namespace = type("Operators", (), {**{name: getattr(ops, name) for name in OPERATORS if hasattr(ops, name)}, "Feature": Column})
    trees = {name: eval(parse_field(text), {"Operators": namespace}) for name, text in expressions.items()}
    seen = [{name: tree.load(symbol, 0, len(part) - 1, "day") for name, tree in trees.items()} for symbol, part in bars.items()]
    return {name: np.concatenate([np.asarray(symbol[name], np.float64) for symbol in seen]) for name in expressions}


@needs_pyqlib
@pytest.mark.filterwarnings("ignore")  # pyqlib's imports and pandas' divisions
def test_alpha158_and_every_operator_are_qlibs_run_live_on_random_bars(
    make_panel: Callable[..., pl.DataFrame], every_operator: dict[str, str]
) -> None:
    # Where a window holds a single value, what is left in Qlib's running sums is divided by 0 and its Slope is infinite; ours is missing,
    # as Qlib's own is without such a rest. So: few missing bars, and no regressions over one or two rows. An EMA over one row is the row
    # itself, and missing with it; pandas repeats the last value.
    panel = make_panel(20260301, symbols=5, rows=140, missing=0.05)
    single = re.compile(r"(Slope|Rsquare|Resi)_[12]|EMA_1")
    factors = {**alpha158(), **{name: text for name, text in every_operator.items() if not single.fullmatch(name)}}
    truth = _run_qlib(factors, panel)
    for name in ("Skew_7", "Skew_33", "Kurt_7", "Kurt_33"):  # of a constant: 0 and -3 with pandas 2 (and here), missing with pandas 3
        window = name.split("_")[1]
        constant = compute({"x": f"Std($close,{window})==0"}, panel, dtype=pl.Float64)["x"].to_numpy() == 1
        truth[name][constant & np.isnan(truth[name])] = 0 if name.startswith("Skew") else -3
    _assert_parity(compute(factors, panel, dtype=pl.Float64), truth, STANDSTILL)


def test_the_table_has_the_158_columns_in_qlibs_order() -> None:
    table = alpha158_table()
    assert list(table.columns) == ["session", "symbol", *alpha158()]
    assert {table.columns[name].dtype for name in alpha158()} == {pl.Float32}
    assert table.key == TABLES["alpha158"].key
    assert len(alpha158()) == 158
