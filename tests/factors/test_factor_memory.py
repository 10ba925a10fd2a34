"""Results lie in memory that is used again, but never while somebody holds a result."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from quant.calendar import exchange_calendar
from quant.factors import memory
from quant.factors.compile import compute

DAYS = exchange_calendar().days[:400]


def _panel(level: float) -> pl.DataFrame:
    return pl.DataFrame({"session": DAYS, "symbol": ["A"] * len(DAYS), "close": np.linspace(level, 2 * level, len(DAYS))})


def test_a_result_that_is_held_keeps_its_values_whatever_is_computed_after_it() -> None:
    held = [compute({"x": "$close*1"}, _panel(level))["x"][5:] for level in (1.0, 2.0, 3.0, 4.0)]
    again = [compute({"x": "$close*1"}, _panel(level))["x"][5:] for level in (1.0, 2.0, 3.0, 4.0)]
    assert all(one.equals(other) for one, other in zip(held, again, strict=True))
    assert [series[0] < series[-1] for series in held] == [True] * 4
    assert len({series[0] for series in held}) == 4


def test_memory_that_nobody_holds_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_blocks", [])
    first = memory.empty(3, 1000, np.float64)
    address = first.ctypes.data
    view = first[1]
    del first
    second = memory.empty(3, 1000, np.float64)
    assert second.ctypes.data != address  # a view is still alive
    del view
    assert memory.empty(3, 1000, np.float64).ctypes.data == address
    assert memory.empty(3, 1000, np.float32).dtype == np.float32


def test_memory_of_many_small_results_that_are_held_is_not_looked_through_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_blocks", [])
    held = [memory.empty(1, 8, np.float32) for _ in range(3 * memory.KEPT_BLOCKS)]
    assert len(memory._blocks) == memory.KEPT_BLOCKS
    assert len({array.ctypes.data for array in held}) == len(held)
