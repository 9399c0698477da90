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
from .patches import DEPTH, PITCH, PIXELS, SHORT, gather, runs_of
from .rows import ROWS, VECS, lanes_of, pack, product_narrow, product_wide, transposed
from .simd import VECTOR_BYTES, lanes
from .taps import all_taps, in_order, input_phases

BAND_BYTES = 1 << 19  # of copied rows of windows per task: a part of the second-level cache
CACHE_BYTES = 1 << 20  # of weights that stay in the second-level cache from one task to the next
MIN_TASKS = 16
COPY_CYCLES = 4.5  # per vector of copied windows, which go to the second-level cache
MULTIPLY_ADDS_PER_NS = 50  # of one thread, roughly


# -- forward and input gradient ----------------------------------------------------------------------------------------


@inline
def _fill_places(first, count, slots, OH, OW, start, image, row, pixel, places):
    """places[p]: where in a flat array pixel number `first + p` of (N, OH, slots) lies, given the steps; -1 if not in (N, OH, OW)."""
    line, j = first // slots, first % slots
    p = -j
    while p < count:
        o = start + line // OH * image + line % OH * row
        for i in range(max(p, 0), min(p + OW, count)):
            places[i] = o + (i - p) * pixel
        for i in range(max(p + OW, 0), min(p + slots, count)):
            places[i] = -1
        line += 1
        p += slots
    places[count : count + ROWS] = -1


