"""Convolutions whose groups have one input channel each: sums over taps only, vectorised over channels.

With a depth multiplier (several outputs per channel) the input is repeated to the outputs' channels first.
"""

import numpy as np
from numba import prange

from .jit import inline, kernel
from .simd import at_least, fma, lanes, load, store, tile_add_to, tile_fma_rows, tile_splat, tile_store, tile_zeros, zeros
from .taps import all_taps, input_phases

PIXELS = 4  # output pixels at a time: enough independent sums to hide the latency of additions
MULTIPLY_ADDS_PER_NS = 8  # of one thread, roughly: memory sets the pace
WIDE = 4  # vectors of channels made together where pixels are not
PARTIALS = 16  # partial sums of the weight gradient at most


@inline
def _pixel_wide(x, xo, w, offsets, weights, count, bias, floor, k, y, yo):
    """One output pixel for the channels of WIDE vectors."""
    acc = tile_splat(1, WIDE, bias, k)
    for t in range(count):
        acc = tile_fma_rows(acc, x, xo + offsets[t] + k, 0, w, weights[t] + k)
    tile_store(at_least(acc, floor), y, yo + k, 0, WIDE * lanes(x))


def _pixel_of(wide):
    @inline
    def pixel(x, xo, w, offsets, weights, count, bias, floor, k, y, yo):
        """One output pixel for the channels of one vector."""
        acc = load(bias, k, wide)
        for t in range(count):
            acc = fma(load(x, xo + offsets[t] + k, wide), load(w, weights[t] + k, wide), acc)
        store(y, yo + k, at_least(acc, floor))

    return pixel


_pixel_narrow, _pixel_single = _pixel_of(True), _pixel_of(False)


@inline
def _pixels(x, xo, x_pixel, w, offsets, weights, count, bias, floor, k, y, yo, y_pixel):
    """PIXELS output pixels with every tap inside, for the channels of one vector."""
    acc = tile_splat(PIXELS, 1, bias, k)
    for t in range(count):
        acc = tile_fma_rows(acc, x, xo + offsets[t] + k, x_pixel, w, weights[t] + k)
    tile_store(at_least(acc, floor), y, yo + k, y_pixel, lanes(x))


@kernel
def _correlate(x, w, taps, phases, sy, sx, bias, floor, y, y_image, y_row, y_pixel):
    """Row (first tap, end of taps, start in y, OH, OW, low, high) of `phases`; row (weight, dy, dx) of `taps`.

    Output columns in [low, high) have every tap inside the image. A task makes one row of every phase, since they read
    the same rows of the input.
    """
    N, H, W, K = x.shape
    L = lanes(w)
    whole, whole_wide = K // L * L, K // (WIDE * L) * WIDE * L
    flat, rows, most = x.reshape(-1), phases[0, 3], taps.shape[0]
    for task in prange(N * rows):
        i = np.int64(task)
        n, row = i // rows, i % rows
        offsets, columns, weights = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
        inner, inner_weights = np.empty(most, np.int64), np.empty(most, np.int64)
        for f in range(phases.shape[0]):
            OW, low, high, count = phases[f, 4], phases[f, 5], phases[f, 6], 0
            for t in range(phases[f, 0], phases[f, 1]):
                h = row * sy + taps[t, 1]
                if 0 <= h < H:
                    offsets[count], columns[count], weights[count] = (h * W + taps[t, 2]) * K, taps[t, 2], taps[t, 0] * K
                    count += 1
            xo, yo = n * H * W * K, phases[f, 2] + n * y_image + row * y_row
            j = 0 if row < phases[f, 3] else OW
            while j < OW:
                if low <= j < high and high - low >= PIXELS:
                    j = min(j, high - PIXELS)  # over pixels already done, rather than one by one
                    xj, yj = xo + j * sx * K, yo + j * y_pixel
                    for k in range(0, whole, L):
                        _pixels(flat, xj, sx * K, w, offsets, weights, count, bias, floor, k, y, yj, y_pixel)
                    for p in range(PIXELS):
                        for k in range(whole, K):
                            _pixel_single(flat, xj + p * sx * K, w, offsets, weights, count, bias, floor, k, y, yj + p * y_pixel)
                    j += PIXELS
                else:
                    xj, yj, here = xo + j * sx * K, yo + j * y_pixel, 0
                    for t in range(count):
                        if 0 <= j * sx + columns[t] < W:
                            inner[here], inner_weights[here] = offsets[t], weights[t]
                            here += 1
                    for k in range(0, whole_wide, WIDE * L):
                        _pixel_wide(flat, xj, w, inner, inner_weights, here, bias, floor, k, y, yj)
                    for k in range(whole_wide, whole, L):
                        _pixel_narrow(flat, xj, w, inner, inner_weights, here, bias, floor, k, y, yj)
                    for k in range(whole, K):
                        _pixel_single(flat, xj, w, inner, inner_weights, here, bias, floor, k, y, yj)
                    j += 1


