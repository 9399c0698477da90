"""Up and far down, momentum going the other way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

from ..optimizer import Optimizer
from .scheduler import LRScheduler, check, check_count, check_factor, check_optimizer, per_group


class OneCycleLR(LRScheduler):
    """Let the rate rise to `max_lr` and fall far below where it began, momentum the other way; step after every batch.

    Args:
        optimizer: whose groups are scheduled.
        max_lr: the highest rate, above 0; one number, or a list with one per group.
        total_steps: steps of the whole cycle, 1 or more; or give `epochs` and `steps_per_epoch`.
        epochs: epochs of the cycle, 1 or more.
        steps_per_epoch: batches in an epoch, 1 or more.
        pct_start: the share of the steps in which the rate rises, in 0 .. 1.
        anneal_strategy: "cos" or "linear".
        cycle_momentum: move momentum (or the first beta) between `max_momentum` and `base_momentum`.
        base_momentum: momentum at the highest rate; a number or a list.
        max_momentum: momentum at the start and the end; a number or a list.
        div_factor: the first rate is max_lr / div_factor; above 0.
        final_div_factor: the last rate is the first / final_div_factor; above 0.
        three_phase: fall back to the first rate as fast as it rose, then to the last.
        last_epoch: see `LRScheduler`.

    Raises:
        ValueError: an option out of its range; an optimizer without momentum and betas under `cycle_momentum`; more
            steps than `total_steps`.

    Source: Smith, Topin 2018, "Super-convergence: very fast training of neural networks using large learning rates", in
    PyTorch's form, which is fastai's.

    Example:
        >>> import tinygrad_cnn as tg
        >>> optimizer = tg.optim.Adam([tg.ones(1, requires_grad=True)])
        >>> schedule = tg.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=10)
        >>> for _ in range(2):
        ...     _ = optimizer.step(), schedule.step()
        >>> schedule.get_last_lr()
        [1.0]
    """

    def __init__(self, optimizer: Optimizer, max_lr: float | Sequence[float], total_steps: int | None = None,
                 epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
                 anneal_strategy: str = "cos", cycle_momentum: bool = True,
                 base_momentum: float | Sequence[float] = 0.85, max_momentum: float | Sequence[float] = 0.95,
                 div_factor: float = 25.0, final_div_factor: float = 1e4, three_phase: bool = False,
                 last_epoch: int = -1):
        name = "OneCycleLR"
        check_optimizer(name, optimizer)
        for key, count in (("total_steps", total_steps), ("epochs", epochs), ("steps_per_epoch", steps_per_epoch)):
            if count is not None:
                check_count(name, key, count)
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError(f"{name}: pass total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        check(name, "pct_start", pct_start, Real, lambda v: 0 <= v <= 1, "a number in 0 .. 1")
        for key, factor in (("div_factor", div_factor), ("final_div_factor", final_div_factor)):
            check(name, key, factor, Real, lambda v: 0 < v < math.inf, "a finite number above 0")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"{name}: anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}")
        highest, low, high = (per_group(name, key, value, optimizer) for key, value in (
            ("max_lr", max_lr), ("base_momentum", base_momentum), ("max_momentum", max_momentum)))
        for rate in highest:
            check_factor(name, "max_lr", rate)
        for momentum in (*low, *high):
            check(name, "base_momentum or max_momentum", momentum, Real, lambda v: 0 <= v < 1, "a number in [0, 1)")
        if cycle_momentum and not {"momentum", "betas"} & optimizer.defaults.keys():
            raise ValueError(f"{name}: {type(optimizer).__name__} has neither momentum nor betas; pass "
                             "cycle_momentum=False")

        self.total_steps = total_steps
        self.anneal_strategy, self.cycle_momentum = anneal_strategy, cycle_momentum
        self.use_beta1 = "betas" in optimizer.defaults
        top = pct_start * self.total_steps - 1
        # (last step, rate and momentum at its end) of every phase
        middle = [(2 * top, "initial_lr", "max_momentum")] if three_phase else []
        self.phases = [(top, "max_lr", "base_momentum"), *middle, (self.total_steps - 1, "min_lr", "max_momentum")]
        options = []
        for peak, least, most in zip(highest, low, high, strict=True):
            first = peak / div_factor
            options.append({"initial_lr": first, "max_lr": peak, "min_lr": first / final_div_factor})
            if cycle_momentum:
                options[-1].update(base_momentum=least, max_momentum=most)
        super().__init__(optimizer, last_epoch, options=options)

    def get_lr(self) -> list[float]:
        """The groups' rates at `last_epoch`; sets their momentum too."""
        if self.last_epoch > self.total_steps:
            raise ValueError(f"OneCycleLR: step {self.last_epoch} is past the cycle's {self.total_steps} (total_steps)")
        start, start_lr, start_momentum = 0.0, "initial_lr", "max_momentum"
        for end, end_lr, end_momentum in self.phases:
            if self.last_epoch <= end or end_lr == "min_lr":
                break
            start, start_lr, start_momentum = end, end_lr, end_momentum
        done = (self.last_epoch - start) / (end - start) if end != start else 1.0
        rates = []
        for group, _ in zip(self.optimizer.param_groups, self.base_lrs, strict=False):     # of one added since `_set` says so
            rates.append(self._between(group[start_lr], group[end_lr], done))
            if self.cycle_momentum:
                momentum = self._between(group[start_momentum], group[end_momentum], done)
                group.update({"betas": (momentum, *group["betas"][1:])} if self.use_beta1 else {"momentum": momentum})
        return rates

    def _set_again(self) -> None:
        self._set(self.get_lr())               # momentum too

    def _between(self, start: float, end: float, done: float) -> float:
        if self.anneal_strategy == "linear":
            return start + (end - start) * done
        return end + (start - end) / 2 * (1 + math.cos(math.pi * done))
