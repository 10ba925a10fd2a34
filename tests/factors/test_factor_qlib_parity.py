"""Qlib's own operators, on float64, are the oracle: stored results where the shared data is, and run live on random bars anywhere.

Values agree to 1e-9 of max(1, |value|), missing and infinite ones exactly, but for the lines of exceptions.toml.
"""

from __future__ import annotations

import json
import random
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from quant.factors.compile import compute
from quant.factors.expression import FIELDS, OPERATORS, parse
from quant.factors.library.alpha158 import alpha158, alpha158_table
from quant.factors.plan import Mode
from quant.factors.reference import reference
from quant.tables import TABLES
from tests.factors.exact import exact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Columns = Mapping[str, np.ndarray]

ROOT = Path(__file__).parents[2]
ORACLE = ROOT / "../shared/data/alpha158_oracle"
ALPHA360 = ROOT / "quant/factors/library/alpha360.toml"
EXCEPTIONS: Sequence[dict[str, Any]] = tomllib.loads((Path(__file__).parent / "exceptions.toml").read_text())["exception"]
SEEDS = (1, 2, 6, 1471981182)
needs_oracle = pytest.mark.skipif(not ORACLE.exists(), reason="the shared data set alpha158_oracle is not here")
needs_pyqlib = pytest.mark.skipif(find_spec("qlib") is None, reason="pyqlib has no wheel for this Python")
quietly = pytest.mark.filterwarnings("ignore")  # pyqlib's imports and pandas' divisions


def _are(values: np.ndarray, what: str | float) -> np.ndarray:
    match what:
        case "missing":
            return np.isnan(values)
        case "infinite":
            return np.isinf(values)
        case "any":
            return np.ones(len(values), bool)
        case _:
            return values == what


def _differing(ours: np.ndarray, theirs: np.ndarray, exceptions: Sequence[dict[str, Any]]) -> np.ndarray:
    """Rows in which two columns do not agree."""
    with np.errstate(invalid="ignore"):
        error = np.abs(ours - theirs) / np.maximum(1, np.abs(theirs))
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    tolerance = max([1e-9, *(line["tolerance"] for line in exceptions if "tolerance" in line)])
    excused = np.zeros(len(ours), bool)
    for line in exceptions:
        if "cells" in line:
            excused |= _are(ours, line["cells"][0]) & _are(theirs, line["cells"][1])
    return np.flatnonzero(~(same | excused | (np.isfinite(ours) & np.isfinite(theirs) & (error <= tolerance))))


def _lines(name: str, against: str) -> list[dict[str, Any]]:
    return [line for line in EXCEPTIONS if line["against"] == against and re.fullmatch(line["columns"], name)]


def _column(frame: pl.DataFrame, name: str) -> np.ndarray:
    return frame[name].fill_null(float("nan")).to_numpy()


def _assert_parity(ours: pl.DataFrame, theirs: Columns, against: str, where: str) -> None:
    for name, truth in theirs.items():
        column = _column(ours, name)
        rows = _differing(column, truth, _lines(name, against))
        assert not len(rows), (
            f"{name}, {where}: {len(rows)} rows differ, the first {rows[0]}: {column[rows[0]]} here, {truth[rows[0]]} in Qlib"
        )


def _stored(name: str, rows: int) -> dict[str, np.ndarray]:
    frame = pl.read_parquet(ORACLE / f"{name}.parquet").drop("symbol", "date")
    assert frame.height == rows
    return {column: _column(frame, column) for column in frame.columns}


def _stated(kind: str) -> dict[str, str]:
    return json.loads((ORACLE / "expressions.json").read_text())[kind]


def _others() -> dict[str, str]:
    """Without the one that this language leaves out."""
    return {name: text for name, text in _stated("ops").items() if name != "EMA_alpha"}


@pytest.fixture(scope="module")
def stored_panel() -> pl.DataFrame:
    panel = pl.read_parquet(ORACLE / "tiny_panel.parquet").rename({"date": "session"})
    return panel.with_columns(pl.col("session").cast(pl.Date), pl.col(*FIELDS).fill_nan(None))


def _first_symbols(panel: pl.DataFrame, count: int) -> pl.DataFrame:
    return panel.filter(pl.col("symbol").is_in(panel["symbol"].unique().sort()[:count].implode()))


@needs_oracle
def test_alpha158_is_qlibs_without_any_exception(stored_panel: pl.DataFrame) -> None:
    stored = _stored("tiny_qlib_alpha158_f64", stored_panel.height)
    assert list(stored) == list(alpha158())
    assert not [name for name in stored if _lines(name, "stored")]
    _assert_parity(compute(alpha158(), stored_panel, dtype=pl.Float64), stored, "stored", "stored")


