"""The interpreter of factor programs: one small numba loop per instruction, over chunks of rows that stay in the cache.

A program (quant.factors.plan) works on registers: rows of one float64 matrix, each as long as a chunk with its lookback. Every instruction
writes the rows that later ones need of it, so a single session costs a triangle of work, not a rectangle.

Two programs compute the same expressions. The *dense* one knows that every window is full and every value in it finite, so counts are
constants; the *masked* one counts. Rows that the dense program may not compute (the first ones of a listing, those whose reach holds a
missing or infinite value) are computed by the masked one. Both do the same arithmetic in the same order, so where both may compute a
row they give the same bits, and which of the two did is nobody's business.

No loop carries a value from one row to the next: what is written depends on the rows of the window alone, however rows are cut into chunks.
The compiler may neither reorder nor contract floating-point operations (numba's default, kept on purpose).
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numba import njit  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from quant.factors.streaming import drain, prefetch, stream, stream_quotient

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]
    Integers = NDArray[np.int64]
    Bits = NDArray[np.uint8]
    # code, constants, wires, registers of the fields, the registers, length of a register
    Program = tuple[NDArray[np.int32], Floats, Integers, Integers, Floats, int]
    # places for every factor, one after the other: of values in single or double precision, whichever is not empty; a bit for each, 1 where
    # it is known; how many there are for a factor: a multiple of what a cache line holds
    Results = tuple[Singles, Floats, Bits, int]

F = TypeVar("F", bound="Callable[..., Any]")


def _compiled(function: F) -> F:
    """``function`` as machine code, made at its first call and kept on disk; it runs without the interpreter's lock."""
    return cast("F", njit(cache=True, nogil=True, error_model="numpy")(function))


def _inlined(function: F) -> F:
    """``function`` as a part of its only caller: compiled once, not once more on its own."""
    return cast("F", njit(error_model="numpy", inline="always")(function))


class Op(IntEnum):
    """Instructions: ``a`` are operands at the row itself, ``b`` operands ``lag`` rows earlier, ``k`` constants."""

    ADD = 0
    SUB = 1
    MUL = 2
    DIV = 3
    GREATER = 4
    LESS = 5
    GT = 6
    GE = 7
    LT = 8
    LE = 9
    EQ = 10
    NE = 11
    POWER = 12
    ABS = 13
    SIGN = 14
    LOG = 15
    SQRT = 16
    NOT = 17
    SHIFT = 18  # b
    KNOWN = 19  # 1 where a is finite, else 0
    FILL = 20  # a where finite, else k
    SUM = 21  # totals of two adjacent blocks
    HIGH = 22
    LOW = 23
    DECAY = 24  # a + k b
    CHECK = 25  # adds 0 to register BAD where a is finite, else NaN
    IF = 26  # a1 where a0 is not 0, else a2
    ABSENT = 27  # a0, missing where a1 is 0
    FIRST = 28  # a0 where finite, else k where a1 is not 0, else -k
    WHEN = 29  # a0 where a1 >= k, else missing
    HIGH_AGE = 30  # (value, age) of the newer block a and the older one b, k rows longer ago; the older wins a tie
    LOW_AGE = 31
    MOMENTS = 32  # (mean, square) of full blocks; k = share of the older one, weight of the step
    TREND = 33  # (xy, mean of y) with positions as x; k = step of x, weight
    CROSS = 34  # (xy, mean of x, mean of y); k = weight
    SHARE = 35  # b0 over the sum of a0 and b0, numbers of values of two blocks; 0 if both are empty
    STEP = 36  # b0 - k - a0: from the newer block's mean to the older one's
    BLEND = 37  # a0 + a1 a2: mean of both blocks, from the newer one's mean, the step and the share
    SPREAD = 38  # (a0 + b0) + (a1 a2) a3: products of deviations, from both blocks', the two steps and the weight
    HIGHER_N = 39  # (n, mean, square, cube, fourth)
    LAGGED = 40  # a0 + (b0 + k b1)
    RANK = 41  # a1 + how many of the values k0 to k1 - 1 rows back are below a0, plus how many are at most it
    MAD = 42  # sum of |a0 - a1| over k rows of a0
    EXCHANGE = 43  # (lesser, greater) of a and b
    LEAST_OF_GREATER = 44  # min(a1, max(a0, b))
    GREATEST_OF_LESS = 45  # max(a1, min(a0, b))
    LERP = 46  # a0 + (a1 - a0) k
    PICK = 47  # linear at place k (a0 - 1) of the ascending registers wires[lag:]
    VARIANCE = 48  # square a0 over n a1
    RESIDUAL = 49  # a0 - (a1 - a2 a3)
    RSQUARE = 50  # of (xy, xx, yy), missing where yy <= k
    RSQUARE_N = 51  # of (xy, xx, yy, n)
    CORRELATION = 52  # of (xy, xx, yy), missing where either square is at most k
    CORRELATION_N = 53  # of the pairs' (xy, xx, yy) and either series' own (square, n)
    SKEW = 54  # of (n, square, cube)
    KURT = 55  # of (n, square, fourth)
    STORE = 56  # a is result number lag
    STORE_QUOTIENT = 57  # a0 / a1 is result number lag


