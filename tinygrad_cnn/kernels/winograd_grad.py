"""The weight gradient of a 3x3 convolution by Winograd's algorithm: the adjoint of `winograd` in w.

    dw = G^T [ sum over tiles of (B^T d B) * (A g A^T) ] G        of each 6 x 6 tile d of the input, 4 x 4 tile g of `g`

For each of the 36 points the sum over tiles is a matrix product, input channels x tiles times tiles x output channels.
"""

import numpy as np
from numba import prange

from .jit import inline, kernel
from .rows import VECS, lanes_of
from .simd import VECTOR_REGISTERS, lanes, load, store, tile_add_to, tile_fma, tile_zeros
from .winograd import IN, OUT, ROOT_HALF, ROOT_TWO, copy_patch, is_zero, load_line, store_line, transform_tile

POINTS = IN * IN  # products of a tile
CHANNELS = 64  # of input and of output per task: their sums stay in the second-level cache
TILES = 40  # transformed at a time
ROWS = 8 if VECTOR_REGISTERS == 32 else 4  # input channels of the register tile
PARTIALS = 16  # partial sums at most
MIN_TASKS = 16
MULTIPLY_ADDS_PER_NS = 80  # of one thread, roughly


@inline
def _spread(a, b, c, d):
    """A times four vectors."""
    even, odd = a + c * 0.5, (b + d * 0.5) * ROOT_HALF
    far_even, far_odd = a + c * 2.0, (b + d * 2.0) * ROOT_TWO
    return a, even + odd, even - odd, far_even + far_odd, far_even - far_odd, d


@inline
def _gather(a, b, c, d, e, f):
    """G^T times six vectors."""
    near, far = b + c, d + e
    return (a - near * (2 / 3) + far * (1 / 6), (c - b) * (ROOT_TWO / 3) + (d - e) * (ROOT_TWO / 6),
            (far - near) * (1 / 3) + f)


@inline
def _load_four(x, o, step):
    return load(x, o, True), load(x, o + step, True), load(x, o + 2 * step, True), load(x, o + 3 * step, True)


@inline
def _spread_tile(g, go, row, pixel, count, v, vo, step):
    """v[vo + (6 * i + j) * step + k] = (A g A^T)[i, j] of channel k, g[i, j] being g[go + i * row + j * pixel + k]."""
    for k in range(0, count, lanes(g)):
        o, to, down = go + k, vo + k, 6 * step
        p, q = _spread(*_load_four(g, o, pixel)), _spread(*_load_four(g, o + row, pixel))
        r, s = _spread(*_load_four(g, o + 2 * row, pixel)), _spread(*_load_four(g, o + 3 * row, pixel))
        store_line(v, to, down, _spread(p[0], q[0], r[0], s[0]))
        store_line(v, to + step, down, _spread(p[1], q[1], r[1], s[1]))
        store_line(v, to + 2 * step, down, _spread(p[2], q[2], r[2], s[2]))
        store_line(v, to + 3 * step, down, _spread(p[3], q[3], r[3], s[3]))
        store_line(v, to + 4 * step, down, _spread(p[4], q[4], r[4], s[4]))
        store_line(v, to + 5 * step, down, _spread(p[5], q[5], r[5], s[5]))


@inline
def _transform_gradient(g, n, top, left, first, count, patch, v, vo, step):
    """`winograd.transform_tile` for a 4 x 4 tile of the output gradient."""
    _, OH, OW, K = g.shape
    L = lanes(g)
    if count % L == 0 and top + OUT <= OH and left + OUT <= OW:
        _spread_tile(g.reshape(-1), ((n * OH + top) * OW + left) * K + first, OW * K, K, count, v, vo, step)
    else:
        padded = (count + L - 1) // L * L
        copy_patch(g, n, top, left, OUT, first, count, padded, patch)
        _spread_tile(patch, 0, OUT * padded, padded, padded, v, vo, step)


@inline
def _store_three(y, o, step, line):
    store(y, o, line[0])
    store(y, o + step, line[1])
    store(y, o + 2 * step, line[2])


@inline
def _total(values):
    return values[0] + values[1] + values[2]


@inline
def _gather_weights(m, step, C, size, y, yo, row, tap, check):
    """y[yo + (3 * r + s) * tap + c * row + k] = (G^T m G)[r, s], m[i, j] being m[(6 * i + j) * step + c * size + k].

    `check`, a vector of zeros, gets a NaN if a value is not finite.
    """
    seen = load(check, 0, True)
    for c in range(C):
        for k in range(0, size, lanes(m)):
            o, to = c * size + k, yo + c * row + k
            p, q = _gather(*load_line(m, o, step)), _gather(*load_line(m, o + 6 * step, step))
            r, s = _gather(*load_line(m, o + 12 * step, step)), _gather(*load_line(m, o + 18 * step, step))
            t, v = _gather(*load_line(m, o + 24 * step, step)), _gather(*load_line(m, o + 30 * step, step))
            first, second = _gather(p[0], q[0], r[0], s[0], t[0], v[0]), _gather(p[1], q[1], r[1], s[1], t[1], v[1])
            third = _gather(p[2], q[2], r[2], s[2], t[2], v[2])
            seen = seen + (_total(first) + _total(second) + _total(third)) * 0.0
            _store_three(y, to, 3 * tap, first)
            _store_three(y, to + tap, 3 * tap, second)
            _store_three(y, to + 2 * tap, 3 * tap, third)
    store(check, 0, seen)


