"""Neighbouring layers computed together, where nothing looks at the value between: same results, fewer passes over memory.

Convolutions, linear layers and batch norm take the ReLU after them into their own pass. In evaluation mode, where nothing asks for
gradients of the parameters, a convolution takes batch norm's scale and shift into its weights and bias (results then agree to rounding).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from ..graph import Storage, is_grad_enabled
from ..kernels import constants
from ..tensor import Tensor
from . import functional as F
from .activation import ReLU
from .conv import Conv2d
from .linear import Linear
from .module import Module
from .norm import BatchNorm1d, BatchNorm2d


class _Folded(NamedTuple):
    """Weights with batch norm in them, and what they were computed from: (memory, version) of each tensor, and eps."""

    sources: tuple[Any, ...]
    weight: Tensor
    bias: Tensor


_folded: WeakKeyDictionary[Module, _Folded] = WeakKeyDictionary()


def run(modules: Iterable[Module], x: Any) -> Any:
    """What calling the modules one after the other returns."""
    waiting = list(modules)[::-1]

    def take(*kinds: type[Module]) -> Any:
        """The next module, if it is of exactly one of these kinds and computes what they compute, unseen by hooks."""
        return waiting.pop() if waiting and type(waiting[-1]) in kinds and _plain(waiting[-1]) else None

    while waiting:
        if (norm := take(BatchNorm1d, BatchNorm2d)) is not None:
            x = norm.normalized(x, relu=take(ReLU) is not None)
        elif (conv := take(Conv2d)) is not None:
            following = waiting[-1] if waiting else None
            if isinstance(x, Tensor) and isinstance(following, BatchNorm2d) and _folds(conv, following):
                waiting.pop()
                folded = _fold(conv, following)
                x = conv.convolved(x, folded.weight, folded.bias, take(ReLU) is not None)
            else:
                _folded.pop(conv, None)
                x = conv.convolved(x, conv.steady_weight(), conv.bias, take(ReLU) is not None)
        elif (linear := take(Linear)) is not None:
            x = F.linear(x, linear.weight, linear.bias, relu=take(ReLU) is not None)
        else:
            x = waiting.pop()(x)
    return x


def _plain(module: Module) -> bool:
    return not module.watched and "forward" not in module.__dict__      # somebody's own, set on this one object


def _folds(conv: Conv2d, norm: BatchNorm2d) -> bool:
    if type(norm) is not BatchNorm2d or not _plain(norm) or norm.training or norm.running_mean is None or norm.running_var is None:
        return False
    if conv.out_channels != norm.num_features or conv.weight.dtype != norm.running_mean.dtype:
        return False                           # the layers themselves say what is wrong
    return not (is_grad_enabled() and any(p.requires_grad for p in (*conv.parameters(), *norm.parameters())))


def _fold(conv: Conv2d, norm: BatchNorm2d) -> _Folded:
    """Kept until one of the tensors is written to, or the layer is used in another way."""
    tensors = (conv.weight, conv.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    sources: tuple[Any, ...] = (norm.eps, *((None, 0) if t is None else _state(t) for t in tensors))
    kept = _folded.get(conv)
    if kept is None or kept.sources != sources:
        arrays: Any = (None if t is None else t.numpy() for t in tensors)
        weight, bias, scale, shift, mean, var = arrays
        scale = (var + norm.eps) ** -0.5 * (1 if scale is None else scale)
        moved = ((0 if bias is None else bias) - mean) * scale + (0 if shift is None else shift)
        weight = (weight * scale.reshape(-1, 1, 1, 1)).astype(weight.dtype, copy=False)
        constants.declare(weight)              # nobody else has it: kernels may keep it as they read it
        kept = _folded[conv] = _Folded(sources, Tensor._wrap(weight, conv.weight._storage), Tensor._wrap(np.asarray(moved, weight.dtype)))
    return kept


def _state(t: Tensor) -> tuple[Storage, int]:
    return t._storage, t._storage.version