OUT, NOW, BEFORE = 4, 7, 5  # most operands of a kind
FIRST_OUT, FIRST_NOW, FIRST_BEFORE = 4, 4 + OUT, 4 + OUT + NOW  # columns of an instruction, after op, need, ahead and lag
WIDTH = FIRST_BEFORE + BEFORE
BAD, EXISTS, POSITION = 0, 1, 2  # registers that are filled before a program runs
FLAT = 2e-5  # Qlib: a deviation at most this big is none
LINE = 8  # values in a cache line
LANES = 32  # values that a loop takes at once
SHORT = 256  # values: every cache line of a shorter run of results is fetched ahead; of a longer one, those at its ends
MARGIN = LINE  # values at either end of a register that are nobody's: LINE before the rows, LANES after them
_FLAT_SQUARE = FLAT * FLAT
STREAMING = (
    "9ed99fca1cc352c0"  # SHA-256 of streaming.py begins with it: numba compiles again only when this file here changes (a test holds it)
)


@_compiled
def unexpected(days: NDArray[np.int32], first: int, number: NDArray[np.int32], starts: Integers) -> int:
    """The first row of a listing that is not of the session after the row before; -1 if none. ``number`` of a session: by its day."""
    for i in range(len(starts) - 1):
        for row in range(starts[i] + 1, starts[i + 1]):
            if number[days[row] - first] != number[days[row - 1] - first] + 1:
                return row
    return -1


# Every kernel is given where its rows begin in the registers ``r``, and how many they are. Slices first: with few of them, the compiler can
# see that they do not overlap, and computes several rows at a time.


@_compiled
def _simple(op: int, r: Floats, n: int, d: int, a: int, b: int, k: float) -> None:
    """Instructions of at most two operands and one result."""
    out = r[d : d + n]
    x = r[a : a + n]
    y = r[b : b + n]
    if op == Op.ADD or op == Op.SUM:
        for p in range(n):
            out[p] = x[p] + y[p]
    elif op == Op.SUB:
        for p in range(n):
            out[p] = x[p] - y[p]
    elif op == Op.MUL:
        for p in range(n):
            out[p] = x[p] * y[p]
    elif op == Op.DIV:
        for p in range(n):
            out[p] = x[p] / y[p]
    elif op == Op.GREATER:
        for p in range(n):
            out[p] = x[p] if (x[p] > y[p]) | (x[p] != x[p]) else y[p]
    elif op == Op.LESS:
        for p in range(n):
            out[p] = x[p] if (x[p] < y[p]) | (x[p] != x[p]) else y[p]
    elif op == Op.GT:
        for p in range(n):
            out[p] = 1.0 if x[p] > y[p] else 0.0
    elif op == Op.GE:
        for p in range(n):
            out[p] = 1.0 if x[p] >= y[p] else 0.0
    elif op == Op.LT:
        for p in range(n):
            out[p] = 1.0 if x[p] < y[p] else 0.0
    elif op == Op.LE:
        for p in range(n):
            out[p] = 1.0 if x[p] <= y[p] else 0.0
    elif op == Op.EQ:
        for p in range(n):
            out[p] = 1.0 if x[p] == y[p] else 0.0
    elif op == Op.NE:
        for p in range(n):
            out[p] = 1.0 if x[p] != y[p] else 0.0
    elif op == Op.POWER:
        for p in range(n):
            out[p] = x[p] ** y[p]
    elif op == Op.ABS:
        for p in range(n):
            out[p] = abs(x[p])
    elif op == Op.SIGN:
        for p in range(n):
            v = np.float32(x[p])  # Qlib's cast: what is below float32's range has no sign
            out[p] = 1.0 if v > 0.0 else (-1.0 if v < 0.0 else (0.0 if v == 0.0 else np.nan))
    elif op == Op.LOG:
        for p in range(n):
            out[p] = math.log(x[p])
    elif op == Op.SQRT:
        for p in range(n):
            out[p] = math.sqrt(x[p])
    elif op == Op.NOT:
        for p in range(n):
            out[p] = 1.0 - x[p]
    elif op == Op.SHIFT:
        for p in range(n):
            out[p] = y[p]
    elif op == Op.KNOWN:
        for p in range(n):
            out[p] = 1.0 if abs(x[p]) < np.inf else 0.0
    elif op == Op.FILL:
        for p in range(n):
            out[p] = x[p] if abs(x[p]) < np.inf else k
    elif op == Op.HIGH:
        for p in range(n):
            out[p] = x[p] if x[p] > y[p] else y[p]
    elif op == Op.LOW:
        for p in range(n):
            out[p] = x[p] if x[p] < y[p] else y[p]
    elif op == Op.DECAY:
        for p in range(n):
            out[p] = x[p] + k * y[p]
    elif op == Op.CHECK:
        for p in range(n):
            out[p] += x[p] * 0.0


