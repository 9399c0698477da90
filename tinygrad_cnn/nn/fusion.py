"""Neighbouring layers computed together, where nothing looks at the value between: same results, fewer passes over memory.

Convolutions, linear layers and batch norm take the ReLU after them into their own pass. In evaluation mode, where nothing asks for
gradients of the parameters, a convolution takes batch norm's scale and shift into its weights and bias (results then agree to rounding).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from ..grad_mode import is_grad_enabled
from ..kernels import constants
from ..tensor import Tensor
from . import functional as F
from .activation import ReLU
from .conv import Conv2d
from .linear import Linear
from .module import Module
from .norm import Affine, BatchNorm1d, BatchNorm2d
from .state import Moment


class _Folded(NamedTuple):
    """Weights with batch norm in them, and what they were computed from."""

    affine: Affine
    moment: Moment
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
            affine = _foldable(conv, following) if isinstance(x, Tensor) and type(following) is BatchNorm2d else None
            if affine is not None:
                waiting.pop()
                folded = _fold(conv, affine)
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


def _foldable(conv: Conv2d, norm: BatchNorm2d) -> Affine | None:
    """What batch norm does to each channel, if it can be done to the convolution's weights; the layers say what does not fit."""
    if not _plain(norm) or is_grad_enabled() and any(p is not None and p.requires_grad for p in (conv.weight, conv.bias)):
        return None
    affine = norm.known()
    fits = affine is not None and conv.out_channels == affine.scale.size and conv.weight.dtype == affine.scale.dtype
    return affine if fits else None


def _fold(conv: Conv2d, affine: Affine) -> _Folded:
    """Kept until one of the tensors is written to, or the layer is used in another way."""
    kept = _folded.get(conv)
    if kept is None or kept.affine is not affine or not kept.moment.lasts(conv.weight, conv.bias):
        weight = conv.weight._data * affine.scale.reshape(-1, 1, 1, 1)
        bias = affine.shift if conv.bias is None else conv.bias._data * affine.scale + affine.shift
        constants.declare(weight)              # nobody else has it: kernels may keep it as they read it
        folded = Tensor._wrap(weight, conv.weight._storage)    # of which drawings know the name
        kept = _folded[conv] = _Folded(affine, Moment(conv.weight, conv.bias), folded, Tensor._wrap(bias))
    return kept
