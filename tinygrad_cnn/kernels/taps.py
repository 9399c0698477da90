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


def input_phases(kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, size: Pair) -> Iterator[Taps]:
    """The input gradient as sh * sw convolutions of stride 1 over the output gradient, one per phase of the stride.

    Input row top + i * sh meets tap r in output row i + (top + ph - r * dh) / sh, where that is whole.
    """
    (R, S), (sh, sw), (ph, pw), (dh, dw) = kernel, stride, padding, dilation
    for top in range(min(sh, size[0])):
        for left in range(min(sw, size[1])):
            taps = [(r, s) for r in range(R) for s in range(S)
                    if (top + ph - r * dh) % sh == 0 and (left + pw - s * dw) % sw == 0]
            yield Taps(top, left, [r * S + s for r, s in taps], [(top + ph - r * dh) // sh for r, _ in taps],
                       [(left + pw - s * dw) // sw for _, s in taps])


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