@needs_oracle
def test_every_other_operator_is_qlibs_to_its_rounding(stored_panel: pl.DataFrame) -> None:
    panel = _first_symbols(stored_panel, 20)
    stored = _stored("tiny20_qlib_ops_f64", panel.height)
    assert len(_others()) == 173
    ours = compute(_others(), panel, dtype=pl.Float64, allow_future=True)
    _assert_parity(ours, {name: stored[name] for name in _others()}, "stored", "stored")


@needs_oracle
def test_an_exponential_mean_over_all_rows_is_qlibs(stored_panel: pl.DataFrame) -> None:
    panel = _first_symbols(stored_panel, 20)
    stored = _stored("tiny20_qlib_ops_f64", panel.height)
    averages = {name: parse(text) for name, text in _others().items() if "EMA(" in text}
    assert len(averages) >= 6
    theirs = {name: stored[name] for name in averages}
    _assert_parity(reference(averages, panel, Mode.QLIB, unbounded_ema=True), theirs, "none", "unbounded")


def _assert_exact(panel: pl.DataFrame, where: str, correlations: float = 1e-12) -> None:
    ours, truths = compute(alpha158(), panel, dtype=pl.Float64), exact({name: parse(text) for name, text in alpha158().items()}, panel)
    for name, truth in truths.items():
        column = _column(ours, name)
        assert np.array_equal(np.isnan(column), np.isnan(truth)), f"{name}, {where}: missing values differ"
        assert np.array_equal(np.isinf(column), np.isinf(truth)), f"{name}, {where}: infinite values differ"
        finite = np.isfinite(truth)
        error = np.abs(column[finite] - truth[finite]) / np.maximum(1, np.abs(truth[finite]))
        allowed = correlations if name.startswith("COR") else 1e-12
        assert error.max(initial=0) <= allowed, f"{name}, {where}: {error.max()}"


@needs_oracle
def test_alpha158_is_what_extended_precision_gives(stored_panel: pl.DataFrame) -> None:
    _assert_exact(_first_symbols(stored_panel, 10), "stored")


@pytest.mark.parametrize("missing", [0.05, 0.5])
def test_alpha158_is_what_extended_precision_gives_on_random_bars(make_panel: Callable[..., pl.DataFrame], missing: float) -> None:
    for seed in (*SEEDS[:2], random.SystemRandom().randrange(2**32)):
        # Next to a halt, pairs may be left whose returns are 1e-5 apart: a correlation of those has five digits less.
        _assert_exact(make_panel(seed, missing=missing), f"seed {seed}", correlations=1e-10)


def _run_qlib(expressions: Mapping[str, str], panel: pl.DataFrame) -> dict[str, np.ndarray]:
    """Qlib's parser and operators, unmodified; only its feature loader, which reads float32 files, is replaced by the panel's columns."""
    import pandas as pd
    from qlib.data import ops
    from qlib.data.base import Feature
    from qlib.data.cache import H
    from qlib.utils import parse_field

    H.clear()  # it knows a value by its expression, symbol and number of rows only, so it would answer for another panel
    bars = {str(symbol): part.fill_null(float("nan")) for (symbol,), part in panel.group_by("symbol", maintain_order=True)}

    class Column(Feature):
        def load(self, instrument: str, *_: object) -> Any:
            return pd.Series(bars[instrument][self._name].to_numpy().copy())

    namespace = type("Operators", (), {**{name: getattr(ops, name) for name in OPERATORS if hasattr(ops, name)}, "Feature": Column})
    trees = {name: eval(parse_field(text), {"Operators": namespace}) for name, text in expressions.items()}
    seen = [{name: tree.load(symbol, 0, len(part) - 1, "day") for name, tree in trees.items()} for symbol, part in bars.items()]
    return {name: np.concatenate([np.asarray(symbol[name], np.float64) for symbol in seen]) for name in expressions}


def _alpha360() -> dict[str, str]:
    """From the library if it is there, else as pyqlib's class states them."""
    if ALPHA360.exists():
        return tomllib.loads(ALPHA360.read_text())
    return _stated("alpha360") if ORACLE.exists() else {}


@pytest.fixture(scope="module")
def live(every_operator: dict[str, str]) -> Callable[[pl.DataFrame], tuple[pl.DataFrame, Columns]]:
    """Columns of a panel from this engine and from pyqlib; of an EMA over all rows, as Qlib has it."""
    factors = {**alpha158(), **every_operator}
    averages = {name: parse(text) for name, text in factors.items() if "EMA(" in text}

    def both(panel: pl.DataFrame) -> tuple[pl.DataFrame, Columns]:
        unbounded = reference(averages, panel, Mode.QLIB, unbounded_ema=True)
        return compute(factors, panel, dtype=pl.Float64).with_columns(unbounded.select(averages.keys())), _run_qlib(factors, panel)

    return both


@needs_pyqlib
@quietly
def test_alpha158_and_every_operator_are_qlibs_run_live_on_random_bars(
    make_panel: Callable[..., pl.DataFrame], live: Callable[[pl.DataFrame], tuple[pl.DataFrame, Columns]]
) -> None:
    for seed in (*SEEDS, random.SystemRandom().randrange(2**32)):
        for missing in (0.05, 0.3):
            _assert_parity(*live(make_panel(seed, missing=missing)), "live", f"seed {seed}, missing {missing}")


