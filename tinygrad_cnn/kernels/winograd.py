"""Winograd's F(4x4, 3x3): 3x3 convolutions of stride 1 in float32 with 36 products for 16 outputs instead of 144.

    Y = A^T [ sum over c of (G w G^T) * (B^T d B) ] A        of each 6 x 6 tile d of the input, 4 x 4 tile Y of the output

The tiles overlap by two pixels. `*` is elementwise, so the sums over channels are 36 independent matrix products, done
on the register tile; the transforms run on vectors of channels.

The matrices interpolate at 0, +-1/sqrt(2), +-sqrt(2) and infinity: rounding errors are about a quarter of those of the
points 0, +-1, +-2. A NaN or Inf of the input spreads over the whole 4 x 4 tiles of the output that it touches.

Sources: Winograd 1980, "Arithmetic Complexity of Computations"; Lavin & Gray 2016, "Fast Algorithms for Convolutional
Neural Networks"; Barabasz et al. 2020, "Error Analysis and Improving the Accuracy of Winograd Convolution".
"""

import numpy as np
from numba import prange

from .. import memory
from .constants import is_kept, remembered
from .jit import inline, kernel
from .rows import LARGE, MIDDLE, VECS, lanes_of, row_narrow, row_wide
from .simd import at_least, lanes, load, store, store_first, transpose

OUT, IN = 4, 6  # pixels along a side of the tiles of output and input
POINTS = IN * IN  # products of a tile
ROOT_HALF, ROOT_TWO = 0.5**0.5, 2**0.5

# Row i of G: the polynomial w0 + w1 z + w2 z^2 at point i, divided by the product of its distances to the others.
G = np.array([[1, 0, 0], [-2 / 3, -ROOT_TWO / 3, -1 / 3], [-2 / 3, ROOT_TWO / 3, -1 / 3], [1 / 6, ROOT_TWO / 6, 1 / 3],
              [1 / 6, -ROOT_TWO / 6, 1 / 3], [0, 0, 1]], np.float32)

BLOCK_BYTES = 1 << 19  # of transformed input per task: a part of the second-level cache
MIN_TASKS = 16
WEIGHT_CHANNELS = 32  # of the input, whose weights a task transforms at a time
MULTIPLY_ADDS_PER_NS = 80  # of one thread, roughly
READS_PER_NS = 3  # numbers that one thread reads from beyond its own cache, roughly


@inline
def _lift(a, b, c, d, e, f):
    """B^T times six vectors."""
    even, odd = e - c * 2.0, (d - b * 2.0) * ROOT_HALF
    far_even, far_odd = e - c * 0.5, (d - b * 0.5) * ROOT_TWO
    return a - c * 2.5 + e, even + odd, even - odd, far_even + far_odd, far_even - far_odd, b - d * 2.5 + f


@inline
def _land(a, b, c, d, e, f):
    """A^T times six vectors."""
    even, odd, far_even, far_odd = b + c, (b - c) * ROOT_HALF, d + e, (d - e) * ROOT_TWO
    return a + even + far_even, odd + far_odd, even * 0.5 + far_even * 2.0, odd * 0.5 + far_odd * 2.0 + f


@inline
def load_line(x, o, step):
    """Six vectors of x, `step` elements apart."""
    return (load(x, o, True), load(x, o + step, True), load(x, o + 2 * step, True), load(x, o + 3 * step, True),
            load(x, o + 4 * step, True), load(x, o + 5 * step, True))


@inline
def store_line(x, o, step, line):
    """Six vectors to x, `step` elements apart."""
    store(x, o, line[0])
    store(x, o + step, line[1])
    store(x, o + 2 * step, line[2])
    store(x, o + 3 * step, line[3])
    store(x, o + 4 * step, line[4])
    store(x, o + 5 * step, line[5])


