"""Batch normalisation: one statistics pass, one apply pass, one backward kernel pair; its second derivative in Tensors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import kernels, memory
from ..grad_mode import is_grad_enabled
from ..primitive import primitive
from .conv import _channel_sum, channels_first, channels_last, channels_last_own
from .elementwise import _relu_grad
from .geometry import check_float


def _rows(x: np.ndarray) -> np.ndarray:
    """(N, C, ...) -> (M, C), M being all but the channels."""
    return channels_last(x).reshape(-1, x.shape[1])


def _images(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(M, C) -> (N, C, ...), a view."""
    return channels_first(rows.reshape(shape[0], *shape[2:], shape[1]))


def _per_channel(v: Any, ndim: int) -> Any:
    return v.reshape(1, -1, *(1,) * (ndim - 2))


@primitive(returns=("mean", "var"))
def channel_moments(x):
    """Mean and biased variance of each channel over all other dims, (C,) each. Not differentiable: `batch_norm` is."""
    mean, var = np.empty(x.shape[1], x.dtype), np.empty(x.shape[1], x.dtype)
    kernels.norm.channel_mean_var(_rows(x), mean, var)
    return mean, var


@primitive
def _batch_norm(x, weight, bias, *, mean, invstd, relu):
    """Normalise with the batch's own statistics, which the rule knows to be functions of x; then ReLU, if asked for."""
    out = memory.empty((x.size // x.shape[1], x.shape[1]), x.dtype)
    kernels.norm.normalize(_rows(x), *_scale_shift(weight, bias, mean, invstd), relu, out)
    return _images(out, x.shape)


def _scale_shift(weight: Any, bias: Any, mean: np.ndarray, invstd: np.ndarray) -> tuple[Any, Any]:
    scale = weight * invstd
    return scale, bias - scale * mean


@_batch_norm.joint_vjp
def _(g, spare, x, weight, bias, mean, invstd, relu):
    return _batch_norm_grad(g, x, weight, bias, mean=mean, invstd=invstd, relu=relu, in_place=spare)


@primitive(returns=("grad_x", "grad_weight", "grad_bias"))
def _batch_norm_grad(grad_output, x, weight, bias, *, mean, invstd, relu, in_place=False):
    """All three gradients; with `relu` grad_output counts as 0 where the normalised value was not above 0."""
    g, rows = channels_last_own(grad_output, in_place).reshape(-1, x.shape[1]), _rows(x)
    scale_shift = _scale_shift(weight, bias, mean, invstd)
    sum_g, sum_gx = np.empty_like(mean), np.empty_like(mean)
    kernels.norm.channel_sums(g, rows, mean, invstd, *scale_shift, relu, sum_g, sum_gx)
    kernels.norm.batch_norm_input_grad(rows, mean, invstd, np.ascontiguousarray(weight), *scale_shift, relu, sum_g, sum_gx, g)
    return _images(g, x.shape), sum_gx, sum_g


@_batch_norm_grad.joint_vjp
def _(g, needs, grad_output, x, weight, bias, mean, invstd, relu):
    """With P(u) = u - mean(u) - xhat mean(u xhat): grad_x = w r P(g), grad_weight = sum g xhat, grad_bias = sum g."""
    u, v, t = g
    active = None
    if relu:                                   # a mask, constant almost everywhere
        active = _batch_norm(x.detach(), weight.detach(), bias.detach(), mean=mean, invstd=invstd, relu=True)
        grad_output = _relu_grad(grad_output, active)
    dims = (0, *range(2, x.ndim))
    w = _per_channel(weight, x.ndim)
    centred = x - x.mean(dims, keepdim=True)
    variance = (centred * centred).mean(dims, keepdim=True)
    r = (variance + (_per_channel(invstd, x.ndim) ** -2 - variance.detach())) ** -0.5      # invstd is 1 / sqrt(var + eps)
    xhat = centred * r

    def project(z: Any) -> Any:
        return z - z.mean(dims, keepdim=True) - xhat * (z * xhat).mean(dims, keepdim=True)

    pulled, to_xhat, to_g, to_weight = None, [], [], None
    if u is not None:
        pulled = project(grad_output)
        to_g.append(w * r * project(u))
        to_weight = (r * u * pulled).sum(dims)
        to_xhat.append(-w * r * (u * (grad_output * xhat).mean(dims, keepdim=True) + grad_output * (u * xhat).mean(dims, keepdim=True)))
    if v is not None:
        to_g.append(_per_channel(v, x.ndim) * xhat)
        to_xhat.append(_per_channel(v, x.ndim) * grad_output)
    if t is not None:
        to_g.append(_per_channel(t, x.ndim) + 0 * grad_output)
    to_x = None
    if to_xhat:
        to_x = r * project(sum(to_xhat))
        if u is not None:
            to_x = to_x - w * r * r * xhat * (u * pulled).mean(dims, keepdim=True)
    to_grad_output = sum(to_g)
    return to_grad_output if active is None else _relu_grad(to_grad_output, active), to_x, to_weight, None


@primitive
def _channel_affine(x, scale, shift=None, *, relu=False):
    """x * scale + shift per channel: batch norm with statistics that do not depend on x."""
    out = memory.empty((x.size // max(x.shape[1], 1), x.shape[1]), x.dtype)
    shift = np.zeros(scale.shape, scale.dtype) if shift is None else np.ascontiguousarray(shift)
    kernels.norm.normalize(_rows(x), np.ascontiguousarray(scale), shift, relu, out)
    return _images(out, x.shape)


@_channel_affine.vjp(0)
def _(g, scale):
    return _channel_affine(g, scale)


@_channel_affine.vjp(1)
def _(g, x):
    return _channel_dot(g, x)


@_channel_affine.vjp(2)
def _(g):
    return _channel_sum(g)


@primitive
def _channel_affine_relu(x, scale, shift, *, relu=True):
    """max(_channel_affine, 0) in one pass over memory; `relu`, always True, says so to who draws it."""
    return _channel_affine.forward(x, scale, shift, relu=relu)


@_channel_affine_relu.joint_vjp
def _(g, needs, spare, x, scale, out):
    g = _relu_grad(g, out, in_place=spare)
    return (_channel_affine(g, scale) if needs[0] else None, _channel_dot(g, x) if needs[1] else None,
            _channel_sum(g) if needs[2] else None)


@primitive
def _channel_dot(x, y):
    """(N, C, ...) twice -> (C,): the sum of products over all other dims."""
    dot, total = np.empty((2, x.shape[1]), x.dtype)
    ones, zeros = np.ones(x.shape[1], x.dtype), np.zeros(x.shape[1], x.dtype)
    kernels.norm.channel_sums(_rows(x), _rows(y), zeros, ones, ones, zeros, False, total, dot)
    return dot


@_channel_dot.vjp(0)
def _(g, y):
    return _channel_affine(y, g)


@_channel_dot.vjp(1)
def _(g, x):
    return _channel_affine(x, g)


def affine(x: Any, scale: Any, shift: Any, relu: bool) -> Any:
    """x * scale + shift per channel, or its ReLU; x (N, C, ...), scale and shift (C,) of its dtype."""
    return _channel_affine_relu(x, scale, shift, relu=True) if relu else _channel_affine(x, scale, shift)


def scale_shift(weight: Any, bias: Any, mean: np.ndarray, var: np.ndarray, eps: float) -> tuple[Any, Any]:
    """What batch norm with known statistics multiplies each channel with, and what it then adds: (C,) of weight's dtype each."""
    with np.errstate(all="ignore"):            # Inf and NaN pass in silence
        invstd = ((var + eps) ** -0.5).astype(weight.dtype, copy=False)
        return _scale_shift(weight, bias, mean.astype(weight.dtype, copy=False), invstd)


def batch_norm(x, running_mean=None, running_var=None, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5, relu=False):
    """Normalise each channel to mean 0 and variance 1, then scale and shift it. Differs from PyTorch only in `relu`.

    In training with the batch's mean and biased variance, and the running statistics, if given, move towards them by
    `momentum` (the variance unbiased, n / (n - 1)); else with the running statistics.

    Args:
        x: (N, C) or (N, C, ...), float.
        running_mean, running_var: (C,), updated in place in training; needed otherwise.
        weight, bias: (C,) or None for 1 and 0.
        training: which statistics to use.
        momentum: share of the batch in the running statistics, 0 .. 1.
        eps: added to the variance, positive.
        relu: end with max(., 0), in the same pass over memory; not in PyTorch.

    Returns:
        x's shape.

    Raises:
        ValueError: sizes that do not fit, or one value per channel in training.

    Source: Ioffe & Szegedy 2015, "Batch Normalization", algorithm 1.
    """
    if x.ndim < 2:
        raise ValueError(f"batch_norm: x must be (N, C, ...), got shape {tuple(x.shape)}")
    check_float("batch_norm", x=x, weight=weight, bias=bias)
    channels = x.shape[1]
    if channels == 0:
        raise ValueError(f"batch_norm: x of shape {tuple(x.shape)} has no channels")
    for name, v in (("running_mean", running_mean), ("running_var", running_var), ("weight", weight), ("bias", bias)):
        if v is not None and tuple(v.shape) != (channels,):
            raise ValueError(f"batch_norm: {name} has shape {tuple(v.shape)}, x of shape {tuple(x.shape)} has {channels} channels")
    if eps <= 0:
        raise ValueError(f"batch_norm: eps must be positive, got {eps}")
    weight = np.ones(channels, x.dtype) if weight is None else weight
    bias = np.zeros(channels, x.dtype) if bias is None else bias
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm: running_mean and running_var are needed when training=False")
        if not (is_grad_enabled() and any(getattr(v, "requires_grad", False) for v in (weight, bias))):
            weight, bias = (v if isinstance(v, np.ndarray) else v._data for v in (weight, bias))     # no step of theirs to record
        return affine(x, *scale_shift(weight, bias, running_mean._data, running_var._data, eps), relu)
    count = math.prod(x.shape) // channels
    if count == 1:
        raise ValueError(f"batch_norm: expected more than 1 value per channel when training, got x of shape {tuple(x.shape)}")
    if count == 0:
        return affine(x, weight, bias, relu)
    mean, var = (m._data for m in channel_moments(x.detach()))
    if running_mean is not None:
        running_mean._write((1 - momentum) * running_mean._data + momentum * mean)
        running_var._write((1 - momentum) * running_var._data + momentum * var * (count / (count - 1)))
    return _batch_norm(x, weight, bias, mean=mean, invstd=((var + eps) ** -0.5).astype(var.dtype), relu=relu)
