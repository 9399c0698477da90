"""Input gradient of convolutions with few input channels, as columns that are added up to an image.

Direct sums would make vectors of C channels, most of whose lanes are empty. Here lanes are pixels: a chunk of the output
gradient is transposed, the matrix (R * S * C, K) of weights times it gives each tap's share of the gradient, and the
shares are added up in planes, one for each channel and phase of the stride, where neighbouring pixels are neighbours.
"""

import numpy as np
from numba import prange

from .jit import inline, kernel
from .rows import VECS, lanes_of, row_wide
from .simd import lanes, load, store, store_first, transpose

CHUNK_PIXELS = 256  # of the output gradient at a time: their columns stay in the second-level cache
MIN_TASKS = 16
PADDING = 64  # columns of padding, and of a window, that small images may have, too
MULTIPLY_ADDS_PER_NS = 40  # of one thread, roughly, with the additions


@inline
def _panels(g, go, pixels, K, width, out):
    """out, flat (panels, K, width): g[go + pixel * K + k], each panel `width` pixels; zeros after the last pixel."""
    L = lanes(g)
    for p in range(0, (pixels + width - 1) // width * width, L):
        to = p // width * width * K + p % width
        whole = K // L * L if p + L <= pixels else 0
        for k in range(0, whole, L):
            transpose(g, go + p * K + k, K, out, to + k * width, width)
        for k in range(whole, K):
            for i in range(L):
                out[to + k * width + i] = g[go + (p + i) * K + k] if p + i < pixels else 0


@inline
def _add_row(planes, to, columns, o, count):
    L = lanes(planes)
    for j in range(0, count // L * L, L):
        store(planes, to + j, load(planes, to + j, True) + load(columns, o + j, True))
    if count % L:
        j = count // L * L
        store_first(planes, to + j, load(planes, to + j, True) + load(columns, o + j, True), count - j)


@inline
def _interleave(planes, low, high, row, pw, sw, start, out):
    """Rows [low, high) of one image, which starts at `start` in `out`, from planes (C, sw, rows, row)."""
    _, _, W, C = out.shape
    flat = out.reshape(-1)
    for c in range(C):
        for h in range(high - low):
            for v in range(pw, min(pw + sw, pw + W)):  # the first column of each phase
                o, to = ((c * sw + v % sw) * (high - low) + h) * row + v // sw, start + ((low + h) * W + v - pw) * C + c
                for i in range((W - v + pw + sw - 1) // sw):
                    flat[to + i * sw * C] = planes[o + i]


@kernel
def _input_grad(g, w, R, S, sh, sw, ph, pw, dh, dw, band, chunk, out):
    """Tasks are bands of rows of `out`; w, flat (R, S, C, K). Column v of the padded image is number v // sw of phase v % sw."""
    N, OH, OW, K = g.shape
    _, H, W, C = out.shape
    width = VECS * lanes(g)
    flat_g, bands = g.reshape(-1), (H + band - 1) // band
    most = (chunk * OW + width - 1) // width * width
    row = max(OW + (S - 1) * dw // sw, (W + pw) // sw + 1)
    for task in prange(N * bands):
        n, low = np.int64(task) // bands, np.int64(task) % bands * band
        high = min(H, low + band)
        rows = high - low
        # A vector more, which the last loads reach into.
        planes, columns = np.zeros(C * sw * rows * row + width, g.dtype), np.empty(R * S * C * most + width, g.dtype)
        panels = np.empty(most * K, g.dtype)
        # Output rows whose windows meet rows [low, high).
        first, last = max(0, -(((R - 1) * dh - ph - low) // sh)), min(OH, (high - 1 + ph) // sh + 1)
        while first < last:
            count = min(chunk, last - first)
            _panels(flat_g, (n * OH + first) * OW * K, count * OW, K, width, panels)
            for p in range(0, count * OW, width):
                row_wide(w, 0, K, K, panels, p * K, columns, p, most, R * S * C)
            for tap in range(R * S):
                phase, shift = tap % S * dw % sw, tap % S * dw // sw
                for i in range(count):
                    h = (first + i) * sh - ph + tap // S * dh - low
                    if 0 <= h < rows:
                        for c in range(C):
                            _add_row(planes, ((c * sw + phase) * rows + h) * row + shift, columns,
                                     (tap * C + c) * most + i * OW, OW)
            first += count
        _interleave(planes, low, high, row, pw, sw, n * H * W * C, out)


def suits(C, R, S, dtype, W, pw, dw):
    """Whether vectors of C channels would be less than half full, and planes, which hold the padding, not much larger than images."""
    return R * S > 1 and lanes_of(dtype) > 2 * C and pw + (S - 1) * dw <= 2 * W + PADDING


def conv2d_input_grad(g, w, stride, padding, dilation, out):
    """`conv.conv2d_input_grad` for one group."""
    (sh, sw), (ph, pw), (dh, dw) = stride, padding, dilation
    (N, OH, OW, _), (R, S), H = g.shape, w.shape[:2], out.shape[1]
    reach = (R - 1) * dh + 1  # windows at the edge of a band are made twice: let it be higher than they
    band = H if N >= MIN_TASKS else max(4 * reach, -(-N * H // MIN_TASKS))
    _input_grad(g, w.reshape(-1), R, S, sh, sw, ph, pw, dh, dw, band, max(1, CHUNK_PIXELS // OW), out,
                work=N * OH * OW * w.size / MULTIPLY_ADDS_PER_NS)
