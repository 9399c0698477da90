"""Channel statistics and normalisation of channels-last matrices (M, C), M = images x pixels.

Sums run in float64 over fixed blocks of rows, added in order: the same bits on any number of threads. Gradients add four rows
in their own precision first.
"""

import numpy as np
from numba import prange

from .. import memory
from .jit import MAX_THREADS, inline, kernel

BLOCK_ELEMENTS = 1 << 14  # of one block of rows: its sums stay in the first-level cache
WIDE = 128  # columns that fill vector registers well
ELEMENTS_PER_NS = 1  # of one thread, roughly


def _block_rows(x):
    return max(1, BLOCK_ELEMENTS // x.shape[1])


def _block_count(x):
    return -(-x.shape[0] // _block_rows(x))


def _silence():
    """Inf and NaN pass through sums of blocks without NumPy's warnings, as they do through kernels."""
    return np.errstate(all="ignore")


def _joined(x):
    """x (M, C) -> (M / n, n C): a few channels leave most of a vector register empty."""
    M, C = x.shape
    n = next((n for n in (16, 8, 4, 2) if n * C <= WIDE and M % n == 0), 1)
    return x.reshape(M // n, n * C)


@kernel
def _sum_blocks(x, rows, sums):
    M, C = x.shape
    for block in prange(sums.shape[0]):
        b = np.int64(block)
        total = sums[b]
        total[:] = 0
        for i in range(b * rows, min(M, (b + 1) * rows)):
            for c in range(C):
                total[c] += x[i, c]


def channel_sum(x, out):
    """out (C,) = x (M, C) summed over rows."""
    C, x = x.shape[1], _joined(x)
    sums = np.empty((_block_count(x), x.shape[1]))
    _sum_blocks(x, _block_rows(x), sums, work=x.size / ELEMENTS_PER_NS)
    with _silence():
        out[...] = sums.reshape(-1, C).sum(axis=0)


@kernel
def _active_blocks(g, y, rows, sums):
    M, C = g.shape
    for block in prange(sums.shape[0]):
        b = np.int64(block)
        total = sums[b]
        total[:] = 0
        for i in range(b * rows, min(M, (b + 1) * rows)):
            for c in range(C):
                passed = 0 if y[i, c] <= 0 else g[i, c]
                g[i, c] = passed
                total[c] += passed


def relu_grad_sum(g, y, total):
    """g = 0 where y, what ReLU returned, is not above 0 (a NaN lets it stay); total (C,) = the new g summed over rows.

    Args:
        g: (M, C), changed in place: into other memory, which might overlap, LLVM would write element by element.
        y: (M, C), the same dtype.
        total: (C,), overwritten.
    """
    C, g, y = g.shape[1], _joined(g), _joined(y)
    sums = np.empty((_block_count(g), g.shape[1]))
    _active_blocks(g, y, _block_rows(g), sums, work=g.size / ELEMENTS_PER_NS)
    with _silence():
        total[...] = sums.reshape(-1, C).sum(axis=0)


@inline
def _moments(b, x, rows, pivots, means, squares):
    """One pass: sums of the deviations from the block's first row, and of their squares.

    A pivot that comes from the data cancels no more than len(block) * eps of the squares, however far the mean is from 0.
    """
    M, C = x.shape
    first, last = b * rows, min(M, (b + 1) * rows)
    pivot, mean, square = pivots[b], means[b], squares[b]
    mean[:] = 0
    square[:] = 0
    for c in range(C):
        pivot[c] = x[first, c]
    i = first
    while i + 4 <= last:                       # four rows at a time: the sums are read and written less often
        for c in range(C):
            p, q = x[i, c] - pivot[c], x[i + 1, c] - pivot[c]
            r, s = x[i + 2, c] - pivot[c], x[i + 3, c] - pivot[c]
            mean[c] += (p + q) + (r + s)
            square[c] += (p * p + q * q) + (r * r + s * s)
        i += 4
    while i < last:
        for c in range(C):
            p = x[i, c] - pivot[c]
            mean[c] += p
            square[c] += p * p
        i += 1
    for c in range(C):
        square[c] -= mean[c] * (mean[c] / (last - first))
        mean[c] = pivot[c] + mean[c] / (last - first)


@kernel
def _moment_blocks(x, rows, pivots, means, squares):
    for block in prange(means.shape[0]):
        _moments(np.int64(block), x, rows, pivots, means, squares)


def channel_mean_var(x, mean, var):
    """Mean and biased variance (divided by M) of each channel.

    Each block of rows takes one pass; then blocks are merged in order. A mean far above the deviation (1e4 +- 0.01 in
    float32) costs no accuracy.

    Args:
        x: (M, C); with M = 0 both results are NaN.
        mean, var: (C,), of the dtype of x or float64; overwritten.

    Source: Chan, Golub & LeVeque 1983, "Algorithms for Computing the Sample Variance", eqs. 1.7 and 2.1.
    """
    M, C = x.shape
    if M == 0:
        mean[...] = np.nan
        var[...] = np.nan
        return
    rows = _block_rows(x)
    pivots, means, squares = (np.empty((_block_count(x), C)) for _ in range(3))
    _moment_blocks(x, rows, pivots, means, squares, work=2 * x.size / ELEMENTS_PER_NS)
    counts = np.full(len(means), float(rows))
    counts[-1] = M - rows * (len(means) - 1)
    # Deviations are taken from the first block's mean, so that the weighted average does not round at the mean's size.
    with _silence():
        shift = means[0].copy()
        offset = (counts @ (means - shift)) / M
        square = squares.sum(axis=0) + counts @ (means - shift - offset) ** 2
        mean[...] = shift + offset
        var[...] = square / M


@inline
def _passed(g, x, scale, shift, bound):
    """g, or 0 where x * scale + shift <= bound: what ReLU lets back if bound is 0, everything if it is NaN."""
    return type(g)(0) if x * scale + shift <= bound else g


@inline
def _products(b, g, x, mean, scale, shift, bound, rows, four, sums, products):
    M, C = g.shape
    total, product, sum_four, product_four = sums[b], products[b], four[b, 0], four[b, 1]
    total[:] = 0
    product[:] = 0
    i, last = b * rows, min(M, (b + 1) * rows)
    while i + 4 <= last:                       # four rows at a time in x's precision: wide vectors, and fewer sums in float64
        for c in range(C):
            p = _passed(g[i, c], x[i, c], scale[c], shift[c], bound)
            q = _passed(g[i + 1, c], x[i + 1, c], scale[c], shift[c], bound)
            r = _passed(g[i + 2, c], x[i + 2, c], scale[c], shift[c], bound)
            s = _passed(g[i + 3, c], x[i + 3, c], scale[c], shift[c], bound)
            sum_four[c] = (p + q) + (r + s)
            product_four[c] = ((p * (x[i, c] - mean[c]) + q * (x[i + 1, c] - mean[c]))
                               + (r * (x[i + 2, c] - mean[c]) + s * (x[i + 3, c] - mean[c])))
        for c in range(C):
            total[c] += sum_four[c]
            product[c] += product_four[c]
        i += 4
    while i < last:
        for c in range(C):
            p = _passed(g[i, c], x[i, c], scale[c], shift[c], bound)
            total[c] += p
            product[c] += p * (x[i, c] - mean[c])
        i += 1


@kernel
def _product_blocks(g, x, mean, scale, shift, bound, rows, four, sums, products):
    for block in prange(sums.shape[0]):
        _products(np.int64(block), g, x, mean, scale, shift, bound, rows, four, sums, products)


def _bound(relu, x):
    return x.dtype.type(0 if relu else np.nan)


def channel_sums(g, x, mean, invstd, scale, shift, relu, sum_g, sum_gx):
    """Per channel, sum_g = sum of g and sum_gx = sum of g * xhat over rows, xhat = (x - mean) * invstd.

    These are batch normalisation's gradients in bias and weight.

    Args:
        g, x: (M, C).
        mean, invstd: (C,), of the dtype of x.
        scale, shift: (C,), of the dtype of x, as `normalize` had them.
        relu: whether g is taken as 0 where x * scale + shift <= 0.
        sum_g, sum_gx: (C,), of the dtype of x or float64; overwritten.
    """
    sums, products = (np.empty((_block_count(g), g.shape[1])) for _ in range(2))
    four = memory.empty((len(sums), 2, g.shape[1]), x.dtype)
    _product_blocks(g, x, mean, scale, shift, _bound(relu, x), _block_rows(g), four, sums, products,
                    work=2 * g.size / ELEMENTS_PER_NS)
    with _silence():
        sum_g[...] = sums.sum(axis=0)
        sum_gx[...] = products.sum(axis=0) * invstd


@kernel
def _normalize(x, scale, shift, lowest, rows, blocks, workers, out):
    M, C = x.shape
    for worker in prange(workers):             # last rows first: they are still in a thread's cache from the pass before
        w = np.int64(worker)
        for b in range(blocks * (w + 1) // workers - 1, blocks * w // workers - 1, -1):
            for i in range(b * rows, min(M, (b + 1) * rows)):
                for c in range(C):
                    y = x[i, c] * scale[c] + shift[c]
                    out[i, c] = lowest if y < lowest else y


def normalize(x, scale, shift, relu, out):
    """out = x * scale + shift, per channel; max of that and 0 if `relu`. NaN stays.

    Args:
        x: (M, C).
        scale, shift: (C,), of the dtype of x.
        relu: whether to end with ReLU.
        out: (M, C), overwritten.
    """
    lowest = x.dtype.type(0 if relu else -np.inf)
    _normalize(x, scale, shift, lowest, _block_rows(x), _block_count(x), MAX_THREADS, out, work=x.size / ELEMENTS_PER_NS)


@inline
def _input_grad(first, x, mean, a, b, d, scale, shift, bound, rows, g):
    M, C = x.shape
    for i in range(first, min(M, first + rows)):
        for c in range(C):
            passed = _passed(g[i, c], x[i, c], scale[c], shift[c], bound)
            g[i, c] = passed * a[c] - (x[i, c] - mean[c]) * b[c] - d[c]


@kernel
def _batch_norm_input_grad(x, mean, a, b, d, scale, shift, bound, rows, blocks, workers, g):
    for worker in prange(workers):             # last rows first: they are still in a thread's cache from the pass before
        w = np.int64(worker)
        for block in range(blocks * (w + 1) // workers - 1, blocks * w // workers - 1, -1):
            _input_grad(block * rows, x, mean, a, b, d, scale, shift, bound, rows, g)


def batch_norm_input_grad(x, mean, invstd, weight, scale, shift, relu, sum_g, sum_gx, g):
    """g = weight * invstd * (g - sum_g / M - xhat * sum_gx / M), xhat = (x - mean) * invstd.

    Args:
        x: (M, C).
        mean, invstd, weight: (C,).
        scale, shift, relu: as `channel_sums` had them.
        sum_g, sum_gx: (C,), as `channel_sums` gives them.
        g: (M, C), changed in place.

    Source: Ioffe & Szegedy 2015, "Batch Normalization", section 3, the three gradients in x collected.
    """
    M = x.shape[0]
    if M == 0:
        return
    with _silence():
        a = (weight * invstd).astype(x.dtype)
        b = (weight * invstd * invstd * sum_gx / M).astype(x.dtype)
        d = (weight * invstd * sum_g / M).astype(x.dtype)
    _batch_norm_input_grad(x, mean, a, b, d, scale, shift, _bound(relu, x), _block_rows(x), _block_count(x),
                           MAX_THREADS, g, work=2 * x.size / ELEMENTS_PER_NS)
