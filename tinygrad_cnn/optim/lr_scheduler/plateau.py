"""Down when nothing gets better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import SupportsFloat

from ..optimizer import Optimizer
from .scheduler import LRScheduler, check, check_count, check_factor, check_optimizer, per_group


class ReduceLROnPlateau(LRScheduler):
    """Multiply the rate by `factor` when a measure has not improved for `patience` epochs; `step` takes the measure.

    Args:
        optimizer: whose groups are scheduled.
        mode: "min" if lower is better, "max" if higher is.
        factor: in [0, 1).
        patience: epochs without improvement that are let pass, 0 or more.
        threshold: how much better counts as better, 0 or more.
        threshold_mode: "rel": relative to the best so far; "abs": absolute.
        cooldown: epochs after a change in which nothing counts, 0 or more.
        min_lr: the lowest rate, 0 or more; a number, or a list with one per group.
        eps: changes smaller than this are not made.

    Example:
        >>> import tinygrad_cnn as tg
        >>> optimizer = tg.optim.SGD([tg.ones(1, requires_grad=True)], lr=1.0)
        >>> schedule = tg.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
        >>> for loss in (0.5, 0.5, 0.5):
        ...     schedule.step(loss)
        >>> schedule.get_last_lr()
        [0.1]
    """

    def __init__(self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
                 threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0,
                 min_lr: float | Sequence[float] = 0, eps: float = 1e-8):
        name = "ReduceLROnPlateau"
        check_optimizer(name, optimizer)
        if mode not in ("min", "max"):
            raise ValueError(f"{name}: mode must be 'min' or 'max', got {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"{name}: threshold_mode must be 'rel' or 'abs', got {threshold_mode!r}")
        check(name, "factor", factor, Real, lambda v: 0 <= v < 1, "a number in [0, 1)")
        check_count(name, "patience", patience, least=0)
        check_count(name, "cooldown", cooldown, least=0)
        self.min_lrs = per_group(name, "min_lr", min_lr, optimizer)
        self.default_min_lr = min_lr if isinstance(min_lr, Real) else None
        for key, value in (("threshold", threshold), ("eps", eps), *(("min_lr", rate) for rate in self.min_lrs)):
            check_factor(name, key, value)
        self.optimizer, self.mode, self.factor, self.eps = optimizer, mode, factor, eps
        self.patience, self.cooldown = patience, cooldown
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.best = math.inf if mode == "min" else -math.inf
        self.cooldown_counter = self.num_bad_epochs = self.last_epoch = 0
        self._last_lr = [group["lr"] for group in optimizer.param_groups]

    def step(self, metrics: SupportsFloat) -> None:  # type: ignore[override]
        """Look at the epoch's measure, a number or a Tensor of one element; NaN is never better."""
        current, sign = float(metrics), 1 if self.mode == "max" else -1
        self.last_epoch += 1
        margin = sign * self.threshold
        bound = self.best * (1 + margin) if self.threshold_mode == "rel" else self.best + margin
        if sign * current > sign * bound:
            self.best, self.num_bad_epochs = current, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        rates = [group["lr"] for group in self.optimizer.param_groups]
        if self.num_bad_epochs > self.patience:
            lows = self.min_lrs if self.default_min_lr is None else [self.default_min_lr] * len(rates)
            lower = [max(rate * self.factor, low) for rate, low in zip(rates, lows, strict=False)]
            rates = [new if old - new > self.eps else old for old, new in zip(rates, lower, strict=False)]
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._set(rates)
