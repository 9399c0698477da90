"""Weight gradient of convolutions by direct sums over pixels: input channels x pixels times pixels x output channels.

Two loop nests: one reads lines of images, padded, tap by tap; the other copies blocks of windows, which takes less time
where the product is large, and knows no short rows. Both add up shares of the pixels, whose number depends on the sizes alone.
"""

import numpy as np
from numba import njit, prange

from .. import memory
from .jit import INLINE_OPTIONS, MAX_THREADS, inline, is_parallel, kernel
from .patches import DEPTH, PITCH, gather, runs_of
from .rows import VECS, lanes_of
from .simd import VECTOR_REGISTERS, lanes, load, store, tile_add_to, tile_fma, tile_zeros
from .taps import all_taps

# Input channels (rows) of the tiles: channels mostly come in powers of two.
CHANNELS = 8 if VECTOR_REGISTERS == 32 else 4
CHUNK = 192  # pixels summed in registers before a tile is added to memory, at most
CHUNK_BYTES = 1 << 14  # of the output gradient, the same of the loops that read lines of images
NINE, EIGHT, FIVE = (9, 8, 5) if VECTOR_REGISTERS == 32 else (6, 4, 5)  # numbers (rows) of their largest tiles
BLOCK = 32  # input channels of a task
FEW = range(3, 6)  # sums in a tile that do not hide the latency of additions: pixels then go to two tiles by turns
MIN_TASKS = 16
PARTIALS = 16  # partial sums at most
LINES = 1 << 22  # elements of padded lines that a thread copies at most: strides and dilations may be far larger than images
MULTIPLY_ADDS_PER_NS = 50  # of one thread, roughly

forced_inline = njit(forceinline=True, **INLINE_OPTIONS)  # LLVM would make calls of these, which cost as much as a short row


# -- lines of images ---------------------------------------------------------------------------------------------------


