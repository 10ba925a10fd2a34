# pyright: basic
"""Columns of frames as arrays and arrays as columns of frames, by Arrow: without copying what is not missing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray


def values_of(column: pl.Series) -> NDArray[np.float64]:
    """The values of a Float64 column, NaN for null; to be read only."""
    return column.to_arrow().fill_null(math.nan).to_numpy()


def frame_of(
    names: Sequence[str], rows: int, values: Iterable[NDArray[np.floating[Any]]], known: Iterable[NDArray[np.uint8]]
) -> pl.DataFrame:
    """A column for each of ``names``: the first ``rows`` of its values, null where a bit of ``known`` (lowest of a byte first) is 0."""
    arrays = [_array(rows, *parts) for parts in zip(values, known, strict=True)]
    return pl.DataFrame(pa.RecordBatch.from_arrays(arrays, list(names)))


def _array(rows: int, values: NDArray[np.floating[Any]], known: NDArray[np.uint8]) -> pa.Array:
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), rows, [pa.py_buffer(known), pa.py_buffer(values)])