@_compiled
def _masking(op: int, r: Floats, n: int, d: int, a0: int, a1: int, a2: int, k: float) -> None:
    """IF, ABSENT, FIRST, WHEN, VARIANCE and LERP."""
    out = r[d : d + n]
    x = r[a0 : a0 + n]
    y = r[a1 : a1 + n]
    if op == Op.IF:
        z = r[a2 : a2 + n]
        for p in range(n):
            out[p] = y[p] if x[p] != 0.0 else z[p]
    elif op == Op.ABSENT:
        for p in range(n):
            out[p] = x[p] if y[p] != 0.0 else np.nan
    elif op == Op.FIRST:
        for p in range(n):
            out[p] = x[p] if abs(x[p]) < np.inf else (k if y[p] != 0.0 else -k)
    elif op == Op.WHEN:
        for p in range(n):
            out[p] = x[p] if y[p] >= k else np.nan
    elif op == Op.VARIANCE:
        for p in range(n):
            out[p] = x[p] * (1.0 / (y[p] - 1.0)) if y[p] > 1.0 else np.nan
    else:
        for p in range(n):
            out[p] = x[p] + (y[p] - x[p]) * k


@_compiled
def _aged(op: int, r: Floats, n: int, d0: int, d1: int, a0: int, a1: int, b0: int, b1: int, k: float) -> None:
    value = r[d0 : d0 + n]
    age = r[d1 : d1 + n]
    x = r[a0 : a0 + n]
    y = r[b0 : b0 + n]
    u = r[a1 : a1 + n]
    v = r[b1 : b1 + n]
    if op == Op.HIGH_AGE:
        for p in range(n):
            age[p] = v[p] + k if y[p] >= x[p] else u[p]
        for p in range(n):
            value[p] = y[p] if y[p] >= x[p] else x[p]
    else:
        for p in range(n):
            age[p] = v[p] + k if y[p] <= x[p] else u[p]
        for p in range(n):
            value[p] = y[p] if y[p] <= x[p] else x[p]


@_compiled
def _moments(r: Floats, n: int, d0: int, d1: int, a0: int, a1: int, b0: int, b1: int, share: float, weight: float) -> None:
    mean = r[d0 : d0 + n]
    square = r[d1 : d1 + n]
    x = r[a0 : a0 + n]
    xx = r[a1 : a1 + n]
    y = r[b0 : b0 + n]
    yy = r[b1 : b1 + n]
    for p in range(n):
        step = y[p] - x[p]
        square[p] = (xx[p] + yy[p]) + (step * step) * weight
    for p in range(n):
        mean[p] = x[p] + (y[p] - x[p]) * share


