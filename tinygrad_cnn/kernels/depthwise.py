"""Convolutions whose groups have one input channel each: sums over taps only, vectorised over channels.

With a depth multiplier (several outputs per channel) the input is repeated to the outputs' channels first.
"""

import numpy as np
from numba import prange

from .jit import inline, kernel
from .simd import fma, lanes, load, store, tile_add_to, tile_fma_rows, tile_splat, tile_store, tile_zeros, zeros
from .taps import all_taps, input_phases

PIXELS = 4  # output pixels at a time: enough independent sums to hide the latency of additions
MULTIPLY_ADDS_PER_NS = 8  # of one thread, roughly: memory sets the pace
WIDE = 4  # vectors of channels whose weight gradients are summed together: memory is read in long pieces
PARTIALS = 16  # partial sums of the weight gradient at most


def _pixel_of(wide):
    @inline
    def pixel(x, xo, v, W, w, offsets, columns, weights, count, bias, k, y, yo):
        """One output pixel whose first tap is column v, for the channels of one vector; taps outside are left out."""
        acc = load(bias, k, wide)
        for t in range(count):
            if 0 <= v + columns[t] < W:
                acc = fma(load(x, xo + offsets[t] + k, wide), load(w, weights[t] + k, wide), acc)
        store(y, yo + k, acc)

    return pixel


_pixel_wide, _pixel_narrow = _pixel_of(True), _pixel_of(False)


@inline
def _pixels(x, xo, x_pixel, w, offsets, weights, count, bias, k, y, yo, y_pixel):
    """PIXELS output pixels with every tap inside, for the channels of one vector."""
    acc = tile_splat(PIXELS, 1, bias, k)
    for t in range(count):
        acc = tile_fma_rows(acc, x, xo + offsets[t] + k, x_pixel, w, weights[t] + k)
    tile_store(acc, y, yo + k, y_pixel, lanes(x))


@kernel
def _correlate(x, w, weight, dy, dx, sy, sx, bias, y, start, y_image, y_row, y_pixel, OH, OW, low, high):
    """Output columns in [low, high) have every tap inside the image."""
    _, H, W, K = x.shape
    L = lanes(w)
    whole = K // L * L
    flat = x.reshape(-1)
    for task in prange(x.shape[0] * OH):
        i = np.int64(task)
        n, row = i // OH, i % OH
        offsets, columns, weights = np.empty_like(dy), np.empty_like(dy), np.empty_like(dy)
        count = 0
        for t in range(weight.shape[0]):
            h = row * sy + dy[t]
            if 0 <= h < H:
                offsets[count], columns[count], weights[count] = (h * W + dx[t]) * K, dx[t], weight[t] * K
                count += 1
        xo, yo = n * H * W * K, start + n * y_image + row * y_row
        j = 0
        while j < OW:
            inside = low <= j and j + PIXELS <= high
            xj, yj = xo + j * sx * K, yo + j * y_pixel
            if inside:
                for k in range(0, whole, L):
                    _pixels(flat, xj, sx * K, w, offsets, weights, count, bias, k, y, yj, y_pixel)
            else:
                for k in range(0, whole, L):
                    _pixel_wide(flat, xj, j * sx, W, w, offsets, columns, weights, count, bias, k, y, yj)
            for p in range(PIXELS if inside else 1):
                for k in range(whole, K):
                    _pixel_narrow(flat, xj + p * sx * K, (j + p) * sx, W, w, offsets, columns, weights, count,
                                  bias, k, y, yj + p * y_pixel)
            j += PIXELS if inside else 1


def _run(x, w, taps, sy, sx, bias, out, out_sy, out_sx):
    """Writes out[n, top + i * out_sy, left + j * out_sx] for every i and j; w (taps, K), bias (K,).

    Channel k becomes bias[k] + sum over t of x[n, i * sy + dy[t], j * sx + dx[t], k] * w[weight[t], k].
    """
    N, _, W, _ = x.shape
    OH, OW = len(range(taps.top, out.shape[1], out_sy)), len(range(taps.left, out.shape[2], out_sx))
    x0, x1 = min(taps.dx, default=0), max(taps.dx, default=0)
    y_image, y_row, y_pixel = (s // x.itemsize for s in out.strides[:3])
    weight, dy, dx = (np.array(values, np.int64) for values in (taps.weight, taps.dy, taps.dx))
    _correlate(x, w.reshape(-1), weight, dy, dx, sy, sx, bias, out.reshape(-1), taps.top * y_row + taps.left * y_pixel,
               y_image, y_row * out_sy, y_pixel * out_sx, OH, OW, -(x0 // sx), min(OW, (W - 1 - x1) // sx + 1),
               work=N * OH * OW * bias.size * len(weight) / MULTIPLY_ADDS_PER_NS)


def conv2d(x, w, bias, stride, padding, dilation, out):
    """`conv.conv2d` with as many groups as channels: x (N, H, W, C), w (R, S, 1, K), out (N, OH, OW, K)."""
    K = w.shape[3]
    if x.shape[3] != K:
        x = np.repeat(x, K // x.shape[3], axis=3)
    _run(x, w, all_taps(w.shape[:2], padding, dilation), *stride, bias, out, 1, 1)


def conv2d_input_grad(g, w, stride, padding, dilation, out):
    """`conv.conv2d_input_grad` with as many groups as channels: g (N, OH, OW, K), w (R, S, 1, K), out (N, H, W, C)."""
    K, C = w.shape[3], out.shape[3]
    repeated = out if K == C else np.empty((*out.shape[:3], K), out.dtype)
    bias = np.zeros(K, out.dtype)
    for phase in input_phases(w.shape[:2], stride, padding, dilation, out.shape[1:3]):
        _run(g, w, phase, 1, 1, bias, repeated, *stride)
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
