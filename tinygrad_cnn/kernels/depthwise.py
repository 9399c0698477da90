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
from .simd import (
    VECTOR_REGISTERS,
    at_least,
    lanes,
    load_between,
    store,
    tile_add_to,
    tile_fma_columns,
    tile_fma_taps,
    tile_splat,
    tile_store_rows,
    tile_zeros,
)
from .taps import all_taps, in_order, input_phases, inside, phase_count
from .weight_grad import sum_parts

# Output pixels and vectors of channels at a time: enough sums to hide the latency of additions.
PIXELS, WIDE = 4, 4 if VECTOR_REGISTERS == 32 else 2
TAPS, TWO = 3, 2 if VECTOR_REGISTERS == 32 else 1  # of the weight gradient: rows and columns of taps, and vectors of channels, at a time
MULTIPLY_ADDS_PER_NS = 8  # of one thread, roughly: memory sets the pace
BAND, BANDS = 8, 16  # rows of a task at most, and tasks at least, if there are as many rows
PARTIALS = 16  # partial sums of the weight gradient at most


def _pixels_of(vecs):
    @inline
    def rows_of_pixels(x, K, count, k, rows, xo, x_row, x_line, column, apart, tap, width, w, start, each, first, within, lines, taps,
                       floor, y, yo, y_row, y_pixel):
        """rows x count output pixels, `vecs` vectors of their channels from k on; `apart` and `tap` count columns."""
        at = max(0, min(k, K - vecs * lanes(w)))  # over channels already done, if there are so many
        size = len(within) * vecs * lanes(w)
        threes = taps // 3 if tap == apart else 0  # taps that share the pixels they meet
        for i in range(0, count, PIXELS):
            j = max(0, min(i, count - PIXELS))  # over pixels already done, rather than one by one
            for row in range(rows):            # they share lines in the first-level cache
                acc = tile_splat(PIXELS, vecs, w, WIDE * lanes(w) + at)
                line, b = xo + at + row * x_row + j * apart * K, start + each * k + first * size
                for _ in range(lines):
                    a, c = line, column + j * apart
                    for _ in range(threes):
                        acc = tile_fma_columns(acc, x, a, tap * K, c, tap, width, w, b, 3, within)
                        a += 3 * tap * K
                        b += 3 * size
                        c += 3 * tap
                    if tap == apart and taps % 3 == 2:
                        acc = tile_fma_columns(acc, x, a, tap * K, c, tap, width, w, b, 2, within)
                        b += 2 * size
                    else:
                        for _ in range(taps - 3 * threes):
                            acc = tile_fma_columns(acc, x, a, apart * K, c, apart, width, w, b, 1, within)
                            a += tap * K
                            b += size
                            c += tap
                    line += x_line
                tile_store_rows(at_least(acc, floor), y, yo + at + row * y_row + j * y_pixel, y_pixel, K - at, count)

    return rows_of_pixels


_wide, _middle, _narrow = _pixels_of(WIDE), _pixels_of(2), _pixels_of(1)


@inline
def _rows(x, K, count, *how):
    """All channels of some rows of pixels."""
    k, L = 0, lanes(x)
    while k < K:
        if k + WIDE * L <= K:
            _wide(x, K, count, k, *how)
            k += WIDE * L
        elif k + 2 * L <= K:
            _middle(x, K, count, k, *how)
            k += 2 * L
        else:
            _narrow(x, K, count, k, *how)
            k += L


