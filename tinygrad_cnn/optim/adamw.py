"""AdamW: Adam with weight decay apart from the gradient."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .. import kernels
from ..tensor import Tensor
from .optimizer import Optimizer, buffer, check_betas, check_range, count_step


class AdamW(Optimizer):
    """Adam with decoupled weight decay: weights shrink by the same factor whatever their gradients' size.

        w *= 1 - lr * weight_decay
        m = beta1 * m + (1 - beta1) * gradient,  v = beta2 * v + (1 - beta2) * gradient^2
        w -= lr * m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)

    Args:
        params: Tensors, (name, Tensor) pairs, or dicts of groups; see `Optimizer`.
        lr: learning rate, 0 or more.
        betas: the shares of m and v that are kept, each in [0, 1).
        eps: keeps the quotient finite, 0 or more.
        weight_decay: how fast weights shrink, 0 or more.
        amsgrad: divide by the largest v so far (Reddi, Kale, Kumar 2018).
        maximize: go uphill.

    Source: Loshchilov, Hutter 2019, "Decoupled weight decay regularization", algorithm 2; as in PyTorch lr scales the
    decay too.

    Example:
        >>> import tinygrad_cnn as tg
        >>> w = tg.tensor([4.0, -2.0], requires_grad=True)
        >>> optimizer = tg.optim.AdamW([w], lr=0.5, weight_decay=0.5)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> w
        tensor([ 2.5, -1.0], dtype=float32, requires_grad=True)
    """

    state_names = ("step", "exp_avg", "exp_avg_sq")
    optional_state_names = (("max_exp_avg_sq", "amsgrad"),)

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                                  "amsgrad": amsgrad, "maximize": maximize})

    def check(self, group: dict[str, Any]) -> None:
        """Raise for a negative lr, eps or weight_decay, and for betas outside [0, 1)."""
        check_range("AdamW", group, "lr", "eps", "weight_decay")
        check_betas("AdamW", group)

    def update(self, w: np.ndarray, g: np.ndarray, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        """One step of one parameter, in place; see the class for the formula."""
        beta1, beta2 = group["betas"]
        t = count_step(state)
        m, v = buffer(state, "exp_avg", w), buffer(state, "exp_avg_sq", w)
        largest = buffer(state, "max_exp_avg_sq", w) if group["amsgrad"] else None
        kernels.optim.adam(w, g, m, v, largest, group["lr"], beta1, beta2, group["eps"], 0.0,
                           group["lr"] * group["weight_decay"], t)
