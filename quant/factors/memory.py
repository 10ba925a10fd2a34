"""Memory for results, used again once nobody holds it: the first touch of fresh memory costs as much as a fifth of the computation."""

from __future__ import annotations

import sys
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEPT = 2  # blocks: whoever takes batch after batch holds one while the next is computed
KEPT_BYTES = 2**29  # of a block; bigger ones go back to the system

_lock = Lock()
_blocks: list[NDArray[np.uint8]] = []


def empty(rows: int, columns: int, kind: type[np.float32 | np.float64]) -> NDArray[np.floating[Any]]:
    """An array without defined values, in memory that no living array, series or frame refers to."""
    size = rows * columns * np.dtype(kind).itemsize
    with _lock:
        for place in range(len(_blocks)):
            # The list and getrefcount's argument refer to a block; every view of it, in a polars frame too, is one more.
            if size <= _blocks[place].nbytes <= 4 * size and sys.getrefcount(_blocks[place]) <= 2:
                _blocks.append(_blocks.pop(place))
                return _blocks[-1][:size].view(kind).reshape(rows, columns)
        block = np.empty(size, np.uint8)
        if size <= KEPT_BYTES:
            _blocks.append(block)
            del _blocks[:-KEPT]
    return block.view(kind).reshape(rows, columns)