@_compiled
def _merged(op: int, r: Floats, n: int, d: int, a0: int, a1: int, a2: int, a3: int, b: int, k: float) -> None:
    """SHARE, STEP, BLEND and SPREAD: the moments of blocks that may miss values."""
    out = r[d : d + n]
    x = r[a0 : a0 + n]
    y = r[b : b + n]
    if op == Op.SHARE:
        for p in range(n):
            out[p] = y[p] / max(x[p] + y[p], 1.0)
    elif op == Op.STEP:
        for p in range(n):
            out[p] = y[p] - k - x[p]
    else:
        u = r[a1 : a1 + n]
        v = r[a2 : a2 + n]
        if op == Op.BLEND:
            for p in range(n):
                out[p] = x[p] + u[p] * v[p]
        else:
            w = r[a3 : a3 + n]
            for p in range(n):
                out[p] = (x[p] + y[p]) + (u[p] * v[p]) * w[p]


@_compiled
def _trend(r: Floats, n: int, d: int, a0: int, a1: int, b0: int, b1: int, drift: float, weight: float) -> None:
    out = r[d : d + n]
    x = r[a0 : a0 + n]
    y = r[b0 : b0 + n]
    u = r[a1 : a1 + n]
    v = r[b1 : b1 + n]
    for p in range(n):
        out[p] = (x[p] + y[p]) + (drift * (v[p] - u[p])) * weight


@_compiled
def _cross(r: Floats, n: int, d: int, a0: int, a1: int, a2: int, b0: int, b1: int, b2: int, weight: float) -> None:
    out = r[d : d + n]
    x = r[a0 : a0 + n]
    y = r[b0 : b0 + n]
    u0 = r[a1 : a1 + n]
    v0 = r[b1 : b1 + n]
    u1 = r[a2 : a2 + n]
    v1 = r[b2 : b2 + n]
    for p in range(n):
        out[p] = (x[p] + y[p]) + ((v0[p] - u0[p]) * (v1[p] - u1[p])) * weight


@_compiled
def _higher_n(r: Floats, n: int, d: int, e: int, f: int, g: int, a: Integers, b: Integers) -> None:
    """Pebay (2008), formulas 2.1 and 3.1; ``a`` and ``b``: where the five rows of either block begin."""
    for p in range(n):
        na, nb = r[a[0] + p], r[b[0] + p]
        m = max(na + nb, 1.0)
        share = nb / m
        weight = na * share
        step = r[b[1] + p] - r[a[1] + p]
        a2, a3, b2, b3 = r[a[2] + p], r[a[3] + p], r[b[2] + p], r[b[3] + p]
        r[d + p] = r[a[1] + p] + step * share
        r[e + p] = (a2 + b2) + (step * step) * weight
        r[f + p] = (a3 + b3) + step * step * step * weight * (na - nb) / m + 3.0 * step * (na * b2 - nb * a2) / m
        tail = step * step * step * step * weight * (na * na - na * nb + nb * nb) / (m * m)
        mixed = 6.0 * step * step * (na * na * b2 + nb * nb * a2) / (m * m) + 4.0 * step * (na * b3 - nb * a3) / m
        r[g + p] = (r[a[4] + p] + r[b[4] + p]) + tail + mixed


@_compiled
def _lagged(r: Floats, n: int, d: int, a: int, b0: int, b1: int, k: float) -> None:
    out = r[d : d + n]
    x = r[a : a + n]
    y = r[b0 : b0 + n]
    z = r[b1 : b1 + n]
    for p in range(n):
        out[p] = x[p] + (y[p] + k * z[p])


@_compiled
def _four_ranks(r: Floats, n: int, d: int, a: int, lag: int, beside: int) -> None:
    out = r[d : d + n]
    x = r[a : a + n]
    at1 = a - (lag + 0) * beside
    y1 = r[at1 : at1 + n]
    at2 = a - (lag + 1) * beside
    y2 = r[at2 : at2 + n]
    at3 = a - (lag + 2) * beside
    y3 = r[at3 : at3 + n]
    at4 = a - (lag + 3) * beside
    y4 = r[at4 : at4 + n]
    for p in range(n):
        v = x[p]
        s = out[p]
        s += 1.0 if y1[p] < v else 0.0
        s += 1.0 if y1[p] <= v else 0.0
        s += 1.0 if y2[p] < v else 0.0
        s += 1.0 if y2[p] <= v else 0.0
        s += 1.0 if y3[p] < v else 0.0
        s += 1.0 if y3[p] <= v else 0.0
        s += 1.0 if y4[p] < v else 0.0
        s += 1.0 if y4[p] <= v else 0.0
        out[p] = s


