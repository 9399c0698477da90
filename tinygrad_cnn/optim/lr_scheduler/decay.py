"""Schedules that multiply the rate now and then."""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..optimizer import Optimizer
from .scheduler import LRScheduler, check_count, check_factor, check_optimizer, per_group


class StepLR(LRScheduler):
    """Multiply the rate by `gamma` every `step_size` steps.

    Args:
        optimizer: whose groups are scheduled.
        step_size: steps between two changes, 1 or more.
        gamma: the factor, 0 or more.
        last_epoch: see `LRScheduler`.

    Example:
        >>> import tinygrad_cnn as tg
        >>> optimizer = tg.optim.SGD([tg.ones(1, requires_grad=True)], lr=1.0)
        >>> schedule = tg.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
        >>> for _ in range(4):
        ...     _ = optimizer.step(), schedule.step()
        >>> schedule.get_last_lr()
        [0.25]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1):
        check_count("StepLR", "step_size", step_size)
        check_factor("StepLR", "gamma", gamma)
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The groups' rates at `last_epoch`."""
        return self._scaled(self.gamma if self.last_epoch and self.last_epoch % self.step_size == 0 else 1)


class MultiStepLR(LRScheduler):
    """Multiply the rate by `gamma` at every milestone.

    Args:
        optimizer: whose groups are scheduled.
        milestones: the numbers of the steps; one that is named twice counts twice.
        gamma: the factor, 0 or more.
        last_epoch: see `LRScheduler`.
    """

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1):
        self.milestones = Counter(milestones)
        for milestone in self.milestones:
            check_count("MultiStepLR", "every milestone", milestone, least=0)
        check_factor("MultiStepLR", "gamma", gamma)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The groups' rates at `last_epoch`."""
        return self._scaled(self.gamma ** self.milestones[self.last_epoch])


class ExponentialLR(LRScheduler):
    """Multiply the rate by `gamma` at every step.

    Args:
        optimizer: whose groups are scheduled.
        gamma: the factor, 0 or more.
        last_epoch: see `LRScheduler`.
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1):
        check_factor("ExponentialLR", "gamma", gamma)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The groups' rates at `last_epoch`."""
        return self._scaled(1 if self._is_initial else self.gamma)


class LambdaLR(LRScheduler):
    """Multiply the first rate by a function of the step's number.

    Args:
        optimizer: whose groups are scheduled.
        lr_lambda: from `last_epoch` to the factor; one function, or a list with one per group.
        last_epoch: see `LRScheduler`.

    Example:
        >>> import tinygrad_cnn as tg
        >>> optimizer = tg.optim.SGD([tg.ones(1, requires_grad=True)], lr=2.0)
        >>> schedule = tg.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: min(1, (epoch + 1) / 4))
        >>> schedule.get_last_lr()
        [0.5]
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
                 last_epoch: int = -1):
        check_optimizer("LambdaLR", optimizer)
        self.lr_lambdas = per_group("LambdaLR", "lr_lambda", lr_lambda, optimizer)
        for function in self.lr_lambdas:
            if not callable(function):
                raise TypeError(f"LambdaLR: lr_lambda must be a function, got {function!r}")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The groups' rates at `last_epoch`."""
        return [base * function(self.last_epoch) for base, function in zip(self.base_lrs, self.lr_lambdas, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """All but the optimizer and the functions; of callable objects their attributes are kept."""
        functions = (types.FunctionType, types.BuiltinFunctionType)
        kept = [None if isinstance(f, functions) else dict(vars(f)) for f in self.lr_lambdas]
        return {**super().state_dict(), "lr_lambdas": kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; the functions stay, callable objects get their attributes back."""
        functions = self.lr_lambdas
        super().load_state_dict(state_dict)
        for function, attributes in zip(functions, self.lr_lambdas, strict=True):
            vars(function).update(attributes or {})
        self.lr_lambdas = functions
