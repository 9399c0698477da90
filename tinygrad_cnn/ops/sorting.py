"""Sorting along a dim: the order is a constant, so values are gathered by it and gradients go back where they came from."""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from ..primitive import primitive
from .geometry import check_dim
from .movement import gather

Sorted = namedtuple("Sorted", ["values", "indices"])


@primitive
def _argsort(x, *, dim, descending):
    if descending:                             # reversed twice, so that equal values keep their order
        return x.shape[dim] - 1 - np.flip(np.argsort(np.flip(x, dim), axis=dim, kind="stable"), dim)
    return np.argsort(x, axis=dim, kind="stable")


def argsort(x, dim=-1, descending=False):
    """The indices that sort along a dim; equal values keep their order, NaN counts as the largest. int64."""
    axis = check_dim("argsort", dim, x.ndim)
    return _argsort(x, dim=axis, descending=bool(descending)) if x.ndim else (x != x).long() * 0


def sort(x, dim=-1, descending=False):
    """The values in order along a dim, and where they came from.

    Args:
        x: tensor.
        dim: where to sort.
        descending: the largest first.

    Returns:
        A named tuple (values, indices). Equal values keep their order, unlike PyTorch's default, which promises nothing;
        NaN counts as the largest.

    Example:
        >>> import tinygrad_cnn as tg
        >>> tg.sort(tg.tensor([2, 3, 1]), descending=True).indices
        tensor([1, 0, 2], dtype=int64)
    """
    indices = argsort(x, dim, descending)
    return Sorted(gather(x, dim, indices) if x.ndim else x * 1, indices)


def topk(x, k, dim=-1, largest=True):
    """The k largest (or smallest) values along a dim, in order, and where they are.

    Args:
        x: tensor.
        k: how many, 0 .. the dim's size.
        dim: where to look.
        largest: False takes the smallest.

    Returns:
        A named tuple (values, indices).

    Raises:
        ValueError: k out of range.
    """
    axis = check_dim("topk", dim, x.ndim)
    size = x.shape[axis] if x.ndim else 1
    if not isinstance(k, int) or isinstance(k, bool) or not 0 <= k <= size:
        raise ValueError(f"topk: k must be an int in 0 .. {size}, the size of dim {dim}, got {k!r}")
    if not x.ndim:
        return sort(x)
    indices = argsort(x, axis, largest)[(slice(None),) * axis + (slice(k),)]
    return Sorted(gather(x, axis, indices), indices)
