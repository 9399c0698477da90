"""Adagrad: steps scaled by all gradients so far."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..tensor import Tensor
from .optimizer import Optimizer, buffer, check_range, count_step


class Adagrad(Optimizer):
    """Adagrad: every weight's step is its gradient over the root of the sum of its squared gradients.

        g = gradient + weight_decay * w
        v = v + g^2, starting from initial_accumulator_value
        w -= lr / (1 + (t - 1) * lr_decay) * g / (sqrt(v) + eps)

    Args:
        params: Tensors, (name, Tensor) pairs, or dicts of groups; see `Optimizer`.
        lr: learning rate, 0 or more.
        lr_decay: how fast the learning rate falls, 0 or more.
        weight_decay: strength of the L2 penalty, 0 or more.
        initial_accumulator_value: where v starts, 0 or more.
        eps: keeps the quotient finite, 0 or more.
        maximize: go uphill.

    Source: Duchi, Hazan, Singer 2011, "Adaptive subgradient methods for online learning and stochastic optimization",
    fig. 1, the diagonal case.

    Example:
        >>> import tinygrad_cnn as tg
        >>> w = tg.tensor([1.0, -2.0], requires_grad=True)
        >>> optimizer = tg.optim.Adagrad([w], lr=0.5)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> w
        tensor([ 0.5, -1.5], dtype=float32, requires_grad=True)
    """

    state_names = ("step", "sum")

    def __init__(self, params: Iterable[Any], lr: float = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
                 initial_accumulator_value: float = 0, eps: float = 1e-10, *, maximize: bool = False):
        super().__init__(params, {"lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
                                  "initial_accumulator_value": initial_accumulator_value, "maximize": maximize})

    def check(self, group: dict[str, Any]) -> None:
        """Raise for any negative option."""
        check_range("Adagrad", group, "lr", "lr_decay", "eps", "weight_decay", "initial_accumulator_value")

    def update(self, w: np.ndarray, g: np.ndarray, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        """One step of one parameter, in place; see the class for the formula."""
        t = count_step(state)
        v = buffer(state, "sum", w)
        if t == 1:
            v += group["initial_accumulator_value"]
        if group["weight_decay"]:
            g = g + group["weight_decay"] * w
        s = np.multiply(g, g, out=np.empty_like(w))    # scratch for all that follows
        v += s
        np.sqrt(v, out=s)
        s += group["eps"]
        np.divide(g, s, out=s)
        s *= group["lr"] / (1 + (t - 1) * group["lr_decay"])
        w -= s
