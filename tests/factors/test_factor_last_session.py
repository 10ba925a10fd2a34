"""One session for many symbols is computed several symbols at a time: it has to be what the whole history gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest

from quant.factors.compile import compute
from quant.factors.library.alpha158 import alpha158

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_last_session_of_many_symbols_has_the_bits_of_the_whole_history(
    make_panel: Callable[..., pl.DataFrame], every_operator: dict[str, str], seed: int, threads: int
) -> None:
    panel = make_panel(seed, symbols=40, rows=130, missing=0.02)  # full windows, gaps in some, and listings that are too young
    factors = {name: text for name, text in (alpha158() | every_operator).items() if not name.startswith("EMA_33")}
    last = panel["session"].max()
    whole = compute(factors, panel, dtype=pl.Float64).filter(pl.col("session") == last)
    assert whole.height == 40
    assert whole.equals(compute(factors, panel, dtype=pl.Float64, since=last, threads=threads))
