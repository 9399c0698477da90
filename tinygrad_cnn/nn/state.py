"""What a module's state is made of: parameters, and the checks that values fit before they are loaded."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np

from ..ops.geometry import DTYPES
from ..tensor import Tensor, tensor


class Parameter(Tensor):
    """A tensor that a module learns: assigned to an attribute of a `Module` it appears in `parameters()`.

    Args:
        data: a Tensor, whose memory it shares (a read-only one is copied), or numbers or an array, which are copied.
        requires_grad: whether gradients flow to it.

    Example:
        >>> import tinygrad_cnn as tg
        >>> tg.nn.Parameter(tg.zeros(2))
        Parameter containing:
        tensor([0., 0.], dtype=float32, requires_grad=True)
    """

    def __init__(self, data: Any = (), requires_grad: bool = True):
        self._share(data if isinstance(data, Tensor) and data._data.flags.writeable else tensor(data))
        self.requires_grad_(requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


class Moment:
    """Tensors, or None, as they are now: what was computed from them holds while it `lasts`."""

    __slots__ = ("_seen",)

    def __init__(self, *tensors: Tensor | None):
        self._seen = [(None, 0) if t is None else (t._data, t._storage.stamp) for t in tensors]

    def lasts(self, *tensors: Tensor | None) -> bool:
        """Whether these are the same tensors, and none was written to."""
        for t, (array, stamp) in zip(tensors, self._seen, strict=True):
            if t is None:
                if array is not None:
                    return False
            elif t._data is not array or t._storage.stamp != stamp:
                return False
        return True


class LoadResult(namedtuple("LoadResult", ["missing_keys", "unexpected_keys"])):
    """What `load_state_dict(strict=False)` left out: `missing_keys` of the model, `unexpected_keys` of the dict."""

    __slots__ = ()

    def __repr__(self) -> str:
        return super().__repr__() if any(self) else "<All keys matched successfully>"


def misfits(own: Tensor, value: Any) -> list[tuple[str, str]]:
    """Why a value cannot be copied into a tensor of the model; nothing if it can."""
    if not isinstance(value, (Tensor, np.ndarray)) or np.dtype(value.dtype) not in DTYPES:
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        return [("wrong type", f"wanted a Tensor or a NumPy array of numbers, got {kind}")]
    found = []
    if tuple(value.shape) != own.shape:
        found.append(("size mismatch", f"the state_dict has shape {tuple(value.shape)}, the model {own.shape}"))
    if value.dtype.kind == "f" and own.dtype.kind != "f":
        found.append(("wrong type", f"the state_dict has {value.dtype}, the model {own.dtype}"))
    if not own._data.flags.writeable:
        found.append(("read-only memory", "the model's tensor is an expanded view and cannot be written"))
    return found
