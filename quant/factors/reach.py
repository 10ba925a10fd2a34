"""How far a factor looks: the rows it needs before and after the one it describes, read off its expression."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quant.errors import FactorError, LookaheadError, expected
from quant.factors.expression import Rolling, Shift, children, parse, text, walk

if TYPE_CHECKING:
    from quant.factors.expression import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Rows (sessions of the panel) that a value depends on besides its own: ``past`` earlier ones, ``future`` later ones."""

    past: int
    future: int


def reach(node: Node) -> Reach:
    """Reach of ``node`` by the rule of Qlib's get_extended_window_size: a Ref forward is not undone by a Ref back around it."""
    inner = [reach(child) for child in children(node)]
    past = max((part.past for part in inner), default=0)
    future = max((part.future for part in inner), default=0)
    match node:
        case Shift(by=by):
            return Reach(past=past + max(by, 0), future=future + max(-by, 0))
        case Rolling(rows=rows):
            return Reach(past=past + rows - 1, future=future)
        case _:
            return Reach(past=past, future=future)


def refuse_lookahead(name: str, node: Node) -> None:
    """Raises LookaheadError if ``node`` needs a later row than its own."""
    future = reach(node).future
    if future:
        culprit = next(part for part in walk(node) if isinstance(part, Shift) and part.by < 0)
        found = f"a reach of {future} session(s) into the future through {text(culprit)}"
        raise LookaheadError(expected("no row after the session", found=found, where=f"feature {name}", do="use positive Ref only"))


def forward_position(expression: str) -> int | None:
    """Where in ``expression``, from 1, its first Ref or Delta forward is written; None if it has none."""
    for match in re.finditer(r"\b(Ref|Delta)\b", expression):
        for end in re.finditer(r"\)", expression[match.start() :]):
            try:
                node = parse(expression[match.start() : match.start() + end.end()])
            except FactorError:
                continue  # a parenthesis inside the call
            shift = node if isinstance(node, Shift) else children(node)[1]
            if isinstance(shift, Shift) and shift.by < 0:
                return match.start() + 1
            break
    return None
