"""Pooling of channels-last images, and the gather and scatter by which max pooling is differentiated.

Every kind of pooling is one loop nest over windows given by tables: rows[i] are the first row, and one past the last,
of the windows of output row i, clipped to the image; columns likewise. Fixed and adaptive windows differ in tables.
"""

import numpy as np
from numba import prange

from .jit import kernel, pair

TAPS_PER_NS = 1  # elements of windows read per nanosecond by one thread, roughly
CHANNELS_PER_TASK = 32  # of the scatter: whole cache lines, so that threads do not share them


# -- windows -----------------------------------------------------------------------------------------------------------


def _fixed(size, outputs, kernel_size, stride, padding, dilation):
    """First row inside the image and one past the last, (outputs, 2); a window that misses the image is empty."""
    first = np.arange(outputs, dtype=np.int64) * stride - padding
    last = np.minimum(first + (kernel_size - 1) * dilation + 1, size)
    first = np.where(first < 0, first + -(first // dilation) * dilation, first)  # the first tap at or past row 0
    return np.ascontiguousarray(np.stack([first, np.maximum(first, last)], axis=1))


def _adaptive(size, outputs):
    """Windows [floor(i * size / outputs), ceil((i + 1) * size / outputs)), (outputs, 2)."""
    i = np.arange(outputs, dtype=np.int64)
    return np.ascontiguousarray(np.stack([i * size // outputs, -(-(i + 1) * size // outputs)], axis=1))


def _covering(windows, size):
    """For each row of the image the range of windows that contain it, (size, 2); windows' ends never decrease."""
    h = np.arange(size, dtype=np.int64)
    first = np.searchsorted(windows[:, 1], h, side="right")  # skip windows that end at or before h
    last = np.searchsorted(windows[:, 0], h, side="right")  # keep windows that begin at or before h
    return np.ascontiguousarray(np.stack([first, np.maximum(first, last)], axis=1).astype(np.int64))


def _work(out, rows, columns):
    """Elements read over all windows, at TAPS_PER_NS."""
    taps = int((rows[:, 1] - rows[:, 0]).sum()) * int((columns[:, 1] - columns[:, 0]).sum())
    return out.shape[0] * out.shape[3] * taps / TAPS_PER_NS


# -- max ---------------------------------------------------------------------------------------------------------------


@kernel
def _max_pool(x, rows, columns, dh, dw, out, indices):
    _, H, W, C = x.shape
    N, OH, OW, _ = out.shape
    for task in prange(N * OH):
        index = np.int64(task)
        n, i = index // OH, index % OH
        for j in range(OW):
            best, where = out[n, i, j], indices[n, i, j]
            best[:] = -np.inf
            where[:] = min(rows[i, 0], H - 1) * W + min(columns[j, 0], W - 1)
            for h in range(rows[i, 0], rows[i, 1], dh):
                for w in range(columns[j, 0], columns[j, 1], dw):
                    pixel = x[n, h, w]
                    position = h * W + w
                    for c in range(C):
                        value = pixel[c]
                        larger = value > best[c] or np.isnan(value)
                        best[c] = value if larger else best[c]
                        where[c] = position if larger else where[c]


def max_pool2d(x, kernel, stride, padding, dilation, out, indices):
    """Largest value of each window; padding is never chosen, the first of equals is, and NaN wins.

    Args:
        x: (N, H, W, C).
        kernel, stride, padding, dilation: pairs of integers (rows, columns).
        out: (N, OH, OW, C), overwritten. A window may hang over the image's end.
        indices: (N, OH, OW, C) int64, overwritten: h * W + w of the value chosen.
    """
    (R, S), (sh, sw), (ph, pw), (dh, dw) = pair(kernel), pair(stride), pair(padding), pair(dilation)
    rows = _fixed(x.shape[1], out.shape[1], R, sh, ph, dh)
    columns = _fixed(x.shape[2], out.shape[2], S, sw, pw, dw)
    _max_pool(x, rows, columns, dh, dw, out, indices, work=_work(out, rows, columns))


def adaptive_max_pool2d(x, out, indices):
    """`max_pool2d` over windows [floor(i * H / OH), ceil((i + 1) * H / OH)) of rows, and of columns likewise.

    Args:
        x: (N, H, W, C).
        out: (N, OH, OW, C), overwritten.
        indices: (N, OH, OW, C) int64, overwritten: h * W + w of the value chosen.
    """
    rows, columns = _adaptive(x.shape[1], out.shape[1]), _adaptive(x.shape[2], out.shape[2])
    _max_pool(x, rows, columns, 1, 1, out, indices, work=_work(out, rows, columns))


@kernel
def _gather(x, indices, out):
    W = x.shape[2]
    N, OH, OW, C = out.shape
    for task in prange(N * OH):
        index = np.int64(task)
        n, i = index // OH, index % OH
        for j in range(OW):
            for c in range(C):
                position = indices[n, i, j, c]
                out[n, i, j, c] = x[n, position // W, position % W, c]


def gather_plane(x, indices, out):
    """out[n, i, j, c] = x[n, indices[n, i, j, c] // W, indices[n, i, j, c] % W, c].

    Args:
        x: (N, H, W, C).
        indices: (N, OH, OW, C) int64 in [0, H * W).
        out: (N, OH, OW, C), overwritten.
    """
    _gather(x, indices, out, work=out.size / TAPS_PER_NS)


@kernel
def _scatter(g, indices, slice_size, out):
    N, P, C = g.shape
    pixels = out.shape[1]
    slices = (C + slice_size - 1) // slice_size
    flat, flat_g, flat_indices = out.reshape(-1), g.reshape(-1), indices.reshape(-1)
    for task in prange(N * slices):
        index = np.int64(task)
        n, first = index // slices, index % slices * slice_size
        count = min(slice_size, C - first)
        start = n * pixels * C + first
        for p in range(pixels):
            for c in range(count):
                flat[start + p * C + c] = 0
        for p in range(P):
            at = (n * P + p) * C + first
            for c in range(count):
                flat[start + flat_indices[at + c] * C + c] += flat_g[at + c]


def scatter_plane(g, indices, out):
    """Adjoint of `gather_plane`: out[n, indices // W, indices % W, c] += g[n, i, j, c], from zero, in order of (i, j).

    Args:
        g: (N, OH, OW, C).
        indices: (N, OH, OW, C) int64 in [0, H * W).
        out: (N, H, W, C), overwritten.
    """
    N, H, W, C = out.shape
    planes = g.shape[1] * g.shape[2]
    _scatter(g.reshape(N, planes, C), indices.reshape(N, planes, C), CHANNELS_PER_TASK, out.reshape(N, H * W, C),
             work=(g.size + out.size) / TAPS_PER_NS)


# -- average -----------------------------------------------------------------------------------------------------------


@kernel
def _average(x, rows, columns, scale, out):
    N, OH, OW, C = out.shape
    for task in prange(N * OH):
        index = np.int64(task)
        n, i = index // OH, index % OH
        for j in range(OW):
            total = out[n, i, j]
            total[:] = 0
            for h in range(rows[i, 0], rows[i, 1]):
                for w in range(columns[j, 0], columns[j, 1]):
                    pixel = x[n, h, w]
                    for c in range(C):
                        total[c] += pixel[c]
            for c in range(C):
                total[c] *= scale[i, j]


@kernel
def _average_adjoint(g, rows, columns, scale, out):
    """rows and columns are ranges of windows here: those that contain a pixel."""
    N, H, W, C = out.shape
    for task in prange(N * H):
        index = np.int64(task)
        n, h = index // H, index % H
        for w in range(W):
            total = out[n, h, w]
            total[:] = 0
            for i in range(rows[h, 0], rows[h, 1]):
                for j in range(columns[w, 0], columns[w, 1]):
                    pixel = g[n, i, j]
                    for c in range(C):
                        total[c] += pixel[c] * scale[i, j]


def _extent(size, outputs, kernel_size, stride, padding):
    """Rows of each window that count where padding counts: windows end with the padding, as PyTorch has it."""
    first = np.arange(outputs, dtype=np.int64) * stride - padding
    return np.minimum(first + kernel_size, size + padding) - first


def _average_windows(size, outputs, kernel, stride, padding, count_include_pad, divisor, dtype):
    """Window tables of rows and columns, and one over each window's divisor, (OH, OW)."""
    fixed = [(size[a], outputs[a], kernel[a], stride[a], padding[a]) for a in (0, 1)]
    rows, columns = (_fixed(*axis, 1) for axis in fixed)
    if divisor:
        counts = np.full(outputs, divisor)
    elif count_include_pad:
        counts = np.outer(*(_extent(*axis) for axis in fixed))
    else:
        counts = np.outer(rows[:, 1] - rows[:, 0], columns[:, 1] - columns[:, 0])
    return rows, columns, (1 / np.where(counts == 0, 1, counts)).astype(dtype)


def _run_average(x, rows, columns, scale, out):
    _average(x, rows, columns, scale, out, work=_work(out, rows, columns))


def _run_average_adjoint(g, rows, columns, scale, out):
    _average_adjoint(g, _covering(rows, out.shape[1]), _covering(columns, out.shape[2]), scale, out,
                     work=_work(g, rows, columns))


def avg_pool2d(x, kernel, stride, padding, count_include_pad, divisor, out):
    """Mean of each window, PyTorch's counts.

    Args:
        x: (N, H, W, C).
        kernel, stride, padding: pairs of integers (rows, columns).
        count_include_pad: whether padding counts as zeros; what hangs over the padding never counts.
        divisor: divides every sum instead of the count; 0 for none.
        out: (N, OH, OW, C), overwritten.
    """
    windows = _average_windows(x.shape[1:3], out.shape[1:3], pair(kernel), pair(stride), pair(padding),
                               count_include_pad, divisor, x.dtype)
    _run_average(x, *windows, out)


def avg_pool2d_adjoint(g, kernel, stride, padding, count_include_pad, divisor, out):
    """Adjoint of `avg_pool2d`: g (N, OH, OW, C), out (N, H, W, C), overwritten."""
    windows = _average_windows(out.shape[1:3], g.shape[1:3], pair(kernel), pair(stride), pair(padding),
                               count_include_pad, divisor, g.dtype)
    _run_average_adjoint(g, *windows, out)


def _adaptive_windows(size, outputs, dtype):
    rows, columns = _adaptive(size[0], outputs[0]), _adaptive(size[1], outputs[1])
    return rows, columns, (1 / np.outer(rows[:, 1] - rows[:, 0], columns[:, 1] - columns[:, 0])).astype(dtype)


def adaptive_avg_pool2d(x, out):
    """Mean over windows [floor(i * H / OH), ceil((i + 1) * H / OH)) of rows, and of columns likewise.

    Args:
        x: (N, H, W, C).
        out: (N, OH, OW, C), overwritten.
    """
    _run_average(x, *_adaptive_windows(x.shape[1:3], out.shape[1:3], x.dtype), out)


def adaptive_avg_pool2d_adjoint(g, out):
    """Adjoint of `adaptive_avg_pool2d`: g (N, OH, OW, C), out (N, H, W, C), overwritten."""
    _run_average_adjoint(g, *_adaptive_windows(out.shape[1:3], g.shape[1:3], g.dtype), out)