def _run(x, w, phases, sy, sx, bias, floor, out, out_sy, out_sx):
    """Writes out[n, top + i * out_sy, left + j * out_sx] of each phase for every i and j; w (taps, K), bias (K,).

    Channel k becomes max(floor, bias[k] + sum over t of x[n, i * sy + dy[t], j * sx + dx[t], k] * w[weight[t], k]).
    """
    W = x.shape[2]
    y_image, y_row, y_pixel = (s // x.itemsize for s in out.strides[:3])
    taps, table = [], []
    for phase in phases:
        OH, OW = len(range(phase.top, out.shape[1], out_sy)), len(range(phase.left, out.shape[2], out_sx))
        x0, x1 = min(phase.dx, default=0), max(phase.dx, default=0)
        table.append([len(taps), len(taps) + len(phase.dx), phase.top * y_row + phase.left * y_pixel, OH, OW,
                      max(0, -(x0 // sx)), min(OW, (W - 1 - x1) // sx + 1)])
        taps += zip(phase.weight, phase.dy, phase.dx, strict=True)
    _correlate(x, w.reshape(-1), np.array(taps, np.int64).reshape(-1, 3), np.array(table, np.int64), sy, sx, bias, floor,
               out.reshape(-1), y_image, y_row * out_sy, y_pixel * out_sx,
               work=x.shape[0] * table[0][3] * table[0][4] * bias.size * len(taps) / MULTIPLY_ADDS_PER_NS)


def conv2d(x, w, bias, stride, padding, dilation, out, relu):
    """`conv.conv2d` with as many groups as channels: x (N, H, W, C), w (R, S, 1, K), out (N, OH, OW, K)."""
    K = w.shape[3]
    if x.shape[3] != K:
        x = np.repeat(x, K // x.shape[3], axis=3)
    _run(x, w, [all_taps(w.shape[:2], padding, dilation)], *stride, bias, 0.0 if relu else -np.inf, out, 1, 1)


def conv2d_input_grad(g, w, stride, padding, dilation, out):
    """`conv.conv2d_input_grad` with as many groups as channels: g (N, OH, OW, K), w (R, S, 1, K), out (N, H, W, C)."""
    K, C = w.shape[3], out.shape[3]
    repeated = out if K == C else np.empty((*out.shape[:3], K), out.dtype)
    bias = np.zeros(K, out.dtype)
    _run(g, w, list(input_phases(w.shape[:2], stride, padding, dilation, out.shape[1:3])), 1, 1, bias, -np.inf, repeated, *stride)
    if K != C:
        np.sum(repeated.reshape(*out.shape, K // C), axis=4, out=out)  # (N, H, W, K) -> (N, H, W, C, K // C) -> sum


def _sums_of(wide):
    @inline
    def sums(x, xo, x_step, g, go, g_step, count, y, yo):
        """y[yo + lane] += sum of x * g over `count` pixels; four sums, so that none waits for its own last addition."""
        a = b = c = d = zeros(y, wide)
        for _ in range(count // 4):
            a = fma(load(x, xo, wide), load(g, go, wide), a)
            b = fma(load(x, xo + x_step, wide), load(g, go + g_step, wide), b)
            c = fma(load(x, xo + 2 * x_step, wide), load(g, go + 2 * g_step, wide), c)
            d = fma(load(x, xo + 3 * x_step, wide), load(g, go + 3 * g_step, wide), d)
            xo += 4 * x_step
            go += 4 * g_step
        for _ in range(count % 4):
            a = fma(load(x, xo, wide), load(g, go, wide), a)
            xo += x_step
            go += g_step
        store(y, yo, load(y, yo, wide) + ((a + b) + (c + d)))

    return sums


_sums_wide, _sums_narrow = _sums_of(True), _sums_of(False)


def _three_of(vecs):
    @inline
    def three(x, xo, x_step, tap, g, go, g_step, count, y, yo, y_step):
        """`_sums_wide` of three taps, `tap` apart in x and `y_step` in y, and of `vecs` vectors of channels at once."""
        acc = tile_zeros(3, vecs, x)
        for _ in range(count):
            acc = tile_fma_rows(acc, x, xo, tap, g, go)
            xo += x_step
            go += g_step
        tile_add_to(acc, y, yo, y_step)

    return three


_three_wide, _three_narrow = _three_of(WIDE), _three_of(1)


@inline
def _inside(tap, step, size, count):
    """The outputs i in [0, count) whose tap i * step + tap lies in [0, size)."""
    first = min(count, max(0, -(tap // step)))
    return first, max(first, min(count, (size - 1 - tap) // step + 1))


@inline
def _edge(x, xo, sw, g, go, K, whole, L, first, last, y, yo):
    """One tap's sums over output columns [first, last), for whole vectors of channels."""
    if first < last:
        for k in range(0, whole, L):
            _sums_wide(x, xo + first * sw * K + k, sw * K, g, go + first * K + k, K, last - first, y, yo + k)


@kernel
def _weight_grad(x, g, R, S, sh, sw, ph, pw, dh, dw, parts, partial):
    """partial, flat (parts, R, S, K): part p sums the p-th share of the N * OH output rows."""
    N, H, W, K = x.shape
    OH, OW = g.shape[1], g.shape[2]
    L = lanes(x)
    whole, whole_wide = K // L * L, K // (WIDE * L) * WIDE * L
    flat_x, flat_g = x.reshape(-1), g.reshape(-1)
    for part in prange(parts):
        p = np.int64(part)
        partial[p * R * S * K : (p + 1) * R * S * K] = 0
        for row in range(N * OH * p // parts, N * OH * (p + 1) // parts):
            n, i = row // OH, row % OH
            for r in range(R):
                h = i * sh - ph + r * dh
                if h < 0 or h >= H:
                    continue
                x_row, g_row, y_row = (n * H + h) * W * K, row * OW * K, (p * R + r) * S * K
                threes = S // 3 * 3
                for s in range(0, threes, 3):
                    tap = s * dw - pw
                    first, _ = _inside(tap, sw, W, OW)  # where all three taps are inside
                    _, last = _inside(tap + 2 * dw, sw, W, OW)
                    last = max(first, last)
                    xo = x_row + (first * sw + tap) * K
                    for k in range(0, whole_wide, WIDE * L):
                        _three_wide(flat_x, xo + k, sw * K, dw * K, flat_g, g_row + first * K + k, K, last - first,
                                    partial, y_row + s * K + k, K)
                    for k in range(whole_wide, whole, L):
                        _three_narrow(flat_x, xo + k, sw * K, dw * K, flat_g, g_row + first * K + k, K, last - first,
                                      partial, y_row + s * K + k, K)
                    for one in range(s, s + 3):  # what is left at both edges
                        tap = one * dw - pw
                        low, high = _inside(tap, sw, W, OW)
                        _edge(flat_x, x_row + tap * K, sw, flat_g, g_row, K, whole, L, low, min(high, first), partial,
                              y_row + one * K)
                        _edge(flat_x, x_row + tap * K, sw, flat_g, g_row, K, whole, L, max(low, last), high, partial,
                              y_row + one * K)
                for s in range(S):
                    tap = s * dw - pw
                    first, last = _inside(tap, sw, W, OW)
                    if s >= threes:
                        _edge(flat_x, x_row + tap * K, sw, flat_g, g_row, K, whole, L, first, last, partial, y_row + s * K)
                    xo = x_row + (first * sw + tap) * K
                    for k in range(whole, K):
                        _sums_narrow(flat_x, xo + k, sw * K, flat_g, g_row + first * K + k, K, last - first, partial,
                                     y_row + s * K + k)


def conv2d_weight_grad(g, x, stride, padding, dilation, out):
    """`conv.conv2d_weight_grad` with as many groups as channels: g (N, OH, OW, K), x (N, H, W, C); out (R, S, 1, K)."""
    R, S, _, K = out.shape
    if x.shape[3] != K:
        x = np.repeat(x, K // x.shape[3], axis=3)
    parts = min(PARTIALS, g.shape[0] * g.shape[1])
    partial = np.empty((parts, R * S * K), x.dtype)
    _weight_grad(x, g, R, S, *stride, *padding, *dilation, parts, partial.reshape(-1),
                 work=g.size * R * S / MULTIPLY_ADDS_PER_NS)
    with np.errstate(all="ignore"):  # Inf and NaN pass in silence
        total = partial[0]
        for p in range(1, parts):
            total += partial[p]
    out[...] = total.reshape(out.shape)