@_compiled
def _one_rank(r: Floats, n: int, d: int, a: int, lag: int) -> None:
    out = r[d : d + n]
    x = r[a : a + n]
    y = r[a - lag : a - lag + n]
    for p in range(n):
        out[p] += (1.0 if y[p] < x[p] else 0.0) + (1.0 if y[p] <= x[p] else 0.0)


@_compiled
def _ranks(r: Floats, n: int, d: int, a: int, base: int, first: int, last: int, beside: int) -> None:
    for p in range(n):
        r[d + p] = r[base + p]
    lag = first
    while lag + 3 < last:
        _four_ranks(r, n, d, a, lag, beside)
        lag += 4
    while lag < last:
        _one_rank(r, n, d, a, lag * beside)
        lag += 1


@_compiled
def _deviations(r: Floats, n: int, d: int, a: int, mean: int, rows: int, beside: int) -> None:
    out = r[d : d + n]
    m = r[mean : mean + n]
    for p in range(n):
        out[p] = 0.0
    for row in range(rows):
        lag = row * beside
        x = r[a - lag : a - lag + n]
        for p in range(n):
            v = abs(x[p] - m[p])
            out[p] += 0.0 if math.isnan(v) else v


@_compiled
def _exchange(r: Floats, n: int, d0: int, d1: int, a: int, b: int) -> None:
    low = r[d0 : d0 + n]
    high = r[d1 : d1 + n]
    x = r[a : a + n]
    y = r[b : b + n]
    for p in range(n):
        u = x[p]
        v = y[p]
        low[p] = u if u < v else v
        high[p] = v if u < v else u


@_compiled
def _select(op: int, r: Floats, n: int, d: int, a: int, chosen: int, b: int) -> None:
    out = r[d : d + n]
    x = r[a : a + n]
    y = r[b : b + n]
    z = r[chosen : chosen + n]
    if op == Op.LEAST_OF_GREATER:
        for p in range(n):
            v = x[p] if x[p] > y[p] else y[p]
            out[p] = v if v < z[p] else z[p]
    else:
        for p in range(n):
            v = x[p] if x[p] < y[p] else y[p]
            out[p] = v if v > z[p] else z[p]


@_compiled
def _pick(r: Floats, n: int, d: int, a: int, level: float, wires: Integers, length: int, lo: int) -> None:
    for p in range(n):
        place = level * (r[a + p] - 1.0)
        if place >= 0.0:
            low = math.floor(place)
            x = r[wires[low] * length + lo + p]
            y = r[wires[min(low + 1, int(r[a + p]) - 1)] * length + lo + p]
            r[d + p] = x + (y - x) * (place - low)
        else:
            r[d + p] = np.nan


@_compiled
def _fitted(op: int, r: Floats, n: int, d: int, a0: int, a1: int, a2: int, a3: int, k: float) -> None:
    """RESIDUAL, RSQUARE, RSQUARE_N and CORRELATION."""
    out = r[d : d + n]
    x = r[a0 : a0 + n]
    y = r[a1 : a1 + n]
    z = r[a2 : a2 + n]
    if op == Op.RSQUARE:
        for p in range(n):
            out[p] = (x[p] * x[p]) / (y[p] * z[p]) if z[p] > k else np.nan
    elif op == Op.CORRELATION:
        for p in range(n):
            out[p] = x[p] / math.sqrt(y[p] * z[p]) if (y[p] > k) & (z[p] > k) else np.nan
    else:
        w = r[a3 : a3 + n]
        if op == Op.RESIDUAL:
            for p in range(n):
                out[p] = x[p] - (y[p] - z[p] * w[p])
        else:
            for p in range(n):
                out[p] = (x[p] * x[p]) / (y[p] * z[p]) if z[p] > _FLAT_SQUARE * (w[p] - 1.0) else np.nan


@_compiled
def _correlation_n(r: Floats, n: int, d: int, a: Integers) -> None:
    """``a``: where the seven operands begin."""
    for p in range(n):
        varied = (r[a[3] + p] > _FLAT_SQUARE * (r[a[4] + p] - 1.0)) & (r[a[5] + p] > _FLAT_SQUARE * (r[a[6] + p] - 1.0))
        r[d + p] = r[a[0] + p] / math.sqrt(r[a[1] + p] * r[a[2] + p]) if varied else np.nan


