"""The taps of a convolution: which weights meet which input pixels."""

from collections.abc import Iterator
from typing import NamedTuple

from .jit import inline

Pair = tuple[int, int]


class Taps(NamedTuple):
    """The taps that meet output pixels (top, left), (top, left + step), ...: matrix number weight[t] of w
    at input offset (dy[t], dx[t])."""

    top: int
    left: int
    weight: list[int]
    dy: list[int]
    dx: list[int]


def all_taps(kernel: Pair, padding: Pair, dilation: Pair) -> Taps:
    """Every tap (r, s), row by row: index r * S + s, offset from the window's unpadded origin."""
    (R, S), (ph, pw), (dh, dw) = kernel, padding, dilation
    taps = [(r, s) for r in range(R) for s in range(S)]
    return Taps(0, 0, list(range(R * S)), [r * dh - ph for r, _ in taps], [s * dw - pw for _, s in taps])


MANY_PHASES = 64


def phase_count(stride: Pair, size: Pair) -> int:
    """How many phases of the stride an image has."""
    return min(stride[0], size[0]) * min(stride[1], size[1])


def _met(taps: int, stride: int, padding: int, dilation: int) -> dict[int, list[Pair]]:
    """For each phase of an axis that taps meet: these, and the output in which each meets the phase's first pixel."""
    met: dict[int, list[Pair]] = {}
    for tap in range(taps):
        before, first = divmod(tap * dilation - padding, stride)
        met.setdefault(first, []).append((tap, -before))
    return met


def input_phases(kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, size: Pair) -> Iterator[Taps]:
    """The input gradient as sh * sw convolutions of stride 1 over the output gradient, one per phase of the stride.

    Input row top + i * sh meets tap r in output row i + (top + ph - r * dh) / sh, where that is whole. The first phase, with most
    pixels, is always there. Of many (`phase_count`), those that no tap meets are left out: their pixels are to be zeroed beforehand.
    """
    down, across = (_met(*axis) for axis in zip(kernel, stride, padding, dilation, strict=True))
    tops, lefts = (list(range(min(s, n))) for s, n in zip(stride, size, strict=True))
    if phase_count(stride, size) > MANY_PHASES:
        tops, lefts = ([f for f in sorted({0, *met}) if f < n] for met, n in zip((down, across), size, strict=True))
    for top in tops:
        for left in lefts:
            taps = [(r * kernel[1] + s, dy, dx) for r, dy in down.get(top, ()) for s, dx in across.get(left, ())]
            yield Taps(top, left, [w for w, _, _ in taps], [dy for _, dy, _ in taps], [dx for _, _, dx in taps])


def in_order(taps: Taps) -> Taps:
    """The same taps by rows and columns of the input, so that neighbours follow one another."""
    ordered = sorted(zip(taps.dy, taps.dx, taps.weight, strict=True))
    dy, dx, weight = ([tap[i] for tap in ordered] for i in range(3))
    return Taps(taps.top, taps.left, weight, dy, dx)


@inline
def inside(first, step, size, count):
    """The range of i in [0, count) whose first + i * step lies in [0, size); `step` is positive."""
    low = min(count, max(0, -(first // step)))
    return low, max(low, min(count, (size - 1 - first) // step + 1))
