"""Convolution and its two gradients: a bilinear triad. Each one's rules are the other two, so every order closes.

Cross-correlation, as every CNN library means by convolution. Shapes are (N, C, H, W); in memory images lie channels-last
and weights (R, S, C, K), which is what the kernels read, so an array already lying so is not copied.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .. import kernels, memory
from ..primitive import primitive
from .elementwise import _relu_grad
from .geometry import at_most, check_float, check_size, padded, pair, window_count


def channels_last(x: np.ndarray) -> np.ndarray:
    """(N, C, ...) -> (N, ..., C), contiguous; a copy only if it does not lie so already."""
    last = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x.transpose(0, *range(2, x.ndim), 1)    # (N, C, ...) -> (N, ..., C)
    return last if last.flags.c_contiguous else np.ascontiguousarray(last)


def channels_last_own(x: np.ndarray, in_place: bool) -> np.ndarray:
    """`channels_last`, to be written over: x's own memory only if `in_place`, and if it can be."""
    last = channels_last(x)
    if not np.may_share_memory(last, x) or in_place and last.flags.writeable:
        return last
    copy = memory.empty(last.shape, last.dtype)
    copy[...] = last
    return copy


def channels_first(x: np.ndarray) -> np.ndarray:
    """(N, ..., C) -> (N, C, ...), a view."""
    return x.transpose(0, 3, 1, 2) if x.ndim == 4 else x.transpose(0, x.ndim - 1, *range(1, x.ndim - 1))


def taps_first(weight: np.ndarray) -> np.ndarray:
    """(K, C, R, S) -> (R, S, C, K), contiguous; a copy only if it does not lie so already."""
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0))


@primitive
def _conv2d(x, weight, bias=None, *, stride, padding, dilation, groups, size, relu=False):
    n, k = x.shape[0], weight.shape[0]
    out = memory.empty((n, *size, k), x.dtype)
    bias = np.zeros(k, x.dtype) if bias is None else np.ascontiguousarray(bias)
    kernels.conv.conv2d(channels_last(x), taps_first(weight), bias, stride, padding, dilation, groups, out, relu)
    return channels_first(out)


@_conv2d.vjp(0)
def _(g, weight, x_shape, stride, padding, dilation, groups):
    return _conv2d_input_grad(g, weight, stride=stride, padding=padding, dilation=dilation, groups=groups, size=x_shape[2:])


@_conv2d.vjp(1)
def _(g, x, weight_shape, stride, padding, dilation, groups):
    return _conv2d_weight_grad(g, x, stride=stride, padding=padding, dilation=dilation, groups=groups, size=weight_shape[2:])


@_conv2d.vjp(2)
def _(g):
    return _channel_sum(g)


@primitive
def _conv2d_relu(x, weight, bias=None, *, stride, padding, dilation, groups, size, relu=True):
    """max(conv2d, 0) in one pass over memory; `relu`, always True, says so to who draws it."""
    return _conv2d.forward(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups, size=size, relu=relu)


@_conv2d_relu.joint_vjp
def _(g, needs, spare, x, weight, out, stride, padding, dilation, groups):
    to_bias = None
    if needs[2:] == (True,):
        g, to_bias = _relu_bias_grad(g, out, in_place=spare)
    else:
        g = _relu_grad(g, out, in_place=spare)
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return (_conv2d_input_grad(g, weight, **how, size=x.shape[2:]) if needs[0] else None,
            _conv2d_weight_grad(g, x, **how, size=weight.shape[2:]) if needs[1] else None, to_bias)[: len(needs)]


@primitive
def _conv2d_input_grad(grad_output, weight, *, stride, padding, dilation, groups, size):
    out = memory.empty((grad_output.shape[0], *size, weight.shape[1] * groups), grad_output.dtype)
    kernels.conv.conv2d_input_grad(channels_last(grad_output), taps_first(weight), stride, padding, dilation, groups, out)
    return channels_first(out)


