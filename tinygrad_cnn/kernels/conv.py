"""Convolution (cross-correlation), its two gradients, and the bias gradient, on channels-last images.

Forward and input gradient are one loop nest: each output pixel is a sum over taps, a tap being an offset (dy, dx) in
the input and a matrix (C, K). For the gradient of a convolution of stride (sh, sw) the input pixels split into sh * sw
phases; within one, consecutive pixels meet the same taps at consecutive pixels of `g`: a convolution of stride 1.
"""

import numpy as np
from numba import prange

from . import columns, depthwise, options, winograd, winograd_grad
from .jit import inline, kernel, pair
from .norm import channel_sum
from .rows import VECS, lanes_of, pack, row_narrow, row_wide, transposed
from .simd import VECTOR_REGISTERS, lanes, load, store, tile_add_to, tile_fma, tile_zeros
from .taps import all_taps, input_phases

# Input channels (rows) of the weight gradient's tiles: channels mostly come in powers of two.
CHANNELS = 8 if VECTOR_REGISTERS == 32 else 4
BAND_BYTES = 1 << 17  # of padded input rows per task: a part of the second-level cache
CACHE_BYTES = 1 << 20  # of weights that stay in the second-level cache from one task to the next
MIN_TASKS = 32  # more than most machines' threads, so that a late thread costs little
CHUNK_PIXELS = 128  # summed in registers before the weight gradient's tile is added to memory
PARTIALS = 16  # partial sums of the weight gradient at most
MULTIPLY_ADDS_PER_NS = 50  # of one thread, roughly


# -- forward and input gradient ----------------------------------------------------------------------------------------


@inline
def _copy_band(x, n, top, left, buffer, rows, width):
    """buffer (rows, width, C) flat = x[n, top : top + rows, left : left + width], zeros outside the image."""
    _, H, W, C = x.shape
    L = lanes(x)
    source = x.reshape(-1)
    first, last = min(max(0, -left), width), max(min(width, W - left), 0)
    for i in range(rows):
        to = i * width * C
        h = top + i
        if h < 0 or h >= H or first >= last:
            buffer[to : to + width * C] = 0
            continue
        buffer[to : to + first * C] = 0
        start = ((n * H + h) * W + left) * C
        j = first * C
        while j + 4 * L <= last * C:
            a, b = load(source, start + j, True), load(source, start + j + L, True)
            c, d = load(source, start + j + 2 * L, True), load(source, start + j + 3 * L, True)
            store(buffer, to + j, a)
            store(buffer, to + j + L, b)
            store(buffer, to + j + 2 * L, c)
            store(buffer, to + j + 3 * L, d)
            j += 4 * L
        for e in range(j, last * C):
            buffer[to + e] = source[start + e]
        buffer[to + last * C : to + width * C] = 0


@kernel
def _pad(x, y0, x0, out):
    """out (N, rows, width, C) = x seen from (y0, x0), zeros outside the image."""
    N, rows, width, C = out.shape
    flat = out.reshape(-1)
    for task in prange(N * rows):
        i = np.int64(task)
        n, row = i // rows, i % rows
        _copy_band(x, n, y0 + row, x0, flat[i * width * C : (i + 1) * width * C], 1, width)


