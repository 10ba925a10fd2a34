"""The plan for some expressions: two programs, and how far they look."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING

from quant.factors.dense import Dense
from quant.factors.expression import Feature, walk
from quant.factors.masked import Masked
from quant.factors.reach import reach

if TYPE_CHECKING:
    from quant.factors.expression import Node
    from quant.factors.program import Program


class Mode(Enum):
    """What a window makes of missing values."""

    QLIB = "qlib"  # as pandas' rolling with min_periods=1: whatever is there
    STRICT = (
        "strict"  # missing until the window is full and unless every value in it is known; a comparison with a missing value is missing
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The two programs for some expressions, and how many rows before and after its own a value depends on."""

    dense: Program
    masked: Program
    fields: tuple[str, ...]
    past: int
    future: int
    results: int


@lru_cache(maxsize=64)
def plan(nodes: tuple[Node, ...], mode: Mode) -> Plan:
    """The plan for ``nodes``, without cross-sections, in the order of the results. It is kept: the same factors are asked for every day."""
    strict = mode is Mode.STRICT
    fields = tuple(sorted({part.name for node in nodes for part in walk(node) if isinstance(part, Feature)}))
    reaches = [reach(node) for node in nodes]
    return Plan(
        dense=Dense(nodes, strict=strict).program(nodes, fields),
        masked=Masked(nodes, strict=strict).program(nodes, fields),
        fields=fields,
        past=max((part.past for part in reaches), default=0),
        future=max((part.future for part in reaches), default=0),
        results=len(nodes),
    )
