"""Convolution (cross-correlation), its two gradients, and the bias gradient, on channels-last images.

Forward and input gradient are one loop nest: each output pixel is a sum over taps, a tap being an offset (dy, dx) in
the input and a matrix (C, K). For the gradient of a convolution of stride (sh, sw) the input pixels split into sh * sw
phases; within one, consecutive pixels meet the same taps at consecutive pixels of `g`: a convolution of stride 1.
"""

import functools
from typing import NamedTuple

import numpy as np
from numba import prange

from .. import memory
from . import columns, depthwise, grouped, options, weight_grad, winograd, winograd_grad
from .constants import is_kept
from .jit import MAX_THREADS, inline, is_parallel, kernel, pair
from .norm import channel_sum
from .patches import DEPTH, PITCH, PIXELS, gather, runs_of
from .rows import ROWS, VECS, lanes_of, pack, product_narrow, product_wide, transposed
from .simd import VECTOR_BYTES, lanes, store_steps
from .taps import all_taps, in_order, input_phases, phase_count

BAND_BYTES = 1 << 19  # of copied lines of images per task: a part of the second-level cache
CACHE_BYTES = 1 << 20  # of weights that stay in the second-level cache from one task to the next
MANY = 56  # pixels of a task that make up for weights from further away
MIN_TASKS = 16
COPY_CYCLES = 4.5  # per vector of copied windows, which go to the second-level cache
MULTIPLY_ADDS_PER_NS = 50  # of one thread, roughly


# -- forward and input gradient ----------------------------------------------------------------------------------------


@inline
def _fill_places(first, count, OH, OW, start, image, row, pixel, places):
    """places[p]: where in a flat array pixel number `first + p` of (N, OH, OW) lies, given the steps."""
    line, j, p = first // OW, first % OW, 0
    while p < count:
        size = min(OW - j, count - p)
        o = start + line // OH * image + line % OH * row + j * pixel
        for i in range(0, size, 8):
            store_steps(places, p + i, o + i * pixel, pixel)
        line, j, p = line + 1, 0, p + size


