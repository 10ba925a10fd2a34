"""Qlib's feature sets as pyqlib's own classes give them, frozen in TOML files beside this one (``make factors``).

Frozen, because importing pyqlib costs four seconds in every process, and it has no wheel for Python 3.13 and newer.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING

from quant.errors import InputError, expected

if TYPE_CHECKING:
    from collections.abc import Mapping

LIBRARIES = ("alpha158", "alpha360")
"""alpha158: 9 factors of the bar, 4 prices, 29 rolling ones over 5, 10, 20, 30 and 60 sessions. alpha360: open, high, low, close, vwap
over the last close and volume over the last volume, today and 59 sessions back."""


@cache
def frozen_library(name: str) -> Mapping[str, str]:
    """Name -> expression, in Qlib's order. Raises InputError for a name that is not in LIBRARIES."""
    if name not in LIBRARIES:
        raise InputError(expected(f"one of {', '.join(LIBRARIES)}", found=name, where="the factor libraries", do="choose one"))
    return MappingProxyType(tomllib.loads((files("quant.factors.library") / f"{name}.toml").read_text(encoding="utf-8")))
