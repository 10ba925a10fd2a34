"""A user's own factors as a lake table: one Float32 column a factor, whatever their library file calls them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

import polars as pl

from quant.errors import InputError, expected
from quant.factors.library.alpha158 import alpha158
from quant.tables import TABLES, Column, Table

if TYPE_CHECKING:
    from collections.abc import Mapping


@cache
def taken_names() -> Mapping[str, str]:
    """Names that no factor of a user may have, in lower case (DuckDB does not tell capitals apart), and whose they are: keys, columns and
    partition column of user_factors, Alpha158's, and those of the labels and scores that factors are joined with.
    """
    own = TABLES["user_factors"]
    names = {own.partition: "the column that user_factors is partitioned by"}
    for table in (TABLES["scores"], TABLES["forward_returns"], own):
        names |= {name.lower(): f"column {name} of table {table.name}" for name in table.columns}
    names |= {name.lower(): f"Alpha158's {name}" for name in alpha158()}
    return MappingProxyType(names | dict.fromkeys(own.key, "a key of every table"))


def user_factors_table(library: Mapping[str, str]) -> Table:
    """Table user_factors with the columns of ``library`` (name -> expression) in the order of their names: moving a line of the file moves
    nothing. Raises InputError for one of taken_names, in upper or lower case.
    """
    table, taken = TABLES["user_factors"], dict(taken_names())
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
