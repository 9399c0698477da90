"""Pooling over windows of images (N, C, H, W). Average pooling is linear and paired with its adjoint; max pooling picks
by constant indices, and gathering and scattering by them are adjoint."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import kernels
from ..primitive import primitive
from .conv import channels_first, channels_last, check_image
from .geometry import pair, window_count


@primitive(returns=("out", "indices"))
def _max_pool2d(x, *, kernel, stride, padding, dilation, size):
    n, c = x.shape[:2]
    out, indices = np.empty((n, *size, c), x.dtype), np.empty((n, *size, c), np.int64)
    kernels.pool.max_pool2d(channels_last(x), kernel, stride, padding, dilation, out, indices)
    return channels_first(out), channels_first(indices)


@_max_pool2d.vjp(0)
def _(g, indices, x_shape):
    return _scatter_plane(g[0], indices, size=x_shape[2:])


@primitive(returns=("out", "indices"))
def _adaptive_max_pool2d(x, *, size):
    n, c = x.shape[:2]
    out, indices = np.empty((n, *size, c), x.dtype), np.empty((n, *size, c), np.int64)
    kernels.pool.adaptive_max_pool2d(channels_last(x), out, indices)
    return channels_first(out), channels_first(indices)


@_adaptive_max_pool2d.vjp(0)
def _(g, indices, x_shape):
    return _scatter_plane(g[0], indices, size=x_shape[2:])


@primitive
def _scatter_plane(x, indices, *, size):
    out = np.empty((x.shape[0], *size, x.shape[1]), x.dtype)
    kernels.pool.scatter_plane(channels_last(x), channels_last(indices), out)
    return channels_first(out)


@_scatter_plane.vjp(0)
def _(g, indices):
    return _gather_plane(g, indices)


@primitive
def _gather_plane(x, indices):
    out = np.empty((x.shape[0], *indices.shape[2:], x.shape[1]), x.dtype)
    kernels.pool.gather_plane(channels_last(x), channels_last(indices), out)
    return channels_first(out)


@_gather_plane.vjp(0)
def _(g, indices, x_shape):
    return _scatter_plane(g, indices, size=x_shape[2:])


@primitive
def _avg_pool2d(x, *, kernel, stride, padding, size, count_include_pad, divisor):
    out = np.empty((x.shape[0], *size, x.shape[1]), x.dtype)
    kernels.pool.avg_pool2d(channels_last(x), kernel, stride, padding, count_include_pad, divisor, out)
    return channels_first(out)


@_avg_pool2d.vjp(0)
def _(g, x_shape, kernel, stride, padding, count_include_pad, divisor):
    return _avg_pool2d_adjoint(g, kernel=kernel, stride=stride, padding=padding, size=x_shape[2:],
                               count_include_pad=count_include_pad, divisor=divisor)


@primitive
def _avg_pool2d_adjoint(x, *, kernel, stride, padding, size, count_include_pad, divisor):
    out = np.empty((x.shape[0], *size, x.shape[1]), x.dtype)
    kernels.pool.avg_pool2d_adjoint(channels_last(x), kernel, stride, padding, count_include_pad, divisor, out)
    return channels_first(out)


@_avg_pool2d_adjoint.vjp(0)
def _(g, x_shape, kernel, stride, padding, count_include_pad, divisor):
    return _avg_pool2d(g, kernel=kernel, stride=stride, padding=padding, size=x_shape[2:],
                       count_include_pad=count_include_pad, divisor=divisor)


@primitive
def _adaptive_avg_pool2d(x, *, size):
    out = np.empty((x.shape[0], *size, x.shape[1]), x.dtype)
    kernels.pool.adaptive_avg_pool2d(channels_last(x), out)
    return channels_first(out)


@_adaptive_avg_pool2d.vjp(0)
def _(g, x_shape):
    return _adaptive_avg_pool2d_adjoint(g, size=x_shape[2:])


@primitive
def _adaptive_avg_pool2d_adjoint(x, *, size):
    out = np.empty((x.shape[0], *size, x.shape[1]), x.dtype)
    kernels.pool.adaptive_avg_pool2d_adjoint(channels_last(x), out)
    return channels_first(out)


@_adaptive_avg_pool2d_adjoint.vjp(0)
def _(g, x_shape):
    return _adaptive_avg_pool2d(g, size=x_shape[2:])


def _unbatched(function: Any, x: Any, *args: Any, **options: Any) -> Any:
    out = function(x.unsqueeze(0), *args, **options)
    return tuple(o.squeeze(0) for o in out) if isinstance(out, tuple) else out.squeeze(0)


def _windows(name: str, x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> tuple[Any, ...]:
    kernel = pair(name, "kernel_size", kernel_size, minimum=1)
    stride = kernel if stride is None or stride == () else pair(name, "stride", stride, minimum=1)
    padding, dilation = pair(name, "padding", padding, minimum=0), pair(name, "dilation", dilation, minimum=1)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise ValueError(f"{name}: padding {padding} must be at most half of kernel_size {kernel}")
    size = tuple(window_count(n, k, s, 2 * p, d, ceil=ceil_mode)
                 for n, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True))
    if min(size) < 1:
        raise ValueError(f"{name}: kernel_size {kernel} is larger than the padded input of "
                         f"{tuple(n + 2 * p for n, p in zip(x.shape[2:], padding, strict=True))}")
    return kernel, stride, padding, dilation, size


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
    out, indices = _max_pool2d(x, kernel=kernel, stride=stride, padding=padding, dilation=dilation, size=size)
    return (out, indices) if return_indices else out


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
    if divisor_override is not None and divisor_override == 0:
        raise ValueError("avg_pool2d: divisor_override must not be 0")
    return _avg_pool2d(x, kernel=kernel, stride=stride, padding=padding, size=size,
                       count_include_pad=bool(count_include_pad), divisor=divisor_override or 0)


def _adaptive_size(name: str, x: Any, output_size: Any) -> tuple[int, int]:
    check_image(name, x)
    both = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    size = pair(name, "output_size", tuple(n if o is None else o for o, n in zip(both, x.shape[2:], strict=True)), minimum=1)
    if 0 in x.shape[2:]:
        raise ValueError(f"{name}: x of shape {tuple(x.shape)} has no pixels")
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
    out, indices = _adaptive_max_pool2d(x, size=_adaptive_size("adaptive_max_pool2d", x, output_size))
    return (out, indices) if return_indices else out