@inline
def _taps_inside(taps, first, end, p, count, OW, top, sy, H):
    """The part of taps [first, end) in lines of the image for the tile from pixel p of a band at output line `top` on, and
    where the tiles end that meet the same."""
    highest, lowest, until = top + p // OW, top + (min(p + ROWS, count) - 1) // OW, count
    above, below = first, end - 1
    while above < end and lowest * sy + taps[1, above] < 0:
        above += 1
    while below >= above and highest * sy + taps[1, below] >= H:
        below -= 1
    if above > below:
        return above, above, min(count, p + ROWS)
    if above > first:  # until tiles that reach a line that meets one tap more
        until = max(p + ROWS, p + ((-(taps[1, above - 1] // sy) - top) * OW - p) // ROWS * ROWS)
    line = (H - 1 - taps[1, below]) // sy + 1 - top  # the first one that does not meet the last tap
    return above, below + 1, min(until, count, p + (line * OW - p + ROWS - 1) // ROWS * ROWS)


@inline
def _sums(count, phase, t0, t1, taps, rows, top, sy, H, x, xo, lie, w, bias, group, Kg, k_first, k_last, y, at, places, floor, ahead,
          soon, share):
    """Channels [k_first, k_last) of a group, of `count` pixels: sums over columns [t0, t1) of their windows, the last ones if not below
    `floor`."""
    T, L = phase[2], lanes(w)
    Kp, width = (Kg + L - 1) // L * L, VECS * L
    offsets, before, done = taps[0, : t1 - t0], t0, np.int64(0)
    while done < count:                    # by tiles that meet the same lines inside the image; taps of others are left out
        end = count
        if rows > 0:
            a, b, end = _taps_inside(taps, phase[0], phase[1], done, count, phase[4], top, sy, H)
            offsets, before = taps[0, a:b], a - phase[0]
        for k in range(k_first, k_last, width):
            b = group * Kp + k
            wo = phase[6] + b * T + before * min(width, Kp - k)
            to, fetch, lowest = at + group * Kg + k, share * (k == k_first and t0 == 0), floor if t1 == T else -np.inf
            if Kp - k > L:
                product_wide(done, end, x, xo, lie, offsets, w, wo, bias, b, t0 > 0, y, places, to, Kg - k, lowest, ahead, soon, fetch)
            else:
                product_narrow(done, end, x, xo, lie, offsets, w, wo, bias, b, t0 > 0, y, places, to, Kg - k, lowest, ahead, soon, fetch)
        done = end


@inline
def _share(i, x, w, phases, runs, taps, Cg, Kg, groups, bias, sy, sx, rows, more, x_row, line, chunk, chunks, pitch, step,
           block, y, y_image, y_row, y_pixel, floor, scratch, tables):
    """The outputs of worker i, phase by phase: row (first, end, T, OH, OW, start in y, start in w, pixels per task) of `phases`
    describes outputs that meet the same windows, T columns wide.

    Tasks are bands of `rows` lines, if `rows` is positive: the lines of the padded image that their windows reach are copied,
    `line` pieces of each; `taps` [:, first : end) then are, for each column, where it lies, and in which line. Else tasks are
    blocks of pixels times blocks of output channels: windows, described by `runs` [first, end), are copied in chunks of
    columns, or, if `rows` is negative, are the pixels of x. Windows of neighbouring pixels are `step`, those of neighbouring
    lines `x_row` apart, except copied ones, which follow one another.
    """
    N, H, W, C = x.shape
    flat, bands, numbers = x.reshape(-1), 1, 0
    if rows > 0:
        bands = (phases[0, 3] + rows - 1) // rows
        numbers = N * bands
    else:
        for f in range(phases.shape[0]):
            numbers = max(numbers, (N * phases[f, 3] * phases[f, 4] + phases[f, 7] - 1) // phases[f, 7])
    blocks = (Kg + block - 1) // block
    tasks, workers, share = numbers * blocks, scratch.shape[0], C * (sy * sx if rows > 0 else 1)
    windows, places, lie = scratch[i], tables[0][i], tables[1][i]
    task, tasks_end = tasks * i // workers, tasks * (i + 1) // workers
    filled = np.int64(-1)
    while task < tasks_end:                # windows are copied once for all channels that this worker makes of them
        number = task // blocks
        k_first, k_last = task % blocks * block, min(Kg, (min(tasks_end, (number + 1) * blocks) - number * blocks) * block)
        task = (number + 1) * blocks
        n, top = number // bands, number % bands * rows
        for part in range(groups * chunks):
            group, t0 = part // chunks, part % chunks * chunk
            for f in range(phases.shape[0]):
                T, OH, OW = phases[f, 2], phases[f, 3], phases[f, 4]
                first = number * phases[f, 7]
                count = min(phases[f, 7], N * OH * OW - first)
                if rows > 0:
                    first, count = (n * OH + top) * OW, min(rows, OH - top) * OW
                t1 = T if rows > 0 else min(T, t0 + chunk)
                columns, a, b, down, right, high, wide, p0, pixels = t1, phases[f, 0], phases[f, 1], sy, sx, OH, OW, first, count
                if rows > 0:               # lines of the image, in pieces
                    columns, a, b, down, right, high, wide = pitch, 0, 1, 1, 1, (OH - 1) * sy + more, line
                    p0, pixels = (n * high + top * sy) * line, ((min(rows, OH - top) - 1) * sy + more) * line
                if rows == 0 or (rows > 0 and f == 0):
                    gather(x, group * Cg, Cg, runs[a:b], t0, columns, down, right, high, wide, p0, pixels, windows, pitch)
                if count <= 0 or 0 < t0 >= T:
                    continue
                source, xo, row = windows, 0, x_row if rows > 0 else OW * step
                begin, at = (0, n * y_image + top * y_row) if rows > 0 else (first, 0)
                image, start = OH * row, -(begin // OW * row + begin % OW * step)
                if rows < 0:
                    source, xo, row, image, start = flat, group * Cg + t0, x_row, H * W * C, 0
                if rows <= 0 or phases.shape[0] > 1 or count != filled:  # bands of as many lines have the same places
                    filled = count
                    _fill_places(begin, count, OH, OW, start, image, row, step, lie)
                    _fill_places(begin, count, OH, OW, phases[f, 5], y_image, y_row, y_pixel, places)
                    lie[count : count + ROWS] = 0
                    places[count : count + ROWS] = -1
                later = (first + count) // OW
                soon = (later // OH * H + later % OH * sy) * W * C
                _sums(count, phases[f], t0, t1, taps, rows, top, sy, H, source, xo, lie, w, bias, group, Kg, k_first, k_last, y, at, places,
                      floor, flat, soon, share)


@kernel
def _convolve(x, w, phases, runs, taps, Cg, Kg, groups, bias, sy, sx, rows, more, x_row, line, chunk, chunks, pitch, step, block,
              y, y_image, y_row, y_pixel, floor, scratch, tables):
    """All outputs. What the workers do is a function of its own, compiled once for one thread and for several."""
    for worker in prange(scratch.shape[0]):
        _share(np.int64(worker), x, w, phases, runs, taps, Cg, Kg, groups, bias, sy, sx, rows, more, x_row, line, chunk, chunks, pitch,
               step, block, y, y_image, y_row, y_pixel, floor, scratch, tables)


class _Plan(NamedTuple):
    """What `_convolve` and `pack` need to know about sizes alone."""

    phases: np.ndarray
    runs: np.ndarray
    taps: np.ndarray
    rows: int
    more: int
    x_row: int
    line: int
    chunk: int
    chunks: int
    pitch: int
    step: int
    block: int
    weights: tuple[tuple[int, ...], ...]
    scratch: int
    places: int
    work: float


def _at(phases, name):
    return [value for phase in phases for value in getattr(phase, name)] or [0]


def _plan(kernel, stride, padding, dilation, groups, C, K, x_shape, out_shape, gradient, bits):
    """The plan of a convolution from `x_shape` with C to K channels per group, or of an input gradient."""
    N, H, W, pixel = x_shape
    L = VECTOR_BYTES * 8 // bits
    Kp = -(-K // L) * L
    if gradient:
        phases, (sy, sx), (out_sy, out_sx) = list(input_phases(kernel, stride, padding, dilation, out_shape[1:3])), (1, 1), stride
    else:
        phases, (sy, sx), (out_sy, out_sx) = [all_taps(kernel, padding, dilation)], stride, (1, 1)
    phases = [in_order(phase) for phase in phases]
    sizes = [(len(range(phase.top, out_shape[1], out_sy)), len(range(phase.left, out_shape[2], out_sx))) for phase in phases]
    high, wide = sizes[0]  # most of all phases
    dy, dx = _at(phases, "dy"), sorted(set(_at(phases, "dx")))
    more = max(dy) - min(dy) + 1  # lines from a window's first to its last
    # Cycles per pixel: of products, with all tiles whole or not, and of copies, of windows or of lines.
    taps = sum(len(phase.weight) for phase in phases)
    products = taps * C * Kp / L / 2 * groups
    best, rows = products + groups * (taps * C / L * COPY_CYCLES + sum(7 * len(set(phase.dy)) for phase in phases)), 0
    # A line of the padded image: its pixels, elements from one to the next, the pieces it is copied in, elements of each.
    padded = (wide - 1) * sx + dx[-1] - dx[0] + 1
    apart = C if groups == 1 or C < L else -(-C // L) * L
    line, pitch = (1, -(-padded * C // L) * L) if groups == 1 else (padded, apart)
    if len(set(dy)) > 1:
        fewest = 1 if taps * C * groups * Kp * bits <= 8 * CACHE_BYTES else MANY
        copied = groups * line * -(-pitch // L) * (1 if groups == 1 else 2)
        room = BAND_BYTES * 8 // (bits * line * pitch)
        for lines in range(min(high, max(1, N * high // MIN_TASKS)), 0, -1):
            tiles = high // lines * -(-lines * wide // ROWS) + -(-(high % lines) * wide // ROWS)
            cost = (products * tiles * ROWS + copied * (high * sy + -(-high // lines) * (more - sy))) / (high * wide)
            if (lines - 1) * sy + more <= room and lines * wide >= fewest and cost < best:
                best, rows = cost, lines
    chunks, x_row, step = 1, sy * line * pitch, sx * apart
    if rows == 0:
        chunks, x_row, pitch, step = max(1, -(-max(len(phase.weight) for phase in phases) * C // DEPTH)), 0, PITCH, PITCH
        if len(phases) == 1 and (dy, dx) == ([0], [0]) and sy * (high - 1) < H and sx * (wide - 1) < W:
            rows, x_row, step = -1, sy * W * pixel, sx * pixel
    pixels, block = N * high * wide, K
    tasks = -(-pixels // PIXELS)
    if tasks < MIN_TASKS and rows <= 0:
        block = max(2 * VECS * L, -(-K * tasks // MIN_TASKS // (VECS * L)) * VECS * L)
        tasks = -(-MIN_TASKS // -(-K // block))
    table, runs, offsets, w_start = [], [], [], 0
    if rows > 0:
        runs = [[[min(dy), dx[0], padded if line == 1 else 1, 0]]]
    for phase, (OH, OW) in zip(phases, sizes, strict=True):
        T = len(phase.weight) * C
        if rows > 0:
            found = [((a - min(dy)) * line * pitch + (b - dx[0]) * apart + c, a)
                     for a, b in zip(phase.dy, phase.dx, strict=True) for c in range(C)]
            offsets += found
            start = len(offsets)
        else:
            found = runs_of(phase.dy, phase.dx, C, groups == 1)
            runs.append(found)
            start = sum(map(len, runs))
        table.append([start - len(found), start, T, OH, OW, (phase.top * out_shape[2] + phase.left) * out_shape[3],
                      w_start * groups * Kp, min(PIXELS, max(1, -(-N * OH * OW // (tasks * ROWS))) * ROWS)])
        w_start += T
    weights = tuple([tuple([tap * C * K * groups for tap in phase.weight]) for phase in phases])
    scratch = ((rows - 1) * sy + more) * line * pitch + L if rows > 0 else PIXELS * PITCH
    taps_table = np.array(offsets or [(t, 0) for t in range(DEPTH)], np.int64).T.copy()
    return _Plan(np.array(table, np.int64), np.concatenate(runs), taps_table, rows, more, x_row, line, DEPTH, chunks, pitch, step, block,
                 weights, scratch, (rows * wide if rows > 0 else PIXELS) + 2 * ROWS, pixels * products * 2 * L / MULTIPLY_ADDS_PER_NS)


def _correlate(x, w, plan, group_step, row_step, C, K, groups, bias, floor, stride, out, out_stride):
    """For each phase: out[n, top + i * out_sy, left + j * out_sx] = bias + sum_t x[n, i * sy + dy[t], j * sx + dx[t]] @ w_t.

    Args:
        x: (N, H, W, groups * C).
        w: any shape; the matrix of tap t begins at element `plan.weights[phase][t]`, laid out by the steps (see `pack`).
        bias: (groups * K,) or None.
        floor: what smaller outputs become.
        out: (N, OH, OW, groups * K), overwritten.
    """
    packed, L = pack(w, plan.weights, groups, C, K, group_step, row_step), lanes_of(x.dtype)
    if bias is None or K % L:
        padded = np.zeros((groups, -(-K // L) * L), x.dtype)
        if bias is not None:
            padded[:, :K] = bias.reshape(groups, K)
        bias = padded.reshape(-1)
    _, OH, OW, channels = out.shape
    workers = MAX_THREADS if is_parallel(plan.work) else 1
    tables = memory.empty((workers, plan.places), np.int64), memory.empty((workers, plan.places), np.int64)
    _convolve(x, packed, plan.phases, plan.runs, plan.taps, C, K, groups, bias, *stride, plan.rows, plan.more,
              plan.x_row, plan.line, plan.chunk, plan.chunks, plan.pitch, plan.step, plan.block, out.reshape(-1), OH * OW * channels,
              OW * channels * out_stride[0], channels * out_stride[1], floor, memory.empty((workers, plan.scratch), x.dtype),
              tables, work=plan.work)


@functools.lru_cache(maxsize=512)
def _way(gradient, x_shape, w_shape, out_shape, stride, padding, dilation, groups, dtype, kept, algorithm):
    """What computes a convolution, or an input gradient, from x to out: one of the modules beside this one, or a plan for `_correlate`."""
    R, S, C, K = w_shape
    K //= groups
    if depthwise.suits(C, K, groups, dtype):
        return depthwise
    if _winograd(winograd.pays, x_shape, out_shape, (R, S), stride, dilation, groups, dtype, algorithm, gradient=gradient, kept=kept):
        return winograd
    if gradient and groups == 1 and columns.suits(C, R, S, dtype, out_shape[2], padding[1], dilation[1]):
        return columns
    if gradient:
        C, K = K, C
    return _plan((R, S), stride, padding, dilation, groups, C, K, x_shape, out_shape, gradient, dtype.itemsize * 8)


def _winograd(pays, x_shape, y_shape, kernel, stride, dilation, groups, dtype, algorithm, **how):
    """Whether to use Winograd's algorithm for a convolution from x to y, or a gradient of one."""
    fits = dtype == np.float32 and kernel == (3, 3) and stride == dilation == (1, 1) and groups == 1
    if not fits or algorithm == "direct" or 0 in x_shape:
        return False
    return algorithm == "winograd" or pays(x_shape[0], x_shape[3], y_shape[3], *y_shape[1:3], **how)


def conv2d(x, w, bias, stride, padding, dilation, groups, out, relu=False):
    """Cross-correlation.

    out[n, i, j, k] = bias[k] + sum over r, s, c of x[n, i * sh - ph + r * dh, j * sw - pw + s * dw, c] * w[r, s, c, k].

    3x3 convolutions of stride 1 in float32 may use `winograd.conv2d` (see `options`). Taps outside the image count as zeros times
    their weights, or not at all: weights that are Inf or NaN may make a NaN of outputs at the edge, or leave them.

    Args:
        x: (N, H, W, C); taps outside the image are zeros.
        w: (R, S, C // groups, K); group i maps its C // groups channels to outputs [i * K // groups, ...).
        bias: (K,).
        stride: (sh, sw), at least 1.
        padding: (ph, pw) above and to the left; below and to the right it follows from `out`.
        dilation: (dh, dw), at least 1.
        groups: divides C and K.
        out: (N, OH, OW, K), overwritten.
        relu: whether negative outputs become 0; NaN stays.
    """
    stride, padding, dilation, groups = pair(stride), pair(padding), pair(dilation), int(groups)
    if out.size == 0:
        return
    sizes = (False, x.shape, w.shape, out.shape, stride, padding, dilation, groups, x.dtype, is_kept(w))
    way = _way(*sizes, options.conv_algorithm)
    if way is winograd:
        if winograd.conv2d(x, w, False, -padding[0], -padding[1], bias, out, relu):
            return
        way = _way(*sizes, "direct")           # NaN, Inf and overflows reach only what sees them
    if way is depthwise:
        depthwise.conv2d(x, w, bias, stride, padding, dilation, out, relu)
    else:
        C, K = w.shape[2], w.shape[3]
        _correlate(x, w, way, K // groups, K, C, K // groups, groups, bias, 0.0 if relu else -np.inf, stride, out, (1, 1))


def conv2d_input_grad(g, w, stride, padding, dilation, groups, out):
    """Adjoint of `conv2d` in x.

    Args:
        g: (N, OH, OW, K).
        w: (R, S, C // groups, K).
        stride, padding, dilation, groups: of the convolution.
        out: (N, H, W, C), overwritten; pixels that no window reaches become 0.
    """
    stride, padding, dilation, groups = pair(stride), pair(padding), pair(dilation), int(groups)
    if out.size == 0:
        return
    if g.size == 0:
        out[...] = 0
        return
    sizes = (True, g.shape, w.shape, out.shape, stride, padding, dilation, groups, g.dtype, is_kept(w))
    way = _way(*sizes, options.conv_algorithm)
    if way is winograd:
        if winograd.conv2d(g, w, True, padding[0] - 2, padding[1] - 2, None, out):
            return
        way = _way(*sizes, "direct")           # as in `conv2d`
    if way is depthwise:
        depthwise.conv2d_input_grad(g, w, stride, padding, dilation, out)
    elif way is columns:
        columns.conv2d_input_grad(g, w, stride, padding, dilation, out)
    else:
        R, S, C, K = w.shape
        if len(way.phases) < phase_count(stride, out.shape[1:3]):
            out[...] = 0
        w = transposed(w.reshape(R * S, C, K), C)  # (R, S, C, K) -> (R * S, K, C)
        _correlate(g, w, way, K // groups * C, C, K // groups, C, groups, None, -np.inf, (1, 1), out, stride)


def conv2d_weight_grad(g, x, stride, padding, dilation, groups, out):
    """Adjoint of `conv2d` in w.

    Args:
        g: (N, OH, OW, K).
        x: (N, H, W, C).
        stride, padding, dilation, groups: of the convolution.
        out: (R, S, C // groups, K), overwritten.
    """
    stride, padding, dilation, groups = pair(stride), pair(padding), pair(dilation), int(groups)
    R, S, C, K = out.shape
    if g.size == 0 or x.size == 0 or out.size == 0:
        out[...] = 0
        return
    if C == 1 and groups > 1:
        depthwise.conv2d_weight_grad(g, x, stride, padding, dilation, out)
        return
    if grouped.suits(groups, C, K, x.dtype) and grouped.fits(g, (R, S), stride, dilation):
        grouped.conv2d_weight_grad(g, x, stride, padding, dilation, out)
        return
    partial = None
    if _winograd(winograd_grad.pays, x.shape, g.shape, (R, S), stride, dilation, groups, x.dtype, options.conv_algorithm):
        partial = winograd_grad.conv2d_weight_grad(g, x, -padding[0], -padding[1])
    if partial is None:
        partial = weight_grad.partial_sums(g, x, stride, padding, dilation, groups, out.shape)
    weight_grad.sum_parts(partial, out.reshape(R * S * C, K), work=partial.size)


def bias_grad(g, out):
    """Adjoint of `conv2d` in bias: out (K,) = g (N, OH, OW, K) summed over images and pixels."""
    channel_sum(g.reshape(-1, g.shape[-1]), out)
