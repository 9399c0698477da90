"""Convolution as a matrix product whose left side is made a block at a time: rows are pixels, columns what their windows hold.

A block of windows is copied into a buffer that stays in the second-level cache, so that every convolution (any padding,
stride, dilation, size of the image) is the same product, of whole tiles, at constant distances in memory.
"""

import numpy as np

from .jit import inline
from .simd import lanes, load, load_between, store

DEPTH = 256  # columns of a block: with a tile's weights they fill the first-level cache
PITCH = DEPTH + 16  # elements from one row to the next, not a power of two; the last vector of a row may reach past DEPTH
PIXELS = 224  # rows of a block at most; whole tiles


SHORT = 4  # vectors: shorter runs are copied one vector of all pixels after the other


@inline
def _copy(x, o, x_step, count, size, out, to, pitch):
    """out[to + p * pitch : ... + size] = x[o + p * x_step : ... + size] for p in [0, count); writes whole vectors."""
    L = lanes(x)
    if size > SHORT * L:
        for _ in range(count):
            for c in range(0, size, L):
                store(out, to + c, load(x, o + c, True))
            o += x_step
            to += pitch
    else:
        for c in range(0, size, L):
            a, b = o + c, to + c
            for _ in range(count):
                store(out, b, load(x, a, True))
                a += x_step
                b += pitch


@inline
def _copy_part(x, o, begin, end, size, out, to):
    """out[to : to + size] = x[o : o + size], zeros outside [begin, end), which is not read; writes whole vectors."""
    L, end = lanes(x), min(end, size)          # what follows in x need not be this group's, nor exist
    for c in range(0, size, L):
        store(out, to + c, load_between(x, o + c, begin - c, end - c))


@inline
def gather(x, c0, C, runs, t0, t1, sy, sx, OH, OW, first, count, out, pitch=PITCH):
    """out, rows of `pitch`: columns [t0, t1) of the windows of `count` output pixels from number `first` of N * OH * OW.

    Row (dy, dx, width, start) of `runs`: columns from `start` on are channels [c0, c0 + C) of `width` neighbouring
    pixels (of one only, unless these are all channels) from (dy, dx), seen from the window's origin, on; 0 outside x.
    """
    _, H, W, channels = x.shape
    flat, L = x.reshape(-1), lanes(x)
    for q in range(runs.shape[0]):
        dy, dx, width, start = runs[q, 0], runs[q, 1], runs[q, 2], runs[q, 3]
        low, high = max(t0 - start, 0), min(t1 - start, width * C)
        if low >= high:
            continue
        # Output columns whose run lies inside the image.
        inside, outside = -(dx // sx), (W - width - dx) // sx + 1
        n, i, j = first // OW // OH, first // OW % OH, first % OW
        p, to, whole = 0, start + low - t0, (high - low + L - 1) // L * L
        while p < count:
            h, v = i * sy + dy, j * sx + dx
            o = ((n * H + h) * W + v) * channels + c0 + low
            room = flat.shape[0] - o - whole
            size, row = 1, 0 <= h < H
            if row and inside <= j < outside and room >= 0:
                size = min(OW, j + count - p, outside) - j
                if (size - 1) * sx * channels > room:
                    size = room // (sx * channels) + 1
                _copy(flat, o, sx * channels, size, high - low, out, to, pitch)
            else:
                _copy_part(flat, o, -v * C - low, (W - v) * C - low if row else -v * C - low, high - low, out, to)
            p += size
            to += size * pitch
            j += size
            if j == OW:
                j, i = 0, i + 1
            if i == OH:
                i, n = 0, n + 1


def runs_of(dy, dx, C, merge):
    """`gather`'s runs of taps at (dy, dx), which are columns t * C on; neighbours in a row are one if `merge`."""
    runs = []
    for t, (a, b) in enumerate(zip(dy, dx, strict=True)):
        if merge and runs and runs[-1][0] == a and runs[-1][1] + runs[-1][2] == b:
            runs[-1][2] += 1
        else:
            runs.append([a, b, 1, t * C])
    return np.array(runs, np.int64).reshape(-1, 4)
