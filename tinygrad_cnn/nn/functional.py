"""Layers as functions, with PyTorch's names and arguments. Each is a primitive or a composition of primitives, so every
derivative order works. With `inplace=True` an activation or dropout writes its result over its input, which it returns."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ops import arguments, elementwise, reduce
from ..ops.conv import conv2d, conv_transpose2d, fold, local_conv2d, unfold
from ..ops.dropout import keep_scaled
from ..ops.elementwise import logsigmoid, sigmoid, tanh
from ..ops.geometry import broadcast_shapes, check_float, check_size
from ..ops.linalg import linear
from ..ops.movement import cat, flip, pad_constant
from ..ops.norm import batch_norm
from ..ops.pool import adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool2d, max_pool2d
from ..ops.reduce import norm
from ..ops.resize import interpolate
from ..random import generator
from ..tensor import Tensor
from .criterion import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
)

__all__ = ["adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d", "batch_norm", "binary_cross_entropy",
           "binary_cross_entropy_with_logits", "conv2d", "conv_transpose2d", "cosine_similarity", "cross_entropy",
           "dropout", "dropout2d", "elu", "fold", "gelu", "group_norm", "hardswish", "huber_loss", "interpolate",
           "l1_loss", "layer_norm", "leaky_relu", "linear", "local_conv2d", "log_softmax", "logsigmoid", "max_pool2d",
           "mse_loss", "nll_loss", "normalize", "one_hot", "pad", "pixel_shuffle", "relu", "relu6", "sigmoid", "silu",
           "smooth_l1_loss", "softmax", "softplus", "tanh", "unfold"]


# ---- activations ----------------------------------------------------------------------------------------------------


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0); the gradient at 0 is 0, and NaN stays NaN.

    Source: Nair & Hinton 2010, "Rectified Linear Units Improve Restricted Boltzmann Machines".
    """
    return input._in_place("relu_", elementwise.relu) if inplace else elementwise.relu(input)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6); the gradient at 0 and at 6 is 0."""
    return input._in_place("relu6_", elementwise.relu6) if inplace else elementwise.relu6(input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x above 0, negative_slope * x below; the gradient at 0 is negative_slope."""
    if inplace:
        return input._in_place("leaky_relu_", leaky_relu, negative_slope)
    return elementwise.where(input > 0, input, input * negative_slope)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x above 0, alpha (exp(x) - 1) below.

    Source: Clevert et al. 2015, "Fast and Accurate Deep Network Learning by Exponential Linear Units (ELUs)".
    """
    if inplace:
        return input._in_place("elu_", elu, alpha)
    return elementwise.where(input > 0, input, alpha * elementwise.clamp(input, max=0).expm1())


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x sigmoid(x), also called swish.

    Source: Elfwing et al. 2017, "Sigmoid-Weighted Linear Units for Neural Network Function Approximation".
    """
    return input._in_place("silu_", silu) if inplace else input * sigmoid(input)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x relu6(x + 3) / 6: silu from straight pieces.

    Source: Howard et al. 2019, "Searching for MobileNetV3".
    """
    return input._in_place("hardswish_", hardswish) if inplace else input * relu6(input + 3) / 6


def _softmax_dim(function: str, input: Tensor, dim: int | None) -> int:
    if dim is not None:
        return dim
    dim = 0 if input.ndim in (0, 1, 3) else 1
    warnings.warn(f"{function}: dim is not given; {dim} is taken, as in PyTorch. Pass dim=", UserWarning, stacklevel=3)
    return dim


def softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """exp(x) / sum(exp(x)) along one dim, computed without overflow; NaN where all are -inf.

    Args:
        input: float tensor.
        dim: the dim whose entries will sum to 1. None, with a warning as in PyTorch: 0 for inputs of 0, 1 or 3 dims, else 1.
        dtype: convert to this first.
    """
    return reduce.softmax(input, _softmax_dim("softmax", input, dim), dtype)


def log_softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """log(softmax(x)) along one dim, computed without overflow or the loss of small probabilities. Arguments as `softmax`."""
    return reduce.log_softmax(input, _softmax_dim("log_softmax", input, dim), dtype)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x times the share of a standard normal distribution below x.

    Args:
        input: float tensor.
        approximate: "none" computes with the error function, "tanh" with the paper's approximation.

    Source: Hendrycks & Gimpel 2016, "Gaussian Error Linear Units (GELUs)".
    """
    if approximate == "none":
        return 0.5 * input * (1 + (input / math.sqrt(2)).erf())
    if approximate == "tanh":                  # 0.044715 is the paper's
        return 0.5 * input * (1 + tanh(math.sqrt(2 / math.pi) * (input + 0.044715 * input * input * input)))
    raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta x)) / beta; x itself where beta x exceeds the threshold."""
    if beta == 0:
        raise ValueError("softplus: beta must not be 0")
    scaled = input * beta
    return elementwise.where(scaled > threshold, input, elementwise.softplus(scaled) / beta)


# ---- dropout --------------------------------------------------------------------------------------------------------


def _dropped(function: str, input: Tensor, p: float, shape: tuple[int, ...]) -> Tensor:
    if not 0 <= p <= 1:
        raise ValueError(f"{function}: p is a probability, wanted 0 .. 1, got {p}")
    check_float(function, input=input)
    size = math.prod(shape)
    drawn = generator().bit_generator.random_raw((size + 1) // 2).view(np.uint32)[:size]
    keep = drawn >= int(p * 2**32)
    if len(shape) == 4:                        # drawn (N, H, W, C), as images lie in memory, seen as (N, C, H, W)
        keep = np.moveaxis(keep.reshape(shape[0], *shape[2:], shape[1]), -1, 1)
    # A Tensor, so that the graph need not copy it.
    return keep_scaled(input, Tensor._wrap(keep.reshape(shape)), scale=1 / (1 - p) if p < 1 else 0.0)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """In training each element is 0 with probability p, else 1 / (1 - p) times itself; in evaluation, the input.

    Args:
        input: float tensor.
        p: probability, 0 .. 1; with 1 the result is all zeros.
        training: whether to drop at all.

    Raises:
        ValueError: p outside 0 .. 1.

    Source: Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting".
    """
    if not training and 0 <= p <= 1:
        return input
    if inplace:
        return input._in_place("dropout_", dropout, p)
    return _dropped("dropout", input, p, input.shape)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`dropout` of whole channels of images (N, C, H, W).

    Source: Tompson et al. 2015, "Efficient Object Localization Using Convolutional Networks".
    """
    if input.ndim != 4:
        raise ValueError(f"dropout2d: input must be (N, C, H, W), got shape {input.shape}")
    if not training and 0 <= p <= 1:
        return input
    if inplace:
        return input._in_place("dropout2d_", dropout2d, p)
    return _dropped("dropout2d", input, p, (*input.shape[:2], 1, 1))


