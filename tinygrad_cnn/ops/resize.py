"""Resizing images: linear, so paired with its adjoint."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import kernels, memory
from ..primitive import primitive
from .conv import channels_first, channels_last, check_image
from .geometry import check_size, pair


def _table(size: int, out: int, mode: str, align_corners: bool, scale: float | None) -> tuple[np.ndarray, ...]:
    """For each output index: the two input indices it mixes, and the weight of the second (PyTorch's conventions)."""
    i = np.arange(out)
    step = 1 / scale if scale else size / out
    if mode == "nearest":
        lo = np.minimum(np.floor(i * np.float32(step)).astype(np.int64), size - 1)
        return lo, lo, np.zeros(out)
    if mode == "nearest-exact":
        lo = np.minimum(np.floor((i + 0.5) * step).astype(np.int64), size - 1)
        return lo, lo, np.zeros(out)
    if align_corners:
        source = i * ((size - 1) / (out - 1) if out > 1 else 0.0)
    else:
        source = np.maximum((i + 0.5) * step - 0.5, 0)
    lo = np.minimum(np.floor(source).astype(np.int64), size - 1)
    return lo, np.minimum(lo + 1, size - 1), source - lo


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

    Args:
        x: (N, C, H, W), float.
        size: int or (rows, columns); or
        scale_factor: a positive number or (rows, columns).
        mode: "nearest" (PyTorch's floor rule), "nearest-exact" (pixel centres) or "bilinear".
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
    scales: tuple[float | None, float | None] = (None, None)
    if size is None:
        scales = tuple(scale_factor) if isinstance(scale_factor, (tuple, list)) else (scale_factor, scale_factor)
        if len(scales) != 2 or not all(isinstance(s, (int, float)) and 0 < s < float("inf") for s in scales):
            raise ValueError(f"interpolate: scale_factor must be positive, got {scale_factor!r}")
        size = tuple(int(n * s) for n, s in zip(x.shape[2:], scales, strict=True))
    size = pair("interpolate", "size", size, minimum=1)
    if 0 in x.shape[2:]:
        raise ValueError(f"interpolate: x of shape {tuple(x.shape)} has no pixels")
    check_size("interpolate", (*x.shape[:2], *size))
    rows, columns = (_table(n, o, mode, bool(align_corners), s) for n, o, s in zip(x.shape[2:], size, scales, strict=True))
    return _resize(x, rows=rows, columns=columns)
