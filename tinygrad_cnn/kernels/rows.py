"""Rows of output pixels on the register tile, and the order in which they read weights.

A row is a matrix product: `width` pixels x (taps * C) times (taps * C) x K. Convolution, its input gradient, and the
products inside Winograd's algorithm all are rows.
"""

import numpy as np
from numba import prange

from .. import memory
from .constants import remembered
from .jit import inline, kernel
from .simd import (
    VECTOR_BYTES,
    VECTOR_REGISTERS,
    lanes,
    load,
    store,
    tile_fma,
    tile_put,
    tile_splat,
    tile_store,
    tile_sum,
    tile_zeros,
    transpose,
)

# Output pixels (rows) of the tiles, two vectors wide: as many accumulators as leave registers for one operand row; the
# smaller ones fit what is left of a row of pixels.
LARGE, MIDDLE, ODD, SMALL = (14, 8, 7, 4) if VECTOR_REGISTERS == 32 else (6, 4, 3, 2)
VECS = 2
AHEAD = 4096  # elements from the weights in use to those fetched meanwhile: about what memory takes to answer


def lanes_of(dtype):
    """Elements of one vector register."""
    return VECTOR_BYTES // dtype.itemsize


def _tile_of(rows, vecs):
    @inline
    def tile(x, xo, taps, C, step, w, wo, bias, k, y, yo, y_step, valid):
        acc = tile_splat(rows, vecs, bias, k)
        for t in range(taps.shape[0]):
            tap = xo + taps[t]
            for c in range(C):
                acc = tile_fma(acc, x, tap + c, step, w, wo)
                wo += vecs * lanes(w)
        tile_store(acc, y, yo, y_step, valid)

    return tile


def _row_of(vecs):
    large, middle, odd, small, single = (_tile_of(rows, vecs) for rows in (LARGE, MIDDLE, ODD, SMALL, 1))

    @inline
    def row(x, xo, taps, C, step, w, wo, bias, k, y, yo, y_step, valid, width):
        """One row of output pixels. The last tile moves back over pixels already done, rather than be narrow."""
        j = 0
        while j < width:
            left = width - j
            if left >= LARGE or (left > MIDDLE + SMALL and width >= LARGE):
                j = min(j, width - LARGE)
                large(x, xo + j * step, taps, C, step, w, wo, bias, k, y, yo + j * y_step, y_step, valid)
                j += LARGE
            elif left == ODD:
                odd(x, xo + j * step, taps, C, step, w, wo, bias, k, y, yo + j * y_step, y_step, valid)
                j += ODD
            elif left > SMALL and width >= MIDDLE:
                j = min(j, width - MIDDLE)
                middle(x, xo + j * step, taps, C, step, w, wo, bias, k, y, yo + j * y_step, y_step, valid)
                j += MIDDLE
            elif width >= SMALL:
                j = min(j, width - SMALL)
                small(x, xo + j * step, taps, C, step, w, wo, bias, k, y, yo + j * y_step, y_step, valid)
                j += SMALL
            else:
                single(x, xo + j * step, taps, C, step, w, wo, bias, k, y, yo + j * y_step, y_step, valid)
                j += 1

    return row


row_wide, row_narrow = _row_of(VECS), _row_of(1)

ROWS = 8 if VECTOR_REGISTERS == 32 else 6  # of the tiles of direct sums: feature maps have sides in powers of two


def _product_of(vecs):
    @inline
    def product(first, end, x, xo, rows, offsets, w, wo, bias, k, add, y, places, shift, valid, floor, ahead, soon, share):
        """Rows of y from rows of x: y[places[p] + shift : ... + valid] = max(bias[k:] + sum over t of
        x[xo + rows[p] + offsets[t]] * w[t], floor) for p in [first, end), w[t] being `vecs` vectors.

        If `add`, y takes the place of the bias. The last tile reads on in `rows` and `places` after `end`. Meanwhile
        ahead[soon + p * share : ...] is fetched into the second-level cache, and so are, during the first tile, later weights;
        not by products one vector wide, which have no time for it.
        """
        T = offsets.shape[0]
        each = (ROWS * share + T - 1) // max(T, 1)
        for p in range(first, end, ROWS):
            acc = tile_zeros(ROWS, vecs, w) if add else tile_splat(ROWS, vecs, bias, k)
            if vecs == 1:
                acc = tile_sum(acc, x, xo, rows, p, offsets, w, wo, None, 0, 0)
            elif p == first:
                acc = tile_sum(acc, x, xo, rows, p, offsets, w, wo, w, wo + AHEAD, vecs * lanes(w))
            else:
                acc = tile_sum(acc, x, xo, rows, p, offsets, w, wo, ahead, soon + p * share, each)
            tile_put(acc, y, places, p, shift, valid, add, floor)

    return product


product_wide, product_narrow = _product_of(VECS), _product_of(1)


# -- weights -----------------------------------------------------------------------------------------------------------


@kernel
def _transpose(w, out):
    """out[t, k, c] = w[t, c, k]; further columns of out become 0."""
    T, C, K = w.shape
    padded = out.shape[2]
    L = lanes(w)
    source, target = w.reshape(-1), out.reshape(-1)
    blocks = (padded + L - 1) // L
    for task in prange(T * blocks):
        i = np.int64(task)
        t, c = i // blocks, i % blocks * L
        whole = K // L * L if c + L <= C else 0
        for k in range(0, whole, L):
            transpose(source, (t * C + c) * K + k, K, target, (t * K + k) * padded + c, padded)
        for k in range(whole, K):
            for j in range(c, min(c + L, padded)):
                out[t, k, j] = w[t, j, k] if j < C else 0


def transposed(w, width):
    """w (T, C, K) -> (T, K, width), zeros after the first C columns."""
    def make():
        out = memory.empty((w.shape[0], w.shape[2], width), w.dtype)
        _transpose(w, out, work=out.size)
        return out

    return remembered(w, ("transposed", width), make)


@kernel
def _pack(w, taps, groups, C, K, group_step, row_step, width, out):
    L = lanes(w)
    T = taps.shape[0]
    Kp = (K + L - 1) // L * L
    blocks = (Kp + width - 1) // width
    for task in prange(groups * blocks * T):
        i = np.int64(task)
        group, block, t = i // (blocks * T), i // T % blocks, i % T
        first = block * width
        size = min(width, Kp - first)
        to = (group * Kp + first) * T * C + t * C * size
        start = taps[t] + group * group_step + first
        valid = min(size, K - first)
        whole = valid // L * L
        for _ in range(C):
            for k in range(0, whole, L):
                store(out, to + k, load(w, start + k, True))
            for k in range(whole, size):
                out[to + k] = w[start + k] if k < valid else 0
            start += row_step
            to += size


def pack(w, phases, groups, C, K, group_step, row_step):
    """Weights in the order in which tiles read them: flat, for each phase (groups, blocks of k, taps, C, VECS * lanes).

    Element (group, t, c, k) of a phase, a tuple of ints, is w[phase[t] + group * group_step + c * row_step + k], w being taken as
    flat; K is padded with zeros to whole vectors. The last block is one vector if that holds what is left.
    """
    def make():
        L = lanes_of(w.dtype)
        tap = groups * -(-K // L) * L * C
        out = memory.empty((tap * sum(map(len, phases)),), w.dtype)
        start = 0
        for taps in phases:
            part = out[start : start + tap * len(taps)]
            _pack(w.reshape(-1), np.array(taps, np.int64), groups, C, K, group_step, row_step, VECS * L, part, work=part.size / 4)
            start += part.size
        return out

    return remembered(w, ("packed", phases, groups, C, K, group_step, row_step), make)
