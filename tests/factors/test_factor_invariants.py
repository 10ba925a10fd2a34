"""What holds for every factor whatever the bars: it is blind to the future, and a row's value does not depend on what else is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.calendar import exchange_calendar
from quant.factors.compile import compute, evaluate
from quant.factors.expression import FIELDS, parse
from quant.factors.library.alpha158 import alpha158
from quant.factors.reach import reach

if TYPE_CHECKING:
    from collections.abc import Callable

SEED = st.integers(0, 2**32 - 1)
PRICES = ("open", "high", "low", "close", "vwap")
FEW = settings(max_examples=8, deadline=None)


@pytest.fixture(scope="module")
def factors(every_operator: dict[str, str]) -> dict[str, str]:
    return {**alpha158(), **every_operator}


def _past(factors: dict[str, str]) -> int:
    return max(reach(parse(text)).past for text in factors.values())


@FEW
@given(seed=SEED, cut=st.integers(1, 149))
def test_a_factor_is_blind_to_later_bars(make_panel: Callable[..., pl.DataFrame], factors: dict[str, str], seed: int, cut: int) -> None:
    panel = make_panel(seed)
    now = panel["session"].max() if cut == 149 else panel["session"].unique().sort()[cut]
    later = pl.col("session") > now
    changed = panel.with_columns(pl.when(later).then(pl.col(name) * 7 + 1).otherwise(pl.col(name)).alias(name) for name in FIELDS)
    truth = compute(factors, panel, dtype=pl.Float64).filter(~later)
    assert truth.equals(compute(factors, changed, dtype=pl.Float64).filter(~later))


@FEW
@given(seed=SEED, back=st.integers(0, 60))
def test_a_row_computed_from_its_reach_alone_has_the_bits_of_the_whole_history(
    make_panel: Callable[..., pl.DataFrame], factors: dict[str, str], seed: int, back: int
) -> None:
    panel = make_panel(seed)
    days = panel["session"].unique().sort()
    now = days[-1 - back]
    whole = compute(factors, panel, dtype=pl.Float64).filter(pl.col("session") == now)
    first = days[max(len(days) - 1 - back - _past(factors), 0)]
    slice_ = panel.filter(pl.col("session").is_between(first, now))
    assert whole.equals(compute(factors, slice_, dtype=pl.Float64).filter(pl.col("session") == now))


@FEW
@given(seed=SEED, batch_rows=st.sampled_from([1, 50, 200]))
def test_the_cut_into_chunks_changes_no_bit(
    make_panel: Callable[..., pl.DataFrame], factors: dict[str, str], seed: int, batch_rows: int
) -> None:
    panel = make_panel(seed, symbols=5)
    chunks = pl.concat(evaluate(factors, panel, dtype=pl.Float64, batch_rows=batch_rows))
    assert chunks.equals(compute(factors, panel, dtype=pl.Float64))


@FEW
@given(seed=SEED, name=st.sampled_from(["MA60", "STD60", "RSQR20", "CORR5", "QTLU10", "RANK60", "VSUMD30"]))
def test_a_factor_alone_has_the_bits_it_has_among_others(make_panel: Callable[..., pl.DataFrame], seed: int, name: str) -> None:
    panel = make_panel(seed)
    alone = compute({name: alpha158()[name]}, panel, dtype=pl.Float64)
    assert alone.equals(compute(alpha158(), panel, dtype=pl.Float64).select("session", "symbol", name))


@FEW
@given(seed=SEED, scale=st.floats(0.5, 50))
def test_alpha158_does_not_depend_on_the_level_of_prices(make_panel: Callable[..., pl.DataFrame], seed: int, scale: float) -> None:
    panel = make_panel(seed)
    scaled = panel.with_columns(pl.col(*PRICES) * scale)
    # The panels' prices are equal or 0.1 apart, so scaling keeps every comparison; Qlib's 1e-12 in denominators stays below the tolerance.
    for one, other in zip(*(compute(alpha158(), bars, dtype=pl.Float64).iter_columns() for bars in (panel, scaled)), strict=True):
        if one.name not in ("session", "symbol"):
            x, y = (column.fill_null(float("nan")).to_numpy() for column in (one, other))
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9, err_msg=one.name)


def test_logarithms_and_powers_have_the_same_bits_in_a_short_column_as_in_a_long_one() -> None:
    rng = np.random.default_rng(5)
    days, symbols = exchange_calendar().days[:5000], 40
    panel = pl.DataFrame(
        {
            "session": days * symbols,
            "symbol": [f"S{number:02}" for number in range(symbols) for _ in days],
            "volume": np.round(np.exp(rng.uniform(0, 22, symbols * len(days)))),
        }
    )
    factors = {"log": "Log($volume+1)", "power": "$volume**0.3", "change": "Log($volume/Ref($volume,1)+1)"}
    long = compute(factors, panel, dtype=pl.Float64)
    for length in (*range(2, 20), 61, 121, 1000):
        tail = pl.col("session") >= days[-length]
        short = compute(factors, panel.filter(tail), dtype=pl.Float64)
        inner = pl.col("session") > days[-length]
        assert long.filter(inner).equals(short.filter(inner)), length
