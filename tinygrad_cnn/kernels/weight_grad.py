"""Weight gradient of convolutions by direct sums over pixels: input channels x pixels times pixels x output channels.

Two loop nests: one reads images as they lie, tap by tap; the other copies blocks of windows, which takes less time where
the product is large, and knows no short rows. Both add up shares of the pixels, whose number depends on the sizes alone.
"""

import numpy as np
from numba import prange

from .. import memory
from .jit import MAX_THREADS, inline, kernel
from .patches import DEPTH, PITCH, gather, runs_of
from .rows import VECS, lanes_of
from .simd import VECTOR_REGISTERS, lanes, load, store, tile_add_to, tile_fma, tile_zeros
from .taps import all_taps

# Input channels (rows) of the tiles: channels mostly come in powers of two.
CHANNELS = 8 if VECTOR_REGISTERS == 32 else 4
CHUNK = 192  # pixels summed in registers before a tile is added to memory, at most
CHUNK_PIXELS = 128  # the same of the loops that read whole lines of images
MIN_TASKS = 16
PARTIALS = 16  # partial sums at most
MULTIPLY_ADDS_PER_NS = 50  # of one thread, roughly


# -- images as they lie ------------------------------------------------------------------------------------------------


def _outer_of(rows, vecs):
    @inline
    def outer(x, xo, x_row, x_pixel, g, go, g_row, g_pixel, height, width, y, yo, y_step):
        """y[c, k] += sum over height x width pixels of x[pixel, c] * g[pixel, k]."""
        acc = tile_zeros(rows, vecs, x)
        for i in range(height):
            a, b = xo + i * x_row, go + i * g_row
            for _ in range(width):
                acc = tile_fma(acc, x, a, 1, g, b)
                a += x_pixel
                b += g_pixel
        tile_add_to(acc, y, yo, y_step)

    return outer


