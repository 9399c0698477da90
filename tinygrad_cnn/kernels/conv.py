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
from .jit import MAX_THREADS, inline, kernel, pair
from .norm import channel_sum
from .patches import DEPTH, PITCH, PIXELS, copy_band, gather, runs_of
from .rows import ROWS, VECS, lanes_of, pack, product_narrow, product_wide, transposed
from .simd import VECTOR_BYTES, lanes
from .taps import all_taps, in_order, input_phases

BAND_BYTES = 1 << 17  # of padded input rows per task: a part of the second-level cache
CACHE_BYTES = 1 << 20  # of weights that stay in the second-level cache from one task to the next
MIN_TASKS = 16
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


@kernel
def _convolve(x, w, phases, runs, taps, run, Cg, Kg, groups, bias, sy, sx, y0, x0, rows, band, slots, block, y, y_image,
              y_row, y_pixel, floor, scratch, tables):
    """All outputs, phase by phase: row (runs from, to, T, OH, OW, start in y, start in w, pixels per task) of `phases`
    describes outputs that meet the same windows, T columns wide.

    Tasks are bands of `rows` lines of `slots` pixels, copied with their padding, if `rows` is positive; else blocks of
    pixels times blocks of output channels: windows are copied, or, if `rows` is negative, are the pixels of x.
    """
    (N, _, _, C), L = x.shape, lanes(w)
    Kp, width = (Kg + L - 1) // L * L, VECS * L
    flat, origin = x.reshape(-1), np.zeros(1, np.int64)
    bands, numbers = 1, 0
    if rows > 0:
        bands = (phases[0, 3] + rows - 1) // rows
        numbers = N * bands
    else:
        for f in range(phases.shape[0]):
            numbers = max(numbers, (N * phases[f, 3] * phases[f, 4] + phases[f, 7] - 1) // phases[f, 7])
    blocks = (Kg + block - 1) // block
    tasks, workers, share = numbers * blocks, scratch.shape[0], C * sy * sx
    for worker in prange(workers):
        i = np.int64(worker)
        windows, places = scratch[i], tables[i]
        task, end = tasks * i // workers, tasks * (i + 1) // workers
        while task < end:                      # windows are copied once for all channels that this worker makes of them
            number = task // blocks
            k_first, k_last = task % blocks * block, min(Kg, (min(end, (number + 1) * blocks) - number * blocks) * block)
            task = (number + 1) * blocks
            n, top = number // bands, number % bands * rows
            if rows > 0:
                copy_band(x, n, top * sy + y0, x0, sy, band // (sy * slots * sx), slots * sx, windows)
            for f in range(phases.shape[0]):
                T, OH, OW = phases[f, 2], phases[f, 3], phases[f, 4]
                first = number * phases[f, 7]
                count = min(phases[f, 7], N * OH * OW - first)
                if rows > 0:
                    first, count = (n * OH + top) * slots, min(rows, OH - top) * slots
                if count <= 0:
                    continue
                _fill_places(first, count, slots if rows > 0 else OW, OH, OW, phases[f, 5], y_image, y_row, y_pixel, places)
                here = rows < 0 and (first + count + ROWS) * C <= flat.shape[0]
                line = (first + count) // (slots if rows > 0 else OW)
                soon = (line // OH * x.shape[1] + line % OH * sy) * x.shape[2] * C
                for group in range(groups):
                    for t0 in range(0, max(T, 1), T + 1 if rows > 0 else DEPTH):
                        t1 = T if rows > 0 else min(T, t0 + DEPTH)
                        source, xo, step, offsets, depth = windows, 0, PITCH, origin, t1 - t0
                        if rows > 0:
                            xo, step, offsets, depth = group * Cg, sx * C, taps[phases[f, 0] : phases[f, 1]], run
                        elif here:
                            source, xo, step = flat, first * C + group * Cg + t0, C
                        else:
                            gather(x, group * Cg, Cg, runs[phases[f, 0] : phases[f, 1]], t0, t1, sy, sx, OH, OW, first, count, windows)
                        lowest = floor if t1 == T else -np.inf
                        for k in range(k_first, k_last, width):
                            b = group * Kp + k
                            wo = phases[f, 6] + b * T + t0 * min(width, Kp - k)
                            if Kp - k > L:
                                product_wide(count, source, xo, step, offsets, depth, w, wo, bias, b, t0 > 0, y, places,
                                             group * Kg + k, Kg - k, lowest, flat, soon, share)
                            else:
                                product_narrow(count, source, xo, step, offsets, depth, w, wo, bias, b, t0 > 0, y, places,
                                               group * Kg + k, Kg - k, lowest)


class _Plan(NamedTuple):
    """What `_convolve` and `pack` need to know about sizes alone."""

    phases: np.ndarray
    runs: np.ndarray
    offsets: np.ndarray
    run: int
    y0: int
    x0: int
    rows: int
    band: int
    slots: int
    block: int
    weights: list[np.ndarray]
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
    dy, dx = _at(phases, "dy"), _at(phases, "dx")
    y0, x0 = min(dy), min(dx)
    slots = wide + (max(dx) - x0) // sx
    more = -(-(max(dy) - y0 + 1) // sy) - 1  # lines of a band than of outputs
    lines = max(1, min(high, BAND_BYTES * 8 // (sy * slots * sx * pixel * bits), -(-N * high // (2 * MIN_TASKS))))
    runs = [runs_of(phase.dy, phase.dx, C, groups == 1) for phase in phases]
    # Cycles per pixel: bands multiply their padding, too; blocks copy each window.
    products = sum(len(phase.weight) for phase in phases) * C * Kp / L / 2 * groups
    filled = lines * wide / (-(-lines * slots // ROWS) * ROWS)
    copies = groups * sum(len(phase.weight) * C / L * 1.5 + 7 * len(found) for phase, found in zip(phases, runs, strict=True))
    weights = _at(phases, "weight") if any(phase.weight for phase in phases) else []
    rows = lines
    if len(set(dy)) == len(set(dx)) == 1 or len(weights) * C * groups * Kp * bits > 8 * CACHE_BYTES \
            or products / filled > products + copies:
        same = len(phases) == 1 and (y0, x0, sy, sx, H, W) == (0, 0, 1, 1, high, wide)
        rows = -1 if same and kernel == (1, 1) else 0
    widths = {width for found in runs for width in found[:, 2].tolist()}
    run = C
    if rows > 0 and len(widths) == 1:
        run = C * widths.pop()
    elif rows > 0:
        runs = [runs_of(phase.dy, phase.dx, C, False) for phase in phases]
    pixels, block = N * high * wide, K
    tasks = -(-pixels // PIXELS)
    if tasks < MIN_TASKS and rows <= 0:
        block = max(2 * VECS * L, -(-K * tasks // MIN_TASKS // (VECS * L)) * VECS * L)
        tasks = -(-MIN_TASKS // -(-K // block))
    table, run_start, w_start = [], 0, 0
    y_pixel = out_shape[3]
    for phase, found, (OH, OW) in zip(phases, runs, sizes, strict=True):
        T = len(phase.weight) * C
        table.append([run_start, run_start + len(found), T, OH, OW, (phase.top * out_shape[2] + phase.left) * y_pixel,
                      w_start * groups * Kp, min(PIXELS, max(1, -(-N * OH * OW // (tasks * ROWS))) * ROWS)])
        run_start, w_start = run_start + len(found), w_start + T
    runs = np.concatenate(runs)
    a, b = runs[:, 0] - y0, runs[:, 1] - x0
    offsets = ((a % sy * (lines + more) + a // sy) * slots * sx + b) * pixel
    band = (lines + more) * sy * slots * sx
    scratch = (band + ROWS * sx) * pixel if rows > 0 else PIXELS * PITCH
    return _Plan(np.array(table, np.int64), runs, offsets, run, y0, x0, rows, band, slots, block,
                 [np.array(phase.weight, np.int64) for phase in phases], scratch,
                 (lines * slots if rows > 0 else PIXELS) + ROWS,
                 pixels * len(weights) * C * groups * Kp / MULTIPLY_ADDS_PER_NS)


def _correlate(x, w, plan, tap_step, group_step, row_step, C, K, groups, bias, floor, stride, out, out_stride):
    """For each phase: out[n, top + i * out_sy, left + j * out_sx] = bias + sum_t x[n, i * sy + dy[t], j * sx + dx[t]] @ w_t.

    Args:
        x: (N, H, W, groups * C).
        w: any shape; tap t is its matrix number `plan.weights[phase][t]`, laid out by the steps (see `pack`).
        bias: (groups * K,) or None.
        floor: what smaller outputs become.
        out: (N, OH, OW, groups * K), overwritten.
    """
    Kp = -(-K // lanes_of(x.dtype)) * lanes_of(x.dtype)
    packed = pack(w, [taps * tap_step for taps in plan.weights], groups, C, K, group_step, row_step)
    padded = np.zeros((groups, Kp), x.dtype)
    if bias is not None:
        padded[:, :K] = bias.reshape(groups, K)
    _, OH, OW, channels = out.shape
    _convolve(x, packed, plan.phases, plan.runs, plan.offsets, plan.run, C, K, groups, padded.reshape(-1), *stride, plan.y0,
              plan.x0, plan.rows, plan.band, plan.slots, plan.block, out.reshape(-1), OH * OW * channels,
              OW * channels * out_stride[0], channels * out_stride[1], floor, memory.empty((MAX_THREADS, plan.scratch), x.dtype),
              memory.empty((MAX_THREADS, plan.places), np.int64), work=plan.work)


def _winograd(pays, x, y, kernel, stride, dilation, groups, **how):
    """Whether to use Winograd's algorithm for a convolution from x to y, or a gradient of one."""
    fits = x.dtype == np.float32 and kernel == (3, 3) and stride == dilation == (1, 1) and groups == 1
    if not fits or options.conv_algorithm == "direct" or x.size == 0:
        return False
    return options.conv_algorithm == "winograd" or pays(x.shape[0], x.shape[3], y.shape[3], *y.shape[1:3], **how)


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
    (sh, sw), (ph, pw), (dh, dw), groups = pair(stride), pair(padding), pair(dilation), int(groups)
    R, S, Cg, K = w.shape
    if out.size == 0:
        return
    if Cg == 1 and groups > 1:
        depthwise.conv2d(x, w, bias, (sh, sw), (ph, pw), (dh, dw), out, relu)
        return
    if grouped.suits(groups, Cg, K, x.dtype):
        grouped.conv2d(x, w, bias, (sh, sw), (ph, pw), (dh, dw), out, relu)
        return
    if _winograd(winograd.pays, x, out, (R, S), (sh, sw), (dh, dw), groups, kept=is_kept(w)):
        winograd.conv2d(x, w, False, -ph, -pw, bias, out, relu)
        return
    Kg = K // groups
    plan = _plan((R, S), (sh, sw), (ph, pw), (dh, dw), groups, Cg, Kg, x.shape, out.shape, False, x.itemsize * 8)
    _correlate(x, w, plan, Cg * K, Kg, K, Cg, Kg, groups, bias, 0.0 if relu else -np.inf, (sh, sw), out, (1, 1))


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
    if grouped.suits(groups, Cg, K, g.dtype):
        grouped.conv2d_input_grad(g, w, (sh, sw), (ph, pw), (dh, dw), out)
        return
    if _winograd(winograd.pays, g, out, (R, S), (sh, sw), (dh, dw), groups, kept=is_kept(w)):
        winograd.conv2d(g, w, True, ph - 2, pw - 2, None, out)
        return
    if groups == 1 and columns.suits(Cg, R, S, g.dtype):
        columns.conv2d_input_grad(g, w, (sh, sw), (ph, pw), (dh, dw), out)
        return
    Kg = K // groups
    w = transposed(w.reshape(R * S, Cg, K), Cg)  # (R, S, Cg, K) -> (R * S, K, Cg)
    plan = _plan((R, S), (sh, sw), (ph, pw), (dh, dw), groups, Kg, Cg, g.shape, out.shape, True, g.itemsize * 8)
    _correlate(g, w, plan, Cg * K, Kg * Cg, Cg, Kg, Cg, groups, None, -np.inf, (1, 1), out, (sh, sw))


def conv2d_weight_grad(g, x, stride, padding, dilation, groups, out):
    """Adjoint of `conv2d` in w.

    Args:
        g: (N, OH, OW, K).
        x: (N, H, W, C).
        stride, padding, dilation, groups: of the convolution.
        out: (R, S, C // groups, K), overwritten.
    """
    (sh, sw), (ph, pw), (dh, dw), groups = pair(stride), pair(padding), pair(dilation), int(groups)
    R, S, C, K = out.shape
    if g.size == 0 or x.size == 0 or out.size == 0:
        out[...] = 0
        return
    if C == 1 and groups > 1:
        depthwise.conv2d_weight_grad(g, x, (sh, sw), (ph, pw), (dh, dw), out)
        return
    if grouped.suits(groups, C, K, x.dtype):
        grouped.conv2d_weight_grad(g, x, (sh, sw), (ph, pw), (dh, dw), out)
        return
    if _winograd(winograd_grad.pays, x, g, (R, S), (sh, sw), (dh, dw), groups):
        partial = winograd_grad.conv2d_weight_grad(g, x, -ph, -pw)
        partial = partial.reshape(len(partial), 1, R * S * C, -1)
    else:
        partial = weight_grad.partial_sums(g, x, (sh, sw), (ph, pw), (dh, dw), groups, out.shape)
    weight_grad.sum_parts(partial, out.reshape(R * S * C, K), work=partial.size)


def bias_grad(g, out):
    """Adjoint of `conv2d` in bias: out (K,) = g (N, OH, OW, K) summed over images and pixels."""
    channel_sum(g.reshape(-1, g.shape[-1]), out)
