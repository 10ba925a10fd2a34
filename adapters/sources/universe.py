"""The symbols a source is asked for: all it has, or a list of which each must exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quant.errors import InputError, expected

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


def chosen_symbols(universe: Sequence[str] | None, has: Collection[str], *, where: str) -> list[str]:
    """``universe`` sorted, or everything the source ``has`` if it is None. InputError for an empty list or an unknown symbol."""
    if universe is None:
        return sorted(has)
    unknown = sorted(set(universe) - set(has))
    if unknown or not universe:
        known = ", ".join(sorted(has)[:10]) + (f" and {len(has) - 10} more" if len(has) > 10 else "")
        found = f"unknown {', '.join(unknown[:10])}" if unknown else "no symbol"
        raise InputError(expected(f"symbols of the universe among {known}", found=found, where=where, do="correct the universe"))
    return sorted(set(universe))
