"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np

from .. import kernels
from ..tensor import Tensor
from .optimizer import Optimizer, buffer, check_range


class SGD(Optimizer):
    """Stochastic gradient descent: w -= lr * v, where v is the gradient or its running sum.

        g = gradient + weight_decay * w
        v = g at the first step, then momentum * v + (1 - dampening) * g
        w -= lr * (g + momentum * v if nesterov else v)

    Args:
        params: Tensors, (name, Tensor) pairs, or dicts of groups; see `Optimizer`.
        lr: learning rate, 0 or more.
        momentum: share of v that is kept, 0 or more; 0 keeps none.
        dampening: how much the new gradient is damped, a number.
        weight_decay: strength of the L2 penalty, 0 or more.
        nesterov: look ahead along v; wants momentum above 0 and no dampening.
        maximize: go uphill.

    Source: Sutskever, Martens, Dahl, Hinton 2013, "On the importance of initialization and momentum in deep learning",
    eq. 1-4, in PyTorch's form, where lr scales v rather than the gradient.

    Example:
        >>> import tinygrad_cnn as tg
        >>> w = tg.tensor([1.0, -2.0], requires_grad=True)
        >>> optimizer = tg.optim.SGD([w], lr=0.25)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> w
        tensor([ 0.5, -1.0], dtype=float32, requires_grad=True)
    """

    optional_state_names = (("momentum_buffer", "momentum"),)

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0, dampening: float = 0,
                 weight_decay: float = 0, nesterov: bool = False, *, maximize: bool = False):
        super().__init__(params, {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
                                  "nesterov": nesterov, "maximize": maximize})

    def check(self, group: dict[str, Any]) -> None:
        """Raise for a negative lr, momentum or weight_decay, and for Nesterov without momentum or with dampening."""
        check_range("SGD", group, "lr", "momentum", "weight_decay")
        if not isinstance(group["dampening"], Real):
            raise TypeError(f"SGD: dampening must be a number, got {group['dampening']!r}")
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError(f"SGD: nesterov wants momentum above 0 and dampening 0, got momentum={group['momentum']} "
                             f"and dampening={group['dampening']}")

    def update(self, w: np.ndarray, g: np.ndarray, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        """One step of one parameter, in place; see the class for the formula."""
        first = "momentum_buffer" not in state
        v = buffer(state, "momentum_buffer", w) if group["momentum"] else None
        kernels.optim.sgd(w, g, v, group["lr"], group["momentum"], group["dampening"], group["weight_decay"], first,
                          group["nesterov"])
