"""What every schedule shares: its count of steps, its state, and checks of its options."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from copy import copy, deepcopy
from numbers import Integral, Real
from typing import Any

from ...ops.arguments import guard_constructor
from ..optimizer import Optimizer


class LRScheduler:
    """The base of all schedules. To write one, return the groups' rates from `get_lr`.

    Schedules multiply the current rate where they can, as PyTorch's do, so several work on one optimizer. Unlike there
    `step` takes no epoch, and a run may be resumed in any order: the optimizer's state may be loaded before or after the
    schedule is made, and before or after the schedule's own.

    Args:
        optimizer: whose `param_groups` are scheduled.
        last_epoch: the last epoch that was done, counted from 0, to go on from there without a state of the schedule; -1
            starts anew. The optimizer's rates are taken to be those after that epoch; if it never loaded a state and they
            are still the first ones, the schedule brings them there.
        options: for subclasses: per group what the schedule keeps there.

    Attributes:
        base_lrs: the groups' rates at the start.
        last_epoch: how often `step` was called.

    Raises:
        TypeError: not an optimizer.
        KeyError: going on with an optimizer that was never scheduled.
        ValueError: (in `step`) the optimizer got a group for which this schedule has no rate.

    Example:
        >>> import tinygrad_cnn as tg
        >>> optimizer = tg.optim.SGD([tg.ones(1, requires_grad=True)], lr=1.0)
        >>> class Halve(tg.optim.lr_scheduler.LRScheduler):
        ...     def get_lr(self):
        ...         return [base / 2**self.last_epoch for base in self.base_lrs]
        >>> schedule = Halve(optimizer)
        >>> for _ in range(2):
        ...     _ = optimizer.step(), schedule.step()
        >>> schedule.get_last_lr()
        [0.25]
    """

    _step_count = _loads = 0
    _replaced: Sequence[dict[str, Any]] = ()
    """Per group what making this schedule wrote over."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        guard_constructor(cls)

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1, *, options: Sequence[dict[str, Any]] | None = None):
        name = type(self).__name__
        check_optimizer(name, optimizer)
        check_count(name, "last_epoch", last_epoch, least=-1)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch > -1 and "initial_lr" not in group:
                raise KeyError(f"{name}: group {i} has no 'initial_lr'; load the optimizer's state first, or leave out "
                               "last_epoch")
        self.optimizer = optimizer
        found = [dict(group) for group in optimizer.param_groups]
        for group, own in zip(optimizer.param_groups, options or [{}] * len(found), strict=True):
            group.update(own if last_epoch == -1 else {**own, **group})
            group.setdefault("initial_lr", group["lr"])
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        untouched = not optimizer.loads and all(group["lr"] == group["initial_lr"] for group in optimizer.param_groups)
        self.last_epoch = -1 if untouched else last_epoch
        self._step_count = 0
        self._is_initial = True
        self.step()
        self._is_initial = False
        while self.last_epoch <= last_epoch:
            self._advance()
        self._loads = optimizer.loads
        self._replaced = [{key: value for key, value in before.items() if group[key] is not value and group[key] != value}
                          for before, group in zip(found, optimizer.param_groups, strict=True)]

    def get_lr(self) -> list[float]:
        """The groups' rates at `last_epoch`; called by `step`. For the rate in use see `get_last_lr`."""
        raise NotImplementedError(f"{type(self).__name__}: get_lr is not defined")

    def get_last_lr(self) -> list[float]:
        """The groups' rates that the last step set."""
        return list(self._last_lr)

    def step(self) -> None:
        """Go to the next rate. Warns if the optimizer has not made a step: its first rate would be skipped."""
        if self._step_count == 1 and not self.optimizer.stepped and type(self.optimizer).step is Optimizer.step:
            warnings.warn(f"{type(self).__name__}.step was called before optimizer.step; call it after, or the first "
                          "learning rate is skipped", UserWarning, stacklevel=2)
        self._step_count += 1
        self._advance()

    def _advance(self) -> None:
        self.last_epoch += 1
        self._set(self.get_lr())

    def _set(self, rates: Iterable[float]) -> None:
        rates, groups = list(rates), self.optimizer.param_groups
        if len(rates) != len(groups):
            raise ValueError(f"{type(self).__name__}: has rates for {len(rates)} groups, the optimizer has {len(groups)}; make the "
                             "schedule after the last add_param_group")
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = float(rate)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """All but the optimizer, whose own state_dict holds the rates."""
        return {key: copy(value) for key, value in vars(self).items() if key not in ("optimizer", "_loads", "_replaced")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned, which is copied; load the optimizer's state too, before or after.

        The rates are then those of the optimizer's state, even if this schedule was made in between and replaced them. If
        the optimizer never loaded a state, they are those that the saved schedule set last.

        Raises:
            ValueError: missing or unexpected entries, or another number of groups. The schedule is then as before.
        """
        name, own = type(self).__name__, self.state_dict()
        missing = [key for key in own if key not in state_dict]
        unexpected = [key for key in state_dict if key not in own and not key.startswith("_")]
        if missing or unexpected:
            raise ValueError(f"{name}.load_state_dict: missing {missing}, unexpected {unexpected}")
        groups, theirs = len(self.optimizer.param_groups), len(state_dict["_last_lr"])
        if theirs != groups:
            raise ValueError(f"{name}.load_state_dict: the state has {theirs} groups, the optimizer {groups}")
        new = self._step_count == 1
        vars(self).update({key: deepcopy(state_dict[key]) for key in own})
        if not self.optimizer.loads:
            self._set_again()
        elif new and self.optimizer.loads == self._loads:
            for group, replaced in zip(self.optimizer.param_groups, self._replaced, strict=False):
                group.update(replaced)

    def _set_again(self) -> None:
        """Give the groups what the last step gave them."""
        self._set(self._last_lr)

    def _scaled(self, factor: float) -> list[float]:
        if self._is_initial and self.last_epoch > 0:       # goes on: the rates were scaled when they were reached
            factor = 1
        return [group["lr"] * factor for group in self.optimizer.param_groups]


def check_optimizer(function: str, optimizer: Any) -> None:
    """Raise TypeError for anything but an Optimizer."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{function}: optimizer must be an Optimizer, got {type(optimizer).__name__}")


def check(function: str, name: str, value: Any, kind: type, holds: Callable[[Any], bool], wanted: str) -> None:
    """Raise TypeError unless the value is a number of the kind, ValueError unless it holds what is wanted of it."""
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{function}: {name} must be {wanted}, got {value!r}")
    if not holds(value):
        raise ValueError(f"{function}: {name} must be {wanted}, got {value!r}")


def check_count(function: str, name: str, value: Any, least: int = 1) -> None:
    """Raise unless the value is an int of at least `least`."""
    check(function, name, value, Integral, lambda v: v >= least, f"an int of {least} or more")


def check_factor(function: str, name: str, value: Any) -> None:
    """Raise unless the value is a finite number of 0 or more."""
    check(function, name, value, Real, lambda v: 0 <= v < math.inf, "a finite number of 0 or more")


def per_group(function: str, name: str, value: Any, optimizer: Optimizer) -> list[Any]:
    """One value per group, from one for all or a list."""
    groups = len(optimizer.param_groups)
    values = list(value) if isinstance(value, (list, tuple)) else [value] * groups
    if len(values) != groups:
        raise ValueError(f"{function}: got {len(values)} values of {name} for {groups} groups")
    return values
