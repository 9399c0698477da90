"""Resizing images: linear, so paired with its adjoint."""

from __future__ import annotations

import math
from fractions import Fraction
from numbers import Real
from typing import Any

import numpy as np

from .. import kernels, memory
from ..primitive import primitive
from .conv import channels_first, channels_last, check_image
from .geometry import check_size, pair


def _table(size: int, out: int, mode: str, align_corners: bool, scale: Fraction | None) -> tuple[np.ndarray, ...]:
    """For each output index: the two input indices it mixes, and the weight of the second. In exact integers."""
    scale = scale or Fraction(out, size)
    num, den = scale.numerator, scale.denominator          # num outputs for each den inputs
    i: Any = np.arange(out)
    if max(out, size) * max(num, den) >= 2**60:            # of a factor that is no simple fraction
        i = i.astype(object)
    if mode == "nearest":
        place, unit = i * den, num
    elif mode == "nearest-exact":
        place, unit = (2 * i + 1) * den, 2 * num
    elif align_corners:
        place, unit = i * (size - 1), max(out - 1, 1)
    else:
        place, unit = np.maximum((2 * i + 1) * den - num, 0), 2 * num
    lo = np.minimum((place // unit).astype(np.int64), size - 1)
    if mode != "bilinear":
        return lo, lo, np.zeros(out)
    return lo, np.minimum(lo + 1, size - 1), np.asarray((place - lo * unit) / unit, np.float64)


def _fraction(factor: float) -> Fraction:
    """The simple fraction that a factor stands for: 15/11 for 60 / 44, which a float only comes close to."""
    simple = Fraction(factor).limit_denominator(1 << 20)
    return simple if float(simple) == factor else Fraction(factor)


@primitive
def _resize(x, *, rows, columns):
    out = memory.empty((x.shape[0], len(rows[0]), len(columns[0]), x.shape[1]), x.dtype)
    kernels.resize.resize(channels_last(x), *_tables(rows, columns, x.dtype), out)
    return channels_first(out)


@_resize.vjp(0)
def _(g, x_shape, rows, columns):
    return _resize_adjoint(g, rows=rows, columns=columns, size=x_shape[2:])


@primitive
def _resize_adjoint(x, *, rows, columns, size):
    out = memory.empty((x.shape[0], *size, x.shape[1]), x.dtype)
    kernels.resize.resize_adjoint(channels_last(x), *_tables(rows, columns, x.dtype), out)
    return channels_first(out)


@_resize_adjoint.vjp(0)
def _(g, rows, columns):
    return _resize(g, rows=rows, columns=columns)


def _tables(rows: Any, columns: Any, dtype: np.dtype) -> tuple[np.ndarray, ...]:
    return (*rows[:2], rows[2].astype(dtype), *columns[:2], columns[2].astype(dtype))


def interpolate(x, size=None, scale_factor=None, mode="nearest", align_corners=None):
    """Resize images to a size or by a factor.

    Differs from PyTorch where that rounds: positions and sizes are exact, so 44 pixels times 60 / 44 are 60 (PyTorch: 59), and
    2 pixels 25 times are 25 of each (PyTorch: 26 and 24).

    Args:
        x: (N, C, H, W), float.
        size: int or (rows, columns); or
        scale_factor: a positive number or (rows, columns).
        mode: "nearest" (output i is input floor(i * size / output size)), "nearest-exact" (pixel centres) or "bilinear".
        align_corners: bilinear only: the corner pixels' centres, rather than the corners, coincide.

    Returns:
        (N, C, OH, OW).

    Raises:
        ValueError: neither or both of size and scale_factor, an unknown mode, sizes below 1.
    """
    check_image("interpolate", x)
    if mode not in ("nearest", "nearest-exact", "bilinear"):
        raise ValueError(f"interpolate: mode must be 'nearest', 'nearest-exact' or 'bilinear', got {mode!r}")
    if align_corners is not None and mode != "bilinear":
        raise ValueError("interpolate: align_corners is only for mode='bilinear'")
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: give either size or scale_factor")
    scales: tuple[Fraction | None, ...] = (None, None)
    if size is None:
        factors = tuple(scale_factor) if isinstance(scale_factor, (tuple, list)) else (scale_factor, scale_factor)
        if len(factors) != 2 or not all(isinstance(s, Real) and not isinstance(s, bool) and 0 < s < math.inf for s in factors):
            raise ValueError(f"interpolate: scale_factor must be a positive number or a pair, got {scale_factor!r}")
        scales = tuple([_fraction(float(s)) for s in factors])
        size = tuple([int(n * s) for n, s in zip(x.shape[2:], scales, strict=True)])
    size = pair("interpolate", "size", size, minimum=1)
    if 0 in x.shape[2:]:
        raise ValueError(f"interpolate: x of shape {tuple(x.shape)} has no pixels")
    check_size("interpolate", (*x.shape[:2], *size))
    rows, columns = (_table(n, o, mode, bool(align_corners), s) for n, o, s in zip(x.shape[2:], size, scales, strict=True))
    return _resize(x, rows=rows, columns=columns)
