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
from quant.factors.expression import FIELDS, ROLLING, parse
from quant.factors.library.alpha158 import alpha158
from quant.factors.plan import Mode
from quant.factors.reach import reach

if TYPE_CHECKING:
    from collections.abc import Callable

SEED = st.integers(0, 2**32 - 1)
PRICES = ("open", "high", "low", "close", "vwap")
SECTIONS = {
    "rank": "CSRank($close/Ref($close,1))",
    "score": "Mean(CSZScore(Mean($close,5)/$close),3)",
    "scale": "CSScale($volume)+CSDemean(CSRank($vwap))",
}
FEW = settings(max_examples=8, deadline=None)


@pytest.fixture(scope="module")
def factors(every_operator: dict[str, str]) -> dict[str, str]:
    """An EMA over 33 rows reads 330 of them: with it, every row of these panels would be left to the masked program."""
    return {**alpha158(), **{name: text for name, text in every_operator.items() if name != "EMA_33"}}


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
@given(seed=SEED, dtype=st.sampled_from([pl.Float32, pl.Float64]))
def test_long_listings_and_short_ones_have_the_same_bits(
    make_panel: Callable[..., pl.DataFrame], factors: dict[str, str], seed: int, dtype: type[pl.Float32] | type[pl.Float64]
) -> None:
    panel = make_panel(
        seed, symbols=9, rows=700, missing=0.01
    )  # many rows are written past the cache, the first of several listings in one go
    whole = compute(factors, panel, dtype=dtype, threads=1)
    alone = [compute(factors, rows, dtype=dtype, threads=1) for rows in panel.partition_by("symbol", maintain_order=True)]
    assert whole.equals(pl.concat(alone))
    recent = panel["session"].unique().sort()[-100]
    assert whole.filter(pl.col("session") >= recent).equals(compute(factors, panel, dtype=dtype, since=recent))
    assert not any(whole[name].is_nan().any() for name in factors)


@FEW
@given(seed=SEED, cut=st.integers(0, 149))
def test_appending_rows_never_changes_earlier_values(
    make_panel: Callable[..., pl.DataFrame], factors: dict[str, str], seed: int, cut: int
) -> None:
    panel = make_panel(seed)
    earlier = pl.col("session") <= panel["session"].unique().sort()[cut]
    everything = {**factors, **SECTIONS}
    whole = compute(everything, panel, dtype=pl.Float64).filter(earlier)
    assert whole.equals(compute(everything, panel.filter(earlier), dtype=pl.Float64))


@FEW
@given(seed=SEED, back=st.integers(0, 149), threads=st.integers(1, 3), mode=st.sampled_from(Mode))
def test_neither_threads_nor_the_first_session_asked_for_change_a_bit(
    make_panel: Callable[..., pl.DataFrame], factors: dict[str, str], seed: int, back: int, threads: int, mode: Mode
) -> None:
    panel = make_panel(seed, symbols=5)
    since = panel["session"].unique().sort()[-1 - back]
    everything = {**factors, **SECTIONS}
    whole = compute(everything, panel, dtype=pl.Float64, mode=mode, threads=1)
    assert whole.equals(compute(everything, panel, dtype=pl.Float64, mode=mode, threads=threads))
    late = compute(everything, panel, dtype=pl.Float64, mode=mode, threads=threads, since=since)
    assert whole.filter(pl.col("session") >= since).equals(late)


@FEW
@given(seed=SEED)
def test_a_cross_section_does_not_depend_on_the_order_of_the_symbols(make_panel: Callable[..., pl.DataFrame], seed: int) -> None:
    panel = make_panel(seed, symbols=6)
    backwards = pl.col("symbol").replace({f"S{number:02}": f"S{5 - number:02}" for number in range(6)})
    turned = compute(SECTIONS, panel.with_columns(backwards).sort("symbol", "session"), dtype=pl.Float64)
    assert turned.with_columns(backwards).sort("symbol", "session").equals(compute(SECTIONS, panel, dtype=pl.Float64))


@FEW
@given(seed=SEED, scale=st.sampled_from([0.25, 2.0, 64.0]))
def test_what_is_a_ratio_has_the_same_bits_at_a_level_that_is_a_power_of_two(
    make_panel: Callable[..., pl.DataFrame], seed: int, scale: float
) -> None:
    panel = make_panel(seed)
    ratios = {
        "sum": "Sum($close,7)/Mean($open,5)",
        "place": "IdxMax($close,9)+Rank($vwap,7)+Quantile($close,5,0.37)/$close",
        "line": "Slope($close,9)/Std($close,6)",
        "section": "CSRank($close-Mean($close,5))",
    }
    scaled = panel.with_columns(pl.col(*PRICES) * scale)
    assert compute(ratios, panel, dtype=pl.Float64).equals(compute(ratios, scaled, dtype=pl.Float64))


def test_any_arrow_table_is_a_panel(make_panel: Callable[..., pl.DataFrame], factors: dict[str, str]) -> None:
    panel = make_panel(8)
    truth = compute(factors, panel)
    assert compute(factors, panel.to_arrow()).equals(truth)
    assert compute(factors, panel.to_arrow().to_reader(max_chunksize=37)).equals(truth)
    assert compute(factors, pl.concat([panel[:100], panel[100:]], rechunk=False)).equals(truth)


@pytest.mark.parametrize("rows", [2, 5, 20])
def test_in_strict_mode_a_window_is_missing_until_it_is_full_of_known_values(make_panel: Callable[..., pl.DataFrame], rows: int) -> None:
    panel = make_panel(12)
    known = panel.select("symbol", pl.col("close").is_not_null().cast(pl.Int64))
    full = known.select((pl.col("close").rolling_sum(rows) == rows).fill_null(value=False).over("symbol")).to_series()
    single = [op for op, series in ROLLING.items() if series == 1 and op not in ("Quantile", "EMA", "Rsquare", "Skew", "Kurt")]
    factors = {op: f"{op}($close,{rows})" for op in single} | {"Med": f"Med($close,{rows})"}
    strict = compute(factors, panel, dtype=pl.Float64, mode=Mode.STRICT)
    usual = compute(factors, panel, dtype=pl.Float64)
    for op in factors:
        assert strict[op].is_not_null().equals(full), op
        assert strict[op].filter(full).equals(usual[op].filter(full)), op


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
