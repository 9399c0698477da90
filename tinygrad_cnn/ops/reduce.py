"""Reductions over dims: sums, means, extremes, variances, softmax.

`dim` is an int, a tuple or None (all); `keepdim` keeps reduced dims with size 1. The wrappers check and normalise, the
primitives compute. Long float32 sums run in float64, so a sum of 2**25 ones is exact along any dim.
"""

from __future__ import annotations

import builtins
import math
from collections import namedtuple
from typing import Any

import numpy as np

from ..primitive import primitive
from .elementwise import div, maximum, minimum, sqrt, where
from .geometry import check_dim, check_dims, check_dtype, check_float, total
from .movement import broadcast_to, gather, reshape

MinMax = namedtuple("MinMax", ["values", "indices"])


def _kept(shape: tuple[int, ...], dim: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with the dims reduced to 1: what broadcasts back against the input."""
    return tuple(1 if i in dim else n for i, n in enumerate(shape))


def _spread(g: Any, shape: tuple[int, ...], dim: tuple[int, ...]) -> Any:
    """Repeat a reduction's cotangent over the dims that were reduced."""
    return broadcast_to(reshape(g, _kept(shape, dim)), shape)


def _ndim(x: Any) -> int:
    return np.ndim(x) if not hasattr(x, "ndim") else x.ndim


@primitive
def _sum(x, *, dim, keepdim):
    return total(np.asarray(x), dim, keepdim)


@_sum.vjp(0)
def _(g, x_shape, dim):
    return _spread(g, x_shape, dim)


def sum(x, dim=None, keepdim=False, *, dtype=None):
    """Sum over dims; integers and bools give int64.

    Args:
        x: tensor.
        dim: int, tuple of ints or None for all.
        keepdim: keep the reduced dims with size 1.
        dtype: convert to this first.

    Returns:
        The sums; x's shape without the dims.

    Raises:
        IndexError: a dim out of range.

    Example:
        >>> import tinygrad_cnn as tg
        >>> tg.sum(tg.ones(2, 3), dim=1)
        tensor([3., 3.], dtype=float32)
    """
    if dtype is not None:
        x = x.to(dtype)
    return _sum(x, dim=check_dims("sum", dim, _ndim(x)), keepdim=keepdim)


def mean(x, dim=None, keepdim=False, *, dtype=None):
    """Mean over dims; NaN over none. Raises TypeError for integers: convert to a float first."""
    if dtype is not None:
        x = x.to(dtype)
    if x.dtype.kind != "f":
        raise TypeError(f"mean: x must be float32 or float64, got {x.dtype}; pass dtype=float32")
    dims = check_dims("mean", dim, x.ndim)
    return div(_sum(x, dim=dims, keepdim=keepdim), float(math.prod(x.shape[d] for d in dims)))


def var(x, dim=None, keepdim=False, *, unbiased=None, correction=1):
    """Variance over dims, the sum of squared deviations over n - correction (Bessel's correction by default).

    Args:
        x: tensor, float.
        dim: int, tuple of ints or None for all.
        keepdim: keep the reduced dims with size 1.
        unbiased: True is correction 1, False is correction 0.
        correction: what is taken off n.
    """
    return _variance("var", x, dim, keepdim, unbiased, correction)


def _variance(function: str, x: Any, dim: Any, keepdim: bool, unbiased: bool | None, correction: float) -> Any:
    check_float(function, x=x)
    if unbiased is not None:
        correction = 1 if unbiased else 0
    dims = check_dims(function, dim, x.ndim)
    count = math.prod(x.shape[d] for d in dims)
    deviation = x - mean(x, dims, keepdim=True)
    return div(_sum(deviation * deviation, dim=dims, keepdim=keepdim), float(builtins.max(count - correction, 0)))


def std(x, dim=None, keepdim=False, *, unbiased=None, correction=1):
    """Standard deviation over dims: the square root of `var`. The gradient where it is 0 is 0."""
    return _root(_variance("std", x, dim, keepdim, unbiased, correction), 2)


def _root(x: Any, p: float) -> Any:
    """The p-th root of sums that are 0 or more, with derivative 0 instead of inf at 0."""
    safe = where(x == 0, 1.0, x)
    return where(x == 0, 0.0, sqrt(safe) if p == 2 else safe ** (1 / p))


def norm(x, p=2.0, dim=None, keepdim=False):
    """The p-norm over dims, (sum |x|^p)^(1/p); p may be inf. The gradient of the 2-norm at 0 is 0.

    Args:
        x: tensor, float.
        p: the order, a positive number or math.inf.
        dim, keepdim: as in `sum`.
    """
    check_float("norm", x=x)
    dim = check_dims("norm", dim, x.ndim)
    if p == math.inf:
        return amax(abs(x), dim, keepdim)
    if p <= 0:
        raise ValueError(f"norm: p must be positive, got {p}")
    if p == 1:
        return sum(abs(x), dim, keepdim)
    return _root(sum(x * x if p == 2 else abs(x) ** p, dim, keepdim), p)


@primitive
def _prod(x, *, dim, keepdim):
    x = np.asarray(x)
    return np.prod(x, axis=dim, keepdims=keepdim, dtype=np.int64 if x.dtype.kind in "biu" else x.dtype)


@_prod.vjp(0)
def _(g, x, dim):
    moved = [d for d in range(x.ndim) if d not in dim] + list(dim)
    kept = [x.shape[d] for d in moved[: x.ndim - len(dim)]]
    flat = x.permute(moved).reshape(*kept, math.prod(x.shape[d] for d in dim))
    others = _products_of_others(flat)
    gradient = (reshape(g, (*kept, 1)) * others).reshape([x.shape[d] for d in moved])
    return gradient.permute([moved.index(d) for d in range(x.ndim)])


def _products_of_others(x: Any) -> Any:
    """Along the last dim, the product of all other elements: by masks, so zeros need no division."""
    n = x.shape[-1]
    mask = np.eye(n, dtype=bool)
    mask.flags.writeable = False
    return _prod(where(mask, 1.0, x.unsqueeze(-2)), dim=(x.ndim,), keepdim=False)


def prod(x, dim=None, keepdim=False):
    """Product over dims; integers and bools give int64."""
    return _prod(x, dim=check_dims("prod", dim, _ndim(x)), keepdim=keepdim)


@primitive
def _amax(x, *, dim, keepdim):
    return np.max(x, axis=dim, keepdims=keepdim)


@_amax.vjp(0)
def _(g, x, dim):
    return _share_extreme(g, x, dim, _amax)


@primitive
def _amin(x, *, dim, keepdim):
    return np.min(x, axis=dim, keepdims=keepdim)


@_amin.vjp(0)
def _(g, x, dim):
    return _share_extreme(g, x, dim, _amin)


def _share_extreme(g: Any, x: Any, dim: tuple[int, ...], extreme: Any) -> Any:
    """The cotangent, spread evenly over the elements that attain the extreme."""
    chosen = (x == extreme(x.detach(), dim=dim, keepdim=True)) | x.isnan()
    share = chosen.to(x.dtype)
    return _spread(g, x.shape, dim) * (share / _sum(share, dim=dim, keepdim=True))


def _check_elements(function: str, x: Any, dims: tuple[int, ...]) -> None:
    if builtins.any(x.shape[d] == 0 for d in dims):
        raise IndexError(f"{function}: x of shape {tuple(x.shape)} has no elements along dim {dims}")


def amax(x, dim=None, keepdim=False):
    """Largest value over dims; NaN wins; ties share the gradient evenly."""
    dims = check_dims("amax", dim, x.ndim)
    _check_elements("amax", x, dims)
    return _amax(x, dim=dims, keepdim=keepdim)


def amin(x, dim=None, keepdim=False):
    """Smallest value over dims; NaN wins; ties share the gradient evenly."""
    dims = check_dims("amin", dim, x.ndim)
    _check_elements("amin", x, dims)
    return _amin(x, dim=dims, keepdim=keepdim)


def _extreme(function: str, x: Any, dim: Any, keepdim: bool, whole: Any, arg: Any, elementwise: Any) -> Any:
    if dim is None:
        return whole(x)
    if hasattr(dim, "shape"):
        return elementwise(x, dim)             # torch.max(a, b)
    axis = check_dim(function, dim, x.ndim)
    indices = arg(x, dim=axis, keepdim=True)
    values = gather(x, axis, indices) if x.ndim else x * 1
    if not keepdim and x.ndim:
        values, indices = values.squeeze(axis), indices.squeeze(axis)
    return MinMax(values, indices)


def max(x, dim=None, keepdim=False):
    """Largest value of all, or (values, indices) along one dim, or elementwise of two tensors.

    Over all, ties share the gradient evenly; along a dim, the first of equal values gets it all. NaN wins.

    Args:
        x: tensor.
        dim: None, an int, or a second tensor (then `maximum`).
        keepdim: keep the reduced dim with size 1.

    Returns:
        A tensor, or a named tuple (values, indices).
    """
    return _extreme("max", x, dim, keepdim, amax, argmax, maximum)


def min(x, dim=None, keepdim=False):
    """Smallest value of all, or (values, indices) along one dim, or elementwise of two tensors. See `max`."""
    return _extreme("min", x, dim, keepdim, amin, argmin, minimum)


@primitive
def _argmax(x, *, dim, keepdim):
    return np.argmax(x, axis=dim, keepdims=keepdim)


@primitive
def _argmin(x, *, dim, keepdim):
    return np.argmin(x, axis=dim, keepdims=keepdim)


def _arg(function: str, x: Any, dim: Any, keepdim: bool, arg: Any) -> Any:
    axis = None if dim is None or x.ndim == 0 else check_dim(function, dim, x.ndim)
    _check_elements(function, x, tuple(range(x.ndim)) if axis is None else (axis,))
    return arg(x, dim=axis, keepdim=keepdim)


def argmax(x, dim=None, keepdim=False):
    """Index of the largest value: the first of equal ones, or of the first NaN. int64, not differentiable."""
    return _arg("argmax", x, dim, keepdim, _argmax)


def argmin(x, dim=None, keepdim=False):
    """Index of the smallest value: the first of equal ones, or of the first NaN. int64, not differentiable."""
    return _arg("argmin", x, dim, keepdim, _argmin)


@primitive
def _any(x, *, dim, keepdim):
    return np.any(x, axis=dim, keepdims=keepdim)


@primitive
def _all(x, *, dim, keepdim):
    return np.all(x, axis=dim, keepdims=keepdim)


def any(x, dim=None, keepdim=False):
    """Whether any element is non-zero; over no dims, `()`, of each. bool, not differentiable."""
    return _any(x, dim=check_dims("any", dim, x.ndim) if dim != () else (), keepdim=keepdim)


def all(x, dim=None, keepdim=False):
    """Whether all elements are non-zero; over no dims, `()`, of each. bool, not differentiable."""
    return _all(x, dim=check_dims("all", dim, x.ndim) if dim != () else (), keepdim=keepdim)


@primitive
def _cumsum(x, *, dim, reverse=False):
    x = np.asarray(x)
    dtype = np.int64 if x.dtype.kind in "biu" else x.dtype
    if reverse:
        return np.flip(np.cumsum(np.flip(x, dim), axis=dim, dtype=dtype), dim)
    return np.cumsum(x, axis=dim, dtype=dtype)


@_cumsum.vjp(0)
def _(g, dim, reverse):
    return _cumsum(g, dim=dim, reverse=not reverse)


def cumsum(x, dim):
    """Running sum along one dim."""
    return _cumsum(x, dim=check_dim("cumsum", dim, x.ndim)) if x.ndim else x * 1


def _shift(x: np.ndarray, dim: Any) -> np.ndarray:
    """The largest finite value along dim (0 where none is): subtracted, exp cannot overflow."""
    top = np.max(x, axis=dim, keepdims=True, initial=-np.inf)
    return np.where(np.isfinite(top), top, 0).astype(x.dtype, copy=False)


@primitive
def _logsumexp(x, *, dim, keepdim):
    top = _shift(x, dim)
    out = np.log(np.sum(np.exp(x - top), axis=dim, keepdims=True)) + top
    return out if keepdim else out.reshape([n for i, n in enumerate(x.shape) if i not in dim])


@_logsumexp.vjp(0)
def _(g, x, out, dim):
    kept = reshape(out, _kept(x.shape, dim))
    safe = where(kept.isinf(), 0.0, kept)      # -inf - -inf would be NaN; exp(-inf - 0) is the 0 it should be
    return _spread(g, x.shape, dim) * (x - safe).exp()


def logsumexp(x, dim=None, keepdim=False):
    """log(sum(exp(x))) over dims, computed without overflow; -inf over nothing but -inf."""
    check_float("logsumexp", x=x)
    return _logsumexp(x, dim=check_dims("logsumexp", dim, x.ndim), keepdim=keepdim)


@primitive
def _softmax(x, *, dim):
    e = np.subtract(x, np.max(x, axis=dim, keepdims=True, initial=-np.inf))
    np.exp(e, out=e)
    e /= np.sum(e, axis=dim, keepdims=True)
    return e


@_softmax.vjp(0)
def _(g, out, dim):
    weighted = g * out
    return weighted - out * _sum(weighted, dim=(dim,), keepdim=True)


@primitive
def _log_softmax(x, *, dim):
    shifted = np.subtract(x, np.max(x, axis=dim, keepdims=True, initial=-np.inf))
    shifted -= np.log(np.sum(np.exp(shifted), axis=dim, keepdims=True))
    return shifted


@_log_softmax.vjp(0)
def _(g, out, dim):
    return g - out.exp() * _sum(g, dim=(dim,), keepdim=True)


def _normalised(function: str, apply: Any, x: Any, dim: int, dtype: Any) -> Any:
    if dtype is not None:
        x = x.to(check_dtype(function, dtype))
    check_float(function, x=x)
    axis = check_dim(function, dim, x.ndim)
    return apply(x, dim=axis) if x.ndim else apply(x.reshape(1), dim=0).reshape(())


def softmax(x, dim, dtype=None):
    """exp(x) / sum(exp(x)) along one dim, computed without overflow; NaN where all are -inf.

    Args:
        x: tensor, float.
        dim: the dim whose entries will sum to 1.
        dtype: convert to this first.
    """
    return _normalised("softmax", _softmax, x, dim, dtype)


def log_softmax(x, dim, dtype=None):
    """log(softmax(x)) along one dim, computed without overflow or the loss of small probabilities."""
    return _normalised("log_softmax", _log_softmax, x, dim, dtype)


__all__ = ["all", "amax", "amin", "any", "argmax", "argmin", "cumsum", "log_softmax", "logsumexp", "max", "mean", "min",
           "norm", "prod", "softmax", "std", "sum", "var"]