@_compiled
def _shape(op: int, r: Floats, n: int, d: int, a0: int, a1: int, a2: int) -> None:
    """SKEW and KURT as pandas has them: unbiased, 0 and -3 where the window is constant, missing where it nearly is."""
    for p in range(n):
        w = r[a0 + p]
        m = r[a1 + p] / w
        if op == Op.SKEW:
            g = math.sqrt(w * (w - 1.0)) / (w - 2.0) * (r[a2 + p] / w) / (m * math.sqrt(m))
            flat, least = 0.0, 3.0
        else:
            g = ((r[a2 + p] / w) / (m * m) * (w * w - 1.0) - 3.0 * (w - 1.0) * (w - 1.0)) / ((w - 2.0) * (w - 3.0))
            flat, least = -3.0, 4.0
        r[d + p] = (flat if m == 0.0 else (np.nan if m <= 1e-14 else g)) if w >= least else np.nan


@_compiled
def _store(op: int, r: Floats, n: int, a: int, b: int, out: Singles | Floats, known: Bits, at: int, further: int) -> None:
    """a, or a over b, into ``out`` from place ``at`` on, and a bit for each into ``known``; next comes what lies ``further`` on."""
    prefetch(out, at + n - 1 + further)
    for place in range(at, at + (n if n < SHORT else 1), LINE):
        prefetch(out, place + further)
    if op == Op.STORE:
        stream(out, at, known, r, a, n)
    else:
        stream_quotient(out, at, known, r, a, n, b)


@_compiled
def _load(program: Program, panel: Floats, first: int, last: int, start: int, end: int, masked: bool, at: int) -> None:
    """Rows ``first`` to ``last`` of every field from place ``at`` of the registers on; missing outside ``start`` to ``end``."""
    fields, r, length = program[3], program[4], program[5]
    for f in range(len(fields)):
        base = fields[f] * length + MARGIN + at - first
        for row in range(first, min(start, last)):
            r[base + row] = np.nan
        for row in range(max(first, start), min(last, end)):
            r[base + row] = panel[f, row]
        for row in range(max(first, end), last):
            r[base + row] = np.nan
    for row in range(first, last):
        p = MARGIN + at + row - first
        if masked:
            r[EXISTS * length + p] = 1.0 if (row >= start) & (row < end) else 0.0
            r[POSITION * length + p] = float(max(row - start + 1, 0))
        else:
            r[BAD * length + p] = 0.0


@_compiled
def _load_beside(program: Program, panel: Floats, last: Integers, pad: int) -> None:
    """Rows ``last`` of some listings and the ``pad`` before them, session by session, the listings' values of a session side by side."""
    fields, r, length = program[3], program[4], program[5]
    beside = len(last)
    for f in range(len(fields)):
        for j in range(beside):
            base = fields[f] * length + MARGIN + j
            for row in range(pad + 1):
                r[base + row * beside] = panel[f, last[j] - pad + row]
    for p in range((pad + 1) * beside):
        r[BAD * length + MARGIN + p] = 0.0


