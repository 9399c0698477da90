"""Separable interpolation by tables: each output row (column) mixes two input rows (columns)."""

import numpy as np
from numba import prange

from .jit import kernel

ELEMENTS_PER_NS = 0.5  # of one thread, roughly


@kernel
def _resize(x, lo_h, hi_h, frac_h, lo_w, hi_w, frac_w, out):
    N, OH, OW, C = out.shape
    for task in prange(N * OH):
        index = np.int64(task)
        n, i = index // OH, index % OH
        upper, lower, v = x[n, lo_h[i]], x[n, hi_h[i]], frac_h[i]
        for j in range(OW):
            a, b, u = lo_w[j], hi_w[j], frac_w[j]
            # A weight of zero must not bring in its pixel: 0 * Inf is NaN.
            if u == 0 and v == 0:
                for c in range(C):
                    out[n, i, j, c] = upper[a, c]
            elif u == 0:
                for c in range(C):
                    out[n, i, j, c] = upper[a, c] * (1 - v) + lower[a, c] * v
            elif v == 0:
                for c in range(C):
                    out[n, i, j, c] = upper[a, c] * (1 - u) + upper[b, c] * u
            else:
                for c in range(C):
                    top = upper[a, c] * (1 - u) + upper[b, c] * u
                    out[n, i, j, c] = top * (1 - v) + (lower[a, c] * (1 - u) + lower[b, c] * u) * v


def resize(x, lo_h, hi_h, frac_h, lo_w, hi_w, frac_w, out):
    """Bilinear interpolation; nearest is the same with every frac 0.

    out[n, i, j] = (1 - v) * ((1 - u) * x[n, lo_h, lo_w] + u * x[n, lo_h, hi_w])
                 + v * ((1 - u) * x[n, hi_h, lo_w] + u * x[n, hi_h, hi_w]),  v = frac_h[i], u = frac_w[j];
    a pixel whose weight is 0 is left out, so that its NaN or Inf stays out.

    Args:
        x: (N, H, W, C).
        lo_h, hi_h: (OH,) int64 in [0, H).
        frac_h: (OH,), weight of hi_h in [0, 1].
        lo_w, hi_w, frac_w: (OW,), the same for columns.
        out: (N, OH, OW, C), overwritten.
    """
    _resize(x, lo_h, hi_h, frac_h.astype(x.dtype), lo_w, hi_w, frac_w.astype(x.dtype), out,
            work=out.size / ELEMENTS_PER_NS)


def _transpose(lo, hi, frac, size, dtype):
    """The table's matrix by columns: for each input, from starts[h] to starts[h + 1], outputs and their weights."""
    outputs = np.tile(np.arange(len(lo), dtype=np.int64), 2)
    inputs = np.concatenate([lo, hi])
    weights = np.concatenate([1 - frac, frac]).astype(dtype)
    used = np.flatnonzero(weights)
    order = used[np.lexsort((outputs[used], inputs[used]))]
    starts = np.searchsorted(inputs[order], np.arange(size + 1)).astype(np.int64)
    return starts, outputs[order], weights[order]


@kernel
def _resize_adjoint(g, start_h, output_h, weight_h, start_w, output_w, weight_w, out):
    N, H, W, C = out.shape
    for task in prange(N * H):
        index = np.int64(task)
        n, h = index // H, index % H
        for w in range(W):
            total = out[n, h, w]
            total[:] = 0
            for a in range(start_h[h], start_h[h + 1]):
                for b in range(start_w[w], start_w[w + 1]):
                    weight = weight_h[a] * weight_w[b]
                    pixel = g[n, output_h[a], output_w[b]]
                    for c in range(C):
                        total[c] += pixel[c] * weight


def resize_adjoint(g, lo_h, hi_h, frac_h, lo_w, hi_w, frac_w, out):
    """Adjoint of `resize`: g (N, OH, OW, C), the same tables, out (N, H, W, C), overwritten."""
    rows = _transpose(lo_h, hi_h, frac_h, out.shape[1], g.dtype)
    columns = _transpose(lo_w, hi_w, frac_w, out.shape[2], g.dtype)
    _resize_adjoint(g, *rows, *columns, out, work=4 * (g.size + out.size) / ELEMENTS_PER_NS)