@inline
def _lift_tile(x, xo, row, pixel, count, u, uo, step):
    """u[uo + (6 * i + j) * step + c] = (B^T d B)[i, j] of channel c, d[i, j] being x[xo + i * row + j * pixel + c]."""
    for c in range(0, count, lanes(x)):
        o, to, down = xo + c, uo + c, 6 * step
        p, q = _lift(*load_line(x, o, pixel)), _lift(*load_line(x, o + row, pixel))
        r, s = _lift(*load_line(x, o + 2 * row, pixel)), _lift(*load_line(x, o + 3 * row, pixel))
        t, v = _lift(*load_line(x, o + 4 * row, pixel)), _lift(*load_line(x, o + 5 * row, pixel))
        store_line(u, to, down, _lift(p[0], q[0], r[0], s[0], t[0], v[0]))
        store_line(u, to + step, down, _lift(p[1], q[1], r[1], s[1], t[1], v[1]))
        store_line(u, to + 2 * step, down, _lift(p[2], q[2], r[2], s[2], t[2], v[2]))
        store_line(u, to + 3 * step, down, _lift(p[3], q[3], r[3], s[3], t[3], v[3]))
        store_line(u, to + 4 * step, down, _lift(p[4], q[4], r[4], s[4], t[4], v[4]))
        store_line(u, to + 5 * step, down, _lift(p[5], q[5], r[5], s[5], t[5], v[5]))


@inline
def copy_patch(x, n, top, left, side, first, count, padded, patch):
    """patch, flat (side, side, padded): pixels of image n, `count` channels from `first`, zeros outside and after."""
    _, H, W, C = x.shape
    L = lanes(x)
    flat, whole = x.reshape(-1), count // L * L
    for i in range(side * side):
        h, w, to = top + i // side, left + i % side, i * padded
        if h < 0 or h >= H or w < 0 or w >= W:
            patch[to : to + padded] = 0
            continue
        o = ((n * H + h) * W + w) * C + first
        for c in range(0, whole, L):
            store(patch, to + c, load(flat, o + c, True))
        for c in range(whole, padded):
            patch[to + c] = flat[o + c] if c < count else 0


@inline
def transform_tile(x, n, top, left, first, count, patch, u, uo, step):
    """The tile at (top, left) of image n, `count` channels from `first`: u[uo + (6 * i + j) * step + c].

    Tiles with pixels outside, or channels to pad to whole vectors, pass through `patch`.
    """
    _, H, W, C = x.shape
    L = lanes(x)
    if count % L == 0 and top >= 0 and top + IN <= H and left >= 0 and left + IN <= W:
        _lift_tile(x.reshape(-1), ((n * H + top) * W + left) * C + first, W * C, C, count, u, uo, step)
    else:
        padded = (count + L - 1) // L * L
        copy_patch(x, n, top, left, IN, first, count, padded, patch)
        _lift_tile(patch, 0, IN * padded, padded, padded, u, uo, step)


@inline
def _store_column(y, yo, row, height, bias, floor, column, count):
    """The first `height` of four vectors, one below the other; `count` channels of each."""
    a, b = at_least(column[0] + bias, floor), at_least(column[1] + bias, floor)
    c, d = at_least(column[2] + bias, floor), at_least(column[3] + bias, floor)
    if count >= lanes(y) and height == OUT:
        store(y, yo, a)
        store(y, yo + row, b)
        store(y, yo + 2 * row, c)
        store(y, yo + 3 * row, d)
    else:
        valid = min(count, lanes(y))
        store_first(y, yo, a, valid)
        store_first(y, yo + row, b, valid if height > 1 else 0)
        store_first(y, yo + 2 * row, c, valid if height > 2 else 0)
        store_first(y, yo + 3 * row, d, valid if height > 3 else 0)


