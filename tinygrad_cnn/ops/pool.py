"""Pooling over windows of images (N, C, H, W). Average pooling is linear and paired with its adjoint; max pooling notes
which tap of each window it chose, and gathering and scattering by taps are adjoint.

`windows` are (kernel, stride, padding, dilation), without the dilation for averages; None for adaptive windows.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .. import kernels, memory
from ..primitive import primitive
from .conv import channels_first, channels_last, check_image
from .geometry import LARGEST, at_most, check_size, pair, window_count


def _maxima(x: np.ndarray, windows: Any, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    n, c, *image = x.shape
    out = memory.empty((n, *size, c), x.dtype)
    taps = memory.empty((n, *size, c), kernels.pool.tap_dtype(tuple(image), size, windows))
    kernels.pool.max_pool2d(channels_last(x), windows, out, taps)
    return channels_first(out), channels_first(taps)


@primitive(returns=("out", "taps"))
def _max_pool2d(x, *, windows, size):
    return _maxima(x, windows, size)


@_max_pool2d.vjp(0)
def _(g, taps, x_shape, windows):
    return _scatter_taps(g[0], taps, windows=windows, size=x_shape[2:])


@primitive(returns=("out", "taps"))
def _adaptive_max_pool2d(x, *, size):
    return _maxima(x, None, size)


@_adaptive_max_pool2d.vjp(0)
def _(g, taps, x_shape):
    return _scatter_taps(g[0], taps, windows=None, size=x_shape[2:])


@primitive
def _plane_indices(taps, *, windows, size):
    """row * W + column of the pixels at the taps, int64."""
    return channels_first(kernels.pool.plane_indices(channels_last(taps), tuple(size), windows))


@primitive
def _scatter_taps(x, taps, *, windows, size):
    out = memory.empty((x.shape[0], *size, x.shape[1]), x.dtype)
    kernels.pool.scatter_taps(channels_last(x), channels_last(taps), windows, out)
    return channels_first(out)


@_scatter_taps.vjp(0)
def _(g, taps, windows):
    return _gather_taps(g, taps, windows=windows)


@primitive
def _gather_taps(x, taps, *, windows):
    out = memory.empty((x.shape[0], *taps.shape[2:], x.shape[1]), x.dtype)
    kernels.pool.gather_taps(channels_last(x), channels_last(taps), windows, out)
    return channels_first(out)


@_gather_taps.vjp(0)
def _(g, taps, x_shape, windows):
    return _scatter_taps(g, taps, windows=windows, size=x_shape[2:])


def _means(x: np.ndarray, windows: Any, size: tuple[int, int], count_include_pad: bool, divisor: int) -> np.ndarray:
    out = memory.empty((x.shape[0], *size, x.shape[1]), x.dtype)
    kernels.pool.avg_pool2d(channels_last(x), windows, count_include_pad, divisor, out)
    return channels_first(out)


@primitive
def _avg_pool2d(x, *, windows, size, count_include_pad, divisor):
    return _means(x, windows, size, count_include_pad, divisor)


@_avg_pool2d.vjp(0)
def _(g, x_shape, windows, count_include_pad, divisor):
    return _avg_pool2d_adjoint(g, windows=windows, size=x_shape[2:], count_include_pad=count_include_pad, divisor=divisor)


@primitive
def _adaptive_avg_pool2d(x, *, size):
    return _means(x, None, size, False, 0)


@_adaptive_avg_pool2d.vjp(0)
def _(g, x_shape):
    return _avg_pool2d_adjoint(g, windows=None, size=x_shape[2:], count_include_pad=False, divisor=0)


@primitive
def _avg_pool2d_adjoint(x, *, windows, size, count_include_pad, divisor):
    out = memory.empty((x.shape[0], *size, x.shape[1]), x.dtype)
    kernels.pool.avg_pool2d_adjoint(channels_last(x), windows, count_include_pad, divisor, out)
    return channels_first(out)


@_avg_pool2d_adjoint.vjp(0)
def _(g, x_shape, windows, count_include_pad, divisor):
    return _avg_pool2d(g, windows=windows, size=x_shape[2:], count_include_pad=count_include_pad, divisor=divisor)


def _unbatched(function: Any, x: Any, *args: Any, **options: Any) -> Any:
    out = function(x.unsqueeze(0), *args, **options)
    return tuple(o.squeeze(0) for o in out) if isinstance(out, tuple) else out.squeeze(0)


def _windows(name: str, x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> tuple[Any, ...]:
    kernel = pair(name, "kernel_size", kernel_size, minimum=1)
    stride = kernel if stride is None or stride == () else pair(name, "stride", stride, minimum=1)
    padding, dilation = pair(name, "padding", padding, minimum=0), pair(name, "dilation", dilation, minimum=1)
    return _fitted(name, x.shape[2:], kernel, stride, padding, dilation, bool(ceil_mode))


@functools.lru_cache(maxsize=1024)
def _fitted(name: str, image: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> tuple[Any, ...]:
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise ValueError(f"{name}: padding {padding} must be at most half of kernel_size {kernel}")
    size = tuple(window_count(n, k, s, 2 * p, d, ceil=ceil_mode)
                 for n, k, s, p, d in zip(image, kernel, stride, padding, dilation, strict=True))
    most = image[0] + 2 * padding[0], image[1] + 2 * padding[1]
    if min(size) < 1:
        raise ValueError(f"{name}: kernel_size {kernel} is larger than the padded input of {most}")
    return kernel, at_most(stride, most), padding, at_most(dilation, most), size


def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """The largest value of each window. The first of equal values gets the gradient; NaN wins; padding never does.

    Args:
        x: (N, C, H, W) or (C, H, W), float.
        kernel_size: int or (rows, columns).
        stride: step between windows; kernel_size if None.
        padding: at most half the kernel, on each side.
        dilation: distance between the pixels of a window.
        ceil_mode: let the last window hang over the edge.
        return_indices: also return each maximum's place, row * W + column.

    Returns:
        (N, C, OH, OW), or that and the int64 indices.

    Raises:
        ValueError: sizes that do not fit.

    Source: Riesenhuber & Poggio 1999, "Hierarchical Models of Object Recognition in Cortex".
    """
    if x.ndim == 3:
        return _unbatched(max_pool2d, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    check_image("max_pool2d", x)
    kernel, stride, padding, dilation, size = _windows("max_pool2d", x, kernel_size, stride, padding, dilation, ceil_mode)
    windows = kernel, stride, padding, dilation
    out, taps = _max_pool2d(x, windows=windows, size=size)
    return (out, _plane_indices(taps, windows=windows, size=tuple(x.shape[2:]))) if return_indices else out


def avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    """The mean of each window.

    Args:
        x: (N, C, H, W) or (C, H, W), float.
        kernel_size, stride, padding, ceil_mode: as in `max_pool2d`.
        count_include_pad: padding counts as zeros.
        divisor_override: divide by this instead of the number of pixels.
    """
    if x.ndim == 3:
        return _unbatched(avg_pool2d, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    check_image("avg_pool2d", x)
    kernel, stride, padding, _, size = _windows("avg_pool2d", x, kernel_size, stride, padding, 1, ceil_mode)
    if divisor_override is not None and not 0 < abs(divisor_override) <= LARGEST:
        raise ValueError(f"avg_pool2d: divisor_override must not be 0, and at most {LARGEST}, got {divisor_override}")
    return _avg_pool2d(x, windows=(kernel, stride, padding), size=size, count_include_pad=bool(count_include_pad),
                       divisor=divisor_override or 0)


def _adaptive_size(name: str, x: Any, output_size: Any) -> tuple[int, int]:
    check_image(name, x)
    both = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    size = pair(name, "output_size", tuple(n if o is None else o for o, n in zip(both, x.shape[2:], strict=True)), minimum=1)
    if 0 in x.shape[2:]:
        raise ValueError(f"{name}: x of shape {tuple(x.shape)} has no pixels")
    check_size(name, (*x.shape[:2], *size))
    return size


def adaptive_avg_pool2d(x, output_size):
    """Means over windows chosen so that the output has a given size; window i spans floor(i H / OH) .. ceil((i + 1) H / OH).

    Args:
        x: (N, C, H, W) or (C, H, W), float.
        output_size: int or (rows, columns); None keeps the input's.
    """
    if x.ndim == 3:
        return _unbatched(adaptive_avg_pool2d, x, output_size)
    return _adaptive_avg_pool2d(x, size=_adaptive_size("adaptive_avg_pool2d", x, output_size))


def adaptive_max_pool2d(x, output_size, return_indices=False):
    """Largest values over windows chosen so that the output has a given size; see `adaptive_avg_pool2d`."""
    if x.ndim == 3:
        return _unbatched(adaptive_max_pool2d, x, output_size, return_indices)
    out, taps = _adaptive_max_pool2d(x, size=_adaptive_size("adaptive_max_pool2d", x, output_size))
    return (out, _plane_indices(taps, windows=None, size=tuple(x.shape[2:]))) if return_indices else out
