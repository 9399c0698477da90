"""Weight gradient of convolutions whose groups have 2 or 4 channels, in and out: lanes are the channels of several groups.

A group's outputs all meet all of its inputs. Lane l meets them as lanes l ^ d of the input's vector, d = 0, 1, ... below the
group's channels C: products lane by lane of exchanged lanes give the gradient of w[t, (l ^ d) % C, l].
"""

import functools

import numpy as np
from numba import prange

from .. import memory
from .jit import MAX_THREADS, inline, is_parallel, kernel
from .rows import lanes_of
from .simd import VECTOR_BYTES, lanes, tile_add_to, tile_fma_across, tile_zeros
from .weight_grad import LINES, copy_channels, sum_parts

BAND_BYTES = 1 << 16  # of padded lines at a time: a part of the second-level cache
PARTIALS = 16  # partial sums of the weight gradient at most
MULTIPLY_ADDS_PER_NS = 20  # of one thread, roughly


def fits(g, kernel, stride, dilation):
    """Whether a band of padded lines is not too large."""
    _, width, lines = _band(g, kernel, stride, dilation)
    return lines * width * lanes_of(g.dtype) <= LINES


def suits(groups, C, K, dtype):
    """Whether groups of C to K // groups channels fill whole vectors, and one group less than half a vector."""
    L = lanes_of(dtype)
    return groups * C == K and C in (2, 4) and 4 * C <= L and K % L == 0


@functools.lru_cache(maxsize=64)
def _exchange(T, C, K):
    """Where in sums (T, d, K) the gradient of each weight (T, C, K) lies."""
    t, c, k = np.ogrid[:T, :C, :K]
    return ((t * C + (k % C ^ c)) * K + k).reshape(-1)


def _band(g, kernel, stride, dilation):
    """Output rows of a band, whose input lines fit the cache, but most are not copied twice; pixels of a line; and lines."""
    (_, OH, OW, _), (R, S), (sh, sw), (dh, dw) = g.shape, kernel, stride, dilation
    width, reach = (OW - 1) * sw + (S - 1) * dw + 1, (R - 1) * dh + 1
    rows = min(OH, max(4, (BAND_BYTES // (width * VECTOR_BYTES) - reach) // sh + 1))
    return rows, width, (rows - 1) * sh + reach


def _sums_of(taps, size):
    rows = taps * size

    @inline
    def sums(x, xo, x_step, x_row, x_pixel, g, go, g_row, g_pixel, height, width, y, yo, y_step):
        """y[t * size + d, l] += sum over height x width pixels of x[pixel + t, l ^ d] * g[pixel, l], for `taps` taps."""
        acc = tile_zeros(rows, 1, x)
        for i in range(height):
            a, b = xo + i * x_row, go + i * g_row
            for _ in range(width):
                acc = tile_fma_across(acc, x, a, x_step, g, b, size)
                a += x_pixel
                b += g_pixel
        tile_add_to(acc, y, yo, y_step)

    return sums


_three_two, _three_four, _one_two, _one_four = (_sums_of(taps, size) for taps in (3, 1) for size in (2, 4))


@kernel
def _weight_grad(x, g, size, R, S, sh, sw, ph, pw, dh, dw, chunk, width, parts, partial, scratch):
    """partial, flat (parts, R, S, size, K), lanes exchanged: part p sums the p-th share of the N * OH output rows."""
    (_, OH, OW, K), N, L = g.shape, x.shape[0], lanes(x)
    flat, blocks, down, across, tap = g.reshape(-1), K // L, sh * width * L, sw * L, dw * L
    tasks, workers = parts * blocks, scratch.shape[0]
    for worker in prange(workers):
        number = np.int64(worker)
        lines = scratch[number]
        for task in range(tasks * number // workers, tasks * (number + 1) // workers):
            p, k = task // blocks, task % blocks * L
            start = p * R * S * size * K + k
            for t in range(R * S * size):
                partial[start + t * K : start + t * K + L] = 0
            row, end = N * OH * p // parts, N * OH * (p + 1) // parts
            while row < end:
                n, top, go = row // OH, row % OH, row * OW * K + k
                height = min(OH - top, chunk, end - row)
                copy_channels(x, n, top * sh - ph, -pw, (height - 1) * sh + (R - 1) * dh + 1, width, k, L, lines)
                for r in range(R):
                    s = 0
                    while s < S:
                        xo, to = (r * dh * width + s * dw) * L, start + (r * S + s) * size * K
                        if S - s >= 3 and size == 2:
                            _three_two(lines, xo, tap, down, across, flat, go, OW * K, K, height, OW, partial, to, K)
                        elif S - s >= 3:
                            _three_four(lines, xo, tap, down, across, flat, go, OW * K, K, height, OW, partial, to, K)
                        elif size == 2:
                            _one_two(lines, xo, tap, down, across, flat, go, OW * K, K, height, OW, partial, to, K)
                        else:
                            _one_four(lines, xo, tap, down, across, flat, go, OW * K, K, height, OW, partial, to, K)
                        s += 3 if S - s >= 3 else 1
                row += height


def conv2d_weight_grad(g, x, stride, padding, dilation, out):
    """`conv.conv2d_weight_grad` where `suits`."""
    (sh, sw), (ph, pw), (dh, dw), (R, S, C, K) = stride, padding, dilation, out.shape
    work = g.size * R * S * C / MULTIPLY_ADDS_PER_NS
    chunk, width, lines = _band(g, (R, S), stride, dilation)
    parts, workers = min(PARTIALS, g.shape[0] * g.shape[1]), MAX_THREADS if is_parallel(work) else 1
    partial, sums = memory.empty((parts, 1, R * S * C, K), x.dtype), np.empty((R * S * C, K), x.dtype)
    _weight_grad(x, g, C, R, S, sh, sw, ph, pw, dh, dw, chunk, width, parts, partial.reshape(-1),
                 memory.empty((workers, lines * width * lanes_of(x.dtype)), x.dtype), work=work)
    sum_parts(partial, sums, work=partial.size)
    out.reshape(-1)[:] = sums.reshape(-1)[_exchange(R * S, C, K)]
