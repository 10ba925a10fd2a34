"""Memory for results, used again once nobody holds it: the first touch of fresh memory costs as much as a fifth of the computation."""

from __future__ import annotations

import sys
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from quant.factors.streaming import LINE_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.generic)
KEPT_BYTES = 2**30  # in all, the newest first; what is more goes back to the system
KEPT_BLOCKS = 64  # each call looks through them

_lock = Lock()
_blocks: list[NDArray[np.uint8]] = []


def empty(rows: int, columns: int, kind: type[Number]) -> NDArray[Number]:
    """An array without defined values, from the beginning of a cache line on, in memory that no living array, series or frame refers to."""
    size = rows * columns * np.dtype(kind).itemsize
    block = _block(size + LINE_BYTES)
    first = -block.ctypes.data % LINE_BYTES
    return block[first : first + size].view(kind).reshape(rows, columns)


def _block(size: int) -> NDArray[np.uint8]:
    with _lock:
        for place in range(len(_blocks)):
            # The list and getrefcount's argument refer to a block; every view of it, in a polars frame too, is one more.
            if size <= _blocks[place].nbytes <= 4 * size and sys.getrefcount(_blocks[place]) <= 2:
                _blocks.append(_blocks.pop(place))
                return _blocks[-1]
        block = np.empty(size, np.uint8)
        _blocks.append(block)
        while len(_blocks) > KEPT_BLOCKS or sum(block.nbytes for block in _blocks) > KEPT_BYTES:
            del _blocks[0]
        return block
