"""Pooling of channels-last images, and the gather and scatter by which max pooling is differentiated.

Windows are given by one table for rows and one for columns; fixed and adaptive windows differ in tables only. Taps are
those inside the image, whatever size and padding a window has. Max pooling notes the place of each maximum as its tap: r * S + s
for row r and column s, counted from the first tap inside, in one byte where the number of taps allows it.

Inner loops index with unsigned integers: those need no check for negative indices, which would keep LLVM from
vectorising.
"""

import functools
from typing import NamedTuple

import numpy as np
from numba import prange

from .jit import inline, kernel, pair

TAPS_PER_NS = 4  # elements of windows read per nanosecond by one thread, roughly
BYTE_TAPS = 256  # of the largest window whose taps fit one byte
ROWS_PER_TASK = 8  # output rows that share one scratch row
# Entering a loop costs as much as 64 elements of it, so windows are reduced for a whole row of pixels at once, those
# between windows too, as long as that wastes no more elements than this per window.
WASTE = 64
CHAIN = 32  # values added one after the other, at least, before their sum is added to others: errors grow with the length of chains
# Tasks of the scatter: images if there are many, else whole cache lines of channels, so that threads do not share them.
MANY_IMAGES, CHANNELS_PER_TASK = 8, 32


# -- windows -----------------------------------------------------------------------------------------------------------


class Axis(NamedTuple):
    """The windows of one axis.

    Attributes:
        windows: (outputs, 2) int64: the row of a window's first tap inside the image, and how many taps are.
        taps: of the longest window.
        dilation: rows between taps.
        step: rows between windows, 0 if that varies.
        whole: the range of windows all of whose taps lie in the image; they follow one another.
    """

    windows: np.ndarray
    taps: int
    dilation: int
    step: int
    whole: tuple[int, int]


