"""Cross-sections over the symbols that traded in the session, and no others.

A panel has rows for sessions that a symbol missed, if it came back later, and a rolling argument has a value there. Without this rule such
a symbol would be ranked among the others only once its return is known: a look into the future, and other numbers in a daily run than in
a run over the history.
"""

from __future__ import annotations

from dataclasses import replace

from quant.factors.expression import CrossSection, Elementwise, Feature, Node, Number, Rolling, Shift, parse, text

_NOTHING_IF_TRADED = Elementwise(op="Mul", args=(Number(value=0.0), Feature(name="close")))  # 0, or missing where the close is


def among_traded(expression: str) -> str:
    """``expression`` with the argument of every cross-section missing where the symbol has no close. Raises FactorError as parse does."""
    node = parse(expression)
    rewritten = _rewritten(node)
    return expression if rewritten == node else text(rewritten)


def _rewritten(node: Node) -> Node:
    match node:
        case Feature() | Number():
            return node
        case Shift():
            return replace(node, arg=_rewritten(node.arg))
        case CrossSection():
            return replace(node, arg=Elementwise(op="Add", args=(_rewritten(node.arg), _NOTHING_IF_TRADED)))
        case Elementwise() | Rolling():
            return replace(node, args=tuple(_rewritten(arg) for arg in node.args))