def _outer_of(vecs):
    @inline
    def outer(count, u, uo, u_row, v, vo, v_row, m, mo, size):
        """m[row, k] += sum over `count` tiles of u[tile, row] * v[tile, k]."""
        acc = tile_zeros(ROWS, vecs, u)
        for _ in range(count):
            acc = tile_fma(acc, u, uo, 1, v, vo)
            uo += u_row
            vo += v_row
        tile_add_to(acc, m, mo, size)

    return outer


_outer_wide, _outer_narrow = _outer_of(VECS), _outer_of(1)


@inline
def _add_products(count, u, u_row, v, v_row, rows, size, m):
    """m, flat (36, rows, size) += the products of `count` tiles at each point; u and v (36, TILES, ...)."""
    width = VECS * lanes(u)
    for p in range(POINTS):
        uo, vo, mo = p * TILES * u_row, p * TILES * v_row, p * rows * size
        for k in range(0, size, width):
            if size - k >= width:
                for c in range(0, rows, ROWS):
                    _outer_wide(count, u, uo + c, u_row, v, vo + k, v_row, m, mo + c * size + k, size)
            else:
                for c in range(0, rows, ROWS):
                    _outer_narrow(count, u, uo + c, u_row, v, vo + k, v_row, m, mo + c * size + k, size)


@kernel
def _weight_grad(x, g, y0, x0, parts, padded, out, finite):
    """out, flat (parts, 3, 3, C, padded): part p sums the p-th share of the tiles; `finite` of each task: whether its sums are.

    The rest as in `conv2d_weight_grad`.
    """
    (N, _, _, C), (_, OH, OW, K), L = x.shape, g.shape, lanes(x)
    down, across = (OH + OUT - 1) // OUT, (OW + OUT - 1) // OUT
    tiles, slices, blocks = N * down * across, (C + CHANNELS - 1) // CHANNELS, (K + CHANNELS - 1) // CHANNELS
    for task in prange(slices * blocks * parts):
        index = np.int64(task)
        part, first, k = index % parts, index // parts % slices * CHANNELS, index // (parts * slices) * CHANNELS
        C_here, K_here = min(CHANNELS, C - first), min(CHANNELS, K - k)
        whole = max(L, ROWS)  # both powers of two
        rows, size = (C_here + whole - 1) // whole * whole, (K_here + L - 1) // L * L
        u_row, v_row = rows + L, size + L  # rows a power of two apart would meet in few lines of the cache
        patch = np.empty(POINTS * max(rows, size), x.dtype)
        u, v = np.empty(POINTS * TILES * u_row, x.dtype), np.empty(POINTS * TILES * v_row, x.dtype)
        m, check = np.zeros(POINTS * rows * size, x.dtype), np.zeros(L, x.dtype)
        tile, end = tiles * part // parts, tiles * (part + 1) // parts
        while tile < end:
            count = min(TILES, end - tile)
            for t in range(count):
                n, i = (tile + t) // (down * across), (tile + t) % (down * across)
                top, left = i // across * OUT, i % across * OUT
                transform_tile(IN, x, n, y0 + top, x0 + left, first, C_here, patch, u, t * u_row, TILES * u_row)
                _transform_gradient(g, n, top, left, k, K_here, patch, v, t * v_row, TILES * v_row)
            _add_products(count, u, u_row, v, v_row, rows, size, m)
            tile += count
        _gather_weights(m, rows * size, C_here, size, out, (part * 9 * C + first) * padded + k, padded, C * padded, check)
        finite[index] = is_zero(check)


def conv2d_weight_grad(g, x, y0, x0):
    """Partial sums (parts, 1, 9 * C, K rounded up to whole vectors), whose sum is the adjoint of `winograd.conv2d` in w.

    Args:
        g: (N, OH, OW, K), float32.
        x: (N, H, W, C), float32.
        y0, x0: where the window of the first output pixel starts.

    Returns:
        The sums, or None if they are not finite: then there are NaN or Inf also where direct sums would be finite.
    """
    (N, OH, OW, K), C, L = g.shape, x.shape[3], lanes_of(x.dtype)
    tiles, padded = N * -(-OH // OUT) * -(-OW // OUT), -(-K // L) * L
    blocks = -(-C // CHANNELS) * -(-K // CHANNELS)
    parts = max(1, min(PARTIALS, -(-MIN_TASKS // blocks), tiles // TILES))
    partial, finite = np.empty((parts, 1, 9 * C, padded), x.dtype), np.empty(blocks * parts, np.bool_)
    _weight_grad(x, g, y0, x0, parts, padded, partial.reshape(-1), finite, work=tiles * POINTS * C * padded / MULTIPLY_ADDS_PER_NS)
    return partial if finite.all() else None


def pays(N, C, K, OH, OW):
    """Whether this algorithm is likely faster than direct sums: both costs in nanoseconds of one thread, as measured."""
    tiles, products = N * -(-OH // OUT) * -(-OW // OUT), C * K
    lift, spread = (12 if C % 16 == 0 else 30) * C * -(-K // CHANNELS), 14 * K * -(-C // CHANNELS)
    return 1.2 * tiles * (POINTS * products / 75 + lift + spread) < N * OH * OW * 9 * products / 80
