"""Sliding windows laid out side by side, and back."""

import numpy as np
from numba import prange

from .jit import kernel, pair

ELEMENTS_PER_NS = 1  # of one thread, roughly


@kernel
def _unfold(x, sh, sw, ph, pw, dh, dw, out):
    _, H, W, C = x.shape
    N, OH, OW, R, S, _ = out.shape
    for task in prange(N * OH):
        index = np.int64(task)
        n, i = index // OH, index % OH
        for j in range(OW):
            for r in range(R):
                h = i * sh - ph + r * dh
                for s in range(S):
                    w = j * sw - pw + s * dw
                    if 0 <= h < H and 0 <= w < W:
                        for c in range(C):
                            out[n, i, j, r, s, c] = x[n, h, w, c]
                    else:
                        out[n, i, j, r, s] = 0


def unfold(x, kernel, stride, padding, dilation, size, out):
    """out[n, i * OW + j, r, s] = x[n, i * sh - ph + r * dh, j * sw - pw + s * dw], zeros outside the image.

    Args:
        x: (N, H, W, C).
        kernel, stride, padding, dilation: pairs of integers (rows, columns); padding above and to the left.
        size: (OH, OW), the numbers of windows.
        out: (N, OH * OW, R, S, C), overwritten.
    """
    windows = out.reshape(x.shape[0], *pair(size), *pair(kernel), x.shape[3])  # (N, L, R, S, C) -> (N, OH, OW, R, S, C)
    _unfold(x, *pair(stride), *pair(padding), *pair(dilation), windows, work=out.size / ELEMENTS_PER_NS)


@kernel
def _fold(g, sh, sw, ph, pw, dh, dw, out):
    N, H, W, C = out.shape
    _, OH, OW, R, S, _ = g.shape
    for task in prange(N * H):
        index = np.int64(task)
        n, h = index // H, index % H
        out[n, h] = 0
        for r in range(R):
            i = (h + ph - r * dh) // sh
            if (h + ph - r * dh) % sh != 0 or i < 0 or i >= OH:
                continue
            for s in range(S):
                for j in range(OW):
                    w = j * sw - pw + s * dw
                    if 0 <= w < W:
                        for c in range(C):
                            out[n, h, w, c] += g[n, i, j, r, s, c]


def fold(g, kernel, stride, padding, dilation, size, out):
    """Adjoint of `unfold`: each element of the windows is added, from zero, where it came from.

    Args:
        g: (N, OH * OW, R, S, C).
        kernel, stride, padding, dilation, size: as for `unfold`.
        out: (N, H, W, C), overwritten.
    """
    # (N, L, R, S, C) -> (N, OH, OW, R, S, C)
    windows = g.reshape(out.shape[0], *pair(size), *pair(kernel), out.shape[3])
    _fold(windows, *pair(stride), *pair(padding), *pair(dilation), out, work=(g.size + out.size) / ELEMENTS_PER_NS)
