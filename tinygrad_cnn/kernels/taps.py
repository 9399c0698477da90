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


def leave_out(stride: Pair, size: Pair) -> bool:
    """Whether `input_phases` are too many to list those, too, that no tap meets: their pixels are then to be zeroed beforehand."""
    return min(stride[0], size[0]) * min(stride[1], size[1]) > MANY_PHASES


def input_phases(kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, size: Pair) -> Iterator[Taps]:
    """The input gradient as sh * sw convolutions of stride 1 over the output gradient, one per phase of the stride.

    Input row top + i * sh meets tap r in output row i + (top + ph - r * dh) / sh, where that is whole. The first phase, with most
    pixels, is always there; of others that no tap meets see `leave_out`.
    """
    met: list[dict[int, list[Pair]]] = [{}, {}]    # for rows and columns: the taps that each phase meets, and where
    for axis in (0, 1):
        for tap in range(kernel[axis]):
            first = (tap * dilation[axis] - padding[axis]) % stride[axis]
            met[axis].setdefault(first, []).append((tap, (first + padding[axis] - tap * dilation[axis]) // stride[axis]))
    few = not leave_out(stride, size)
    tops, lefts = ([f for f in (range(min(s, n)) if few else sorted({0, *taps})) if f < n]
                   for s, n, taps in zip(stride, size, met, strict=True))
    for top in tops:
        for left in lefts:
            taps = [(r, s, dy, dx) for r, dy in met[0].get(top, ()) for s, dx in met[1].get(left, ())]
            yield Taps(top, left, [r * kernel[1] + s for r, s, _, _ in taps], [dy for *_, dy, _ in taps], [dx for *_, dx in taps])


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