@kernel
def _convolve(x, w, taps, Cg, Kg, groups, bias, sy, sx, y0, x0, span, band_width, padded, band, block, y, y_start,
              y_image, y_row, y_pixel, OH, OW):
    """Tasks are bands of output rows, or, where `block` is less than Kg, those times blocks of output channels."""
    N, H, W, C = x.shape
    L = lanes(w)
    Kp = (Kg + L - 1) // L * L
    bands, blocks = (OH + band - 1) // band, (Kg + block - 1) // block
    for task in prange(blocks * N * bands):
        index = np.int64(task)
        first, n, top = index // (N * bands) * block, index // bands % N, index % bands * band
        rows = min(band, OH - top)
        if padded:
            height = span + (rows - 1) * sy
            source = np.empty(height * band_width * C, x.dtype)
            _copy_band(x, n, top * sy + y0, x0, source, height, band_width)
            xo, x_row = 0, sy * band_width * C
        else:
            source = x.reshape(-1)
            xo, x_row = ((n * H + top * sy + y0) * W + x0) * C, sy * W * C
        yo = y_start + n * y_image + top * y_row
        for group in range(groups):
            for k in range(first, min(first + block, Kg), VECS * L):
                wo = (group * Kp + k) * taps.shape[0] * Cg
                for i in range(rows):
                    xi, yi, b = xo + i * x_row + group * Cg, yo + i * y_row + group * Kg + k, group * Kp + k
                    if Kp - k > L:
                        row_wide(source, xi, taps, Cg, sx * C, w, wo, bias, b, y, yi, y_pixel, Kg - k, OW)
                    else:
                        row_narrow(source, xi, taps, Cg, sx * C, w, wo, bias, b, y, yi, y_pixel, Kg - k, OW)


