"""The compiled engine and the readable reference hold each other: the same values missing, the same numbers to rounding."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from quant.factors import compile as engine
from quant.factors.compile import Backend, compute
from quant.factors.expression import OPERATORS, CrossSection, Elementwise, Rolling, Shift, parse, text, walk
from quant.factors.library.alpha158 import alpha158
from quant.factors.plan import Mode, plan
from quant.factors.reference import reference
from tests.factors.random_expressions import panels, trees

if TYPE_CHECKING:
    from collections.abc import Callable

    from quant.factors.expression import Node

MANY = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MORE = settings(MANY, max_examples=150)
ILL_CONDITIONED = {"Corr": 1e-6, "Rsquare": 1e-6, "Skew": 1e-6, "Kurt": 1e-6}  # quotients of what is left of nearly equal values


def _tolerance(node: Node) -> float:
    return max((ILL_CONDITIONED.get(part.op, 1e-9) for part in walk(node) if isinstance(part, Rolling)), default=1e-9)


def _scale(node: Node, panel: pl.DataFrame, mode: Mode) -> float:
    """The greatest finite value of any part: what cancels in a sum or a deviation leaves rounding of that size."""
    parts = {str(number): part for number, part in enumerate(dict.fromkeys(walk(node)))}
    values = reference(parts, panel, mode).drop("session", "symbol").to_numpy()
    return max(1.0, float(np.abs(values[np.isfinite(values)]).max(initial=0)))


def _assert_alike(ours: pl.Series, theirs: pl.Series, tolerance: float, what: str) -> None:
    x, y = (column.fill_null(float("nan")).to_numpy() for column in (ours, theirs))
    differing = (ours.is_null() != theirs.is_null()).arg_true().to_list()
    assert not differing, f"{what}: missing in one of the two in rows {differing}"
    np.testing.assert_allclose(x, y, rtol=1e-9, atol=tolerance, err_msg=what)


@MANY
@given(panel=panels(), nodes=st.lists(trees("smooth", 3), min_size=1, max_size=4), mode=st.sampled_from(Mode))
def test_both_back_ends_agree_on_random_expressions(panel: pl.DataFrame, nodes: list[Node], mode: Mode) -> None:
    factors = {str(number): text(node) for number, node in enumerate(nodes)}
    ours, theirs = (compute(factors, panel, dtype=pl.Float64, mode=mode, allow_future=True, backend=backend) for backend in Backend)
    assert ours.drop(factors).equals(theirs.drop(factors))
    for name, node in zip(factors, nodes, strict=True):
        _assert_alike(ours[name], theirs[name], _tolerance(node) * _scale(node, panel, mode), factors[name])


def test_the_random_expressions_hold_every_operator() -> None:
    seen: set[str] = set()

    @settings(max_examples=1000, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
    @given(trees("smooth", 3))
    def note(node: Node) -> None:
        for part in walk(node):
            seen.add("Ref" if isinstance(part, Shift) else part.op if isinstance(part, CrossSection | Elementwise | Rolling) else "")

    note()
    assert {*OPERATORS} - seen == {"Delta", "Med"}  # which are read as Sub and Quantile


@pytest.mark.parametrize("mode", Mode)
def test_both_back_ends_agree_on_the_alpha158_factors(make_panel: Callable[..., pl.DataFrame], mode: Mode) -> None:
    panel = make_panel(11, symbols=4)
    ours, theirs = (compute(alpha158(), panel, dtype=pl.Float64, mode=mode, backend=backend) for backend in Backend)
    for name in alpha158():
        _assert_alike(ours[name], theirs[name], 1e-9, name)


def _bits(frame: pl.DataFrame) -> np.ndarray:
    return frame.drop("session", "symbol").to_numpy().view(np.int64)


def _assert_masked_gives_the_same_bits(factors: dict[str, str], panel: pl.DataFrame, mode: Mode) -> None:
    usual = compute(factors, panel, dtype=pl.Float64, mode=mode, allow_future=True)
    with pytest.MonkeyPatch.context() as patch:  # a reach longer than any listing: no row is left for the dense program
        patch.setattr(engine, "plan", lambda nodes, mode: replace(plan(nodes, mode), past=400))
        masked = compute(factors, panel, dtype=pl.Float64, mode=mode, allow_future=True)
    np.testing.assert_array_equal(_bits(usual), _bits(masked))


@MORE
@given(panel=panels(), nodes=st.lists(trees("smooth", 3), min_size=1, max_size=4), mode=st.sampled_from(Mode))
def test_the_dense_and_the_masked_program_give_the_same_bits_on_random_expressions(
    panel: pl.DataFrame, nodes: list[Node], mode: Mode
) -> None:
    _assert_masked_gives_the_same_bits({str(number): text(node) for number, node in enumerate(nodes)}, panel, mode)


@pytest.mark.parametrize("mode", Mode)
def test_the_dense_and_the_masked_program_give_the_same_bits(
    make_panel: Callable[..., pl.DataFrame], every_operator: dict[str, str], mode: Mode
) -> None:
    factors = {name: expression for name, expression in {**alpha158(), **every_operator}.items() if name != "EMA_33"}
    panel = make_panel(7, symbols=4, rows=300, missing=0.01)
    planned = plan(tuple(parse(expression) for expression in factors.values()), mode)
    assert planned.past < 80, "most rows are the dense program's"
    _assert_masked_gives_the_same_bits(factors, panel, mode)


def test_an_unbounded_exponential_mean_is_near_the_bounded_one(make_panel: Callable[..., pl.DataFrame]) -> None:
    panel, nodes = make_panel(9, symbols=2, missing=0.0), {"x": parse("EMA($close,5)")}
    unbounded = reference(nodes, panel, Mode.QLIB, unbounded_ema=True)
    _assert_alike(compute({"x": "EMA($close,5)"}, panel, dtype=pl.Float64)["x"], unbounded["x"], 1e-6, "EMA")
