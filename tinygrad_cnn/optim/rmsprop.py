"""RMSprop: steps scaled by the running size of the gradient."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .. import kernels
from ..tensor import Tensor
from .optimizer import Optimizer, buffer, check_range, count_step


class RMSprop(Optimizer):
    """RMSprop: every weight's step is its gradient over the root of its mean squared gradient.

        g = gradient + weight_decay * w
        v = alpha * v + (1 - alpha) * g^2
        w -= lr * g / (sqrt(v) + eps)

    With `centered` the root is the gradient's standard deviation: sqrt(v - a^2), a = alpha * a + (1 - alpha) * g. With
    `momentum` the quotients q are summed: b = momentum * b + q, w -= lr * b.

    Args:
        params: Tensors, (name, Tensor) pairs, or dicts of groups; see `Optimizer`.
        lr: learning rate, 0 or more.
        alpha: the share of v that is kept, in [0, 1).
        eps: keeps the quotient finite, 0 or more; outside the root.
        weight_decay: strength of the L2 penalty, 0 or more.
        momentum: share of the running sum that is kept, 0 or more.
        centered: divide by the standard deviation instead of the root mean square.
        maximize: go uphill.

    Source: Tieleman, Hinton 2012, "Neural networks for machine learning", lecture 6e; centered: Graves 2013,
    "Generating sequences with recurrent neural networks", eq. 38-41, in PyTorch's form.

    Example:
        >>> import tinygrad_cnn as tg
        >>> w = tg.tensor([1.0, -2.0], requires_grad=True)
        >>> optimizer = tg.optim.RMSprop([w], lr=0.5, alpha=0)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> w
        tensor([ 0.5, -1.5], dtype=float32, requires_grad=True)
    """

    state_names = ("step", "square_avg")
    optional_state_names = (("grad_avg", "centered"), ("momentum_buffer", "momentum"))

    def __init__(self, params: Iterable[Any], lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
                 weight_decay: float = 0, momentum: float = 0, centered: bool = False, *, maximize: bool = False):
        super().__init__(params, {"lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
                                  "weight_decay": weight_decay, "maximize": maximize})

    def check(self, group: dict[str, Any]) -> None:
        """Raise for a negative lr, eps, weight_decay or momentum, and for alpha outside [0, 1)."""
        check_range("RMSprop", group, "lr", "eps", "weight_decay", "momentum")
        check_range("RMSprop", group, "alpha", below=1)

    def update(self, w: np.ndarray, g: np.ndarray, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        """One step of one parameter, in place; see the class for the formula."""
        count_step(state)
        v = buffer(state, "square_avg", w)
        a = buffer(state, "grad_avg", w) if group["centered"] else None
        b = buffer(state, "momentum_buffer", w) if group["momentum"] else None
        kernels.optim.rmsprop(w, g, v, a, b, group["lr"], group["alpha"], group["eps"], group["weight_decay"],
                              group["momentum"])