@_inlined
def _execute(program: Program, pad: int, count: int, beside: int, each: int, apart: int, at: Integers, results: Results) -> None:
    """Run ``program`` for ``count`` rows of ``beside`` listings. The ``each`` values of a result from every ``apart``-th row on belong into
    the next of the places ``at``.
    """
    code, constants, wires, _, r, length = program
    single, double, known, rows = results
    for i in range(len(code)):
        op = int(code[i, 0])
        lag = code[i, 3] * (1 if op == Op.STORE or op == Op.STORE_QUOTIENT or op == Op.PICK else beside)
        lo = MARGIN + (pad - code[i, 1]) * beside
        n = (code[i, 1] + count + code[i, 2]) * beside
        if op < Op.STORE and op != Op.CHECK and op != Op.PICK:  # some rows more, which nobody reads, so that loops take whole cache lines
            n += lo % LINE
            lo -= lo % LINE
            n += -n % LANES
        k = constants[i, 0]
        d = code[i, FIRST_OUT] * length + lo
        a = code[i, FIRST_NOW] * length + lo
        b = code[i, FIRST_BEFORE] * length + lo - lag
        if op <= Op.CHECK:
            _simple(op, r, n, d, a, b, k)
            continue
        if op >= Op.STORE:
            b = code[i, FIRST_NOW + 1] * length + lo
            for j in range(len(at)):
                place = lag * rows + at[j]
                if len(single):
                    _store(op, r, each, a + j * apart, b + j * apart, single, known, place, rows)
                else:
                    _store(op, r, each, a + j * apart, b + j * apart, double, known, place, rows)
            continue
        d1 = code[i, FIRST_OUT + 1] * length + lo
        a1 = code[i, FIRST_NOW + 1] * length + lo
        b1 = code[i, FIRST_BEFORE + 1] * length + lo - lag
        if op == Op.EXCHANGE:
            _exchange(r, n, d, d1, a, b)
        elif op == Op.LEAST_OF_GREATER or op == Op.GREATEST_OF_LESS:
            _select(op, r, n, d, a, a1, b)
        elif op == Op.MOMENTS:
            _moments(r, n, d, d1, a, a1, b, b1, k, constants[i, 1])
        elif op == Op.HIGH_AGE or op == Op.LOW_AGE:
            _aged(op, r, n, d, d1, a, a1, b, b1, k)
        elif op == Op.TREND:
            _trend(r, n, d, a, a1, b, b1, k, constants[i, 1])
        elif op == Op.LAGGED:
            _lagged(r, n, d, a, b, b1, k)
        elif op == Op.RANK:
            _ranks(r, n, d, a, a1, int(k), int(constants[i, 1]), beside)
        elif op == Op.MAD:
            _deviations(r, n, d, a, a1, int(k), beside)
        elif op == Op.PICK:
            _pick(r, n, d, a, k, wires[lag:], length, lo)
        else:
            a2 = code[i, FIRST_NOW + 2] * length + lo
            b2 = code[i, FIRST_BEFORE + 2] * length + lo - lag
            if op == Op.CROSS:
                _cross(r, n, d, a, a1, a2, b, b1, b2, k)
            elif op == Op.SKEW or op == Op.KURT:
                _shape(op, r, n, d, a, a1, a2)
            elif op == Op.RESIDUAL or op == Op.RSQUARE or op == Op.RSQUARE_N or op == Op.CORRELATION:
                _fitted(op, r, n, d, a, a1, a2, code[i, FIRST_NOW + 3] * length + lo, k)
            elif op == Op.CORRELATION_N:
                _correlation_n(r, n, d, code[i, FIRST_NOW:FIRST_BEFORE] * length + lo)
            elif op == Op.HIGHER_N:
                d2 = code[i, FIRST_OUT + 2] * length + lo
                d3 = code[i, FIRST_OUT + 3] * length + lo
                now = code[i, FIRST_NOW:FIRST_BEFORE] * length + lo
                before = code[i, FIRST_BEFORE:] * length + (lo - lag)
                _higher_n(r, n, d, d1, d2, d3, now, before)
            elif op >= Op.SHARE and op <= Op.SPREAD:
                _merged(op, r, n, d, a, a1, a2, code[i, FIRST_NOW + 3] * length + lo, b, k)
            else:
                _masking(op, r, n, d, a, a1, a2, k)


@_compiled
def _next_dirty(bad: Floats, at: int, count: int, reach: int, patch: int) -> tuple[int, int]:
    """The next rows from ``at`` on whose reach held something that is not finite, at most ``patch`` of them; ``count`` if there is none.

    ``bad`` begins with the register BAD of a dense program that has run for ``count`` rows, which read ``reach`` other ones.
    """
    dirty = 0
    for p in range(MARGIN + at, MARGIN + count + reach):
        dirty |= 1 if bad[p] != 0.0 else 0
    if dirty == 0:
        return count, count
    seen = -1
    begin = count
    for p in range(at, count + reach):
        if bad[MARGIN + p] != 0.0:
            seen = p
        row = p - reach
        if row >= at:
            if seen >= row:
                begin = min(begin, row)
                if row - begin == patch:
                    return begin, row
            elif begin < count:
                return begin, row
    return begin, count