def _channels_of(vecs):
    large, half, quarter, single = (_outer_of(rows, vecs) for rows in (CHANNELS, CHANNELS // 2, CHANNELS // 4, 1))

    @inline
    def channels(count, x, xo, x_row, x_pixel, g, go, g_row, g_pixel, height, width, y, yo, y_step):
        c = 0
        while c < count:
            left = count - c
            to = yo + c * y_step
            if left >= CHANNELS:
                large(x, xo + c, x_row, x_pixel, g, go, g_row, g_pixel, height, width, y, to, y_step)
                c += CHANNELS
            elif left >= CHANNELS // 2:
                half(x, xo + c, x_row, x_pixel, g, go, g_row, g_pixel, height, width, y, to, y_step)
                c += CHANNELS // 2
            elif left >= CHANNELS // 4:
                quarter(x, xo + c, x_row, x_pixel, g, go, g_row, g_pixel, height, width, y, to, y_step)
                c += CHANNELS // 4
            else:
                single(x, xo + c, x_row, x_pixel, g, go, g_row, g_pixel, height, width, y, to, y_step)
                c += 1

    return channels


_channels_wide, _channels_narrow = _channels_of(VECS), _channels_of(1)


@inline
def _span(tap, step, size, low, high):
    """The outputs i in [low, high) whose tap i * step + tap lies in [0, size)."""
    first = max(low, -(tap // step))
    last = min(high, (size - 1 - tap) // step + 1)
    return first, max(first, last)


@inline
def _add_lines(n, top, bottom, x, g, R, S, C, c0, count, group, Kp, K, OH, OW, sh, sw, ph, pw, dh, dw, y, yo):
    """Adds output rows [top, bottom) of image n to y, flat (R, S, C, Kp), for `count` channels from c0 of one group."""
    _, H, W, channels = x.shape
    L = lanes(x)
    flat = x.reshape(-1)
    for k in range(0, Kp, VECS * L):
        for r in range(R):
            i, i_end = _span(r * dh - ph, sh, H, top, bottom)
            for s in range(S):
                j, j_end = _span(s * dw - pw, sw, W, 0, OW)
                xo = ((n * H + i * sh - ph + r * dh) * W + j * sw - pw + s * dw) * channels + group * C + c0
                go = ((n * OH + i) * OW + j) * K + group * Kp + k
                to = yo + ((r * S + s) * C + c0) * Kp + k
                if Kp - k > L:
                    _channels_wide(count, flat, xo, sh * W * channels, sw * channels, g, go, OW * K, K, i_end - i,
                                   j_end - j, y, to, Kp)
                else:
                    _channels_narrow(count, flat, xo, sh * W * channels, sw * channels, g, go, OW * K, K, i_end - i,
                                     j_end - j, y, to, Kp)


@kernel
def _image_sums(x, g, R, S, C, Kp, groups, OH, OW, sh, sw, ph, pw, dh, dw, slice_size, chunk, parts, partial):
    """partial, flat (parts, groups, R, S, C, Kp): part p sums the p-th share of the N * OH output rows."""
    N = x.shape[0]
    K = groups * Kp
    slices = (C + slice_size - 1) // slice_size
    for task in prange(parts * groups * slices):
        index = np.int64(task)
        p, group, c0 = index // (groups * slices), index // slices % groups, index % slices * slice_size
        count = min(slice_size, C - c0)
        yo = (p * groups + group) * R * S * C * Kp
        for t in range(R * S):
            start = yo + (t * C + c0) * Kp
            partial[start : start + count * Kp] = 0
        row, end = N * OH * p // parts, N * OH * (p + 1) // parts
        while row < end:
            n, top = row // OH, row % OH
            bottom = min(OH, top + chunk, top + end - row)
            _add_lines(n, top, bottom, x, g, R, S, C, c0, count, group, Kp, K, OH, OW, sh, sw, ph, pw, dh, dw,
                              partial, yo)
            row += bottom - top


# -- blocks of windows ---------------------------------------------------------------------------------------------------


def _block_of(rows, vecs):
    @inline
    def block(count, x, xo, g, y, yo, y_step):
        """y[t, k] += sum over `count` pixels of x[pixel, t] * g[pixel, k]."""
        acc = tile_zeros(rows, vecs, x)
        go = 0
        for _ in range(count):
            acc = tile_fma(acc, x, xo, 1, g, go)
            xo += PITCH
            go += vecs * lanes(g)
        tile_add_to(acc, y, yo, y_step)

    return block


_block_wide, _block_narrow = _block_of(CHANNELS, VECS), _block_of(CHANNELS, 1)


@inline
def _panel(g, start, step, count, valid, size, out):
    """out, flat (count, size): g[start + p * step : ... + valid], zeros after."""
    L = lanes(g)
    for p in range(count):
        o, to = start + p * step, p * size
        if valid >= size:
            for k in range(0, size, L):
                store(out, to + k, load(g, o + k, True))
        else:
            for k in range(size):
                out[to + k] = g[o + k] if k < valid else 0


@kernel
def _window_sums(x, g, runs, C, T, K, OH, OW, sy, sx, parts, partial, scratch):
    """partial, flat (parts, T, K) with T rounded up to tiles, K to vectors: part p sums the p-th share of the pixels."""
    L = lanes(x)
    pixels, blocks, width = x.shape[0] * OH * OW, (T + DEPTH - 1) // DEPTH, VECS * L
    Tp, Kp = (T + CHANNELS - 1) // CHANNELS * CHANNELS, (K + L - 1) // L * L
    tasks, workers = parts * blocks, scratch.shape[0]
    for worker in prange(workers):
        i = np.int64(worker)
        windows, panel = scratch[i, : CHUNK * PITCH], scratch[i, CHUNK * PITCH :]
        for task in range(tasks * i // workers, tasks * (i + 1) // workers):
            part, t0 = task // blocks, task % blocks * DEPTH
            t1 = min(T, t0 + DEPTH)
            depth = (t1 - t0 + CHANNELS - 1) // CHANNELS * CHANNELS
            yo = (part * Tp + t0) * Kp
            partial[yo : yo + depth * Kp] = 0
            end = pixels * (part + 1) // parts
            for first in range(pixels * part // parts, end, CHUNK):
                count = min(CHUNK, end - first)
                gather(x, 0, C, runs, t0, t1, sy, sx, OH, OW, first, count, windows)
                for k in range(0, Kp, width):
                    size = min(width, Kp - k)
                    _panel(g, first * K + k, K, count, K - k, size, panel)
                    for t in range(0, depth, CHANNELS):
                        if size == width:
                            _block_wide(count, windows, t, panel, partial, yo + t * Kp + k, Kp)
                        else:
                            _block_narrow(count, windows, t, panel, partial, yo + t * Kp + k, Kp)


# ------------------------------------------------------------------------------------------------------------------------


@kernel
def sum_parts(partial, out):
    """out (T, groups * K) = partial (parts, groups, rows, columns) summed over parts in order, padding dropped."""
    parts, groups, _, _ = partial.shape
    K = out.shape[1] // groups
    for task in prange(out.shape[0]):
        t = np.int64(task)
        for group in range(groups):
            to = out[t, group * K : (group + 1) * K]
            to[:] = 0
            for p in range(parts):
                part = partial[p, group, t]
                for k in range(K):
                    to[k] += part[k]


def _copies_pay(R, S, C, K, L, groups):
    """Whether copying windows takes less than a tenth of the products, both in cycles per pixel."""
    return groups == 1 and R * S * C / L * 1.5 + 7 * R < R * S * C * K / L / 20


def partial_sums(g, x, stride, padding, dilation, groups, size):
    """Partial sums (parts, groups, T, K per group) of the gradient of weights of `size`, T = R * S * C; T and K may be padded."""
    (sh, sw), (ph, pw), (dh, dw), (R, S, C, K) = stride, padding, dilation, size
    N, OH, OW, _ = g.shape
    T, Kg, L = R * S * C, K // groups, lanes_of(x.dtype)
    Kp = -(-Kg // L) * L
    if _copies_pay(R, S, C, Kg, L, groups):
        parts = min(PARTIALS, -(-N * OH * OW // CHUNK), -(-MIN_TASKS // -(-T // DEPTH)))
        partial = memory.empty((parts, 1, -(-T // CHANNELS) * CHANNELS, Kp), x.dtype)
        taps = all_taps((R, S), padding, dilation)
        _window_sums(x, g.reshape(-1), runs_of(taps.dy, taps.dx, C, True), C, T, K, OH, OW, sh, sw, parts, partial.reshape(-1),
                     memory.empty((MAX_THREADS, CHUNK * (PITCH + VECS * L)), x.dtype),
                     work=N * OH * OW * partial[0].size / MULTIPLY_ADDS_PER_NS)
        return partial
    if Kp != Kg:
        g_padded = np.zeros((N * OH * OW, groups, Kp), g.dtype)
        g_padded[:, :, :Kg] = g.reshape(-1, groups, Kg)
        g = g_padded
    if groups == 1 and dw == 1 and S > 1 and C < CHANNELS:
        # A window's row is S * C consecutive numbers: with x padded, these fill tiles that C channels would not.
        width = (OW - 1) * sw + S
        x_padded = np.zeros((N, x.shape[1], width, C), x.dtype)
        last = max(0, min(x.shape[2], width - pw))
        x_padded[:, :, pw : pw + last] = x[:, :, :last]
        x, pw, S, C = x_padded, 0, 1, S * C
    slice_size = min(C, 4 * CHANNELS)
    parts = min(PARTIALS, N * OH, -(-4 * MIN_TASKS // (groups * -(-C // slice_size))))
    partial = memory.empty((parts, groups, T, Kp), x.dtype)
    _image_sums(x, g.reshape(-1), R, S, C, Kp, groups, OH, OW, sh, sw, ph, pw, dh, dw, slice_size, max(1, CHUNK_PIXELS // OW),
                parts, partial.reshape(-1), work=N * OH * OW * T * groups * Kp / MULTIPLY_ADDS_PER_NS)
    return partial