def outer_of(rows, vecs):
    """The function that adds sums of outer products of `rows` numbers and `vecs` vectors to memory."""
    few = rows * vecs in FEW

    @forced_inline
    def outer(x, xo, x_row, x_pixel, g, go, g_row, g_pixel, height, width, y, yo, y_step):
        """y[c, k] += sum over height x width pixels of x[pixel, c] * g[pixel, k]."""
        acc = other = tile_zeros(rows, vecs, x)
        for i in range(height):
            a, b, left = xo + i * x_row, go + i * g_row, width
            if few:
                for _ in range(width // 2):
                    acc = tile_fma(acc, x, a, 1, g, b)
                    other = tile_fma(other, x, a + x_pixel, 1, g, b + g_pixel)
                    a += 2 * x_pixel
                    b += 2 * g_pixel
                left = width % 2
            for _ in range(left):
                acc = tile_fma(acc, x, a, 1, g, b)
                a += x_pixel
                b += g_pixel
        tile_add_to(acc, y, yo, y_step)
        if few:
            tile_add_to(other, y, yo, y_step)

    return outer


def _taps_of(vecs, large):
    most, eight, three, single = (outer_of(rows, vecs) for rows in (large, EIGHT, 3, 1))

    @inline
    def taps(lines, x_line, y_line, steps, x_tap, y_tap, run, tile, x, xo, x_row, x_pixel, g, go, g_row, g_pixel, height, width,
             y, yo, y_step):
        """`outer` of `run` numbers for each of `steps` taps in each of `lines`, in tiles of `tile` as long as these fit."""
        for line in range(lines):
            for step in range(steps):
                o, to, left = xo + line * x_line + step * x_tap, yo + line * y_line + step * y_tap, run
                while left > 0:
                    if left >= large and tile == large:
                        rows = large
                        most(x, o, x_row, x_pixel, g, go, g_row, g_pixel, height, width, y, to, y_step)
                    elif left >= EIGHT and tile == EIGHT:
                        rows = EIGHT
                        eight(x, o, x_row, x_pixel, g, go, g_row, g_pixel, height, width, y, to, y_step)
                    elif left >= 3:
                        rows = 3
                        three(x, o, x_row, x_pixel, g, go, g_row, g_pixel, height, width, y, to, y_step)
                    else:
                        rows = 1
                        single(x, o, x_row, x_pixel, g, go, g_row, g_pixel, height, width, y, to, y_step)
                    left -= rows
                    o += rows
                    to += rows * y_step

    return taps


_taps_wide, _taps_narrow = _taps_of(VECS, NINE), _taps_of(1, FIVE)


def _tile_for(run, large):
    """The size of tile that leaves few small ones: EIGHT, 3, or `large`, which 3 may follow."""
    if run % EIGHT == 0:
        return EIGHT
    return large if run % large in (0, 3) else 3 if run % 3 == 0 else EIGHT


@inline
def copy_channels(x, n, top, left, lines, width, c0, count, out):
    """out, flat (lines, width, count): channels [c0, c0 + count) of the pixels from (top, left) of image n on, zeros outside."""
    _, H, W, C = x.shape
    flat, L = x.reshape(-1), lanes(x)
    first, last = min(max(0, -left), width), max(min(width, W - left), 0)
    pixels, size = (1, (last - first) * C) if count == C else (last - first, count)
    for line in range(lines):
        to, h = line * width * count, top + line
        if h < 0 or h >= H or first >= last:
            out[to : to + width * count] = 0
            continue
        out[to : to + first * count] = 0
        o, here = ((n * H + h) * W + left + first) * C + c0, to + first * count
        for c in range(0, size // L * L, L):
            for j in range(pixels):
                store(out, here + j * count + c, load(flat, o + j * C + c, True))
        for j in range(pixels):
            for c in range(size // L * L, size):
                out[here + j * count + c] = flat[o + j * C + c]
        out[to + last * count : to + width * count] = 0


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
def _image_sums(x, g, R, S, C, run, tile_wide, tile_narrow, Kg, groups, OH, OW, sh, sw, ph, pw, dh, dw, inside, block, chunk, parts,
                partial, all_lines, panels):
    """partial, flat (parts, groups, R, S, C, Kp): part p sums the p-th share of the N * OH output rows.

    A tap is `run` numbers of a line of x from channels [c0, c0 + block) on: of one pixel, or, if a block has all channels, of S.
    Unless windows lie `inside` images, lines of x are copied with their padding. Columns past Kg mean nothing: vectors reach into
    what follows in g.
    """
    N, H, W, channels = x.shape
    L, flat, K = lanes(x), x.reshape(-1), groups * Kg
    Kp, width = (Kg + L - 1) // L * L, (OW - 1) * sw + (S - 1) * dw + 1
    blocks, steps, reach = (C + block - 1) // block, S * C // run if block == C else S, (R - 1) * dh + 1
    tasks, workers = parts * groups * blocks, panels.shape[0]
    for worker in prange(workers):
        number = np.int64(worker)
        lines, panel = all_lines[number], panels[number]
        for task in range(tasks * number // workers, tasks * (number + 1) // workers):
            p, group, c0 = task // (groups * blocks), task // blocks % groups, task % blocks * block
            count = min(block, C - c0)
            numbers = run if block == C else count
            yo = (p * groups + group) * R * S * C * Kp
            for t in range(R * S):
                start = yo + (t * C + c0) * Kp
                partial[start : start + count * Kp] = 0
            row, end = N * OH * p // parts, N * OH * (p + 1) // parts
            while row < end:
                n, top = row // OH, row % OH
                height = min(OH - top, chunk, end - row)
                source, pixel, line = flat, channels, W * channels
                xo = ((n * H + top * sh) * W) * channels + group * C + c0
                if not inside:
                    source, pixel, line, xo = lines, count, width * count, 0
                    copy_channels(x, n, top * sh - ph, -pw, (height - 1) * sh + reach, width, group * C + c0, count, lines)
                for k in range(0, Kp, VECS * L):
                    size, to = min(VECS * L, Kp - k), yo + c0 * Kp + k
                    source_g, go, g_pixel = g, row * OW * K + group * Kg + k, K
                    if go + (height * OW - 1) * K + size > g.shape[0]:  # the last vectors reach past the end
                        _panel(g, go, K, height * OW, Kg - k, size, panel)
                        source_g, go, g_pixel = panel, 0, size
                    if size > L:
                        _taps_wide(R, dh * line, S * C * Kp, steps, dw * pixel, C * Kp, numbers, tile_wide, source, xo, sh * line,
                                   sw * pixel, source_g, go, OW * g_pixel, g_pixel, height, OW, partial, to, Kp)
                    else:
                        _taps_narrow(R, dh * line, S * C * Kp, steps, dw * pixel, C * Kp, numbers, tile_narrow, source, xo, sh * line,
                                     sw * pixel, source_g, go, OW * g_pixel, g_pixel, height, OW, partial, to, Kp)
                row += height


# -- blocks of windows ---------------------------------------------------------------------------------------------------


_block_wide, _block_narrow = outer_of(CHANNELS, VECS), outer_of(CHANNELS, 1)


@kernel
def _window_sums(x, g, runs, C, T, K, groups, OH, OW, sy, sx, parts, partial, all_windows, panels):
    """partial, flat (parts, groups, T, K) with T rounded up to tiles, K to vectors: part p sums the p-th share of the pixels."""
    L = lanes(x)
    pixels, blocks, width = x.shape[0] * OH * OW, (T + DEPTH - 1) // DEPTH, VECS * L
    Tp, Kp = (T + CHANNELS - 1) // CHANNELS * CHANNELS, (K + L - 1) // L * L
    tasks, workers = parts * groups * blocks, panels.shape[0]
    for worker in prange(workers):
        i = np.int64(worker)
        windows, panel = all_windows[i], panels[i]
        for task in range(tasks * i // workers, tasks * (i + 1) // workers):
            part, group, t0 = task // (groups * blocks), task // blocks % groups, task % blocks * DEPTH
            t1 = min(T, t0 + DEPTH)
            depth = (t1 - t0 + CHANNELS - 1) // CHANNELS * CHANNELS
            yo = ((part * groups + group) * Tp + t0) * Kp
            partial[yo : yo + depth * Kp] = 0
            end = pixels * (part + 1) // parts
            for first in range(pixels * part // parts, end, CHUNK):
                count = min(CHUNK, end - first)
                gather(x, group * C, C, runs, t0, t1, sy, sx, OH, OW, first, count, windows)
                for k in range(0, Kp, width):
                    size = min(width, Kp - k)
                    _panel(g, (first * groups + group) * K + k, groups * K, count, K - k, size, panel)
                    for t in range(0, depth, CHANNELS):
                        if size == width:
                            _block_wide(windows, t, 0, PITCH, panel, 0, 0, width, 1, count, partial, yo + t * Kp + k, Kp)
                        else:
                            _block_narrow(windows, t, 0, PITCH, panel, 0, 0, L, 1, count, partial, yo + t * Kp + k, Kp)


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
    merged = groups == 1 and dw == 1 and C < NINE
    block = C if merged else min(C, BLOCK)
    run = S * C if merged else block
    inside = ph == pw == 0 and (OH - 1) * sh + (R - 1) * dh < x.shape[1] and (OW - 1) * sw + (S - 1) * dw < x.shape[2]
    parts = min(PARTIALS, N * OH, -(-4 * MIN_TASKS // (groups * -(-C // block))))
    chunk = min(OH, max(1, CHUNK_BYTES // (OW * min(K, VECS * L) * x.itemsize)))
    lines = 0 if inside else ((chunk - 1) * sh + (R - 1) * dh + 1) * ((OW - 1) * sw + (S - 1) * dw + 1) * block
    work = N * OH * OW * T * groups * Kp / MULTIPLY_ADDS_PER_NS
    workers = MAX_THREADS if is_parallel(work) else 1
    if lines > LINES or _copies_pay(R, S, C, Kg, L, groups):
        parts = min(PARTIALS, -(-N * OH * OW // CHUNK), -(-MIN_TASKS // (groups * -(-T // DEPTH))))
        partial = memory.empty((parts, groups, -(-T // CHANNELS) * CHANNELS, Kp), x.dtype)
        taps = all_taps((R, S), padding, dilation)
        windows, panels = memory.empty((workers, CHUNK * PITCH), x.dtype), memory.empty((workers, CHUNK * VECS * L), x.dtype)
        _window_sums(x, g.reshape(-1), runs_of(taps.dy, taps.dx, C, groups == 1), C, T, Kg, groups, OH, OW, sh, sw, parts,
                     partial.reshape(-1), windows, panels, work=work)
        return partial
    partial = memory.empty((parts, groups, T, Kp), x.dtype)
    _image_sums(x, g.reshape(-1), R, S, C, run, _tile_for(run, NINE), _tile_for(run, FIVE), Kg, groups, OH, OW, sh, sw, ph, pw, dh,
                dw, inside, block, chunk, parts, partial.reshape(-1), memory.empty((workers, lines), x.dtype),
                memory.empty((workers, chunk * OW * VECS * L), x.dtype), work=work)
    return partial
