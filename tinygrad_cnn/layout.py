"""Which results PyTorch would call views, where memory lies in another order than PyTorch's.

Images and convolution weights lie in memory as kernels read them, not in the row-major order that PyTorch gives them. Whether a
reshape shares memory depends on that order, and programs rely on it: they write through `conv.weight.view(-1)`. So each tensor
knows the layout it would have in PyTorch. A reshape that must copy where PyTorch's would not is then told apart from one that
copies in both.

A layout is PLAIN, KEPT, HIDDEN, or a stand-in: an array of that shape and those strides, in elements, without memory behind it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from enum import Enum
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .memory import order_of


class Layout(Enum):
    """The layouts that need no strides of their own."""

    PLAIN = "row-major, here too"
    KEPT = "the strides it has here"
    HIDDEN = "row-major, though it lies otherwise here"


PLAIN, KEPT, HIDDEN = Layout


def of_new(array: np.ndarray) -> Layout:
    """The layout of new memory: row-major."""
    return PLAIN if array.flags.c_contiguous else HIDDEN


def of_view(array: np.ndarray) -> Layout:
    """The layout of a view of memory that lies as in PyTorch."""
    return PLAIN if array.flags.c_contiguous else KEPT


@functools.lru_cache(maxsize=1024)
def _row_major(shape: tuple[int, ...]) -> np.ndarray:
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * max(shape[axis + 1], 1)
    return as_strided(np.empty(1, np.uint8), shape, strides, writeable=False)


def stand_in(array: np.ndarray, layout: Any) -> np.ndarray:
    """An array of the strides of a layout that is not KEPT. Nothing may be read from it."""
    return _row_major(array.shape) if isinstance(layout, Layout) else layout


def simplest(layout: np.ndarray, array: np.ndarray) -> Any:
    """The layout that a stand-in of the array's shape describes, without the stand-in if it needs none."""
    if layout.flags.c_contiguous:
        return of_new(array)
    here = zip(array.shape, array.strides, layout.strides, strict=True)
    return KEPT if all(n == 1 or a == b * array.itemsize for n, a, b in here) else layout


def of_elementwise(array: np.ndarray, arguments: Iterable[tuple[np.ndarray, Any]]) -> Any:
    """The layout of an elementwise result: dense, its dims in the order that the first argument of its shape has them."""
    for argument, layout in arguments:
        if argument.shape == array.shape:
            if layout is PLAIN or layout is HIDDEN:
                break                          # row-major
            strides = (argument if layout is KEPT else layout).strides
            if 0 not in strides or all(stride or n == 1 for stride, n in zip(strides, array.shape, strict=True)):
                order, back = order_of(strides)
                return simplest(_row_major(tuple([array.shape[axis] for axis in order])).transpose(back), array)
    return of_new(array)