@_compiled
def run(
    dense: Program,
    masked: Program,
    pad: int,
    ahead: int,
    panel: Floats,
    starts: Integers,
    wanted: Integers,
    offsets: Integers,
    results: Results,
    chunk: int,
    patch: int,
) -> None:
    """Compute the rows from ``wanted[i]`` on of every listing i (rows ``starts[i]`` to ``starts[i + 1]`` of ``panel``).

    They go into ``results`` from place ``offsets[i]`` of each factor on. Both programs read ``pad`` earlier and ``ahead`` later rows. At
    most ``chunk`` rows are computed at a time, ``patch`` by the masked one.
    """
    registers = dense[4]
    last_lanes = min(LANES, (dense[5] - MARGIN - LANES) // (pad + 1)) if ahead == 0 else 0
    apart = 2 * pad + ahead
    young_lanes = (masked[5] - MARGIN - LANES) // apart if pad else 0
    start = end = row = base = checked = shift = 0
    i = group = beside = lane = 0
    young = False
    place = np.zeros(1, np.int64)
    while True:
        full = False
        if checked < row:  # the dense program's last rows, looked through up to ``checked``
            begin, stop = _next_dirty(registers, checked - base, row - base, pad + ahead, patch)
            first, count, checked = base + begin, stop - begin, base + stop
            if count == 0:
                continue
        elif row < end:
            first = row
            if (row - pad >= start) & (row + ahead < end):
                left = end - ahead - row
                parts = (left + chunk - 1) // chunk
                count = (left + parts - 1) // parts
                full = True
                base = row
            else:
                count = min(patch, end - row)
                if row - pad < start:
                    count = min(count, start + pad - row)
            row += count
            checked = base if full else row
        elif lane < beside:  # the listings that were computed side by side: what is left of them
            listing = group + lane
            lane += 1
            start, end, first = starts[listing], starts[listing + 1], wanted[listing]
            shift = offsets[listing] - first
            row = base = checked = start + pad if young else end
            if young or not _dirty(registers, lane - 1, beside, pad):
                continue
            count = 1
        elif i + 1 < len(starts):
            young = _all_young(starts, wanted, i, young_lanes, pad + ahead)
            beside = young_lanes if young else last_lanes if _all_last(starts, wanted, i, last_lanes, pad) else 0
            if beside:
                group, lane = i, 0
                i += beside
                if young:  # one after the other, as far apart as the program looks: none sees another
                    for j in range(beside):
                        first = wanted[group + j]
                        _load(masked, panel, first - pad, first + pad + ahead, starts[group + j], starts[group + j + 1], True, j * apart)
                    _execute(masked, pad, beside * apart - pad - ahead, 1, pad, apart, offsets[group:i], results)
                else:
                    _load_beside(dense, panel, wanted[group:i], pad)
                    _execute(dense, pad, 1, beside, beside, 0, offsets[group : group + 1], results)
            else:
                start, end, row = starts[i], starts[i + 1], wanted[i]
                base = checked = row
                shift = offsets[i] - row
                i += 1
            continue
        else:
            break
        program = dense if full else masked
        place[0] = first + shift
        _load(program, panel, first - pad, first + count + ahead, start, end, not full, 0)
        _execute(program, pad, count, 1, count, 0, place, results)
    drain()


@_compiled
def _all_last(starts: Integers, wanted: Integers, first: int, lanes: int, pad: int) -> bool:
    """Whether ``lanes`` listings from ``first`` on want their last row only and have all rows before it."""
    if lanes < 2 or first + lanes >= len(starts):
        return False
    for i in range(first, first + lanes):
        if (wanted[i] + 1 != starts[i + 1]) | (wanted[i] - pad < starts[i]):
            return False
    return True


@_compiled
def _all_young(starts: Integers, wanted: Integers, first: int, lanes: int, reach: int) -> bool:
    """Whether ``lanes`` listings from ``first`` on want their first rows and are longer than ``reach``."""
    if lanes < 2 or first + lanes >= len(starts):
        return False
    for i in range(first, first + lanes):
        if (wanted[i] != starts[i]) | (starts[i] + reach > starts[i + 1]):
            return False
    return True


@_compiled
def _dirty(bad: Floats, lane: int, beside: int, pad: int) -> bool:
    for row in range(pad + 1):
        if bad[MARGIN + row * beside + lane] != 0.0:
            return True
    return False
