"""NAdam: Adam with Nesterov momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..tensor import Tensor
from .optimizer import Optimizer, buffer, check_betas, check_range, count_step


class NAdam(Optimizer):
    """Adam that looks ahead along its momentum, with a momentum mu that grows towards beta1.

        g = gradient + weight_decay * w
        mu_t = beta1 * (1 - 0.96^(t * momentum_decay) / 2),  p_t = mu_1 * mu_2 * ... * mu_t
        m = beta1 * m + (1 - beta1) * g,  v = beta2 * v + (1 - beta2) * g^2
        w -= lr * (mu_(t+1) * m / (1 - p_(t+1)) + (1 - mu_t) * g / (1 - p_t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Args:
        params: Tensors, (name, Tensor) pairs, or dicts of groups; see `Optimizer`.
        lr: learning rate, 0 or more.
        betas: the shares of m and v that are kept, each in [0, 1).
        eps: keeps the quotient finite, 0 or more.
        weight_decay: strength of the L2 penalty, 0 or more.
        momentum_decay: how fast mu grows, 0 or more.
        maximize: go uphill.

    Source: Dozat 2016, "Incorporating Nesterov momentum into Adam", algorithm 2; 0.96 is the paper's.

    Example:
        >>> import tinygrad_cnn as tg
        >>> w = tg.tensor([1.0, -2.0], requires_grad=True)
        >>> optimizer = tg.optim.NAdam([w], lr=0.25)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> bool((w.abs() < tg.tensor([1.0, 2.0])).all())
        True
    """

    state_names = ("step", "mu_product", "exp_avg", "exp_avg_sq")

    def __init__(self, params: Iterable[Any], lr: float = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0, momentum_decay: float = 4e-3, *, maximize: bool = False):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                                  "momentum_decay": momentum_decay, "maximize": maximize})

    def check(self, group: dict[str, Any]) -> None:
        """Raise for a negative lr, eps, weight_decay or momentum_decay, and for betas outside [0, 1)."""
        check_range("NAdam", group, "lr", "eps", "weight_decay", "momentum_decay")
        check_betas("NAdam", group)

    def update(self, w: np.ndarray, g: np.ndarray, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        """One step of one parameter, in place; see the class for the formula."""
        beta1, beta2 = group["betas"]
        t = count_step(state)
        if t == 1:
            state["mu_product"] = Tensor._wrap(np.ones(()))
        m, v = buffer(state, "exp_avg", w), buffer(state, "exp_avg_sq", w)
        mu, mu_next = (beta1 * (1 - 0.5 * 0.96 ** (i * group["momentum_decay"])) for i in (t, t + 1))
        state["mu_product"]._data *= mu
        product = state["mu_product"].item()
        if group["weight_decay"]:
            g = g + group["weight_decay"] * w
        m += (1 - beta1) * (g - m)
        v *= beta2
        v += (1 - beta2) * g * g
        root = np.sqrt(v / (1 - beta2**t)) + group["eps"]
        w -= group["lr"] * ((1 - mu) / (1 - product) * g + mu_next / (1 - product * mu_next) * m) / root