@inline
def _taps_inside(taps, first, end, pixel, count, slots, top, sy, H):
    """The part of taps [first, end) in lines of the image, for a tile of pixels of the band at output line `top`."""
    while first < end and (top + (min(pixel + ROWS, count) - 1) // slots) * sy + taps[first, 1] < 0:
        first += 1
    while first < end and (top + pixel // slots) * sy + taps[end - 1, 1] >= H:
        end -= 1
    return first, end


@inline
def _share(i, x, w, phases, runs, taps, Cg, Kg, groups, bias, sy, sx, rows, more, slots, line, chunk, chunks, pitch, step,
           block, y, y_image, y_row, y_pixel, floor, scratch, tables):
    """The outputs of worker i, phase by phase: row (first, end, T, OH, OW, start in y, start in w, pixels per task, run) of
    `phases` describes outputs that meet the same windows, T columns wide.

    Tasks are bands of `rows` lines of `slots` pixels, if `rows` is positive: rows of windows are copied, once for all
    windows that have them, in chunks of channels; if `line` is 1, whole lines of padded images, since neighbours share them.
    Rows [first, end) of `taps` then are, for parts of the window of `run` pixels, where they lie, `step` apart for
    neighbouring windows, and in which line. Else tasks are blocks of pixels times blocks of output channels: windows,
    described by `runs` [first, end), are copied in chunks of columns, or, if `rows` is negative, are the pixels of x.
    """
    (N, H, W, C), L = x.shape, lanes(w)
    Kp, width = (Kg + L - 1) // L * L, VECS * L
    flat, bands, numbers, parts = x.reshape(-1), 1, 0, runs.shape[0] // sy
    if rows > 0:
        bands = (phases[0, 3] + rows - 1) // rows
        numbers = N * bands
    else:
        for f in range(phases.shape[0]):
            numbers = max(numbers, (N * phases[f, 3] * phases[f, 4] + phases[f, 7] - 1) // phases[f, 7])
    blocks = (Kg + block - 1) // block
    tasks, workers, share = numbers * blocks, scratch.shape[0], C * sy * sx
    windows, places = scratch[i], tables[i]
    task, tasks_end = tasks * i // workers, tasks * (i + 1) // workers
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
                    first, count = (n * OH + top) * slots, min(rows, OH - top) * slots
                here = rows < 0 and (first + count + ROWS) * C <= flat.shape[0]
                t1 = min(T, t0 + chunk)
                if rows == 0 or rows < 0 and not here or rows > 0 and f == 0 and (line > 1 or part == 0):
                    c0, channels, high, wide, p0, pixels = group * Cg, Cg, OH, OW, first, count
                    columns_from, columns_to, a, b, to, images = t0, t1, phases[f, 0], phases[f, 1], 0, 1
                    if rows > 0:           # rows of windows, sy images of them
                        c0, channels = (group * Cg + t0, min(chunk, Cg - t0)) if line > 1 else (0, C)
                        high, wide = OH + more, line
                        p0, pixels = (n * high + top) * line, (min(rows, OH - top) + more) * line
                        columns_from, columns_to, a, b, images = 0, pitch, 0, parts, sy
                    for _ in range(images):
                        gather(x, c0, channels, runs[a:b], columns_from, columns_to, sy, sx, high, wide, p0, pixels, windows[to:], pitch)
                        a, b, to = b, b + parts, to + (rows + more) * line * pitch
                if count <= 0 or 0 < t0 >= T:
                    continue
                line_slots = slots if rows > 0 else OW
                _fill_places(first, count, line_slots, OH, OW, phases[f, 5], y_image, y_row, y_pixel, places)
                later = (first + count) // line_slots
                soon = (later // OH * H + later % OH * sy) * W * C
                source, xo, x_step, offsets, depth, skip = windows, 0, step, taps[:1, 0], t1 - t0, 0
                if rows > 0:
                    t1, xo = T if t0 + chunk >= Cg else 0, 0 if line > 1 else group * Cg
                    depth = min(chunk, Cg - t0) * phases[f, 8]
                    skip = Cg * phases[f, 8] - depth
                elif here:
                    source, xo, x_step = flat, first * C + group * Cg + t0, C
                lowest = floor if t1 == T else -np.inf
                # Tiles that meet the same lines inside the image; taps of others are left out.
                done, end, from_tap, to_tap = 0, 0, -1, -1
                while done < count:
                    a, b = phases[f, 0], phases[f, 1]
                    if rows > 0 and end < count:
                        a, b = _taps_inside(taps, a, b, end, count, slots, top, sy, H)
                    if end < count and (end == done or (a, b) == (from_tap, to_tap)):
                        end, from_tap, to_tap = end + ROWS if rows > 0 else count, a, b
                        continue
                    end = min(end, count)
                    if rows > 0:
                        offsets = taps[from_tap:to_tap, 0]
                    o, ahead = xo + done * x_step, soon + done * share
                    before = (from_tap - phases[f, 0]) * (depth + skip)
                    for k in range(k_first, k_last, width):
                        b = group * Kp + k
                        wo = phases[f, 6] + b * T + (t0 + before) * min(width, Kp - k)
                        if Kp - k > L:
                            product_wide(end - done, source, o, x_step, offsets, depth, skip, w, wo, bias, b, t0 > 0, y,
                                         places[done:], group * Kg + k, Kg - k, lowest, flat, ahead, share)
                        else:
                            product_narrow(end - done, source, o, x_step, offsets, depth, skip, w, wo, bias, b, t0 > 0, y,
                                           places[done:], group * Kg + k, Kg - k, lowest)
                    done = end


@kernel
def _convolve(x, w, phases, runs, taps, Cg, Kg, groups, bias, sy, sx, rows, more, slots, line, chunk, chunks, pitch, step, block,
              y, y_image, y_row, y_pixel, floor, scratch, tables):
    """All outputs. What the workers do is a function of its own, compiled once for one thread and for several."""
    for worker in prange(scratch.shape[0]):
        _share(np.int64(worker), x, w, phases, runs, taps, Cg, Kg, groups, bias, sy, sx, rows, more, slots, line, chunk, chunks, pitch,
               step, block, y, y_image, y_row, y_pixel, floor, scratch, tables)


class _Plan(NamedTuple):
    """What `_convolve` and `pack` need to know about sizes alone."""

    phases: np.ndarray
    runs: np.ndarray
    taps: np.ndarray
    rows: int
    more: int
    slots: int
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


@functools.lru_cache(maxsize=512)
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
    more = -(-(max(dy) - min(dy) + 1) // sy) - 1  # lines of windows' rows than of outputs
    # Cycles per pixel: of products, with all tiles whole or not, and of copies, of windows or of their rows.
    products = sum(len(phase.weight) for phase in phases) * C * Kp / L / 2 * groups
    copies = groups * sum(len(phase.weight) * C / L * COPY_CYCLES + 7 * len(set(phase.dy)) for phase in phases)

    taps = sum(len(phase.weight) for phase in phases)
    best, rows, slots, line, chunk, pitch, step = products + copies, 0, wide, wide, DEPTH, PITCH, PITCH
    # A line of copied windows' rows, or of pixels: how many windows it has, pieces it is copied in, elements of each.
    parts = -(-C * len(dx) // DEPTH)
    part = C if parts == 1 else -(-C // (parts * L)) * L
    neighbours = runs_of([0] * len(dx), dx, part, groups == parts == 1)
    row = int(np.max(-(-neighbours[:, 3] // L) - (-neighbours[:, 2] * part // L))) * L  # whole vectors are written
    row += (row // L % 2 == 0) * L  # not a power of two
    options, padded = [(wide, wide, part, row, row)] * (wide > 1), wide + (dx[-1] - dx[0]) // sx
    if padded * sx * pixel > SHORT * L:
        options.append((padded, 1, C, padded * sx * pixel, sx * pixel))
    for windows, pieces, size, elements, apart in options * (len(set(dy)) > 1 and taps * C * groups * Kp * bits <= 8 * CACHE_BYTES):
        copied = elements / L if pieces == 1 else groups * wide * (len(dx) * C / L * COPY_CYCLES + 7)
        room = BAND_BYTES * 8 // (bits * elements * pieces * sy)
        for lines in range(max(1, min(high, N * high // MIN_TASKS, room)), 0, -1):
            tiles = high // lines * -(-lines * windows // ROWS) + -(-(high % lines) * windows // ROWS)
            cost = (products * tiles * ROWS + copied * sy * (high + -(-high // lines) * more)) / (high * wide)
            if lines + more <= 2 * room and cost < best:
                best, rows, slots, line, chunk, pitch, step = cost, lines, windows, pieces, size, elements, apart
    chunks = max(1, -(-(C if rows > 0 else max(len(phase.weight) for phase in phases) * C) // chunk))
    if rows == 0 and len(phases) == 1 and (dy, dx, sy, sx, H, W) == ([0], [0], 1, 1, high, wide):
        rows = -1
    pixels, block = N * high * wide, K
    tasks = -(-pixels // PIXELS)
    if tasks < MIN_TASKS and rows <= 0:
        block = max(2 * VECS * L, -(-K * tasks // MIN_TASKS // (VECS * L)) * VECS * L)
        tasks = -(-MIN_TASKS // -(-K // block))
    table, runs, offsets, w_start = [], [], [], 0
    place = {b: dx.index(b) * chunk if line > 1 else (b - dx[0]) * pixel for b in dx}  # of a tap in a row
    if rows > 0 and line > 1:
        runs = [np.add(neighbours, (min(dy) + a, 0, 0, 0)) for a in range(sy)]
    elif rows > 0:
        runs = [[[min(dy) + a, dx[0], slots * sx, 0]] for a in range(sy)]
    for phase, (OH, OW) in zip(phases, sizes, strict=True):
        T, met = len(phase.weight) * C, sorted({place[b] for b in phase.dx})
        run = len(met) if chunks == 1 and met and met[-1] - met[0] == (len(met) - 1) * C else 1
        if rows > 0:
            found = [(((a - min(dy)) % sy * (rows + more) + (a - min(dy)) // sy) * line * pitch + place[b], a)
                     for a, b in list(zip(phase.dy, phase.dx, strict=True))[::run]]
            offsets += found
            start = len(offsets)
        else:
            found = runs_of(phase.dy, phase.dx, C, groups == 1)
            runs.append(found)
            start = sum(map(len, runs))
        table.append([start - len(found), start, T, OH, OW, (phase.top * out_shape[2] + phase.left) * out_shape[3],
                      w_start * groups * Kp, min(PIXELS, max(1, -(-N * OH * OW // (tasks * ROWS))) * ROWS), run])
        w_start += T
    weights = tuple([tuple([tap * C * K * groups for tap in phase.weight]) for phase in phases])
    scratch = (rows + more) * sy * line * pitch + ROWS * step + L if rows > 0 else PIXELS * PITCH
    return _Plan(np.array(table, np.int64), np.concatenate(runs), np.array(offsets or [(0, 0)], np.int64), rows, more, slots, line, chunk,
                 chunks, pitch, step, block, weights, scratch, (rows * slots if rows > 0 else PIXELS) + ROWS,
                 pixels * taps * C * groups * Kp / MULTIPLY_ADDS_PER_NS)


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
    _convolve(x, packed, plan.phases, plan.runs, plan.taps, C, K, groups, bias, *stride, plan.rows, plan.more,
              plan.slots, plan.line, plan.chunk, plan.chunks, plan.pitch, plan.step, plan.block, out.reshape(-1), OH * OW * channels,
              OW * channels * out_stride[0], channels * out_stride[1], floor, memory.empty((workers, plan.scratch), x.dtype),
              memory.empty((workers, plan.places), np.int64), work=plan.work)


@functools.lru_cache(maxsize=512)
def _way(gradient, x_shape, w_shape, out_shape, stride, padding, dilation, groups, dtype, kept, algorithm):
    """What computes a convolution, or an input gradient, from x to out: one of the modules beside this one, or a plan for `_correlate`."""
    R, S, C, K = w_shape
    K //= groups
    if depthwise.suits(C, K, groups, dtype):
        return depthwise
    if _winograd(winograd.pays, x_shape, out_shape, (R, S), stride, dilation, groups, dtype, algorithm, kept=kept):
        return winograd
    if gradient and groups == 1 and columns.suits(C, R, S, dtype):
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
        relu: whether negative outputs become 0; NaN stays.
    """
    stride, padding, dilation, groups = pair(stride), pair(padding), pair(dilation), int(groups)
    if out.size == 0:
        return
    way = _way(False, x.shape, w.shape, out.shape, stride, padding, dilation, groups, x.dtype, is_kept(w), options.conv_algorithm)
    if way is depthwise:
        depthwise.conv2d(x, w, bias, stride, padding, dilation, out, relu)
    elif way is winograd:
        winograd.conv2d(x, w, False, -padding[0], -padding[1], bias, out, relu)
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
    way = _way(True, g.shape, w.shape, out.shape, stride, padding, dilation, groups, g.dtype, is_kept(w), options.conv_algorithm)
    if way is depthwise:
        depthwise.conv2d_input_grad(g, w, stride, padding, dilation, out)
    elif way is winograd:
        winograd.conv2d(g, w, True, padding[0] - 2, padding[1] - 2, None, out)
    elif way is columns:
        columns.conv2d_input_grad(g, w, stride, padding, dilation, out)
    else:
        R, S, C, K = w.shape
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
    if grouped.suits(groups, C, K, x.dtype):
        grouped.conv2d_weight_grad(g, x, stride, padding, dilation, out)
        return
    if _winograd(winograd_grad.pays, x.shape, g.shape, (R, S), stride, dilation, groups, x.dtype, options.conv_algorithm):
        partial = winograd_grad.conv2d_weight_grad(g, x, -padding[0], -padding[1])
        partial = partial.reshape(len(partial), 1, R * S * C, -1)
    else:
        partial = weight_grad.partial_sums(g, x, stride, padding, dilation, groups, out.shape)
    weight_grad.sum_parts(partial, out.reshape(R * S * C, K), work=partial.size)


def bias_grad(g, out):
    """Adjoint of `conv2d` in bias: out (K,) = g (N, OH, OW, K) summed over images and pixels."""
    channel_sum(g.reshape(-1, g.shape[-1]), out)