def fixed(size, outputs, kernel_size, stride, padding, dilation):
    """Windows of equal size at equal distances; one that misses the image has no taps."""
    first = np.arange(outputs, dtype=np.int64) * stride - padding
    begin = -(np.minimum(first, 0) // dilation)  # the first tap at or past row 0
    count = np.maximum(np.minimum(-((first - size) // dilation), kernel_size) - begin, 0)
    whole = np.flatnonzero(count == kernel_size)
    return _axis(first + begin * dilation, count, dilation, stride, (int(whole[0]), int(whole[-1]) + 1) if len(whole) else (0, 0))


def adaptive(size, outputs):
    """Windows [floor(i * size / outputs), ceil((i + 1) * size / outputs))."""
    i = np.arange(outputs, dtype=np.int64)
    first = i * size // outputs
    return _axis(first, -(-(i + 1) * size // outputs) - first, 1, 0, (0, 0))


def _axis(first, count, dilation, step, whole):
    return Axis(np.stack([first, count], axis=1), max(1, int(count.max())), dilation, step, whole)


@functools.lru_cache(maxsize=256)
def axes(size, outputs, windows):
    """The windows of rows and of columns.

    Args:
        size, outputs: (rows, columns) of the image and of what is pooled from it.
        windows: (kernel, stride, padding, dilation), pairs of integers; None for adaptive windows.
    """
    if windows is None:
        return tuple(adaptive(size[a], outputs[a]) for a in (0, 1))
    return tuple(fixed(size[a], outputs[a], *(pair(of)[a] for of in windows)) for a in (0, 1))


def tap_dtype(size, outputs, windows):
    """The integer type that holds every tap."""
    rows, columns = axes(size, outputs, windows)
    taps = rows.taps * columns.taps
    return np.dtype(np.uint8 if taps <= BYTE_TAPS else np.int32 if taps <= 1 << 31 else np.int64)


def plane_indices(taps, size, windows):
    """h * W + w of the pixels at the taps (N, OH, OW, C); that of any pixel for a window that misses the image."""
    rows, columns = axes(size, taps.shape[1:3], windows)
    r, s = np.divmod(taps.astype(np.int64), columns.taps)
    h = rows.windows[:, 0].reshape(-1, 1, 1) + r * rows.dilation
    w = columns.windows[:, 0].reshape(-1, 1) + s * columns.dilation
    return np.clip(h, 0, size[0] - 1) * size[1] + np.clip(w, 0, size[1] - 1)


def _work(out, rows, columns):
    """Nanoseconds to read all windows."""
    return out.size * rows.taps * columns.taps / TAPS_PER_NS


def _at_once(columns, channels):
    """The range of windows to reduce for a whole row of pixels at once, maybe empty."""
    return columns.whole if (columns.step - 1) * channels <= WASTE else (0, 0)


# -- max ---------------------------------------------------------------------------------------------------------------


@inline
def _scan(x, p, row, column, S, row_step, column_step, best, where, count):
    """Maxima over one window's row[1] x column[1] taps, for `count` elements from p on."""
    begin = np.uint64(p)
    for c in range(np.uint64(count)):
        best[c] = x[begin + c]
        where[c] = 0
    for r in range(row[1]):
        for s in range(column[1]):
            at, tap = np.uint64(p + r * row_step + s * column_step), where.dtype.type(r * S + s)
            for c in range(np.uint64(count)):
                value, top, before = x[at + c], best[c], where[c]
                larger = (value > top) | (value != value)
                best[c] = value if larger else top
                where[c] = tap if larger else before


@inline
def _thin_out(x, chosen, C, step, best, where, o, pixels):
    """best[o : o + pixels * C] = every step-th pixel of x, and `where` of `chosen`."""
    o, C, p = np.uint64(o), np.uint64(C), np.uint64(0)
    for _ in range(pixels):
        for c in range(C):
            best[o + c] = x[p + c]
            where[o + c] = chosen[p + c]
        o += C
        p += np.uint64(step) * C


@kernel
def _max_pool(x, rows, columns, dh, dw, S, step, first, last, out, taps):
    """Windows first <= j < last, `step` columns apart, are found a row of pixels at once."""
    N, H, W, C = x.shape
    OH, OW = out.shape[1:3]
    flat, best, where = x.reshape(-1), out.reshape(-1), taps.reshape(-1)
    width = max(1, (last - first - 1) * step + 1) * C
    for task in prange((N * OH + ROWS_PER_TASK - 1) // ROWS_PER_TASK):
        index = np.int64(task) * ROWS_PER_TASK
        line, chosen = np.empty(width, x.dtype), np.empty(width, taps.dtype)
        for o in range(index, min(index + ROWS_PER_TASK, N * OH)):
            row = rows[o % OH]
            j = 0
            while j < OW:
                column = columns[j]
                windows = last - first if first <= j < last else 1
                p = ((o // OH * H + row[0]) * W + column[0]) * C
                count = ((windows - 1) * step + 1) * C
                if row[1] > 0 and column[1] > 0:
                    _scan(flat, p, row, column, S, dh * W * C, dw * C, line, chosen, count)
                else:
                    for c in range(count):
                        line[c], chosen[c] = -np.inf, 0
                _thin_out(line, chosen, C, step, best, where, (o * OW + j) * C, windows)
                j += windows


def max_pool2d(x, windows, out, taps):
    """Largest value of each window; padding is never chosen, the first of equals is, and NaN wins (the last of several).

    Args:
        x: (N, H, W, C).
        windows: (kernel, stride, padding, dilation), pairs of integers (rows, columns). They may hang over the image's
            end, and miss a small image if dilated: then the maximum is -inf. None for adaptive windows.
        out: (N, OH, OW, C), overwritten.
        taps: (N, OH, OW, C) of `tap_dtype`, overwritten: which element of the window was chosen.
    """
    rows, columns = axes(x.shape[1:3], out.shape[1:3], windows)
    first, last = _at_once(columns, x.shape[3])
    _max_pool(x, rows.windows, columns.windows, rows.dilation, columns.dilation, columns.taps, columns.step, first, last,
              out, taps, work=_work(out, rows, columns))


@kernel
def _gather(x, taps, rows, columns, dh, dw, S, out):
    H, W, C = x.shape[1:]
    OH, OW = out.shape[1:3]
    flat, where, target = x.reshape(-1), taps.reshape(-1), out.reshape(-1)
    for task in prange(x.shape[0] * OH):
        o = np.int64(task)
        row = rows[o % OH]
        for j in range(OW):
            empty = row[1] == 0 or columns[j, 1] == 0
            p = ((o // OH * H + row[0]) * W + columns[j, 0]) * C
            for c in range((o * OW + j) * C, (o * OW + j + 1) * C):
                tap = np.int64(where[c])
                target[c] = 0 if empty else flat[p + (tap // S * dh * W + tap % S * dw) * C]
                p += 1


def gather_taps(x, taps, windows, out):
    """out = x at the taps of each window, as `max_pool2d` gives them; 0 where a window misses the image.

    Args:
        x: (N, H, W, C).
        taps: (N, OH, OW, C).
        windows: as in `max_pool2d`.
        out: (N, OH, OW, C), overwritten.
    """
    rows, columns = axes(x.shape[1:3], out.shape[1:3], windows)
    _gather(x, taps, rows.windows, columns.windows, rows.dilation, columns.dilation, columns.taps, out,
            work=4 * out.size / TAPS_PER_NS)


@kernel
def _scatter(g, taps, rows, columns, dh, dw, R, S, slice_size, out):
    N, H, W, C = out.shape
    OH, OW = g.shape[1:3]
    source, where, target = g.reshape(-1), taps.reshape(-1), out.reshape(-1)
    slices = (C + slice_size - 1) // slice_size
    for task in prange(N * slices):
        n, first = np.int64(task) // slices, np.int64(task) % slices * slice_size
        count = np.uint64(min(slice_size, C - first))
        jumps = np.empty(R * S, np.uint64)
        for tap in range(R * S):
            jumps[tap] = (tap // S * dh * W + tap % S * dw) * C
        for pixel in range(H * W):
            p = np.uint64((n * H * W + pixel) * C + first)
            for c in range(count):
                target[p + c] = 0
        for i in range(OH):
            for j in range(OW):
                if rows[i, 1] > 0 and columns[j, 1] > 0:
                    p = np.uint64(((n * H + rows[i, 0]) * W + columns[j, 0]) * C + first)
                    q = np.uint64(((n * OH + i) * OW + j) * C + first)
                    for c in range(count):
                        target[p + jumps[np.uint64(where[q + c])] + c] += source[q + c]


def scatter_taps(g, taps, windows, out):
    """Adjoint of `gather_taps`: every pixel's sum of g over the windows that chose it, in the order of the windows.

    Args:
        g: (N, OH, OW, C).
        taps: (N, OH, OW, C).
        windows: as in `max_pool2d`.
        out: (N, H, W, C), overwritten.
    """
    rows, columns = axes(out.shape[1:3], g.shape[1:3], windows)
    slice_size = out.shape[3] if out.shape[0] >= MANY_IMAGES else CHANNELS_PER_TASK
    _scatter(g, taps, rows.windows, columns.windows, rows.dilation, columns.dilation, rows.taps, columns.taps, slice_size,
             out, work=out.size / TAPS_PER_NS + 2 * g.size)


# -- average -----------------------------------------------------------------------------------------------------------


@kernel
def _average(x, rows, columns, step, first, last, scale, out):
    """Windows first <= j < last, `step` columns apart, are summed a row of pixels at once."""
    N, H, W, C = x.shape
    OH, OW = out.shape[1:3]
    flat, target = x.reshape(-1), out.reshape(-1)
    width = max(1, (last - first - 1) * step + 1) * C
    for task in prange((N * OH + ROWS_PER_TASK - 1) // ROWS_PER_TASK):
        index = np.int64(task) * ROWS_PER_TASK
        line, chains = np.empty(width, x.dtype), np.empty(width, x.dtype)
        for o in range(index, min(index + ROWS_PER_TASK, N * OH)):
            i, j = o % OH, 0
            while j < OW:
                windows = last - first if first <= j < last else 1
                count = np.uint64(((windows - 1) * step + 1) * C)
                for c in range(count):
                    line[c] = 0
                added, several = 0, False
                for r in range(rows[i, 1]):
                    for s in range(columns[j, 1]):
                        at = np.uint64(((o // OH * H + rows[i, 0] + r) * W + columns[j, 0] + s) * C)
                        for c in range(count):
                            line[c] += flat[at + c]
                        added += 1
                    if added >= CHAIN:
                        for c in range(count):
                            chains[c] = line[c] + chains[c] if several else line[c]
                            line[c] = 0
                        added, several = 0, True
                if several:
                    for c in range(count):
                        line[c] += chains[c]
                p, to = np.uint64(0), np.uint64((o * OW + j) * C)
                for k in range(j, j + windows):
                    for c in range(np.uint64(C)):
                        target[to + c] = line[p + c] * scale[i, k]
                    p += np.uint64(step * C)
                    to += np.uint64(C)
                j += windows


@kernel
def _average_adjoint(g, rows, columns, scale, out):
    """rows and columns are ranges of windows here: those that contain a pixel."""
    N, H, W, C = out.shape
    OH, OW = g.shape[1:3]
    flat, target = g.reshape(-1), out.reshape(-1)
    for task in prange(N * H):
        index = np.int64(task)
        n, h = index // H, index % H
        for p in range(np.uint64(index * W * C), np.uint64((index + 1) * W * C)):
            target[p] = 0
        for i in range(rows[h, 0], rows[h, 1]):
            for w in range(W):
                p = np.uint64((index * W + w) * C)
                for j in range(columns[w, 0], columns[w, 1]):
                    q, factor = np.uint64(((n * OH + i) * OW + j) * C), scale[i, j]
                    for c in range(np.uint64(C)):
                        target[p + c] += flat[q + c] * factor


def _covering(axis, size):
    """For each row of the image the range of windows that contain it, (size, 2); windows' ends never decrease."""
    h = np.arange(size)
    first = np.searchsorted(axis.windows.sum(axis=1), h, side="right")  # skip windows that end at or before h
    last = np.searchsorted(axis.windows[:, 0], h, side="right")  # keep windows that begin at or before h
    return np.ascontiguousarray(np.stack([first, np.maximum(first, last)], axis=1).astype(np.int64))


@functools.lru_cache(maxsize=256)
def _covering_axes(size, outputs, windows):
    return tuple(_covering(axis, n) for axis, n in zip(_average_axes(size, outputs, windows), size, strict=True))


def _extent(size, outputs, kernel_size, stride, padding):
    """Rows of each window that count where padding counts: windows end with the padding, as PyTorch has it. Floats do not overflow."""
    first = np.arange(outputs, dtype=np.int64) * stride - padding
    return (np.minimum(first + kernel_size, size + padding) - first).astype(np.float64)


@functools.lru_cache(maxsize=256)
def _scale(size, outputs, windows, count_include_pad, divisor, dtype):
    """One over each window's divisor, (OH, OW)."""
    if divisor:
        counts = np.full(outputs, divisor)
    elif windows is not None and count_include_pad:
        counts = np.outer(*(_extent(size[a], outputs[a], *(of[a] for of in windows)) for a in (0, 1)))
    else:
        counts = np.outer(*(axis.windows[:, 1] for axis in _average_axes(size, outputs, windows)))
    return (1 / np.where(counts == 0, 1, counts)).astype(dtype)


def _average_axes(size, outputs, windows):
    return axes(size, outputs, None if windows is None else (*windows, (1, 1)))


def avg_pool2d(x, windows, count_include_pad, divisor, out):
    """Mean of each window, PyTorch's counts.

    Args:
        x: (N, H, W, C).
        windows: (kernel, stride, padding), pairs of integers (rows, columns); None for adaptive windows.
        count_include_pad: whether padding counts as zeros; what hangs over the padding never counts.
        divisor: divides every sum instead of the count; 0 for none.
        out: (N, OH, OW, C), overwritten.
    """
    size, outputs = x.shape[1:3], out.shape[1:3]
    rows, columns = _average_axes(size, outputs, windows)
    _average(x, rows.windows, columns.windows, columns.step, *_at_once(columns, x.shape[3]),
             _scale(size, outputs, windows, count_include_pad, divisor, x.dtype), out, work=_work(out, rows, columns))


def avg_pool2d_adjoint(g, windows, count_include_pad, divisor, out):
    """Adjoint of `avg_pool2d`: g (N, OH, OW, C), out (N, H, W, C), overwritten."""
    size, outputs = out.shape[1:3], g.shape[1:3]
    rows, columns = _average_axes(size, outputs, windows)
    _average_adjoint(g, *_covering_axes(size, outputs, windows),
                     _scale(size, outputs, windows, count_include_pad, divisor, g.dtype), out, work=_work(g, rows, columns))
