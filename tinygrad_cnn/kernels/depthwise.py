"""Convolutions whose groups have few channels: sums lane by lane, vectorised over channels.

Groups have one input channel each, or as many inputs as outputs, of which a vector holds several groups. With a depth
multiplier (several outputs of one input) the input is repeated to the outputs' channels first.
"""

import functools

import numpy as np
from numba import prange

from .. import memory
from .jit import inline, kernel
from .rows import lanes_of
from .simd import at_least, fma, lanes, load, store, tile_add_to, tile_fma_rows, tile_splat, tile_store, tile_zeros, zeros
from .taps import all_taps, in_order, input_phases, inside

PIXELS, WIDE = 4, 4  # output pixels and vectors of channels at a time: enough sums to hide the latency of additions
MULTIPLY_ADDS_PER_NS = 8  # of one thread, roughly: memory sets the pace
PARTIALS = 16  # partial sums of the weight gradient at most


def _window_of(pixels, vecs):
    @inline
    def window(x, xo, x_line, x_tap, x_pixel, w, wo, w_line, w_tap, w_step, within, lines, taps, bias, floor, k, y, yo, y_pixel,
               valid):
        """Neighbouring output pixels whose lines x taps inputs and weights lie at constant steps."""
        acc = tile_splat(pixels, vecs, bias, k)
        for _ in range(lines):
            a, b = xo, wo
            for _ in range(taps):
                acc = tile_fma_rows(acc, x, a, x_pixel, w, b, w_step, within)
                a += x_tap
                b += w_tap
            xo += x_line
            wo += w_line
        tile_store(at_least(acc, floor), y, yo, y_pixel, valid)

    return window


def _channels_of(pixels):
    wide, narrow = _window_of(pixels, WIDE), _window_of(pixels, 1)

    @inline
    def channels(K, x, xo, x_line, x_tap, x_pixel, w, wo, w_line, w_tap, within, lines, taps, bias, floor, y, yo, y_pixel):
        k, L = 0, lanes(w)
        while k + WIDE * L <= K:
            wide(x, xo + k, x_line, x_tap, x_pixel, w, wo + k, w_line, w_tap, K, within, lines, taps, bias, floor, k, y, yo + k,
                 y_pixel, K - k)
            k += WIDE * L
        while k < K:
            narrow(x, xo + k, x_line, x_tap, x_pixel, w, wo + k, w_line, w_tap, K, within, lines, taps, bias, floor, k, y, yo + k,
                   y_pixel, K - k)
            k += L

    return channels


_channels_many, _channels_one = _channels_of(PIXELS), _channels_of(1)


@kernel
def _correlate(x, N, H, W, K, w, within, phases, sy, sx, bias, floor, y, y_image, y_row, y_pixel):
    """Row (lines, taps per line, weight, steps of it, dy, step of it, dx, step of it, start in y, OH, OW) of `phases`.

    A task makes one row of every phase, since they read the same rows of the input. Vectors reach past K channels.
    """
    rows, G = phases[0, 10], len(within)
    for task in prange(N * rows):
        i = np.int64(task)
        n, row = i // rows, i % rows
        for f in range(phases.shape[0]):
            taps, x_tap, w_tap, dx, OW = phases[f, 1], phases[f, 8] * K, phases[f, 4] * G * K, phases[f, 7], phases[f, 11]
            dy, x_line, w_line = row * sy + phases[f, 5], phases[f, 6] * W * K, phases[f, 3] * G * K
            if row >= phases[f, 10]:
                continue
            # Lines inside the image; columns whose every tap is.
            top, bottom = inside(dy, phases[f, 6], H, phases[f, 0])
            low, _ = inside(dx, sx, W, OW)
            _, high = inside(dx + (taps - 1) * phases[f, 8], sx, W, OW)
            xo = ((n * H + dy) * W + dx) * K + top * x_line
            wo = phases[f, 2] * G * K + top * w_line
            yo = phases[f, 9] + n * y_image + row * y_row
            j = 0
            while j < OW:
                if low <= j and j < high and high - low >= PIXELS:
                    j = min(j, high - PIXELS)  # over pixels already done, rather than one by one
                    _channels_many(K, x, xo + j * sx * K, x_line, x_tap, sx * K, w, wo, w_line, w_tap, within, bottom - top, taps,
                                   bias, floor, y, yo + j * y_pixel, y_pixel)
                    j += PIXELS
                else:
                    left, right = inside(j * sx + dx, phases[f, 8], W, taps)
                    _channels_one(K, x, xo + j * sx * K + left * x_tap, x_line, x_tap, 0, w, wo + left * w_tap, w_line, w_tap,
                                  within, bottom - top, right - left, bias, floor, y, yo + j * y_pixel, y_pixel)
                    j += 1