@_conv2d_input_grad.vjp(0)
def _(g, weight, grad_output_shape, stride, padding, dilation, groups):
    return _conv2d(g, weight, stride=stride, padding=padding, dilation=dilation, groups=groups, size=grad_output_shape[2:])


@_conv2d_input_grad.vjp(1)
def _(g, grad_output, weight_shape, stride, padding, dilation, groups):
    return _conv2d_weight_grad(grad_output, g, stride=stride, padding=padding, dilation=dilation, groups=groups, size=weight_shape[2:])


@primitive
def _conv2d_weight_grad(grad_output, x, *, stride, padding, dilation, groups, size):
    out = memory.empty((*size, x.shape[1] // groups, grad_output.shape[1]), x.dtype)
    kernels.conv.conv2d_weight_grad(channels_last(grad_output), channels_last(x), stride, padding, dilation, groups, out)
    return out.transpose(3, 2, 0, 1)           # (R, S, C, K) -> (K, C, R, S), a view


@_conv2d_weight_grad.vjp(0)
def _(g, x, grad_output_shape, stride, padding, dilation, groups):
    return _conv2d(x, g, stride=stride, padding=padding, dilation=dilation, groups=groups, size=grad_output_shape[2:])


@_conv2d_weight_grad.vjp(1)
def _(g, grad_output, x_shape, stride, padding, dilation, groups):
    return _conv2d_input_grad(grad_output, g, stride=stride, padding=padding, dilation=dilation, groups=groups, size=x_shape[2:])


@primitive
def _channel_sum(x):
    """(N, K, ...) -> (K,): the gradient of a bias."""
    out = np.empty(x.shape[1], x.dtype)
    kernels.conv.bias_grad(channels_last(x), out)
    return out


@_channel_sum.vjp(0)
def _(g, x_shape):
    return _spread(g, x_shape)


def _spread(v: Any, shape: tuple[int, ...]) -> Any:
    """(K,) -> (N, K, ...), the adjoint of the sum over all but the channels."""
    return v.reshape(1, -1, *(1,) * (len(shape) - 2)).broadcast_to(shape)


@primitive(returns=("out", "total"))
def _relu_bias_grad(grad_output, y, *, in_place=False):
    """grad_output where y, what ReLU returned, is above 0 or NaN, else 0; and its `_channel_sum`: the gradient of a bias before it."""
    out, total = channels_last_own(grad_output, in_place), np.empty(y.shape[1], y.dtype)
    kernels.norm.relu_grad_sum(out.reshape(-1, total.size), channels_last(y).reshape(-1, total.size), total)
    return channels_first(out), total


@_relu_bias_grad.vjp(0)
def _(g, y):
    to_out, to_total = g
    if to_total is not None:
        spread = _spread(to_total, y.shape)
        to_out = spread if to_out is None else to_out + spread
    return _relu_grad(to_out, y)


def check_image(function: str, x: Any) -> None:
    """ValueError unless x is a batch of images; TypeError unless it holds floats."""
    if x.ndim != 4:
        raise ValueError(f"{function}: x must be (N, C, H, W) or (C, H, W), got shape {tuple(x.shape)}")
    check_float(function, x=x)


def _check(function: str, x: Any, weight: Any, bias: Any, channels: int, groups: int, out_channels: int) -> None:
    if x.ndim != 4:
        check_image(function, x)
    if weight.ndim != 4:
        raise ValueError(f"{function}: weight must have 4 dims, got shape {tuple(weight.shape)}")
    check_float(function, x=x, weight=weight, bias=bias)
    if not isinstance(groups, int) or groups < 1:
        raise ValueError(f"{function}: groups must be a positive int, got {groups!r}")
    if x.shape[1] != channels:
        raise ValueError(f"{function}: x has {x.shape[1]} channels, weight expects {channels} (groups={groups})")
    if channels % groups or out_channels % groups:
        raise ValueError(f"{function}: groups={groups} must divide the {channels} input and {out_channels} output channels")
    if 0 in weight.shape:
        empty = "an empty kernel" if 0 in weight.shape[2:] else "no channels"
        raise ValueError(f"{function}: weight of shape {tuple(weight.shape)} has {empty}; every size must be at least 1")
    if bias is not None and tuple(bias.shape) != (out_channels,):
        raise ValueError(f"{function}: bias must have shape ({out_channels},), got {tuple(bias.shape)}")


def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, relu=False):
    """Convolution of images with filters as deep as their input: (W - F + 2P)/S + 1 positions along each axis.

    Differs from PyTorch only in `relu`, and in `padding="same"`, which also works with strides: the output has ceil(H / stride)
    rows, and an odd row of padding goes to the bottom and right (TensorFlow's rule, which at stride 1 is PyTorch's).

    NaN and Inf reach the outputs that see them and no others. Only at the edge, where weights meet padding, weights that are NaN or Inf
    may make a NaN or not, as in PyTorch.

    Args:
        x: (N, C, H, W) or (C, H, W), float32 or float64.
        weight: (K, C / groups, R, S), the same dtype: K filters.
        bias: (K,) or None.
        stride: step between windows, int or (rows, columns), at least 1.
        padding: zeros on each side, int or (rows, columns), or "same" or "valid".
        dilation: distance between taps, int or (rows, columns), at least 1.
        groups: split the channels into this many independent convolutions.
        relu: end with max(., 0), in the same pass over memory; not in PyTorch.

    Returns:
        (N, K, OH, OW).

    Raises:
        ValueError: channels, groups, stride, padding or sizes that do not fit.
        TypeError: different or integer dtypes.

    Source: LeCun et al. 1989, "Backpropagation Applied to Handwritten Zip Code Recognition".

    Example:
        >>> import tinygrad_cnn as tg
        >>> tg.nn.functional.conv2d(tg.ones(1, 3, 32, 32), tg.ones(10, 3, 5, 5), padding=2).shape
        (1, 10, 32, 32)
    """
    if x.ndim == 3:
        return conv2d(x.unsqueeze(0), weight, bias, stride, padding, dilation, groups, relu=relu).squeeze(0)
    channels = weight.shape[1] * groups if weight.ndim == 4 and isinstance(groups, int) else 0
    _check("conv2d", x, weight, bias, channels, groups, weight.shape[0] if weight.ndim else 0)
    how = windows("conv2d", x.shape[2:], weight.shape[2:], stride, padding, dilation)
    args = (x, weight) if bias is None else (x, weight, bias)
    return _conv2d_relu(*args, **how, groups=groups, relu=True) if relu else _conv2d(*args, **how, groups=groups)


def windows(function: str, image: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> dict[str, Any]:
    """`stride`, `padding` above and to the left, `dilation` and `size`, the number of windows, along each axis, checked."""
    stride, dilation = pair(function, "stride", stride, minimum=1), pair(function, "dilation", dilation, minimum=1)
    if isinstance(padding, str):
        if padding == "valid":
            padding = (0, 0)
        elif padding != "same":
            raise ValueError(f"{function}: padding must be 'same', 'valid', an int or a pair, got {padding!r}")
    else:
        padding = pair(function, "padding", padding, minimum=0)
    return _windows(function, tuple(image), tuple(kernel), stride, padding, dilation)


@functools.lru_cache(maxsize=1024)
def _windows(function: str, image: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> dict[str, Any]:
    reach = tuple([d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)])
    if padding == "same":
        size = tuple([-(-n // s) for n, s in zip(image, stride, strict=True)])
        padding = tuple([max((o - 1) * s + r - n, 0) // 2 for o, s, r, n in zip(size, stride, reach, image, strict=True)])
        most = padded(function, image, tuple([p + 1 for p in padding]))       # an odd row is at the bottom
    else:
        size = tuple([window_count(image[a], kernel[a], stride[a], 2 * padding[a], dilation[a]) for a in (0, 1)])
        most = padded(function, image, padding)
        if min(size) < 1:
            raise ValueError(f"{function}: the kernel covers {reach} pixels, more than the padded input of {most}; "
                             "use a smaller kernel or dilation, or more padding")
    return {"stride": at_most(stride, most), "padding": padding, "dilation": at_most(dilation, most), "size": size}


def conv_transpose2d(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """The input gradient of `conv2d` under its public name: it spreads each pixel over a window of the output.

    Args:
        x: (N, C, H, W) or (C, H, W), float32 or float64.
        weight: (C, K / groups, R, S), the same dtype.
        bias: (K,) or None.
        stride, padding, dilation, groups: those of the convolution it is the gradient of.
        output_padding: rows and columns added at the bottom and right, less than stride or dilation.

    Returns:
        (N, K, (H - 1) stride - 2 padding + dilation (R - 1) + output_padding + 1, likewise for the width).

    Raises:
        ValueError: sizes that do not fit.

    Source: Zeiler et al. 2010, "Deconvolutional Networks".
    """
    name = "conv_transpose2d"
    if x.ndim == 3:
        return conv_transpose2d(x.unsqueeze(0), weight, bias, stride, padding, output_padding, groups, dilation).squeeze(0)
    _check(name, x, weight, bias, weight.shape[0] if weight.ndim else 0, groups,
           weight.shape[1] * groups if weight.ndim == 4 and isinstance(groups, int) else 0)
    stride, dilation = pair(name, "stride", stride, minimum=1), pair(name, "dilation", dilation, minimum=1)
    padding, extra = pair(name, "padding", padding, minimum=0), pair(name, "output_padding", output_padding, minimum=0)
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ValueError(f"{name}: output_padding {extra} must be less than stride {stride} or dilation {dilation}")
    size = tuple((n - 1) * s - 2 * p + d * (k - 1) + e + 1
                 for n, s, p, d, k, e in zip(x.shape[2:], stride, padding, dilation, weight.shape[2:], extra, strict=True))
    if min(size) < 1:
        raise ValueError(f"{name}: the output would have size {size}; use less padding")
    most = padded(name, size, padding)
    out = _conv2d_input_grad(x, weight, stride=at_most(stride, most), padding=padding, dilation=at_most(dilation, most), groups=groups,
                             size=size)
    return out if bias is None else out + bias.reshape(1, -1, 1, 1)


# ---- windows as columns -------------------------------------------------------------------------------------------


@primitive
def _unfold(x, *, kernel, stride, padding, dilation, size):
    n, c = x.shape[:2]
    out = memory.empty((n, size[0] * size[1], *kernel, c), x.dtype)
    kernels.unfold.unfold(channels_last(x), kernel, stride, padding, dilation, size, out)
    return out.transpose(0, 4, 2, 3, 1).reshape(n, c * kernel[0] * kernel[1], size[0] * size[1])      # (N, L, R, S, C) -> (N, C R S, L)


@_unfold.vjp(0)
def _(g, x_shape, kernel, stride, padding, dilation, size):
    return _fold(g, kernel=kernel, stride=stride, padding=padding, dilation=dilation, size=size, shape=x_shape)


@primitive
def _fold(columns, *, kernel, stride, padding, dilation, size, shape):
    n, c, h, w = shape
    out = memory.empty((n, h, w, c), columns.dtype)
    blocks = columns.reshape(n, c, *kernel, size[0] * size[1]).transpose(0, 4, 2, 3, 1)      # (N, C R S, L) -> (N, L, R, S, C)
    kernels.unfold.fold(np.ascontiguousarray(blocks), kernel, stride, padding, dilation, size, out)
    return channels_first(out)


@_fold.vjp(0)
def _(g, kernel, stride, padding, dilation, size):
    return _unfold(g, kernel=kernel, stride=stride, padding=padding, dilation=dilation, size=size)


def unfold(x, kernel_size, dilation=1, padding=0, stride=1):
    """Every window of the image as a column.

    Args:
        x: (N, C, H, W), float.
        kernel_size, dilation, padding, stride: ints or (rows, columns), as in `conv2d`.

    Returns:
        (N, C R S, L), L being the number of windows.
    """
    check_image("unfold", x)
    kernel = pair("unfold", "kernel_size", kernel_size, minimum=1)
    how = windows("unfold", x.shape[2:], kernel, stride, padding, dilation)
    check_size("unfold", (*x.shape[:2], *kernel, *how["size"]))
    return _unfold(x, kernel=kernel, **how)


def fold(x, output_size, kernel_size, dilation=1, padding=0, stride=1):
    """Add columns of windows up to an image: the adjoint of `unfold`.

    Args:
        x: (N, C R S, L), float.
        output_size: (H, W).
        kernel_size, dilation, padding, stride: as in `unfold`.

    Returns:
        (N, C, H, W).
    """
    if x.ndim != 3:
        raise ValueError(f"fold: x must be (N, C R S, L), got shape {tuple(x.shape)}")
    check_float("fold", x=x)
    image, kernel = pair("fold", "output_size", output_size, minimum=1), pair("fold", "kernel_size", kernel_size, minimum=1)
    how = windows("fold", image, kernel, stride, padding, dilation)
    size = how["size"]
    if x.shape[1] % (kernel[0] * kernel[1]) or x.shape[2] != size[0] * size[1]:
        raise ValueError(f"fold: x of shape {tuple(x.shape)} must be (N, C * {kernel[0] * kernel[1]}, {size[0] * size[1]}) "
                         f"for output_size {image}")
    return _fold(x, kernel=kernel, shape=(x.shape[0], x.shape[1] // (kernel[0] * kernel[1]), *image), **how)


def local_conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1):
    """A locally connected layer: a convolution whose filters are not shared over positions.

    Not in PyTorch. Same windows as `conv2d`, but position (i, j) has K filters of its own.

    Args:
        x: (N, C, H, W), float.
        weight: (K, C, R, S, OH, OW), the same dtype.
        bias: (K, OH, OW) or None.
        stride, padding, dilation: as in `conv2d`.

    Returns:
        (N, K, OH, OW).

    Raises:
        ValueError: sizes that do not fit.

    Source: LeCun 1989, "Generalization and Network Design Strategies".
    """
    check_image("local_conv2d", x)
    if weight.ndim != 6:
        raise ValueError(f"local_conv2d: weight must be (K, C, R, S, OH, OW), got shape {tuple(weight.shape)}")
    check_float("local_conv2d", x=x, weight=weight, bias=bias)
    k, c, r, s, oh, ow = weight.shape
    if x.shape[1] != c:
        raise ValueError(f"local_conv2d: x has {x.shape[1]} channels, weight expects {c}")
    how = windows("local_conv2d", x.shape[2:], (r, s), stride, padding, dilation)
    if how["size"] != (oh, ow):
        raise ValueError(f"local_conv2d: x of size {tuple(x.shape[2:])} has {how['size']} positions, weight has filters for {(oh, ow)}")
    if bias is not None and tuple(bias.shape) != (k, oh, ow):
        raise ValueError(f"local_conv2d: bias must have shape {(k, oh, ow)}, got {tuple(bias.shape)}")
    columns = _unfold(x, kernel=(r, s), **how)
    columns = columns.permute(2, 0, 1)                                       # (N, C R S, L) -> (L, N, C R S)
    filters = weight.reshape(k, c * r * s, oh * ow).permute(2, 1, 0)         # (K, C R S, L) -> (L, C R S, K)
    out = (columns @ filters).permute(1, 2, 0).reshape(x.shape[0], k, oh, ow)      # (L, N, K) -> (N, K, L)
    return out if bias is None else out + bias
