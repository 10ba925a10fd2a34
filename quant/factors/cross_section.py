"""Operators over the symbols of a session: what Qlib leaves to processors, inside the expression language.

Only symbols with a finite value take part, and the others stay missing. Within groups, a symbol without a group stays missing too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def cross_section(op: str, values: pl.Expr, group: str | None) -> pl.Expr:
    """Operator ``op`` of expression.CROSS_SECTION over ``values`` in each session (and group): Float64, null where there is no value.

    CSRank: average rank over the number of values, in (0, 1]. CSZScore: deviation from the mean over the standard deviation (n - 1),
    null where that is 0 or n < 2. CSDemean: deviation from the mean. CSScale: value over the sum of absolute values, null where
    that is 0.
    """
    known = pl.when(values.is_finite()).then(values)
    keys = ["session"] if group is None else ["session", group]
    result = _OPERATORS[op](known).over(keys)
    return result if group is None else pl.when(pl.col(group).is_not_null()).then(result)


def _ratio(numerator: pl.Expr, denominator: pl.Expr) -> pl.Expr:
    return pl.when(denominator > 0).then(numerator / denominator)


def _ordered(x: pl.Expr) -> pl.Expr:
    """The values in ascending order, so that their sum has the same bits whatever the order of the symbols, and of those without one."""
    return x.drop_nulls().sort()


_OPERATORS: Mapping[str, Callable[[pl.Expr], pl.Expr]] = {
    "CSRank": lambda x: x.rank("average") / x.count(),
    "CSZScore": lambda x: _ratio(x - _ordered(x).mean(), _ordered(x).std()),
    "CSDemean": lambda x: x - _ordered(x).mean(),
    "CSScale": lambda x: _ratio(x, _ordered(x.abs()).sum()),
}