def _with_slack(a, K):
    """`a`, flat, with space after its end for vectors that reach past K channels."""
    if K % lanes_of(a.dtype) == 0:
        return a.reshape(-1)
    out = memory.empty((a.size + lanes_of(a.dtype),), a.dtype)
    out[: a.size] = a.reshape(-1)
    return out


def _aligned(a):
    """A copy of `a`, flat, that begins at a vector, with space for one after its end: small arrays may begin anywhere."""
    L = lanes_of(a.dtype)
    space = np.empty(a.size + 2 * L, a.dtype)
    space = space[-(space.ctypes.data // a.itemsize) % L :]
    space[: a.size] = a.reshape(-1)
    return space


def _steps(values):
    return values[1] - values[0] if len(values) > 1 else 1


@functools.lru_cache(maxsize=512)
def _plan(kernel, stride, padding, dilation, out_shape, gradient):
    """`_correlate`'s phases of a convolution, or of an input gradient, to images (N, OH, OW, K), and how many taps they have."""
    phases, (sy, sx) = [all_taps(kernel, padding, dilation)], (1, 1)
    if gradient:
        phases, (sy, sx) = list(input_phases(kernel, stride, padding, dilation, out_shape[1:3])), stride
    table = []
    for phase in map(in_order, phases):
        lines = sorted(set(phase.dy))
        taps = len(phase.dy) // max(1, len(lines))
        table.append([len(lines), taps, min(phase.weight[:1], default=0), _steps(phase.weight[:: taps or 1]), _steps(phase.weight[:taps]),
                      min(phase.dy, default=0), _steps(lines), min(phase.dx, default=0), _steps(phase.dx[:taps]),
                      (phase.top * out_shape[2] + phase.left) * out_shape[3],
                      len(range(phase.top, out_shape[1], sy)), len(range(phase.left, out_shape[2], sx))])
    return np.array(table, np.int64), sum(len(phase.dy) for phase in phases)


def _run(x, w, plan, sy, sx, bias, floor, out, out_sy, out_sx):
    """Writes out[n, top + i * out_sy, left + j * out_sx] of each phase for every i and j; w (taps, G, K), bias (K,).

    Channel k becomes max(floor, bias[k] + sum over t and m of x[n, i * sy + dy[t], j * sx + dx[t], k // G * G + m] *
    w[weight[t], m, k]).
    """
    (phases, taps), (N, H, W, K), (_, OH, OW, _), G = plan, x.shape, out.shape, w.shape[1]
    _correlate(_with_slack(x, K), N, H, W, K, _aligned(w), tuple(range(G)), phases, sy, sx, _aligned(bias), floor, out.reshape(-1),
               OH * OW * K, OW * K * out_sy, K * out_sx,
               work=N * phases[0, 10] * phases[0, 11] * K * taps * G / MULTIPLY_ADDS_PER_NS)


def suits(C, K, groups, dtype):
    """Whether groups of C to K channels are convolved here."""
    return groups > 1 and (C == 1 or (C == K < lanes_of(dtype) and lanes_of(dtype) % C == 0))


def conv2d(x, w, bias, stride, padding, dilation, out, relu):
    """`conv.conv2d` with groups that suit: x (N, H, W, C), w (R, S, C // groups, K), out (N, OH, OW, K)."""
    R, S, G, K = w.shape
    if G == 1 and x.shape[3] != K:
        x = np.repeat(x, K // x.shape[3], axis=3)
    plan = _plan((R, S), stride, padding, dilation, out.shape, False)
    _run(x, w.reshape(R * S, G, K), plan, *stride, bias, 0.0 if relu else -np.inf, out, 1, 1)


def conv2d_input_grad(g, w, stride, padding, dilation, out):
    """`conv.conv2d_input_grad` with groups that suit: g (N, OH, OW, K), w (R, S, C // groups, K), out (N, H, W, C)."""
    (R, S, G, K), C = w.shape, out.shape[3]
    repeated = out if K == C else memory.empty((*out.shape[:3], K), out.dtype)
    # (R, S, inputs of a group, groups, outputs of it) -> (R * S, outputs, groups, inputs)
    w = w.reshape(R * S, G, K // G, G).transpose(0, 3, 2, 1).reshape(R * S, G, K)
    plan = _plan((R, S), stride, padding, dilation, repeated.shape, True)
    _run(g, w, plan, 1, 1, np.zeros(K, out.dtype), -np.inf, repeated, *stride)
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
            acc = tile_fma_rows(acc, x, xo, tap, g, go, 0, (0,))
            xo += x_step
            go += g_step
        tile_add_to(acc, y, yo, y_step)

    return three


_three_wide, _three_narrow = _three_of(WIDE), _three_of(1)


@inline
def _edge(x, xo, tap, g, go, K, whole, L, first, last, y, yo):
    """Adds one output pixel's products for taps [first, last) in whole vectors of channels."""
    for s in range(first, last):
        for k in range(0, whole, L):
            store(y, yo + s * K + k, fma(load(x, xo + s * tap + k, True), load(g, go + k, True), load(y, yo + s * K + k, True)))


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
                x_row, g_row, y_row = ((n * H + h) * W - pw) * K, row * OW * K, (p * R + r) * S * K
                # Columns whose taps all are inside; those of the others, at both edges, one by one.
                first, _ = inside(-pw, sw, W, OW)
                _, last = inside((S - 1) * dw - pw, sw, W, OW)
                last = max(first, last)
                for j in range(OW - last + first):
                    j = j if j < first else j + last - first
                    low, high = inside(j * sw - pw, dw, W, S)
                    _edge(flat_x, x_row + j * sw * K, dw * K, flat_g, g_row + j * K, K, whole, L, low, high, partial, y_row)
                xo, go = x_row + first * sw * K, g_row + first * K
                threes = S // 3 * 3
                for s in range(0, threes, 3):
                    for k in range(0, whole_wide, WIDE * L):
                        _three_wide(flat_x, xo + s * dw * K + k, sw * K, dw * K, flat_g, go + k, K, last - first, partial,
                                    y_row + s * K + k, K)
                    for k in range(whole_wide, whole, L):
                        _three_narrow(flat_x, xo + s * dw * K + k, sw * K, dw * K, flat_g, go + k, K, last - first, partial,
                                      y_row + s * K + k, K)
                for s in range(threes, S):
                    for k in range(0, whole, L):
                        _sums_wide(flat_x, xo + s * dw * K + k, sw * K, flat_g, go + k, K, last - first, partial, y_row + s * K + k)
                for s in range(S):
                    low, high = inside(s * dw - pw, sw, W, OW)
                    for k in range(whole, K):
                        _sums_narrow(flat_x, x_row + (low * sw + s * dw) * K + k, sw * K, flat_g, g_row + low * K + k, K, high - low,
                                     partial, y_row + s * K + k)


def conv2d_weight_grad(g, x, stride, padding, dilation, out):
    """`conv.conv2d_weight_grad` with as many groups as channels: g (N, OH, OW, K), x (N, H, W, C); out (R, S, 1, K)."""
    R, S, _, K = out.shape
    if x.shape[3] != K:
        x = np.repeat(x, K // x.shape[3], axis=3)
    parts = min(PARTIALS, g.shape[0] * g.shape[1])
    partial = memory.empty((parts, R * S * K), x.dtype)
    _weight_grad(x, g, R, S, *stride, *padding, *dilation, parts, partial.reshape(-1),
                 work=g.size * R * S / MULTIPLY_ADDS_PER_NS)
    with np.errstate(all="ignore"):  # Inf and NaN pass in silence
        total = partial[0]
        for p in range(1, parts):
            total += partial[p]
    out[...] = total.reshape(out.shape)