@inline
def _land_tile(m, mo, step, size, bias, floor, k, valid, y, n, top, left):
    """Stores max(A^T m A + bias, floor) at (top, left) of image n, channels [k, k + valid), m[i, j] at m[mo + (6 * i + j) * step]."""
    _, OH, OW, K = y.shape
    flat, row, height, width = y.reshape(-1), OW * K, min(OUT, OH - top), min(OUT, OW - left)
    for c in range(0, size, lanes(m)):
        o, b, count = mo + c, load(bias, k + c, True), valid - c
        to = ((n * OH + top) * OW + left) * K + k + c
        p, q = _land(*load_line(m, o, step)), _land(*load_line(m, o + 6 * step, step))
        r, s = _land(*load_line(m, o + 12 * step, step)), _land(*load_line(m, o + 18 * step, step))
        t, v = _land(*load_line(m, o + 24 * step, step)), _land(*load_line(m, o + 30 * step, step))
        _store_column(flat, to, row, height, b, floor, _land(p[0], q[0], r[0], s[0], t[0], v[0]), count)
        if width > 1:
            _store_column(flat, to + K, row, height, b, floor, _land(p[1], q[1], r[1], s[1], t[1], v[1]), count)
        if width > 2:
            _store_column(flat, to + 2 * K, row, height, b, floor, _land(p[2], q[2], r[2], s[2], t[2], v[2]), count)
        if width > 3:
            _store_column(flat, to + 3 * K, row, height, b, floor, _land(p[3], q[3], r[3], s[3], t[3], v[3]), count)


@inline
def _copy_weights(w, flipped, first, count, k, size, out):
    """out, flat (9, count, size): input channels from `first` and output channels from k of `conv2d`'s w, zeros after K."""
    L = lanes(w)
    taps, C, K = w.shape
    flat = w.reshape(-1)
    if flipped:
        K, C = C, K
    for t in range(taps):
        for c in range(0, count, L):
            for j in range(0, size, L):
                to = (t * count + c) * size + j
                o = ((taps - 1 - t) * K + k + j) * C + first + c if flipped else (t * C + first + c) * K + k + j
                if c + L <= count and k + j + L <= K:
                    if flipped:
                        transpose(flat, o, C, out, to, size)
                    else:
                        for i in range(L):
                            store(out, to + i * size, load(flat, o + i * K, True))
                else:
                    for i in range(min(L, count - c)):
                        for v in range(L):
                            inside = k + j + v < K
                            out[to + i * size + v] = flat[o + (v * C + i if flipped else i * K + v)] if inside else 0


@inline
def _transform_weights(w, C, size, points, i, out, to, step):
    """out[to + j * step + c * size + k] = (G w G^T)[i, j] of w, flat (9, C, size)."""
    g0, g1, g2, tap = points[i, 0], points[i, 1], points[i, 2], C * size
    for o in range(0, tap, lanes(w)):
        p = load(w, o, True) * g0 + load(w, o + 3 * tap, True) * g1 + load(w, o + 6 * tap, True) * g2
        q = load(w, o + tap, True) * g0 + load(w, o + 4 * tap, True) * g1 + load(w, o + 7 * tap, True) * g2
        r = load(w, o + 2 * tap, True) * g0 + load(w, o + 5 * tap, True) * g1 + load(w, o + 8 * tap, True) * g2
        near, far = (p * 2.0 + r) * (-1 / 3), (p + r * 2.0) * (1 / 6)
        near_odd, far_odd = q * (-ROOT_TWO / 3), q * (ROOT_TWO / 6)
        store_line(out, to + o, step, (p, near + near_odd, near - near_odd, far + far_odd, far - far_odd, r))


@inline
def _products(count, u, uo, row, taps, C, w, wo, zero, m, mo, size):
    """m (count, size) = u (count, C) @ w (C, size)."""
    if size > lanes(u):
        row_wide(u, uo, taps, C, row, w, wo, zero, 0, m, mo, size, size, count)
    else:
        row_narrow(u, uo, taps, C, row, w, wo, zero, 0, m, mo, size, size, count)


# -- many tiles: each task transforms some, which stay in its cache, and makes all their channels ------------------------


