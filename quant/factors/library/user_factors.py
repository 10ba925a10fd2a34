"""A user's own factors as a lake table: one Float32 column a factor, whatever their library file calls them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from quant.errors import InputError, expected
from quant.factors.library.alpha158 import alpha158
from quant.tables import TABLES, Column, Table

if TYPE_CHECKING:
    from collections.abc import Mapping


def user_factors_table(library: Mapping[str, str]) -> Table:
    """Table user_factors with the columns of ``library`` (name -> expression) in the order of their names: moving a line of the file moves
    nothing. Raises InputError for a name that the table, Alpha158, labels or scores have already, in upper or lower case: DuckDB does not
    tell them apart.
    """
    table = TABLES["user_factors"]
    joined = (column for name in ("forward_returns", "scores") for column in TABLES[name].columns)  # features meet their labels and scores
    taken = {name.lower(): name for name in (*table.columns, *alpha158(), *joined)}
    for name in library:
        if name.lower() in taken:
            found = f"{name}, which is taken by {taken[name.lower()]}"
            raise InputError(expected("a factor name of its own", found=found, where="the factor library", do="rename the factor"))
        taken[name.lower()] = f"factor {name} of the same library"
    factors = {name: Column(dtype=pl.Float32, description=library[name], nullable=True) for name in sorted(library)}
    return replace(table, columns={**table.columns, **factors})


def library_digest(library: Mapping[str, str]) -> str:
    """Which library a row was computed by: BLAKE2b-64 over names and expressions, in the order of names."""
    return hashlib.blake2b(json.dumps(sorted(library.items())).encode(), digest_size=8).hexdigest()