# ---- normalisation --------------------------------------------------------------------------------------------------


def _standardized(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """Shifted and scaled to mean 0 and (biased) variance 1 over dims, in two passes."""
    centred = x - x.mean(dims, keepdim=True)
    return centred * ((centred * centred).mean(dims, keepdim=True) + eps) ** -0.5


def layer_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5) -> Tensor:
    """Normalise each sample over its last dims to mean 0 and variance 1, then scale and shift.

    Args:
        input: (..., *normalized_shape), float.
        normalized_shape: the sizes of the last dims.
        weight, bias: of shape normalized_shape, or None for 1 and 0.
        eps: added to the variance.

    Raises:
        ValueError: shapes that do not fit.

    Source: Ba et al. 2016, "Layer Normalization".
    """
    shape = tuple(normalized_shape)
    check_float("layer_norm", input=input, weight=weight, bias=bias)
    if not shape or input.shape[-len(shape):] != shape:
        raise ValueError(f"layer_norm: input of shape {input.shape} must end in normalized_shape {shape}")
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and value.shape != shape:
            raise ValueError(f"layer_norm: {name} has shape {value.shape}, wanted normalized_shape {shape}")
    out = _standardized(input, tuple(range(-len(shape), 0)), eps)
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5) -> Tensor:
    """Normalise each sample over groups of neighbouring channels, then scale and shift each channel.

    Args:
        input: (N, C, ...), float.
        num_groups: must divide C.
        weight, bias: (C,) or None for 1 and 0.
        eps: added to the variance.

    Raises:
        ValueError: shapes that do not fit.

    Source: Wu & He 2018, "Group Normalization".
    """
    check_float("group_norm", input=input, weight=weight, bias=bias)
    if input.ndim < 2 or num_groups < 1 or input.shape[1] % num_groups:
        raise ValueError(f"group_norm: input must be (N, C, ...) with C a multiple of num_groups={num_groups}, got "
                         f"shape {input.shape}")
    n, c = input.shape[:2]
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and value.shape != (c,):
            raise ValueError(f"group_norm: {name} has shape {value.shape}, input has {c} channels")
    size = math.prod(input.shape[1:]) // num_groups
    grouped = input.reshape(n, num_groups, size)           # (N, C, ...) -> (N, G, C / G ...)
    out = _standardized(grouped, (2,), eps).reshape(input.shape)
    channels = (1, c, *(1,) * (input.ndim - 2))
    out = out if weight is None else out * weight.reshape(channels)
    return out if bias is None else out + bias.reshape(channels)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """Divide by the p-norm along a dim, or by eps if that is larger."""
    return input / norm(input, p, dim, keepdim=True).clamp(min=eps)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle along a dim, -1 .. 1; norms below eps count as eps. Shapes broadcast."""
    shape = broadcast_shapes("cosine_similarity", x1.shape, x2.shape)
    x1, x2 = x1.expand(shape), x2.expand(shape)
    return (x1 * x2).sum(dim) / (norm(x1, 2.0, dim).clamp(min=eps) * norm(x2, 2.0, dim).clamp(min=eps))


# ---- padding, rearranging -------------------------------------------------------------------------------------------


def _edges(x: Tensor, dim: int, before: int, after: int, mode: str) -> Tensor:
    """x with `before` and `after` entries more along one dim, taken from x itself."""
    n = x.shape[dim]
    limit = {"reflect": n - 1, "replicate": math.inf if n else -1, "circular": n}[mode]
    if min(before, after) < 0 or max(before, after) > limit:
        raise ValueError(f"pad: mode {mode!r} can add 0 .. {limit} entries on each side of dim {dim} of size {n}, "
                         f"asked for {(before, after)}")
    check_size("pad", (*x.shape[:dim], before + n + after, *x.shape[dim + 1 :]))

    def part(start: int, stop: int) -> Tensor:
        return x[(*(slice(None),) * dim, slice(start, stop))]

    if mode == "reflect":
        pieces = [flip(part(1, before + 1), dim), x, flip(part(n - 1 - after, n - 1), dim)]
    elif mode == "circular":
        pieces = [part(n - before, n), x, part(0, after)]
    else:
        sizes = [[k if d == dim else m for d, m in enumerate(x.shape)] for k in (before, after)]
        pieces = [part(0, 1).expand(sizes[0]), x, part(n - 1, n).expand(sizes[1])]
    return cat([piece for piece in pieces if piece is x or piece.shape[dim]], dim)


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Surround with a constant or with the tensor's own entries.

    Args:
        input: tensor.
        pad: (before, after) of the last dim, then of the one before it, and so on; negative numbers crop (constant).
        mode: "constant", "reflect" (mirror without repeating the edge), "replicate" (repeat the edge) or "circular".
        value: what to fill with, 0 if None; constant only.

    Raises:
        ValueError: an odd number of widths or too many, an unknown mode, more than the mode can add.

    Example:
        >>> import tinygrad_cnn as tg
        >>> tg.nn.functional.pad(tg.arange(4).reshape(1, 4), (2, 1), mode="reflect")
        tensor([[2, 1, 0, 1, 2, 3, 2]], dtype=int64)
    """
    if mode not in ("constant", "reflect", "replicate", "circular"):
        raise ValueError(f"pad: mode must be 'constant', 'reflect', 'replicate' or 'circular', got {mode!r}")
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ValueError(f"pad: wanted (before, after) for at most {input.ndim} dims of an input of shape "
                         f"{input.shape}, got {tuple(pad)}")
    last_first = list(zip(pad[::2], pad[1::2], strict=True))
    if mode == "constant":
        widths = ((0, 0),) * (input.ndim - len(last_first)) + tuple(last_first[::-1])
        return pad_constant(input, widths, 0 if value is None else value)
    if value is not None:
        raise ValueError(f"pad: value is for mode 'constant' only, got {value!r} with mode {mode!r}")
    for i, (before, after) in enumerate(last_first):
        input = _edges(input, input.ndim - 1 - i, before, after, mode)
    return input


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """Turn channels into pixels: (..., C r^2, H, W) -> (..., C, H r, W r).

    Source: Shi et al. 2016, "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel CNN".
    """
    r = upscale_factor
    if r < 1 or input.ndim < 3 or input.shape[-3] % (r * r):
        raise ValueError(f"pixel_shuffle: input must be (..., C r^2, H, W) with r = upscale_factor = {r}, got shape "
                         f"{input.shape}")
    *lead, c, h, w = input.shape
    d = len(lead)
    split = input.reshape(*lead, c // (r * r), r, r, h, w)
    mixed = split.permute(*range(d), d, d + 3, d + 1, d + 4, d + 2)          # (C, r, r, H, W) -> (C, H, r, W, r)
    return mixed.reshape(*lead, c // (r * r), h * r, w * r)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """A vector of zeros with a one at each class index.

    Args:
        tensor: integers, 0 .. num_classes - 1, any shape.
        num_classes: the largest index plus one if -1.

    Returns:
        (*shape, num_classes), int64.

    Raises:
        TypeError: not integers.
        ValueError: a negative index, or one that is too large.
    """
    indices = tensor._data
    if indices.dtype.kind not in "iu":
        raise TypeError(f"one_hot: wanted an integer tensor, got {indices.dtype}")
    if num_classes < 0:
        if not indices.size:
            raise ValueError("one_hot: num_classes must be given for an empty tensor")
        num_classes = int(indices.max()) + 1
    if indices.size and not 0 <= indices.min() <= indices.max() < num_classes:
        raise ValueError(f"one_hot: class indices must lie in 0 .. {num_classes - 1}, got {indices.min()} .. "
                         f"{indices.max()}")
    return Tensor._wrap((indices[..., None] == np.arange(num_classes)).astype(np.int64))


arguments.guard(globals(), __all__)
