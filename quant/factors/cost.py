"""What computing factors takes, counted in the instructions of their compiled programs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quant.factors.expression import CrossSection, Elementwise, Feature, Number, Rolling, Shift, walk
from quant.factors.plan import Mode, plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quant.factors.expression import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Instructions a row where every bar of the reach is there (``dense``) and where some are missing (``masked``), and the passes over
    the symbols of a session, one for each cross-section.
    """

    dense: int
    masked: int
    passes: int


def cost(nodes: Sequence[Node], mode: Mode = Mode.QLIB) -> Cost:
    """Cost of ``nodes`` computed together: what they have in common counts once."""
    crossed = list(dict.fromkeys(part for node in nodes for part in walk(node) if isinstance(part, CrossSection)))
    columns = {part: Feature(name=f"#{number}") for number, part in enumerate(crossed)}
    roots = dict.fromkeys([*(_without(part.arg, columns) for part in crossed), *(_without(node, columns) for node in nodes)])
    planned = plan(tuple(roots), mode)
    return Cost(dense=len(planned.dense.code), masked=len(planned.masked.code), passes=len(crossed))


def _without(node: Node, columns: dict[CrossSection, Feature]) -> Node:
    """``node`` with its cross-sections read from columns of the panel."""
    match node:
        case Feature() | Number():
            return node
        case CrossSection():
            return columns[node]
        case Shift():
            return replace(node, arg=_without(node.arg, columns))
        case Elementwise() | Rolling():
            return replace(node, args=tuple(_without(arg, columns) for arg in node.args))