@kernel
def _weights_kernel(w, flipped, C, K, points, out):
    """out, flat (blocks of k, 36, C, size) = G w G^T, K being whole vectors."""
    width = VECS * lanes(w)
    parts = (C + WEIGHT_CHANNELS - 1) // WEIGHT_CHANNELS
    for task in prange((K + width - 1) // width * parts):
        index = np.int64(task)
        k, first = index // parts * width, index % parts * WEIGHT_CHANNELS
        size, count = min(width, K - k), min(WEIGHT_CHANNELS, C - first)
        local = np.empty(9 * count * size, w.dtype)
        _copy_weights(w, flipped, first, count, k, size, local)
        for i in range(IN):
            to = ((k * POINTS + i * IN * size) * C) + first * size
            _transform_weights(local, count, size, points, i, out, to, C * size)


@kernel
def _tile_blocks(x, y0, x0, w, bias, floor, block, taps, zero, y):
    """w from `_weights_kernel`; the window of output pixel (0, 0) starts at (y0, x0)."""
    (N, _, _, C), (_, OH, OW, K) = x.shape, y.shape
    L = lanes(x)
    down, across, width = (OH + OUT - 1) // OUT, (OW + OUT - 1) // OUT, VECS * L
    tiles, pixel, padded = N * down * across, (C + L - 1) // L * L, bias.shape[0]
    row = pixel + L  # rows a power of two apart would meet in few lines of the cache
    for task in prange((tiles + block - 1) // block):
        first = np.int64(task) * block
        count = min(block, tiles - first)
        patch, u = np.empty(POINTS * pixel, x.dtype), np.empty(POINTS * block * row, x.dtype)
        m = np.empty(POINTS * block * width, x.dtype)
        for t in range(count):
            n, i = (first + t) // (down * across), (first + t) % (down * across)
            transform_tile(x, n, y0 + i // across * OUT, x0 + i % across * OUT, 0, C, patch, u, t * row, block * row)
        for k in range(0, padded, width):
            size = min(width, padded - k)
            for p in range(POINTS):
                _products(count, u, p * block * row, row, taps, C, w, (k * POINTS + p * size) * C, zero, m,
                          p * block * size, size)
            for t in range(count):
                n, i = (first + t) // (down * across), (first + t) % (down * across)
                _land_tile(m, t * size, block * size, size, bias, floor, k, K - k, y, n, i // across * OUT, i % across * OUT)


# -- few tiles: all are transformed first; each task takes, or transforms, the weights of some channels, and makes these --


@kernel
def _tiles_kernel(x, y0, x0, down, across, u):
    """u (36, tiles, row) = the transformed input."""
    C, L = x.shape[3], lanes(x)
    _, tiles, row = u.shape
    flat = u.reshape(-1)
    for task in prange(tiles):
        t = np.int64(task)
        patch = np.empty(POINTS * ((C + L - 1) // L * L), x.dtype)
        n, i = t // (down * across), t % (down * across)
        transform_tile(x, n, y0 + i // across * OUT, x0 + i % across * OUT, 0, C, patch, flat, t * row, tiles * row)


@kernel
def _channel_blocks(u, w, flipped, C, points, made, bias, floor, taps, zero, y):
    """u from `_tiles_kernel`; made from `_weights_kernel`, or empty."""
    _, OH, OW, K = y.shape
    _, tiles, row = u.shape
    down, across, width, padded = (OH + OUT - 1) // OUT, (OW + OUT - 1) // OUT, VECS * lanes(u), bias.shape[0]
    flat = u.reshape(-1)
    for task in prange((padded + width - 1) // width):
        k = np.int64(task) * width
        size = min(width, padded - k)
        local, own = np.empty(9 * C * size, u.dtype), np.empty(IN * C * size, u.dtype)
        m = np.empty(POINTS * tiles * size, u.dtype)
        if made.size == 0:
            _copy_weights(w, flipped, 0, C, k, size, local)
        for i in range(IN):
            weights, o = made, (k * POINTS + i * IN * size) * C
            if made.size == 0:
                _transform_weights(local, C, size, points, i, own, 0, C * size)
                weights, o = own, 0
            for j in range(IN):
                p = (i * IN + j) * tiles
                _products(tiles, flat, p * row, row, taps, C, weights, o + j * C * size, zero, m, p * size, size)
        for t in range(tiles):
            n, i = t // (down * across), t % (down * across)
            _land_tile(m, t * size, tiles * size, size, bias, floor, k, K - k, y, n, i // across * OUT, i % across * OUT)


# ------------------------------------------------------------------------------------------------------------------------


def conv2d(x, w, flipped, y0, x0, bias, out, relu=False):
    """out[n, i, j, k] = bias[k] + sum over r, s, c of x[n, i + y0 + r, j + x0 + s, c] * w[r, s, c, k], zeros outside x.

    Args:
        x: (N, H, W, C), float32.
        w: (3, 3, C, K), or, if `flipped`, (3, 3, K, C), of which w[2 - r, 2 - s, k, c] is read.
        flipped: whether this is the input gradient of the convolution with w.
        y0, x0: where the window of the first output pixel starts.
        bias: (K,) or None.
        out: (N, OH, OW, K), overwritten.
        relu: whether negative outputs become 0.
    """
    C, K, L = x.shape[3], out.shape[3], lanes_of(x.dtype)
    padded = -(-K // L) * L
    w = w.reshape(9, *w.shape[2:])  # (3, 3, ...) -> (9, ...)
    bias_padded = np.zeros(padded, x.dtype)
    if bias is not None:
        bias_padded[:K] = bias
    floor = 0.0 if relu else -np.inf
    taps, zero = np.zeros(1, np.int64), np.zeros(VECS * L, x.dtype)
    down, across = -(-out.shape[1] // OUT), -(-out.shape[2] // OUT)
    tiles, row = x.shape[0] * down * across, -(-C // L) * L + L
    work = tiles * POINTS * C * padded / MULTIPLY_ADDS_PER_NS
    kept = is_kept(w)
    few = few_tiles(tiles, C, padded) and not (kept and tiles >= 2 * MIDDLE)
    weights = np.empty(0, x.dtype)
    if kept or not few:
        def make():
            weights = memory.empty((POINTS * C * padded,), x.dtype)
            _weights_kernel(w, flipped, C, padded, G, weights, work=weights.size / 4)
            return weights
        weights = remembered(w, ("transformed", flipped), make)
    if few:
        u = memory.empty((POINTS, tiles, row), x.dtype)
        _tiles_kernel(x, y0, x0, down, across, u, work=u.size)
        _channel_blocks(u, w, flipped, C, G, weights, bias_padded, floor, taps, zero, out, work=work)
        return
    step = LARGE if tiles >= MIN_TASKS * MIDDLE else MIDDLE
    most = max(step, min(BLOCK_BYTES // (POINTS * row * x.itemsize), -(-tiles // MIN_TASKS)))
    _tile_blocks(x, y0, x0, weights, bias_padded, floor, most // step * step, taps, zero, out, work=work)


def few_tiles(tiles, C, K):
    """Whether to keep the transformed input, which each block of channels reads, rather than the transformed weights."""
    return 2 * tiles < 3 * K


def pays(N, C, K, OH, OW, kept=False):
    """Whether this algorithm is likely faster than direct sums: both costs in nanoseconds of one thread, as measured.

    Of weights that are kept transformed, or packed, what takes time is to read them.
    """
    tiles, products = N * -(-OH // OUT) * -(-OW // OUT), C * K
    transforms = (8 if C % 16 == 0 else 24) * C + 16 * K
    weights, packed = (POINTS / READS_PER_NS, 9 / READS_PER_NS) if kept else (9, 5)
    direct = N * OH * OW * 9 * products / 75 + packed * products
    return 1.2 * (tiles * (POINTS * products / 80 + transforms) + weights * products) < direct  # near ties stay exact
