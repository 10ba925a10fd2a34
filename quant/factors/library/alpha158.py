"""Qlib's Alpha158, the features of the baseline strategy, and the table that holds them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import polars as pl

from quant.factors.library.frozen import frozen_library
from quant.tables import TABLES, Column, Table

if TYPE_CHECKING:
    from collections.abc import Mapping


def alpha158() -> Mapping[str, str]:
    """Name -> expression of 158 factors, in Qlib's order: 9 of the bar, 4 prices, 29 rolling ones over 5, 10, 20, 30 and 60 sessions."""
    return frozen_library("alpha158")


@cache
def alpha158_table() -> Table:
    """Table alpha158 with its factor columns: Float32, null where the bars or the window leave nothing to compute from."""
    factors = {name: Column(dtype=pl.Float32, description=text, nullable=True) for name, text in alpha158().items()}
    table = TABLES["alpha158"]
    return replace(table, columns={**table.columns, **factors})
