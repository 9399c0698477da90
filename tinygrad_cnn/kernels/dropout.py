"""Dropout: what is kept, scaled, in one pass."""

import numpy as np
from numba import prange

from .jit import kernel

ELEMENTS_PER_NS = 2  # of one thread, roughly


@kernel
def _keep(x, kept, scale, out):
    factor, nothing = scale[0], x.dtype.type(0)
    for i in prange(x.size):
        out[i] = x[i] * factor if kept[i] else nothing


def keep(x, kept, scale, out):
    """out = x * scale where `kept`, else 0, whatever x is there.

    Args:
        x: any shape.
        kept: bool, the shape of x.
        scale: a number.
        out: the shape and dtype of x, overwritten.
    """
    _keep(x.reshape(-1), kept.reshape(-1), np.array([scale], x.dtype), out.reshape(-1), work=x.size / ELEMENTS_PER_NS)
