"""Convolutions whose groups have 2 or 4 channels, in and out: lanes are the channels of several groups.

A group's outputs all need all of its inputs. Lane l meets them as lanes l ^ d of the input's vector, d = 0, 1, ... below the
group's channels C: products lane by lane of exchanged lanes and of weights w[t, (l ^ d) % C, l].
"""

import functools

import numpy as np
from numba import prange

from .. import memory
from .jit import MAX_THREADS, inline, kernel
from .rows import lanes_of
from .simd import at_least, lanes, tile_add_to, tile_fma_across, tile_fma_within, tile_splat, tile_store, tile_zeros
from .taps import all_taps, input_phases
from .weight_grad import copy_channels, sum_parts

PIXELS = 8  # output pixels of a tile
BAND_BYTES = 1 << 16  # of padded lines at a time: a part of the second-level cache
PARTIALS = 16  # partial sums of the weight gradient at most
MULTIPLY_ADDS_PER_NS = 20  # of one thread, roughly


def suits(groups, C, K, dtype):
    """Whether groups of C to K // groups channels fill whole vectors, and one group less than half a vector."""
    L = lanes_of(dtype)
    return groups * C == K and C in (2, 4) and 4 * C <= L and K % L == 0


@functools.lru_cache(maxsize=64)
def _exchange(T, C, K, transposed):
    """Where in (T, C, K) element (t, d, k) lies: in input row (k ^ d) % C; if `transposed`, k is an input and that an output."""
    t, d, k = np.ogrid[:T, :C, :K]
    row, column = (k % C, k // C * C + (k ^ d) % C) if transposed else ((k ^ d) % C, k)
    return ((t * C + row) * K + column).reshape(-1)


def _pixels_of(count, size):
    @inline
    def pixels(x, xo, x_pixel, offsets, w, weights, K, bias, floor, k, y, yo, y_pixel):
        """`count` output pixels for one vector of channels; w, flat (taps, size, lanes)."""
        acc = tile_splat(count, 1, bias, k)
        for t in range(offsets.shape[0]):
            acc = tile_fma_within(acc, x, xo + offsets[t], x_pixel, w, weights[t] * size * lanes(x), size)
        tile_store(at_least(acc, floor), y, yo, y_pixel, lanes(x))

    return pixels


_many_two, _many_four, _single_two, _single_four = (_pixels_of(count, size) for count in (PIXELS, 1) for size in (2, 4))


@kernel
def _correlate(x, w, size, offsets, weights, phases, sy, sx, y0, x0, rows, count, width, bias, floor, y, y_image, y_row, y_pixel,
               scratch):
    """Row (first tap, end of taps, start in y, OH, OW) of `phases`: outputs that meet the same taps, at `offsets` in padded lines.

    Tasks are bands of `rows` output rows, which need `count` lines of `width`, for one vector of channels; w, flat (taps, size, K).
    """
    (N, _, _, K), L = x.shape, lanes(x)
    bands, blocks = (phases[0, 3] + rows - 1) // rows, K // L
    tasks, workers, terms = N * bands * blocks, scratch.shape[0], w.shape[0] // K
    for worker in prange(workers):
        number = np.int64(worker)
        factors, lines = scratch[number, : terms * L], scratch[number, terms * L :]
        for task in range(tasks * number // workers, tasks * (number + 1) // workers):
            n, top, k = task // (bands * blocks), task // blocks % bands * rows, task % blocks * L
            for t in range(terms):
                factors[t * L : (t + 1) * L] = w[t * K + k : t * K + k + L]
            copy_channels(x, n, top * sy + y0, x0, count, width, k, L, lines)
            for f in range(phases.shape[0]):
                OW, here, there = phases[f, 4], offsets[phases[f, 0] : phases[f, 1]], weights[phases[f, 0] : phases[f, 1]]
                for i in range(min(rows, phases[f, 3] - top)):
                    xo, yo = i * sy * width * L, phases[f, 2] + n * y_image + (top + i) * y_row + k
                    j = 0
                    while j < OW:
                        if OW >= PIXELS:
                            j = min(j, OW - PIXELS)  # over pixels already done, rather than one by one
                        a, b = xo + j * sx * L, yo + j * y_pixel
                        if OW >= PIXELS and size == 2:
                            _many_two(lines, a, sx * L, here, factors, there, K, bias, floor, k, y, b, y_pixel)
                        elif OW >= PIXELS:
                            _many_four(lines, a, sx * L, here, factors, there, K, bias, floor, k, y, b, y_pixel)
                        elif size == 2:
                            _single_two(lines, a, sx * L, here, factors, there, K, bias, floor, k, y, b, y_pixel)
                        else:
                            _single_four(lines, a, sx * L, here, factors, there, K, bias, floor, k, y, b, y_pixel)
                        j += PIXELS if OW >= PIXELS else 1


def _band(rows, sy, reach, line_bytes):
    """Output rows of a band, whose input lines fit the cache; but most are not copied twice."""
    return min(rows, max(4, (BAND_BYTES // line_bytes - reach) // sy + 1))


def _run(x, w, size, phases, sy, sx, bias, floor, out, out_sy, out_sx):
    """out[n, top + i * out_sy, left + j * out_sx, k] of each phase, w being flat (taps, size, K), its lanes exchanged."""
    (N, OH, OW, K), L = out.shape, lanes_of(x.dtype)
    dy, dx = ([value for phase in phases for value in getattr(phase, name)] or [0] for name in ("dy", "dx"))
    y0, x0 = min(dy), min(dx)
    table, start = [], 0
    for phase in phases:
        table.append([start, start + len(phase.dy), (phase.top * OW + phase.left) * K, len(range(phase.top, OH, out_sy)),
                      len(range(phase.left, OW, out_sx))])
        start += len(phase.dy)
    width, reach = (table[0][4] - 1) * sx + max(dx) - x0 + 1, max(dy) - y0 + 1
    rows = _band(table[0][3], sy, reach, width * L * x.itemsize)
    count = (rows - 1) * sy + reach
    offsets = np.array([((a - y0) * width + b - x0) * L for a, b in zip(dy, dx, strict=True)], np.int64)
    weights = np.array([value for phase in phases for value in phase.weight] or [0], np.int64)
    _correlate(x, w, size, offsets, weights, np.array(table, np.int64), sy, sx, y0, x0, rows, count, width, bias, floor, out.reshape(-1),
               OH * OW * K, OW * K * out_sy, K * out_sx, memory.empty((MAX_THREADS, w.size // K * L + count * width * L), x.dtype),
               work=N * table[0][3] * table[0][4] * start * size * K / MULTIPLY_ADDS_PER_NS)


def conv2d(x, w, bias, stride, padding, dilation, out, relu):
    """`conv.conv2d` where `suits`."""
    R, S, C, K = w.shape
    _run(x, w.reshape(-1)[_exchange(R * S, C, K, False)], C, [all_taps((R, S), padding, dilation)], *stride, bias,
         0.0 if relu else -np.inf, out, 1, 1)


def conv2d_input_grad(g, w, stride, padding, dilation, out):
    """`conv.conv2d_input_grad` where `suits`."""
    R, S, C, K = w.shape
    _run(g, w.reshape(-1)[_exchange(R * S, C, K, True)], C, list(input_phases((R, S), stride, padding, dilation, out.shape[1:3])),
         1, 1, np.zeros(K, out.dtype), -np.inf, out, *stride)


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
    (N, OH, OW, _), L = g.shape, lanes_of(x.dtype)
    width, reach = (OW - 1) * sw + (S - 1) * dw + 1, (R - 1) * dh + 1
    chunk = _band(OH, sh, reach, width * L * x.itemsize)
    parts = min(PARTIALS, N * OH)
    partial, sums = memory.empty((parts, 1, R * S * C, K), x.dtype), np.empty((R * S * C, K), x.dtype)
    _weight_grad(x, g, C, R, S, sh, sw, ph, pw, dh, dw, chunk, width, parts, partial.reshape(-1),
                 memory.empty((MAX_THREADS, ((chunk - 1) * sh + reach) * width * L), x.dtype),
                 work=g.size * R * S * C / MULTIPLY_ADDS_PER_NS)
    sum_parts(partial, sums, work=partial.size)
    out.reshape(-1)[:] = sums.reshape(-1)[_exchange(R * S, C, K, False)]
