"""Winograd's F(4x4, 3x3): 3x3 convolutions of stride 1 in float32 with 42 or 36 products for 16 outputs instead of 144.

    Y = A^T [ sum over c of (G w G^T) * (B^T d B) ] A        of each 6 x 6 tile d of the input, 4 x 4 tile Y of the output

The tiles overlap by two pixels. `*` is elementwise, so the sums over channels are 42 or 36 independent matrix products, done
on the register tile; the transforms run on vectors of channels.

Rows are polynomials interpolated at 0, +-1/sqrt(2), +-sqrt(2) and infinity. These six points are the best real ones, with a quarter of
the errors of 0, +-1, +-2 and infinity; of 0, +-1, +-i and infinity errors are half as large again, but a product at +-i takes three
real ones, seven in all. Columns have the complex points in convolutions, whose errors the later layers of a network amplify and which
decide what a ReLU lets back, and the real ones in gradients, where errors only add up.

A tile mixes its pixels. Where a NaN, an Inf or an overflow would reach outputs that do not see it, some output is not finite: the
functions here then say so, for the caller to compute direct sums instead.

Sources: Winograd 1980, "Arithmetic Complexity of Computations"; Lavin & Gray 2016, "Fast Algorithms for Convolutional
Neural Networks"; Meng & Brothers 2019, "Efficient Winograd Convolution via Integer Arithmetic"; Barabasz et al. 2020, "Error
Analysis and Improving the Accuracy of Winograd Convolution".
"""

import numpy as np
from numba import prange

from .. import memory
from .constants import is_kept, remembered
from .jit import inline, kernel
from .rows import LARGE, VECS, lanes_of, row_narrow, row_wide
from .simd import at_least, lanes, load, store, store_first, transpose

OUT, IN = 4, 6  # pixels along a side of the tiles of output and input
ROOT_HALF, ROOT_TWO = 0.5**0.5, 2**0.5

# Rows of G: the polynomial w0 + w1 z + w2 z^2 at each point, divided by the product of its distances to the others; for the pair of
# complex points c, d - c and c + d, twice the value being c + di (see `_lift_complex`).
REAL = np.array([[1, 0, 0], [-2 / 3, -ROOT_TWO / 3, -1 / 3], [-2 / 3, ROOT_TWO / 3, -1 / 3], [1 / 6, ROOT_TWO / 6, 1 / 3],
                 [1 / 6, -ROOT_TWO / 6, 1 / 3], [0, 0, 1]], np.float32)
COMPLEX = np.array([[1, 0, 0], [1 / 4, 1 / 4, 1 / 4], [1 / 4, -1 / 4, 1 / 4], [0, 0, 1], [1 / 2, 0, -1 / 2], [-1 / 2, 1 / 2, 1 / 2],
                    [1 / 2, 1 / 2, -1 / 2]], np.float32)

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
def _lift_complex(a, b, c, d, e, f):
    """Six vectors at 0, 1, -1, infinity and i, where the value is u + vi: u + v, u and v.

    Of the product with c + di, (u + v)c - v(c + d) is the real and (u + v)c + u(d - c) the imaginary part.
    """
    even, odd, u, v = c + e, b + d, e - c, d - b
    return a - e, even + odd, even - odd, f - b, u + v, u, v


@inline
def _land_complex(a, b, c, d, k, m, n):
    """A^T times the products at 0, 1, -1, infinity, and the three at i."""
    even, odd, u, v = b + c, b - c, k - n, k + m
    return a + even + u, odd - v, even - u, odd + v + d


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


def _lift_tile_of(columns, lift):
    @inline
    def lift_tile(x, xo, row, pixel, count, u, uo, step):
        """u[uo + (columns * i + j) * step + c] = (B^T d B)[i, j] of channel c, d[i, j] being x[xo + i * row + j * pixel + c]."""
        for c in range(0, count, lanes(x)):
            o, to, down = xo + c, uo + c, columns * step
            p, q = lift(*load_line(x, o, pixel)), lift(*load_line(x, o + row, pixel))
            r, s = lift(*load_line(x, o + 2 * row, pixel)), lift(*load_line(x, o + 3 * row, pixel))
            t, v = lift(*load_line(x, o + 4 * row, pixel)), lift(*load_line(x, o + 5 * row, pixel))
            store_line(u, to, down, _lift(p[0], q[0], r[0], s[0], t[0], v[0]))
            store_line(u, to + step, down, _lift(p[1], q[1], r[1], s[1], t[1], v[1]))
            store_line(u, to + 2 * step, down, _lift(p[2], q[2], r[2], s[2], t[2], v[2]))
            store_line(u, to + 3 * step, down, _lift(p[3], q[3], r[3], s[3], t[3], v[3]))
            store_line(u, to + 4 * step, down, _lift(p[4], q[4], r[4], s[4], t[4], v[4]))
            store_line(u, to + 5 * step, down, _lift(p[5], q[5], r[5], s[5], t[5], v[5]))
            if columns == 7:
                store_line(u, to + 6 * step, down, _lift(p[6], q[6], r[6], s[6], t[6], v[6]))

    return lift_tile


