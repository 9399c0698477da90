"""Convolutions whose groups have 2, 4 or 8 channels, in and out: lanes are the channels of several groups.

A group's outputs all need all of its inputs. So pixels are first spread: each vector of channels becomes as many vectors as a
group has channels, the c-th of which has input c of every lane's group. What remains are products lane by lane.
"""

import numpy as np
from numba import prange

from .. import memory
from .jit import MAX_THREADS, inline, kernel
from .rows import lanes_of
from .simd import at_least, lanes, spread, tile_fma_rows, tile_splat, tile_store
from .taps import all_taps, input_phases
from .weight_grad import outer_of

PIXELS = 8  # output pixels of a tile: with one operand they leave registers free at every level
BAND_BYTES = 1 << 15  # of spread lines at a time: most of the first-level cache
PARTIALS = 16  # partial sums of the weight gradient at most
MULTIPLY_ADDS_PER_NS = 30  # of one thread, roughly


def suits(groups, C, K, dtype):
    """Whether groups of C to K // groups channels fill whole vectors here, and no vector by themselves."""
    L = lanes_of(dtype)
    return groups * C == K and C in (2, 4, 8) and 2 * C <= L and K % L == 0


def _spread_of(size):
    @inline
    def line(x, o, C, count, out, to):
        for _ in range(count):
            spread(x, o, size, out, to)
            o += C
            to += size * lanes(x)

    return line


_two, _four, _eight = (_spread_of(size) for size in (2, 4, 8))


@inline
def _spread_lines(x, n, top, left, k, size, count, width, out):
    """out, flat (count, width, size, lanes): pixels from (top, left) of image n on, channels from k on, zeros outside."""
    _, H, W, C = x.shape
    flat, pixel = x.reshape(-1), size * lanes(x)
    first, last = min(max(0, -left), width), max(min(width, W - left), 0)
    for i in range(count):
        to, h = i * width * pixel, top + i
        if h < 0 or h >= H or first >= last:
            out[to : to + width * pixel] = 0
            continue
        out[to : to + first * pixel] = 0
        out[to + last * pixel : to + width * pixel] = 0
        o, to = ((n * H + h) * W + left + first) * C + k, to + first * pixel
        if size == 2:
            _two(flat, o, C, last - first, out, to)
        elif size == 4:
            _four(flat, o, C, last - first, out, to)
        else:
            _eight(flat, o, C, last - first, out, to)


def _pixels_of(count):
    @inline
    def pixels(x, xo, x_pixel, offsets, w, weights, size, K, bias, floor, k, y, yo, y_pixel):
        """`count` output pixels for one vector of channels."""
        acc = tile_splat(count, 1, bias, k)
        for t in range(offsets.shape[0]):
            o, wo = xo + offsets[t], weights[t] * size * K + k
            for _ in range(size):
                acc = tile_fma_rows(acc, x, o, x_pixel, w, wo)
                o += lanes(x)
                wo += K
        tile_store(at_least(acc, floor), y, yo, y_pixel, lanes(x))

    return pixels


_many, _single = _pixels_of(PIXELS), _pixels_of(1)


