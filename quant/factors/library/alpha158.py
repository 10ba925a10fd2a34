"""Qlib's Alpha158: names and expressions as pyqlib's own class gives them, frozen in ``alpha158.toml`` (``make factors``).

Frozen, because importing pyqlib costs four seconds in every process, and it has no wheel for Python 3.13 and newer.
"""

from __future__ import annotations

import tomllib
from dataclasses import replace
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING

import polars as pl

from quant.tables import TABLES, Column, Table

if TYPE_CHECKING:
    from collections.abc import Mapping


@cache
def alpha158() -> Mapping[str, str]:
    """Name -> expression of 158 factors, in Qlib's order: 9 of the bar, 4 prices, 29 rolling ones over 5, 10, 20, 30 and 60 sessions."""
    return MappingProxyType(tomllib.loads((files("quant.factors.library") / "alpha158.toml").read_text()))


@cache
def alpha158_table() -> Table:
    """Table alpha158 with its factor columns: Float32, null where the bars or the window leave nothing to compute from."""
    factors = {name: Column(dtype=pl.Float32, description=text, nullable=True) for name, text in alpha158().items()}
    table = TABLES["alpha158"]
    return replace(table, columns={**table.columns, **factors})