_lift_real_tile, _lift_complex_tile = _lift_tile_of(6, _lift), _lift_tile_of(7, _lift_complex)


@inline
def _lift_tile(columns, x, xo, row, pixel, count, u, uo, step):
    if columns == 7:
        _lift_complex_tile(x, xo, row, pixel, count, u, uo, step)
    else:
        _lift_real_tile(x, xo, row, pixel, count, u, uo, step)


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
def transform_tile(columns, x, n, top, left, first, count, patch, u, uo, step):
    """The tile at (top, left) of image n, `count` channels from `first`: u[uo + (columns * i + j) * step + c].

    Tiles with pixels outside, or channels to pad to whole vectors, pass through `patch`.
    """
    _, H, W, C = x.shape
    L = lanes(x)
    if count % L == 0 and top >= 0 and top + IN <= H and left >= 0 and left + IN <= W:
        _lift_tile(columns, x.reshape(-1), ((n * H + top) * W + left) * C + first, W * C, C, count, u, uo, step)
    else:
        padded = (count + L - 1) // L * L
        copy_patch(x, n, top, left, IN, first, count, padded, patch)
        _lift_tile(columns, patch, 0, IN * padded, padded, padded, u, uo, step)


@inline
def _store_column(y, yo, row, height, bias, floor, column, count):
    """The first `height` of four vectors, one below the other; `count` channels of each. Returns the sum of the four."""
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
    return (column[0] + column[1]) + (column[2] + column[3])


@inline
def _land_columns(columns, m, o, step):
    """m A of the line of `columns` products from o on."""
    if columns == 7:
        return _land_complex(*load_line(m, o, step), load(m, o + 6 * step, True))
    return _land(*load_line(m, o, step))


@inline
def is_zero(check):
    """Whether all elements are 0."""
    for value in check:                        # noqa: SIM110 - numba knows no generators
        if value != 0:                         # a NaN is not
            return False
    return True


@inline
def _land_tile(columns, m, mo, step, size, bias, floor, k, valid, y, n, top, left, check):
    """Stores max(A^T m A + bias, floor) at (top, left) of image n, channels [k, k + valid), m[i, j] at m[mo + (columns * i + j) * step].

    `check`, a vector of zeros, gets a NaN if a value of A^T m A is not finite.
    """
    _, OH, OW, K = y.shape
    flat, row, height, width, down = y.reshape(-1), OW * K, min(OUT, OH - top), min(OUT, OW - left), columns * step
    seen = load(check, 0, True)
    for c in range(0, size, lanes(m)):
        o, b, count = mo + c, load(bias, k + c, True), valid - c
        to = ((n * OH + top) * OW + left) * K + k + c
        p, q = _land_columns(columns, m, o, step), _land_columns(columns, m, o + down, step)
        r, s = _land_columns(columns, m, o + 2 * down, step), _land_columns(columns, m, o + 3 * down, step)
        t, v = _land_columns(columns, m, o + 4 * down, step), _land_columns(columns, m, o + 5 * down, step)
        total = _store_column(flat, to, row, height, b, floor, _land(p[0], q[0], r[0], s[0], t[0], v[0]), count)
        if width > 1:
            total = total + _store_column(flat, to + K, row, height, b, floor, _land(p[1], q[1], r[1], s[1], t[1], v[1]), count)
        if width > 2:
            total = total + _store_column(flat, to + 2 * K, row, height, b, floor, _land(p[2], q[2], r[2], s[2], t[2], v[2]), count)
        if width > 3:
            total = total + _store_column(flat, to + 3 * K, row, height, b, floor, _land(p[3], q[3], r[3], s[3], t[3], v[3]), count)
        seen = seen + total * 0.0
    store(check, 0, seen)


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
def _transform_weights(w, C, size, points, j, out, to, step):
    """out[to + i * step + c * size + k] = (G w G^T)[i, j] of w, flat (9, C, size); `points` are the columns' rows of G."""
    g0, g1, g2, tap = points[j, 0], points[j, 1], points[j, 2], C * size
    for o in range(0, tap, lanes(w)):
        p = load(w, o, True) * g0 + load(w, o + tap, True) * g1 + load(w, o + 2 * tap, True) * g2
        q = load(w, o + 3 * tap, True) * g0 + load(w, o + 4 * tap, True) * g1 + load(w, o + 5 * tap, True) * g2
        r = load(w, o + 6 * tap, True) * g0 + load(w, o + 7 * tap, True) * g1 + load(w, o + 8 * tap, True) * g2
        near, far = (p * 2.0 + r) * (-1 / 3), (p + r * 2.0) * (1 / 6)
        near_odd, far_odd = q * (-ROOT_TWO / 3), q * (ROOT_TWO / 6)
        store_line(out, to + o, step, (p, near + near_odd, near - near_odd, far + far_odd, far - far_odd, r))


