"""Dropout's one primitive, linear and its own adjoint."""

from __future__ import annotations

import numpy as np

from .. import kernels, memory
from ..primitive import primitive
from .conv import channels_first, channels_last


@primitive
def keep_scaled(x, keep, *, scale):
    """x * scale where `keep` holds, else 0, whatever x is there; `keep` broadcasts to x's shape."""
    image = x.ndim == 4
    rows = channels_last(x) if image else np.ascontiguousarray(x)
    kept = np.broadcast_to(keep, x.shape)
    kept = channels_last(kept) if image else np.ascontiguousarray(kept)
    out = memory.empty(rows.shape, x.dtype)
    kernels.dropout.keep(rows, kept, scale, out)
    return channels_first(out) if image else out.reshape(x.shape)


@keep_scaled.vjp(0)
def _(g, keep, scale):
    return keep_scaled(g, keep, scale=scale)