def _correlate(x, w, tap_index, dy, dx, tap_step, group_step, row_step, C, K, groups, bias, sy, sx, out, top, left,
               out_sy, out_sx):
    """out[n, top + i * out_sy, left + j * out_sx] = bias + sum_t x[n, i * sy + dy[t], j * sx + dx[t]] @ w_t.

    Args:
        x: (N, H, W, groups * C).
        w: any shape; tap t is its matrix `tap_index[t]`, laid out by the steps (see `pack`).
        bias: (groups * K,).
        out: (N, OH, OW, groups * K); overwritten at the pixels named.
    """
    N, H, W, _ = x.shape
    OH, OW = len(range(top, out.shape[1], out_sy)), len(range(left, out.shape[2], out_sx))
    if len(tap_index) == 0:
        out[:, top::out_sy, left::out_sx] = bias
        return
    if min(N, OH, OW) == 0:
        return
    L = lanes_of(x.dtype)
    Kp = -(-K // L) * L
    in_order = sorted(zip(dy, dx, tap_index, strict=True))
    dy, dx, tap_index = zip(*in_order, strict=True)
    packed = pack(w, tap_index, tap_step, groups, C, K, group_step, row_step)
    bias_packed = np.zeros((groups, Kp), x.dtype)
    bias_packed[:, :K] = bias.reshape(groups, K)

    y0, x0 = min(dy), min(dx)
    span = max(dy) - y0 + 1
    height, width = span + (OH - 1) * sy, max(dx) - x0 + 1 + (OW - 1) * sx
    padded = y0 < 0 or x0 < 0 or y0 + height > H or x0 + width > W
    row = width if padded else W
    pixel = groups * C
    taps = np.array([((a - y0) * row + b - x0) * pixel for a, b in zip(dy, dx, strict=True)], np.int64)
    run = max(dx) - x0 + 1
    if groups == 1 and len(set(dx)) == run and len(set(dy)) * run == len(taps):
        # Neighbouring taps meet neighbouring pixels: a row of them is one tap with that many channels.
        taps, C = taps[::run].copy(), run * C
    band = max(1, min(OH, BAND_BYTES // (sy * row * pixel * x.itemsize), -(-N * OH // MIN_TASKS)))
    block = K
    if packed.nbytes > CACHE_BYTES:
        # Each task reads all weights of its channels: let it take few channels, and many pixels.
        block, band = VECS * L, OH
        if padded:
            x_padded = np.empty((N, height, width, pixel), x.dtype)
            _pad(x, y0, x0, x_padded, work=x_padded.size)
            x, y0, x0, padded = x_padded, 0, 0, False
    y_image, y_row, y_pixel = (s // x.itemsize for s in out.strides[:3])
    _convolve(x, packed, taps, C, K, groups, bias_packed.reshape(-1), sy, sx, y0, x0, span, row, padded, band, block,
              out.reshape(-1), top * y_row + left * y_pixel, y_image, y_row * out_sy, y_pixel * out_sx, OH, OW,
              work=N * OH * OW * packed.size / MULTIPLY_ADDS_PER_NS)


def _winograd(pays, x, y, kernel, stride, dilation, groups):
    """Whether to use Winograd's algorithm for a convolution from x to y, or a gradient of one."""
    fits = x.dtype == np.float32 and kernel == (3, 3) and stride == dilation == (1, 1) and groups == 1
    if not fits or options.conv_algorithm == "direct" or x.size == 0:
        return False
    return options.conv_algorithm == "winograd" or pays(x.shape[0], x.shape[3], y.shape[3], *y.shape[1:3])


def conv2d(x, w, bias, stride, padding, dilation, groups, out):
    """Cross-correlation.

    out[n, i, j, k] = bias[k] + sum over r, s, c of x[n, i * sh - ph + r * dh, j * sw - pw + s * dw, c] * w[r, s, c, k].

    3x3 convolutions of stride 1 in float32 may use `winograd.conv2d` (see `options`), which spreads NaN and Inf over
    4 x 4 pixels.

    Args:
        x: (N, H, W, C); taps outside the image are zeros.
        w: (R, S, C // groups, K); group i maps its C // groups channels to outputs [i * K // groups, ...).
        bias: (K,).
        stride: (sh, sw), at least 1.
        padding: (ph, pw) above and to the left; below and to the right it follows from `out`.
        dilation: (dh, dw), at least 1.
        groups: divides C and K.
        out: (N, OH, OW, K), overwritten.
    """
    (sh, sw), (ph, pw), (dh, dw), groups = pair(stride), pair(padding), pair(dilation), int(groups)
    R, S, Cg, K = w.shape
    if out.size == 0:
        return
    if Cg == 1 and groups > 1:
        depthwise.conv2d(x, w, bias, (sh, sw), (ph, pw), (dh, dw), out)
        return
    if _winograd(winograd.pays, x, out, (R, S), (sh, sw), (dh, dw), groups):
        winograd.conv2d(x, w, False, -ph, -pw, bias, out)
        return
    Kg = K // groups
    taps = all_taps((R, S), (ph, pw), (dh, dw))
    _correlate(x, w, taps.weight, taps.dy, taps.dx, Cg * K, Kg, K, Cg, Kg, groups, bias, sh, sw, out, 0, 0, 1, 1)


def conv2d_input_grad(g, w, stride, padding, dilation, groups, out):
    """Adjoint of `conv2d` in x.

    Args:
        g: (N, OH, OW, K).
        w: (R, S, C // groups, K).
        stride, padding, dilation, groups: of the convolution.
        out: (N, H, W, C), overwritten; pixels that no window reaches become 0.
    """
    (sh, sw), (ph, pw), (dh, dw), groups = pair(stride), pair(padding), pair(dilation), int(groups)
    R, S, Cg, K = w.shape
    if out.size == 0:
        return
    if g.size == 0:
        out[...] = 0
        return
    if Cg == 1 and groups > 1:
        depthwise.conv2d_input_grad(g, w, (sh, sw), (ph, pw), (dh, dw), out)
        return
    if _winograd(winograd.pays, g, out, (R, S), (sh, sw), (dh, dw), groups):
        winograd.conv2d(g, w, True, ph - 2, pw - 2, None, out)
        return
    if groups == 1 and columns.suits(Cg, R, S, g.dtype):
        columns.conv2d_input_grad(g, w, (sh, sw), (ph, pw), (dh, dw), out)
        return
    bias = np.zeros(groups * Cg, out.dtype)
    Kg = K // groups
    w = transposed(w.reshape(R * S, Cg, K), Cg)  # (R, S, Cg, K) -> (R * S, K, Cg)
    for phase in input_phases((R, S), (sh, sw), (ph, pw), (dh, dw), out.shape[1:3]):
        _correlate(g, w, phase.weight, phase.dy, phase.dx, Cg * K, Kg * Cg, Cg, Kg, Cg, groups, bias, 1, 1, out,
                   phase.top, phase.left, sh, sw)


# -- weight gradient ---------------------------------------------------------------------------------------------------


def _outer_of(rows, vecs):
    @inline
    def outer(x, xo, x_row, x_pixel, g, go, g_row, g_pixel, height, width, y, yo, y_step):
        """y[c, k] += sum over height x width pixels of x[pixel, c] * g[pixel, k]."""
        acc = tile_zeros(rows, vecs, x)
        for i in range(height):
            a, b = xo + i * x_row, go + i * g_row
            for _ in range(width):
                acc = tile_fma(acc, x, a, 1, g, b)
                a += x_pixel
                b += g_pixel
        tile_add_to(acc, y, yo, y_step)

    return outer


def _channels_of(vecs):
    large, half, quarter, single = (_outer_of(rows, vecs) for rows in (CHANNELS, CHANNELS // 2, CHANNELS // 4, 1))

    @inline
    def channels(count, x, xo, x_row, x_pixel, g, go, g_row, g_pixel, height, width, y, yo, y_step):
        c = 0
        while c < count:
            left = count - c
            to = yo + c * y_step
            if left >= CHANNELS:
                large(x, xo + c, x_row, x_pixel, g, go, g_row, g_pixel, height, width, y, to, y_step)
                c += CHANNELS
            elif left >= CHANNELS // 2:
                half(x, xo + c, x_row, x_pixel, g, go, g_row, g_pixel, height, width, y, to, y_step)
                c += CHANNELS // 2
            elif left >= CHANNELS // 4:
                quarter(x, xo + c, x_row, x_pixel, g, go, g_row, g_pixel, height, width, y, to, y_step)
                c += CHANNELS // 4
            else:
                single(x, xo + c, x_row, x_pixel, g, go, g_row, g_pixel, height, width, y, to, y_step)
                c += 1

    return channels


_channels_wide, _channels_narrow = _channels_of(VECS), _channels_of(1)


@inline
def _span(tap, step, size, low, high):
    """The outputs i in [low, high) whose tap i * step + tap lies in [0, size)."""
    first = max(low, -(tap // step))
    last = min(high, (size - 1 - tap) // step + 1)
    return first, max(first, last)


@inline
def _weight_grad_rows(n, top, bottom, x, g, R, S, C, c0, count, group, Kp, K, OH, OW, sh, sw, ph, pw, dh, dw, y, yo):
    """Adds output rows [top, bottom) of image n to y, flat (R, S, C, Kp), for `count` channels from c0 of one group."""
    _, H, W, channels = x.shape
    L = lanes(x)
    flat = x.reshape(-1)
    for k in range(0, Kp, VECS * L):
        for r in range(R):
            i, i_end = _span(r * dh - ph, sh, H, top, bottom)
            for s in range(S):
                j, j_end = _span(s * dw - pw, sw, W, 0, OW)
                xo = ((n * H + i * sh - ph + r * dh) * W + j * sw - pw + s * dw) * channels + group * C + c0
                go = ((n * OH + i) * OW + j) * K + group * Kp + k
                to = yo + ((r * S + s) * C + c0) * Kp + k
                if Kp - k > L:
                    _channels_wide(count, flat, xo, sh * W * channels, sw * channels, g, go, OW * K, K, i_end - i,
                                   j_end - j, y, to, Kp)
                else:
                    _channels_narrow(count, flat, xo, sh * W * channels, sw * channels, g, go, OW * K, K, i_end - i,
                                     j_end - j, y, to, Kp)


@kernel
def _weight_grad(x, g, R, S, C, Kp, groups, OH, OW, sh, sw, ph, pw, dh, dw, slice_size, chunk, parts, partial):
    """partial, flat (parts, groups, R, S, C, Kp): part p sums the p-th share of the N * OH output rows."""
    N = x.shape[0]
    K = groups * Kp
    slices = (C + slice_size - 1) // slice_size
    for task in prange(parts * groups * slices):
        index = np.int64(task)
        p, group, c0 = index // (groups * slices), index // slices % groups, index % slices * slice_size
        count = min(slice_size, C - c0)
        yo = (p * groups + group) * R * S * C * Kp
        for t in range(R * S):
            start = yo + (t * C + c0) * Kp
            partial[start : start + count * Kp] = 0
        row, end = N * OH * p // parts, N * OH * (p + 1) // parts
        while row < end:
            n, top = row // OH, row % OH
            bottom = min(OH, top + chunk, top + end - row)
            _weight_grad_rows(n, top, bottom, x, g, R, S, C, c0, count, group, Kp, K, OH, OW, sh, sw, ph, pw, dh, dw,
                              partial, yo)
            row += bottom - top


@kernel
def _sum_parts(partial, out):
    """out (R, S, C, groups * K) = partial (parts, groups, R, S, C, Kp) summed over parts in order, padding dropped."""
    parts, groups, R, S, C, _ = partial.shape
    K = out.shape[3] // groups
    for task in prange(R * S * C):
        i = np.int64(task)
        r, s, c = i // (S * C), i // C % S, i % C
        for group in range(groups):
            to = out[r, s, c, group * K : (group + 1) * K]
            to[:] = 0
            for p in range(parts):
                part = partial[p, group, r, s, c]
                for k in range(K):
                    to[k] += part[k]


def conv2d_weight_grad(g, x, stride, padding, dilation, groups, out):
    """Adjoint of `conv2d` in w.

    Pixels are summed in chunks, chunks in at most `PARTIALS` partial sums whose number depends on the shapes alone.

    Args:
        g: (N, OH, OW, K).
        x: (N, H, W, C).
        stride, padding, dilation, groups: of the convolution.
        out: (R, S, C // groups, K), overwritten.
    """
    (sh, sw), (ph, pw), (dh, dw), groups = pair(stride), pair(padding), pair(dilation), int(groups)
    R, S, C, K = out.shape
    N, OH, OW, _ = g.shape
    if g.size == 0 or x.size == 0 or out.size == 0:
        out[...] = 0
        return
    if C == 1 and groups > 1:
        depthwise.conv2d_weight_grad(g, x, (sh, sw), (ph, pw), (dh, dw), out)
        return
    if _winograd(winograd_grad.pays, x, g, (R, S), (sh, sw), (dh, dw), groups):
        partial = winograd_grad.conv2d_weight_grad(g, x, -ph, -pw)
        _sum_parts(partial, out, work=partial.size)
        return
    L = lanes_of(x.dtype)
    Kg = K // groups
    Kp = -(-Kg // L) * L
    if Kp != Kg:
        g_padded = np.zeros((N * OH * OW, groups, Kp), g.dtype)
        g_padded[:, :, :Kg] = g.reshape(-1, groups, Kg)
        g = g_padded
    if groups == 1 and dw == 1 and S > 1 and C < CHANNELS:
        # A window's row is S * C consecutive numbers: with x padded, these fill tiles that C channels would not.
        width = (OW - 1) * sw + S
        x_padded = np.zeros((N, x.shape[1], width, C), x.dtype)
        last = max(0, min(x.shape[2], width - pw))
        x_padded[:, :, pw : pw + last] = x[:, :, :last]
        x, pw, S, C = x_padded, 0, 1, S * C
        out = out.reshape(R, S, C, K)  # (R, S, C, K) -> (R, 1, S * C, K)
    slice_size = min(C, 4 * CHANNELS)
    slices = -(-C // slice_size)
    parts = min(PARTIALS, N * OH, -(-2 * MIN_TASKS // (groups * slices)))
    chunk = max(1, CHUNK_PIXELS // OW)
    partial = np.empty((parts, groups, R, S, C, Kp), x.dtype)
    _weight_grad(x, g.reshape(-1), R, S, C, Kp, groups, OH, OW, sh, sw, ph, pw, dh, dw, slice_size, chunk, parts,
                 partial.reshape(-1), work=N * OH * OW * R * S * C * groups * Kp / MULTIPLY_ADDS_PER_NS)
    _sum_parts(partial, out, work=partial.size)


def bias_grad(g, out):
    """Adjoint of `conv2d` in bias: out (K,) = g (N, OH, OW, K) summed over images and pixels."""
    channel_sum(g.reshape(-1, g.shape[-1]), out)