@inline
def _products(count, u, uo, row, C, w, wo, m, mo, size):
    """m (count, size) = u (count, C) @ w (C, size)."""
    if size > lanes(u):
        row_wide(u, uo, row, C, w, wo, m, mo, size, count)
    else:
        row_narrow(u, uo, row, C, w, wo, m, mo, size, count)


# -- many tiles: each task transforms some, which stay in its cache, and makes all their channels ------------------------


@kernel
def _weights_kernel(w, flipped, C, K, points, out):
    """out, flat (blocks of k, 6, columns, C, size) = G w G^T, K being whole vectors."""
    width, columns = VECS * lanes(w), points.shape[0]
    parts = (C + WEIGHT_CHANNELS - 1) // WEIGHT_CHANNELS
    for task in prange((K + width - 1) // width * parts):
        index = np.int64(task)
        k, first = index // parts * width, index % parts * WEIGHT_CHANNELS
        size, count = min(width, K - k), min(WEIGHT_CHANNELS, C - first)
        local = np.empty(9 * count * size, w.dtype)
        _copy_weights(w, flipped, first, count, k, size, local)
        for j in range(columns):
            _transform_weights(local, count, size, points, j, out, (k * IN * columns + j * size) * C + first * size, columns * C * size)


@kernel
def _tile_blocks(columns, x, y0, x0, w, bias, floor, block, y, finite):
    """w from `_weights_kernel`; the window of output pixel (0, 0) starts at (y0, x0); `finite` of each task: whether its outputs are."""
    (N, _, _, C), (_, OH, OW, K) = x.shape, y.shape
    L = lanes(x)
    down, across, width = (OH + OUT - 1) // OUT, (OW + OUT - 1) // OUT, VECS * L
    tiles, pixel, padded = N * down * across, (C + L - 1) // L * L, bias.shape[0]
    row, planes = pixel + L, IN * columns  # rows a power of two apart would meet in few lines of the cache
    for task in prange((tiles + block - 1) // block):
        first = np.int64(task) * block
        count = min(block, tiles - first)
        patch, u = np.empty(IN * IN * pixel, x.dtype), np.empty(planes * block * row, x.dtype)
        m, check = np.empty(planes * block * width, x.dtype), np.zeros(L, x.dtype)
        for t in range(count):
            n, i = (first + t) // (down * across), (first + t) % (down * across)
            transform_tile(columns, x, n, y0 + i // across * OUT, x0 + i % across * OUT, 0, C, patch, u, t * row, block * row)
        for k in range(0, padded, width):
            size = min(width, padded - k)
            for p in range(planes):
                _products(count, u, p * block * row, row, C, w, (k * planes + p * size) * C, m, p * block * size, size)
            for t in range(count):
                n, i = (first + t) // (down * across), (first + t) % (down * across)
                _land_tile(columns, m, t * size, block * size, size, bias, floor, k, K - k, y, n, i // across * OUT, i % across * OUT,
                           check)
        finite[task] = is_zero(check)


# -- few tiles: all are transformed first; each task takes, or transforms, the weights of some channels, and makes these --


@kernel
def _tiles_kernel(columns, x, y0, x0, down, across, u):
    """u (6 * columns, tiles, row) = the transformed input."""
    C, L = x.shape[3], lanes(x)
    _, tiles, row = u.shape
    flat = u.reshape(-1)
    for task in prange(tiles):
        t = np.int64(task)
        patch = np.empty(IN * IN * ((C + L - 1) // L * L), x.dtype)
        n, i = t // (down * across), t % (down * across)
        transform_tile(columns, x, n, y0 + i // across * OUT, x0 + i % across * OUT, 0, C, patch, flat, t * row, tiles * row)


@kernel
def _channel_blocks(u, w, flipped, C, points, made, bias, floor, y, finite):
    """u from `_tiles_kernel`; made from `_weights_kernel`, or empty; `finite` as in `_tile_blocks`."""
    _, OH, OW, K = y.shape
    (planes, tiles, row), columns = u.shape, points.shape[0]
    down, across, width, padded = (OH + OUT - 1) // OUT, (OW + OUT - 1) // OUT, VECS * lanes(u), bias.shape[0]
    flat = u.reshape(-1)
    for task in prange((padded + width - 1) // width):
        k = np.int64(task) * width
        size = min(width, padded - k)
        local, own = np.empty(9 * C * size, u.dtype), np.empty(IN * C * size, u.dtype)
        m, check = np.empty(planes * tiles * size, u.dtype), np.zeros(lanes(u), u.dtype)
        if made.size == 0:
            _copy_weights(w, flipped, 0, C, k, size, local)
        for j in range(columns):
            weights, o, step = made, (k * planes + j * size) * C, columns * C * size
            if made.size == 0:
                _transform_weights(local, C, size, points, j, own, 0, C * size)
                weights, o, step = own, 0, C * size
            for i in range(IN):
                p = (i * columns + j) * tiles
                _products(tiles, flat, p * row, row, C, weights, o + i * step, m, p * size, size)
        for t in range(tiles):
            n, i = t // (down * across), t % (down * across)
            _land_tile(columns, m, t * size, tiles * size, size, bias, floor, k, K - k, y, n, i // across * OUT, i % across * OUT, check)
        finite[task] = is_zero(check)


# ------------------------------------------------------------------------------------------------------------------------


def _points(gradient):
    return REAL if gradient else COMPLEX


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

    Returns:
        Whether all sums are finite. If not, `out` holds NaN or Inf also where direct sums would be finite.
    """
    C, K, L, points = x.shape[3], out.shape[3], lanes_of(x.dtype), _points(flipped)
    padded, columns = -(-K // L) * L, len(points)
    planes = IN * columns
    w = w.reshape(9, *w.shape[2:])  # (3, 3, ...) -> (9, ...)
    bias_padded = np.zeros(padded, x.dtype)
    if bias is not None:
        bias_padded[:K] = bias
    floor = 0.0 if relu else -np.inf
    down, across = -(-out.shape[1] // OUT), -(-out.shape[2] // OUT)
    tiles, row = x.shape[0] * down * across, -(-C // L) * L + L
    work = tiles * planes * C * padded / MULTIPLY_ADDS_PER_NS
    kept = is_kept(w)
    few = few_tiles(tiles, C, padded) and not (kept and tiles >= 2 * LARGE)
    weights = np.empty(0, x.dtype)
    if kept or not few:
        def make():
            weights = memory.empty((planes * C * padded,), x.dtype)
            _weights_kernel(w, flipped, C, padded, points, weights, work=weights.size / 4)
            return weights
        weights = remembered(w, ("transformed", flipped), make)
    if few:
        u = memory.empty((planes, tiles, row), x.dtype)
        _tiles_kernel(columns, x, y0, x0, down, across, u, work=u.size)
        finite = np.empty(-(-padded // (VECS * L)), np.bool_)
        _channel_blocks(u, w, flipped, C, points, weights, bias_padded, floor, out, finite, work=work)
    else:
        most = max(LARGE, min(BLOCK_BYTES // (planes * row * x.itemsize), -(-tiles // MIN_TASKS)))
        block = most // LARGE * LARGE
        finite = np.empty(-(-tiles // block), np.bool_)
        _tile_blocks(columns, x, y0, x0, weights, bias_padded, floor, block, out, finite, work=work)
    return finite.all()


def few_tiles(tiles, C, K):
    """Whether to keep the transformed input, which each block of channels reads, rather than the transformed weights."""
    return 2 * tiles < 3 * K


def pays(N, C, K, OH, OW, gradient, kept=False):
    """Whether this algorithm is likely faster than direct sums: both costs in nanoseconds of one thread, as measured.

    Of weights that are kept transformed, or packed, what takes time is to read them.
    """
    tiles, products, planes = N * -(-OH // OUT) * -(-OW // OUT), C * K, IN * len(_points(gradient))
    transforms = (8 if C % 16 == 0 else 24) * C + 16 * K
    weights, packed = (planes / READS_PER_NS, 9 / READS_PER_NS) if kept else (planes / 4, 5)
    direct = N * OH * OW * 9 * products / 75 + packed * products
    return 1.2 * (tiles * (planes * products / 80 + transforms) + weights * products) < direct  # near ties stay exact
