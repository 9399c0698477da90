"""Slow, plain NumPy loops in float64 against which kernels are tested, and what the tests of kernels share."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from tinygrad_cnn.kernels import jit

DTYPES = (np.float32, np.float64)


@contextmanager
def variant(name: str) -> Iterator[None]:
    """Runs kernels in the variant named, "serial" or "parallel", whatever their work."""
    with jit.forced(name == "parallel"):
        yield


def poisoned(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """An array whose every element a kernel must overwrite."""
    return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max, dtype)


def frozen(*arrays: np.ndarray) -> list[np.ndarray]:
    """Copies to compare with after the call."""
    return [a.copy() for a in arrays]


def assert_unchanged(arrays: list[np.ndarray], copies: list[np.ndarray]) -> None:
    for a, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(a, copy)


def assert_sums_close(actual: np.ndarray, expected: np.ndarray, absolute: np.ndarray, terms: int) -> None:
    """`expected` sums `terms` products whose absolute values sum to `absolute`: the bound of any order of adding.

    Source: Higham 2002, "Accuracy and Stability of Numerical Algorithms", eq. 3.5, with the rounding of the result.
    """
    bound = (terms + 3) * np.finfo(actual.dtype).eps * absolute
    np.testing.assert_array_less(np.abs(actual - expected), bound + np.finfo(np.float32).tiny)


@dataclass
class Conv:
    """The sizes of one convolution."""

    N: int
    H: int
    W: int
    C: int
    K: int
    R: int
    S: int
    OH: int
    OW: int
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    dtype: type
    seed: int

    @property
    def how(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
        return self.stride, self.padding, self.dilation, self.groups

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """x (N, H, W, C), w (R, S, C // groups, K), bias (K,), g (N, OH, OW, K)."""
        random = np.random.default_rng(self.seed)
        shapes = ((self.N, self.H, self.W, self.C), (self.R, self.S, self.C // self.groups, self.K), (self.K,),
                  (self.N, self.OH, self.OW, self.K))
        x, w, bias, g = (random.standard_normal(shape).astype(self.dtype) for shape in shapes)
        return x, w, bias, g

    def taps(self) -> Iterator[tuple[int, int, int, int, int, int]]:
        """(i, j, r, s, h, v): output pixel, tap, and the input pixel inside the image that they meet."""
        (sh, sw), (ph, pw), (dh, dw) = self.stride, self.padding, self.dilation
        for i, j, r, s in np.ndindex(self.OH, self.OW, self.R, self.S):
            h, v = i * sh - ph + r * dh, j * sw - pw + s * dw
            if 0 <= h < self.H and 0 <= v < self.W:
                yield i, j, r, s, h, v

    def meetings(self) -> Iterator[tuple[int, int, list[tuple[int, int]], list[tuple[int, int]]]]:
        """(r, s, rows, columns): pairs (output, input) of the rows, and of the columns, that tap (r, s) brings together."""
        (sh, sw), (ph, pw), (dh, dw) = self.stride, self.padding, self.dilation
        for r, s in np.ndindex(self.R, self.S):
            yield (r, s, [(i, h) for i in range(self.OH) if 0 <= (h := i * sh - ph + r * dh) < self.H],
                   [(j, v) for j in range(self.OW) if 0 <= (v := j * sw - pw + s * dw) < self.W])

    def grouped(self, a: np.ndarray) -> np.ndarray:
        """(..., channels) -> (..., groups, channels of each), float64."""
        return a.reshape(*a.shape[:-1], self.groups, a.shape[-1] // self.groups).astype(np.float64)


def _pixels(rows: list[tuple[int, int]], columns: list[tuple[int, int]], which: int) -> tuple[object, ...]:
    """The index of the pixels of all images in these rows and columns."""
    return slice(None), np.array([r[which] for r in rows], int)[:, None], np.array([c[which] for c in columns], int)


@np.errstate(all="ignore")
def conv2d(conv: Conv, x: np.ndarray, w: np.ndarray, bias: np.ndarray) -> np.ndarray:
    x, w = conv.grouped(x), conv.grouped(w)
    out = conv.grouped(np.zeros((conv.N, conv.OH, conv.OW, conv.K)) + bias)
    for r, s, rows, columns in conv.meetings():
        out[_pixels(rows, columns, 0)] += np.einsum("nijgc,cgk->nijgk", x[_pixels(rows, columns, 1)], w[r, s])
    return out.reshape(conv.N, conv.OH, conv.OW, conv.K)


@np.errstate(all="ignore")
def conv2d_input_grad(conv: Conv, g: np.ndarray, w: np.ndarray) -> np.ndarray:
    g, w = conv.grouped(g), conv.grouped(w)
    out = conv.grouped(np.zeros((conv.N, conv.H, conv.W, conv.C)))
    for r, s, rows, columns in conv.meetings():
        out[_pixels(rows, columns, 1)] += np.einsum("nijgk,cgk->nijgc", g[_pixels(rows, columns, 0)], w[r, s])
    return out.reshape(conv.N, conv.H, conv.W, conv.C)


@np.errstate(all="ignore")
def conv2d_weight_grad(conv: Conv, g: np.ndarray, x: np.ndarray) -> np.ndarray:
    g, x = conv.grouped(g), conv.grouped(x)
    out = np.zeros((conv.R, conv.S, conv.C // conv.groups, conv.groups, conv.K // conv.groups))
    for r, s, rows, columns in conv.meetings():
        out[r, s] = np.einsum("nijgc,nijgk->cgk", x[_pixels(rows, columns, 1)], g[_pixels(rows, columns, 0)])
    return out.reshape(conv.R, conv.S, conv.C // conv.groups, conv.K)


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def convs(draw: st.DrawFn) -> Conv:
    """Ragged convolutions: any padding, windows that miss the image, few channels, groups with and without several."""
    kind = draw(st.sampled_from(("any", "any", "any", "first layer", "small groups", "depthwise")))
    groups = draw(st.sampled_from((1, 1, 1, 2, 3, 5)))
    C, K = (groups * draw(st.integers(1, 40 // groups)) for _ in range(2))
    if kind == "first layer":
        groups, C = 1, draw(st.integers(1, 4))
    elif kind == "small groups":  # some fill vectors together
        groups, C = draw(st.sampled_from(((8, 16), (8, 32), (16, 32), (16, 64), (4, 8), (3, 12), (4, 32), (1, 4), (5, 40))))
        K = C
    elif kind == "depthwise":  # with a multiplier of 1 or 2
        C = groups = draw(st.integers(2, 40))
        K = C * draw(st.integers(1, 2))
    (H, W), (R, S), (OH, OW) = draw(pairs(1, 19)), draw(pairs(1, 5)), draw(pairs(1, 17))
    return Conv(draw(st.integers(0, 3)), H, W, C, K, R, S, OH, OW, draw(pairs(1, 3)), draw(pairs(0, 5)),
                draw(pairs(1, 3)), groups, draw(st.sampled_from(DTYPES)), draw(st.integers(0, 2**31)))
