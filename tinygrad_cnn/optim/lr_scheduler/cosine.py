"""Half a cosine down."""

from __future__ import annotations

import math

from ..optimizer import Optimizer
from .scheduler import LRScheduler, check_count, check_factor


class CosineAnnealingLR(LRScheduler):
    """Let the rate fall from its first value to `eta_min` along half a cosine; after `T_max` it rises again.

    Args:
        optimizer: whose groups are scheduled.
        T_max: steps from the first rate to `eta_min`, 1 or more.
        eta_min: the lowest rate, 0 or more.
        last_epoch: see `LRScheduler`.

    Source: Loshchilov, Hutter 2017, "SGDR: stochastic gradient descent with warm restarts", eq. 5, without restarts,
    and made recursive as in PyTorch.

    Example:
        >>> import tinygrad_cnn as tg
        >>> optimizer = tg.optim.SGD([tg.ones(1, requires_grad=True)], lr=1.0)
        >>> schedule = tg.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2)
        >>> _ = optimizer.step(), schedule.step()
        >>> round(schedule.get_last_lr()[0], 6)
        0.5
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1):
        check_count("CosineAnnealingLR", "T_max", T_max)
        check_factor("CosineAnnealingLR", "eta_min", eta_min)
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The groups' rates at `last_epoch`."""
        t, span, low = self.last_epoch, self.T_max, self.eta_min
        if self._is_initial:
            return self._scaled(1)
        if (t - 1 - span) % (2 * span) == 0:   # the last rate was eta_min, from which no factor leads up
            rise = (1 - math.cos(math.pi / span)) / 2
            return [group["lr"] + (base - low) * rise      # a group added since has no base: `_set` says so
                    for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=False)]
        fall = (1 + math.cos(math.pi * t / span)) / (1 + math.cos(math.pi * (t - 1) / span))
        return [low + (group["lr"] - low) * fall for group in self.optimizer.param_groups]