@inline
def _pack(w, order, bias, packed):
    """WIDE vectors of zeros, the bias, and the weights in the order in which they are read. Returns where those begin."""
    (_, G, K), L, flat = w.shape, lanes(w), w.reshape(-1)
    packed[: WIDE * L] = 0
    for k in range(K):
        packed[WIDE * L + k] = bias[k]
    start = to = (WIDE + (K + L - 1) // L) * L
    k = 0
    while k < K:
        vecs = WIDE if k + WIDE * L <= K else 2 if k + 2 * L <= K else 1
        at = max(0, min(k, K - vecs * L))
        for t in order:
            for m in range(G):
                for c in range(at, at + vecs * L, L):
                    store(packed, to, load_between(flat, (t * G + m) * K + c, 0, K - c))
                    to += L
        k += vecs * L
    return start


@kernel
def _correlate(x, N, H, W, w, order, within, phases, sy, sx, bias, floor, band, y, y_image, y_row, y_pixel, packed):
    """Row (lines, taps per line, taps before, dy, step of it, dx, step of it, start in y, OH, OW) of `phases`.

    A task makes `band` rows of every phase, since they read the same rows of the input.
    """
    K, each = w.shape[2], len(order) * len(within)
    bands = (phases[0, 8] + band - 1) // band
    start = _pack(w, order, bias, packed)
    for task in prange(N * bands):
        t = np.int64(task)
        n = t // bands
        for f in range(phases.shape[0]):
            taps, y_step, OW = phases[f, 1], phases[f, 4], phases[f, 9]
            row = t % bands * band
            end = min(phases[f, 8], row + band)
            while row < end:                   # rows whose lines inside the image have the same numbers
                dy, rows = row * sy + phases[f, 3], 1
                top, bottom = inside(dy, y_step, H, phases[f, 0])
                while row + rows < end and (top, bottom) == inside(dy + rows * sy, y_step, H, phases[f, 0]):
                    rows += 1
                _rows(x, K, OW, rows, ((n * H + dy + top * y_step) * W + phases[f, 5]) * K, sy * W * K, y_step * W * K,
                      phases[f, 5], sx, phases[f, 6], W, packed, start, each, phases[f, 2] + top * taps, within, bottom - top, taps,
                      floor, y, phases[f, 7] + n * y_image + row * y_row, y_row, y_pixel)
                row += rows


def _with_slack(a, K):
    """`a`, flat, with space after its end for a vector that reaches past K channels."""
    L = lanes_of(a.dtype)
    if K >= L:
        return a.reshape(-1)
    out = memory.empty((a.size + L,), a.dtype)
    out[: a.size] = a.reshape(-1)
    return out


def _aligned(size, dtype):
    """A new array that begins at a vector: small ones may begin anywhere."""
    L = lanes_of(dtype)
    space = np.empty(size + L, dtype)
    return space[-(space.ctypes.data // space.itemsize) % L :]


def _steps(values):
    return values[1] - values[0] if len(values) > 1 else 1


@functools.lru_cache(maxsize=512)
def _plan(kernel, stride, padding, dilation, out_shape, gradient):
    """`_correlate`'s phases of a convolution, or of an input gradient, to images (N, OH, OW, K), and the order of the weights."""
    phases, (sy, sx) = [all_taps(kernel, padding, dilation)], (1, 1)
    if gradient:
        phases, (sy, sx) = list(input_phases(kernel, stride, padding, dilation, out_shape[1:3])), stride
    table, order = [], []
    for phase in map(in_order, phases):
        lines = sorted(set(phase.dy))
        taps = len(phase.dy) // max(1, len(lines))
        table.append([len(lines), taps, len(order), min(phase.dy, default=0), _steps(lines), min(phase.dx, default=0),
                      _steps(phase.dx[:taps]), (phase.top * out_shape[2] + phase.left) * out_shape[3],
                      len(range(phase.top, out_shape[1], sy)), len(range(phase.left, out_shape[2], sx))])
        order += phase.weight
    return np.array(table, np.int64), np.array(order, np.int64)


def _run(x, w, plan, sy, sx, bias, floor, out, out_sy, out_sx):
    """Writes out[n, top + i * out_sy, left + j * out_sx] of each phase for every i and j; w (taps, G, K), bias (K,).

    Channel k becomes max(floor, bias[k] + sum over t and m of x[n, i * sy + dy[t], j * sx + dx[t], k // G * G + m] *
    w[weight[t], m, k]).
    """
    (phases, order), (N, H, W, K), (_, OH, OW, _), (_, G, _), L = plan, x.shape, out.shape, w.shape, lanes_of(x.dtype)
    room = (WIDE - (-K // L) * (1 + len(order) * G)) * L
    _correlate(_with_slack(x, K), N, H, W, w, order, tuple(range(G)), phases, sy, sx, bias, floor,
               max(1, min(BAND, N * phases[0, 8] // BANDS)), out.reshape(-1),
               OH * OW * K, OW * K * out_sy, K * out_sx, _aligned(room, x.dtype),
               work=N * phases[0, 8] * phases[0, 9] * K * len(order) * G / MULTIPLY_ADDS_PER_NS)


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
    if len(plan[0]) < phase_count(stride, out.shape[1:3]):
        repeated[...] = 0
    _run(g, w, plan, 1, 1, np.zeros(K, out.dtype), -np.inf, repeated, *stride)
    if K != C:
        np.sum(repeated.reshape(*out.shape, K // C), axis=4, out=out)  # (N, H, W, K) -> (N, H, W, C, K // C) -> sum


def _taps_of(vecs):
    square = TAPS * TAPS

    @inline
    def taps(x, H, W, K, g, OH, OW, k, row, end, r, s, sh, sw, ph, pw, dh, dw, zeros, y, yo, y_step):
        """y[yo + t * y_step : ...] += sums of TAPS x TAPS taps t from (r, s) on, over output rows [row, end), `vecs` vectors from k on."""
        acc = tile_zeros(square, vecs, x)
        column = s * dw - pw
        first, _ = inside(column, sw, W, OW)
        _, last = inside(column + (TAPS - 1) * dw, sw, W, OW)
        for i in range(row, end):
            line, go, low, high = i % OH * sh - ph + r * dh, i * OW * K + k, first, max(first, last)
            if line < 0 or line + (TAPS - 1) * dh >= H:
                low = high
            xo = ((i // OH * H + line) * W + column) * K + k
            for j in range(low, high):         # pixels all of whose taps lie inside the image; then the others
                acc = tile_fma_taps(acc, x, xo + j * sw * K, dh * W * K, dw * K, 0, 0, 0, 0, 0, 0, g, go + j * K, TAPS, False, zeros)
            for j in range(OW - (high - low)):
                j += (high - low) * (j >= low)
                acc = tile_fma_taps(acc, x, xo + j * sw * K, dh * W * K, dw * K, line, dh, H, column + j * sw, dw, W, g, go + j * K,
                                    TAPS, True, zeros)
        tile_add_to(acc, y, yo, y_step)

    return taps


_sums_wide, _sums_narrow = _taps_of(TWO), _taps_of(1)


@kernel
def _weight_grad(x, H, W, g, N, OH, OW, K, R, S, sh, sw, ph, pw, dh, dw, zeros, partial):
    """partial (parts, 1, rows, columns): part p sums the p-th share of g's rows, for each TAPS x TAPS taps of R x S; channels in order.

    But those of the last vector are the last ones, if they fill one.
    """
    parts, L, Kp, total = partial.shape[0], lanes(x), partial.shape[3], N * OH
    flat = partial.reshape(-1)
    for part in prange(parts):
        p = np.int64(part)
        start, row, last = p * partial.shape[2] * Kp, total * p // parts, total * (p + 1) // parts
        flat[start : start + partial.shape[2] * Kp] = 0
        while row < last:
            end = min(last, row + BAND)
            k = 0
            while k < K:
                yo, at, wide = start + k, max(0, min(k, K - L)), k + TWO * L <= K
                for r in range(0, R, TAPS):
                    for s in range(0, S, TAPS):
                        if wide:
                            _sums_wide(x, H, W, K, g, OH, OW, at, row, end, r, s, sh, sw, ph, pw, dh, dw, zeros, flat, yo, Kp)
                        else:
                            _sums_narrow(x, H, W, K, g, OH, OW, at, row, end, r, s, sh, sw, ph, pw, dh, dw, zeros, flat, yo, Kp)
                        yo += TAPS * TAPS * Kp
                k += TWO * L if wide else L
            row = end


def conv2d_weight_grad(g, x, stride, padding, dilation, out):
    """`conv.conv2d_weight_grad` with as many groups as channels: g (N, OH, OW, K), x (N, H, W, C); out (R, S, 1, K)."""
    (R, S, _, K), (N, OH, OW, _), (_, H, W, C), L = out.shape, g.shape, x.shape, lanes_of(x.dtype)
    if C != K:
        x = np.repeat(x, K // C, axis=3)
    down, across, Kp = -(-R // TAPS), -(-S // TAPS), -(-K // L) * L
    partial = memory.empty((min(PARTIALS, N * OH), 1, down * across * TAPS**2, Kp), x.dtype)
    _weight_grad(_with_slack(x, K), H, W, _with_slack(g, K), N, OH, OW, K, R, S, *stride, *padding, *dilation,
                 np.zeros(TWO * L, x.dtype), partial, work=g.size * R * S / MULTIPLY_ADDS_PER_NS)
    sums = np.empty(partial.shape[2:], x.dtype)
    sum_parts(partial, sums, work=partial.size)
    sums = sums.reshape(down, across, TAPS, TAPS, Kp).transpose(0, 2, 1, 3, 4).reshape(down * TAPS, across * TAPS, Kp)[:R, :S]
    last = max(0, K - L)
    out[:, :, 0, :last] = sums[:, :, :last]
    out[:, :, 0, last:] = sums[:, :, max(0, Kp - L):][:, :, : K - last]