@kernel
def _correlate(x, w, size, offsets, weights, phases, sy, sx, y0, x0, rows, count, width, bias, floor, y, y_image, y_row, y_pixel,
               scratch):
    """Row (first tap, end of taps, start in y, OH, OW) of `phases`: outputs that meet the same taps, at `offsets` in spread lines.

    Tasks are bands of `rows` output rows, which need `count` spread lines of `width`, for one vector of channels.
    """
    (N, _, _, K), L = x.shape, lanes(x)
    bands, blocks, pixel = (phases[0, 3] + rows - 1) // rows, K // L, size * L
    tasks, workers = N * bands * blocks, scratch.shape[0]
    for worker in prange(workers):
        number = np.int64(worker)
        lines = scratch[number]
        for task in range(tasks * number // workers, tasks * (number + 1) // workers):
            n, top, k = task // (bands * blocks), task // blocks % bands * rows, task % blocks * L
            _spread_lines(x, n, top * sy + y0, x0, k, size, count, width, lines)
            for f in range(phases.shape[0]):
                OW, here, there = phases[f, 4], offsets[phases[f, 0] : phases[f, 1]], weights[phases[f, 0] : phases[f, 1]]
                for i in range(min(rows, phases[f, 3] - top)):
                    xo, yo = i * sy * width * pixel, phases[f, 2] + n * y_image + (top + i) * y_row + k
                    j = 0
                    while j < OW:
                        if OW >= PIXELS:
                            j = min(j, OW - PIXELS)  # over pixels already done, rather than one by one
                            _many(lines, xo + j * sx * pixel, sx * pixel, here, w, there, size, K, bias, floor, k, y,
                                  yo + j * y_pixel, y_pixel)
                            j += PIXELS
                        else:
                            _single(lines, xo + j * sx * pixel, sx * pixel, here, w, there, size, K, bias, floor, k, y,
                                    yo + j * y_pixel, y_pixel)
                            j += 1


def _band(rows, sy, reach, line_bytes):
    """Output rows of a band: spread lines fit the cache, but most are not spread twice."""
    return min(rows, max(4, (BAND_BYTES // line_bytes - reach) // sy + 1))


def _run(x, w, size, phases, sy, sx, bias, floor, out, out_sy, out_sx):
    """out[n, top + i * out_sy, left + j * out_sx, k] of each phase, w being (taps, size, K)."""
    N, OH, OW, K = out.shape
    dy, dx = ([value for phase in phases for value in getattr(phase, name)] or [0] for name in ("dy", "dx"))
    y0, x0 = min(dy), min(dx)
    y_image, y_row, y_pixel = OH * OW * K, OW * K, K
    table, start = [], 0
    for phase in phases:
        table.append([start, start + len(phase.dy), phase.top * y_row + phase.left * y_pixel,
                      len(range(phase.top, OH, out_sy)), len(range(phase.left, OW, out_sx))])
        start += len(phase.dy)
    width, reach = (table[0][4] - 1) * sx + max(dx) - x0 + 1, max(dy) - y0 + 1
    pixel = size * lanes_of(x.dtype)
    rows = _band(table[0][3], sy, reach, width * pixel * x.itemsize)
    count = (rows - 1) * sy + reach
    offsets = np.array([((a - y0) * width + b - x0) * pixel for a, b in zip(dy, dx, strict=True)], np.int64)
    weights = np.array([value for phase in phases for value in phase.weight] or [0], np.int64)
    _correlate(x, w.reshape(-1), size, offsets, weights, np.array(table, np.int64), sy, sx, y0, x0, rows, count, width, bias, floor,
               out.reshape(-1), y_image, y_row * out_sy, y_pixel * out_sx, memory.empty((MAX_THREADS, count * width * pixel), x.dtype),
               work=N * table[0][3] * table[0][4] * start * size * K / MULTIPLY_ADDS_PER_NS)


def conv2d(x, w, bias, stride, padding, dilation, out, relu):
    """`conv.conv2d` where `suits`."""
    _run(x, w, w.shape[2], [all_taps(w.shape[:2], padding, dilation)], *stride, bias, 0.0 if relu else -np.inf, out, 1, 1)


def conv2d_input_grad(g, w, stride, padding, dilation, out):
    """`conv.conv2d_input_grad` where `suits`."""
    R, S, C, K = w.shape
    # (R, S, C, groups * C) -> (R * S, C of inputs, groups, C of outputs) -> (R * S, C of outputs, groups * C of inputs)
    w = np.ascontiguousarray(w.reshape(R * S, C, K // C, C).transpose(0, 3, 2, 1))
    _run(g, w, C, list(input_phases((R, S), stride, padding, dilation, out.shape[1:3])), 1, 1, np.zeros(K, out.dtype), -np.inf, out,
         *stride)


_twelve_taps, _eight_taps, _four_taps, _two_taps = (outer_of(rows, 1, tile_fma_rows) for rows in (12, 8, 4, 2))


@kernel
def _weight_grad(x, g, size, R, S, run, sh, sw, ph, pw, dh, dw, chunk, width, parts, partial, scratch):
    """partial, flat (parts, R, S, size, K): part p sums the p-th share of the N * OH output rows."""
    (_, OH, OW, K), N, L = g.shape, x.shape[0], lanes(x)
    flat, pixel, blocks, steps = g.reshape(-1), size * L, K // L, S * size // run
    tasks, workers = parts * blocks, scratch.shape[0]
    for worker in prange(workers):
        number = np.int64(worker)
        lines = scratch[number]
        for task in range(tasks * number // workers, tasks * (number + 1) // workers):
            p, k = task // blocks, task % blocks * L
            start = p * R * S * pixel * blocks + k
            for t in range(R * S * size):
                partial[start + t * K : start + t * K + L] = 0
            row, end = N * OH * p // parts, N * OH * (p + 1) // parts
            while row < end:
                n, top = row // OH, row % OH
                height = min(OH - top, chunk, end - row)
                _spread_lines(x, n, top * sh - ph, -pw, k, size, (height - 1) * sh + (R - 1) * dh + 1, width, lines)
                for r in range(R):
                    for s in range(steps):
                        xo, to, go = (r * dh * width + s * dw) * pixel, start + (r * S + s) * size * K, row * OW * K + k
                        down, across, left = sh * width * pixel, sw * pixel, run
                        while left > 0:
                            if left >= 12:
                                rows = 12
                                _twelve_taps(lines, xo, L, down, across, flat, go, OW * K, K, height, OW, partial, to, K)
                            elif left >= 8:
                                rows = 8
                                _eight_taps(lines, xo, L, down, across, flat, go, OW * K, K, height, OW, partial, to, K)
                            elif left >= 4:
                                rows = 4
                                _four_taps(lines, xo, L, down, across, flat, go, OW * K, K, height, OW, partial, to, K)
                            else:
                                rows = 2
                                _two_taps(lines, xo, L, down, across, flat, go, OW * K, K, height, OW, partial, to, K)
                            left -= rows
                            xo += rows * L
                            to += rows * K
                row += height


def partial_sums(g, x, stride, padding, dilation, size):
    """`weight_grad.partial_sums` where `suits`, as of one group."""
    (sh, sw), (ph, pw), (dh, dw), (R, S, C, K) = stride, padding, dilation, size
    N, OH, OW, _ = g.shape
    L = lanes_of(x.dtype)
    width, reach, pixel = (OW - 1) * sw + (S - 1) * dw + 1, (R - 1) * dh + 1, C * L
    chunk = _band(OH, sh, reach, width * pixel * x.itemsize)
    parts = min(PARTIALS, N * OH)
    partial = memory.empty((parts, 1, R * S * C, K), x.dtype)
    _weight_grad(x, g, C, R, S, S * C if dw == 1 else C, sh, sw, ph, pw, dh, dw, chunk, width, parts, partial.reshape(-1),
                 memory.empty((MAX_THREADS, ((chunk - 1) * sh + reach) * width * pixel), x.dtype),
                 work=g.size * R * S * C / MULTIPLY_ADDS_PER_NS)
    return partial
