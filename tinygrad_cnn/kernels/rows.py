"""Rows of output pixels on the register tile, and the order in which they read weights.

A row is a matrix product: pixels x (taps * C) times (taps * C) x K. Convolution, its input gradient, and the
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
    tile_add,
    tile_fma,
    tile_put,
    tile_splat,
    tile_store,
    tile_sum,
    tile_zeros,
    transpose,
)

# Rows of the tiles, two vectors wide: LARGE of them, with the sums of chains before, fill the registers.
LARGE, SMALL = 8 if VECTOR_REGISTERS == 32 else 6, 4
VECS = 2
# Products added one after the other, whose sums are then added up: rounding errors grow with the length of such chains.
CHAIN, SHORT_CHAIN = (64, 32) if VECTOR_REGISTERS == 32 else (128, 64)
AHEAD = 4096  # elements from the weights in use to those fetched meanwhile: about what memory takes to answer


def lanes_of(dtype):
    """Elements of one vector register."""
    return VECTOR_BYTES // dtype.itemsize


def _tile_of(rows, vecs):
    @inline
    def tile(x, xo, step, C, w, wo, y, yo, y_step):
        acc = tile_zeros(rows, vecs, w)
        for c in range(min(C, SHORT_CHAIN)):
            acc = tile_fma(acc, x, xo + c, step, w, wo)
            wo += vecs * lanes(w)
        for first in range(SHORT_CHAIN, C, SHORT_CHAIN):
            chain = tile_zeros(rows, vecs, w)
            for c in range(first, min(C, first + SHORT_CHAIN)):
                chain = tile_fma(chain, x, xo + c, step, w, wo)
                wo += vecs * lanes(w)
            acc = tile_add(acc, chain)
        tile_store(acc, y, yo, y_step, vecs * lanes(w))

    return tile


def _row_of(vecs):
    large, small, single = (_tile_of(rows, vecs) for rows in (LARGE, SMALL, 1))

    @inline
    def row(x, xo, step, C, w, wo, y, yo, y_step, count):
        """y[yo + j * y_step : ...] = sum over c < C of x[xo + j * step + c] * w[wo + c * vecs * lanes : ...] for j < count.

        Both ranges are `vecs` vectors long. The last tile moves back over rows already done, rather than be narrow.
        """
        j = 0
        while j < count:
            if count >= LARGE and count - j > SMALL:
                j = min(j, count - LARGE)
                large(x, xo + j * step, step, C, w, wo, y, yo + j * y_step, y_step)
                j += LARGE
            elif count >= SMALL:
                j = min(j, count - SMALL)
                small(x, xo + j * step, step, C, w, wo, y, yo + j * y_step, y_step)
                j += SMALL
            else:
                single(x, xo + j * step, step, C, w, wo, y, yo + j * y_step, y_step)
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
                acc = tile_sum(acc, x, xo, rows, p, offsets, w, wo, None, 0, 0, CHAIN)
            elif p == first:
                acc = tile_sum(acc, x, xo, rows, p, offsets, w, wo, w, wo + AHEAD, vecs * lanes(w), CHAIN)
            else:
                acc = tile_sum(acc, x, xo, rows, p, offsets, w, wo, ahead, soon + p * share, each, CHAIN)
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