@needs_pyqlib
@quietly
def test_alpha360_is_qlibs_run_live_on_random_bars(make_panel: Callable[..., pl.DataFrame]) -> None:
    factors = _alpha360() or pytest.skip("neither the library's alpha360 nor the shared data set is here")
    assert len(factors) == 360
    for seed in (SEEDS[0], random.SystemRandom().randrange(2**32)):
        panel = make_panel(seed)
        _assert_parity(compute(factors, panel, dtype=pl.Float64), _run_qlib(factors, panel), "none", f"seed {seed}")


@needs_pyqlib
@needs_oracle
@quietly
def test_every_exception_is_needed_and_in_the_changelog(
    make_panel: Callable[..., pl.DataFrame],
    live: Callable[[pl.DataFrame], tuple[pl.DataFrame, Columns]],
    stored_panel: pl.DataFrame,
) -> None:
    panel = _first_symbols(stored_panel, 20)
    stored = _stored("tiny20_qlib_ops_f64", panel.height)
    pairs = {
        "stored": [(compute(_others(), panel, dtype=pl.Float64, allow_future=True), {name: stored[name] for name in _others()})],
        "live": [live(make_panel(seed, missing=missing)) for seed in SEEDS for missing in (0.05, 0.3)],
    }

    def needed(line: dict[str, Any]) -> bool:
        return any(
            len(_differing(_column(ours, name), truth, [other for other in _lines(name, line["against"]) if other is not line]))
            for ours, theirs in pairs[line["against"]]
            for name, truth in theirs.items()
            if re.fullmatch(line["columns"], name)
        )

    assert not [line["name"] for line in EXCEPTIONS if not needed(line)]
    section = (ROOT / "CHANGELOG.md").read_text().partition("### Parity with Qlib")[2].partition("\n#")[0]
    assert not [line["name"] for line in EXCEPTIONS if f"`{line['name']}`" not in section]
    assert all(line["reason"] for line in EXCEPTIONS)


def _model(features: np.ndarray, label: np.ndarray) -> Any:
    import lightgbm

    parameters = {"objective": "regression", "num_leaves": 15, "num_threads": 1, "deterministic": True, "seed": 1, "verbosity": -1}
    return lightgbm.train(parameters, lightgbm.Dataset(features, label), num_boost_round=30)


def _rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(pl.Series(one).rank().to_numpy(), pl.Series(other).rank().to_numpy())[0, 1])


def _label(features: np.ndarray) -> np.ndarray:
    """Factors and noise: on noise alone trees are chaotic, and features that differ in the last place in 1 % of the cells rank at 0.84."""
    factors = dict(zip(alpha158(), features.T, strict=True))
    known = np.nan_to_num(0.02 * factors["CORR10"] + 0.03 * factors["RSV20"] - factors["ROC5"])
    return known + np.random.default_rng(1).normal(0, 0.02, len(known))


def _features(panel: pl.DataFrame) -> np.ndarray:
    return compute(alpha158(), panel).select(alpha158().keys()).fill_null(float("nan")).to_numpy()


@needs_oracle
@quietly
def test_models_trained_on_features_of_either_engine_rank_alike(stored_panel: pl.DataFrame) -> None:
    ours = _features(stored_panel)
    theirs = np.column_stack([*_stored("tiny_qlib_alpha158_f64", stored_panel.height).values()]).astype(np.float32)
    scores = [_model(features, _label(ours)).predict(features, num_threads=1) for features in (ours, theirs)]
    assert _rank_correlation(*scores) > 0.9999


@needs_pyqlib
@quietly
def test_a_model_ranks_alike_from_features_of_either_engine_run_live(make_panel: Callable[..., pl.DataFrame]) -> None:
    seed = random.SystemRandom().randrange(2**32)
    panel = make_panel(seed, symbols=10, rows=250, missing=0.02)
    ours = _features(panel)
    theirs = np.column_stack([*_run_qlib(alpha158(), panel).values()]).astype(np.float32)
    model = _model(ours, _label(ours))
    scores = [model.predict(features, num_threads=1) for features in (ours, theirs)]
    traded = _column(compute({"least": "Min($volume,61)"}, panel), "least") > 0  # exceptions.toml says what differs around a halt
    assert _rank_correlation(*(score[traded] for score in scores)) > 0.9999, f"seed {seed}"


def test_the_table_has_the_158_columns_in_qlibs_order() -> None:
    table = alpha158_table()
    assert list(table.columns) == ["session", "symbol", *alpha158()]
    assert {table.columns[name].dtype for name in alpha158()} == {pl.Float32}
    assert table.key == TABLES["alpha158"].key
    assert len(alpha158()) == 158
