"""Learning-rate schedules: each changes the optimizer's `lr` when its `step` is called, after `optimizer.step`."""

from __future__ import annotations

import math
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import Any, SupportsFloat

from .optimizer import Optimizer


class LRScheduler:
    """The base of all schedules. To write one, return the groups' rates from `get_lr`.

    Schedules multiply the current rate where they can, as PyTorch's do, so several work on one optimizer. `step` takes no epoch.

    Args:
        optimizer: whose `param_groups` are scheduled.
        last_epoch: the number of the last step made, to go on from there; -1 starts anew.

    Attributes:
        base_lrs: the groups' rates at the start.
        last_epoch: how often `step` was called.

    Raises:
        TypeError: not an optimizer.
        KeyError: going on with an optimizer that was never scheduled.

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

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        name = type(self).__name__
        _check_optimizer(name, optimizer)
        _check_count(name, "last_epoch", last_epoch, least=-1)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(f"{name}: group {i} has no 'initial_lr'; load the optimizer's state first, or leave last_epoch out")
        self.optimizer = optimizer
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._step_count = 0
        self._is_initial = True
        self.step()
        self._is_initial = False

    def get_lr(self) -> list[float]:
        """The groups' rates at `last_epoch`; called by `step`. For the rate in use see `get_last_lr`."""
        raise NotImplementedError(f"{type(self).__name__}: get_lr is not defined")

    def get_last_lr(self) -> list[float]:
        """The groups' rates that the last step set."""
        return list(self._last_lr)

    def step(self) -> None:
        """Go to the next rate. Warns if the optimizer has not made a step: its first rate would be skipped."""
        if self._step_count == 1 and not self.optimizer.stepped and type(self.optimizer).step is Optimizer.step:
            warnings.warn(f"{type(self).__name__}.step was called before optimizer.step; call it after, or the first learning rate "
                          "is skipped", UserWarning, stacklevel=2)
        self._step_count += 1
        self.last_epoch += 1
        self._set(self.get_lr())

    def _set(self, rates: Iterable[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = float(rate)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """All but the optimizer, whose own state_dict holds the rates."""
        return {key: value for key, value in vars(self).items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; load the optimizer's state too.

        Raises:
            ValueError: missing or unexpected entries, or another number of groups. The schedule is then as before.
        """
        name, own = type(self).__name__, self.state_dict()
        missing = [key for key in own if key not in state_dict]
        unexpected = [key for key in state_dict if key not in own and not key.startswith("_")]
        if missing or unexpected:
            raise ValueError(f"{name}.load_state_dict: missing {missing}, unexpected {unexpected}")
        groups = len(self.optimizer.param_groups)
        if len(state_dict["_last_lr"]) != groups:
            raise ValueError(f"{name}.load_state_dict: the state has {len(state_dict['_last_lr'])} groups, the optimizer {groups}")
        vars(self).update({key: list(state_dict[key]) if isinstance(own[key], list) else state_dict[key] for key in own})

    def _scaled(self, factor: float) -> list[float]:
        return [group["lr"] * factor for group in self.optimizer.param_groups]


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
        _check_count("StepLR", "step_size", step_size)
        _check_factor("StepLR", "gamma", gamma)
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
            _check_count("MultiStepLR", "every milestone", milestone, least=0)
        _check_factor("MultiStepLR", "gamma", gamma)
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
        _check_factor("ExponentialLR", "gamma", gamma)
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
        _check_optimizer("LambdaLR", optimizer)
        self.lr_lambdas = _per_group("LambdaLR", "lr_lambda", lr_lambda, optimizer)
        for function in self.lr_lambdas:
            if not callable(function):
                raise TypeError(f"LambdaLR: lr_lambda must be a function, got {function!r}")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The groups' rates at `last_epoch`."""
        return [base * function(self.last_epoch) for base, function in zip(self.base_lrs, self.lr_lambdas, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """All but the optimizer and the functions; of callable objects their attributes are kept."""
        kept = [None if isinstance(f, (types.FunctionType, types.BuiltinFunctionType)) else dict(vars(f)) for f in self.lr_lambdas]
        return {**super().state_dict(), "lr_lambdas": kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; the functions stay, callable objects get their attributes back."""
        functions = self.lr_lambdas
        super().load_state_dict(state_dict)
        for function, attributes in zip(functions, self.lr_lambdas, strict=True):
            vars(function).update(attributes or {})
        self.lr_lambdas = functions


class CosineAnnealingLR(LRScheduler):
    """Let the rate fall from its first value to `eta_min` along half a cosine; after `T_max` it rises again.

    Args:
        optimizer: whose groups are scheduled.
        T_max: steps from the first rate to `eta_min`, 1 or more.
        eta_min: the lowest rate, 0 or more.
        last_epoch: see `LRScheduler`.

    Source: Loshchilov, Hutter 2017, "SGDR: stochastic gradient descent with warm restarts", eq. 5, without restarts, and made
    recursive as in PyTorch.

    Example:
        >>> import tinygrad_cnn as tg
        >>> optimizer = tg.optim.SGD([tg.ones(1, requires_grad=True)], lr=1.0)
        >>> schedule = tg.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2)
        >>> _ = optimizer.step(), schedule.step()
        >>> round(schedule.get_last_lr()[0], 6)
        0.5
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1):
        _check_count("CosineAnnealingLR", "T_max", T_max)
        _check_factor("CosineAnnealingLR", "eta_min", eta_min)
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The groups' rates at `last_epoch`."""
        t, span, low = self.last_epoch, self.T_max, self.eta_min
        if self._is_initial:
            return self._scaled(1)
        if (t - 1 - span) % (2 * span) == 0:   # the last rate was eta_min, from which no factor leads up
            rise = (1 - math.cos(math.pi / span)) / 2
            return [group["lr"] + (base - low) * rise for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True)]
        fall = (1 + math.cos(math.pi * t / span)) / (1 + math.cos(math.pi * (t - 1) / span))
        return [low + (group["lr"] - low) * fall for group in self.optimizer.param_groups]


class OneCycleLR(LRScheduler):
    """Let the rate rise to `max_lr` and fall far below where it began, momentum going the other way; step after every batch.

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
        ValueError: an option out of its range; an optimizer without momentum and betas under `cycle_momentum`; more steps than
            `total_steps`.

    Source: Smith, Topin 2018, "Super-convergence: very fast training of neural networks using large learning rates", in PyTorch's
    form, which is fastai's.

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
                 anneal_strategy: str = "cos", cycle_momentum: bool = True, base_momentum: float | Sequence[float] = 0.85,
                 max_momentum: float | Sequence[float] = 0.95, div_factor: float = 25.0, final_div_factor: float = 1e4,
                 three_phase: bool = False, last_epoch: int = -1):
        name = "OneCycleLR"
        _check_optimizer(name, optimizer)
        if total_steps is None and (epochs is None or steps_per_epoch is None):
            raise ValueError(f"{name}: pass total_steps, or epochs and steps_per_epoch")
        counts = {"total_steps": total_steps} if total_steps is not None else {"epochs": epochs, "steps_per_epoch": steps_per_epoch}
        for key, count in counts.items():
            _check_count(name, key, count)
        _check(name, "pct_start", pct_start, Real, lambda v: 0 <= v <= 1, "a number in 0 .. 1")
        for key, factor in (("div_factor", div_factor), ("final_div_factor", final_div_factor)):
            _check(name, key, factor, Real, lambda v: 0 < v < math.inf, "a finite number above 0")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"{name}: anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}")
        highest, low, high = (_per_group(name, key, value, optimizer) for key, value in (
            ("max_lr", max_lr), ("base_momentum", base_momentum), ("max_momentum", max_momentum)))
        for rate in highest:
            _check_factor(name, "max_lr", rate)
        for momentum in (*low, *high):
            _check(name, "base_momentum or max_momentum", momentum, Real, lambda v: 0 <= v < 1, "a number in [0, 1)")
        if cycle_momentum and not {"momentum", "betas"} & optimizer.defaults.keys():
            raise ValueError(f"{name}: {type(optimizer).__name__} has neither momentum nor betas; pass cycle_momentum=False")

        self.total_steps = math.prod(counts.values())
        self.anneal_strategy, self.cycle_momentum, self.use_beta1 = anneal_strategy, cycle_momentum, "betas" in optimizer.defaults
        top = pct_start * self.total_steps - 1
        # (last step, rate and momentum at its end) of every phase
        middle = [(2 * top, "initial_lr", "max_momentum")] if three_phase else []
        self.phases = [(top, "max_lr", "base_momentum"), *middle, (self.total_steps - 1, "min_lr", "max_momentum")]
        if last_epoch == -1:
            for group, peak, least, most in zip(optimizer.param_groups, highest, low, high, strict=True):
                first = peak / div_factor
                group.update(initial_lr=first, max_lr=peak, min_lr=first / final_div_factor)
                if cycle_momentum:
                    group.update(base_momentum=least, max_momentum=most)
        super().__init__(optimizer, last_epoch)

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
        for group in self.optimizer.param_groups:
            rates.append(self._between(group[start_lr], group[end_lr], done))
            if self.cycle_momentum:
                momentum = self._between(group[start_momentum], group[end_momentum], done)
                group.update({"betas": (momentum, *group["betas"][1:])} if self.use_beta1 else {"momentum": momentum})
        return rates

    def _between(self, start: float, end: float, done: float) -> float:
        if self.anneal_strategy == "linear":
            return start + (end - start) * done
        return end + (start - end) / 2 * (1 + math.cos(math.pi * done))


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

    def __init__(self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10, threshold: float = 1e-4,
                 threshold_mode: str = "rel", cooldown: int = 0, min_lr: float | Sequence[float] = 0, eps: float = 1e-8):
        name = "ReduceLROnPlateau"
        _check_optimizer(name, optimizer)
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ValueError(f"{name}: mode must be 'min' or 'max' and threshold_mode 'rel' or 'abs', got {mode!r} and {threshold_mode!r}")
        _check(name, "factor", factor, Real, lambda v: 0 <= v < 1, "a number in [0, 1)")
        _check_count(name, "patience", patience, least=0)
        _check_count(name, "cooldown", cooldown, least=0)
        self.min_lrs = _per_group(name, "min_lr", min_lr, optimizer)
        for key, value in (("threshold", threshold), ("eps", eps), *(("min_lr", rate) for rate in self.min_lrs)):
            _check_factor(name, key, value)
        self.optimizer, self.mode, self.factor, self.patience, self.cooldown = optimizer, mode, factor, patience, cooldown
        self.threshold, self.threshold_mode, self.eps = threshold, threshold_mode, eps
        self.best = math.inf if mode == "min" else -math.inf
        self.cooldown_counter = self.num_bad_epochs = self.last_epoch = 0
        self._last_lr = [group["lr"] for group in optimizer.param_groups]

    def step(self, metrics: SupportsFloat) -> None:  # type: ignore[override]
        """Look at the epoch's measure, a number or a Tensor of one element; NaN is never better."""
        current, sign = float(metrics), 1 if self.mode == "max" else -1
        self.last_epoch += 1
        bound = self.best * (1 + sign * self.threshold) if self.threshold_mode == "rel" else self.best + sign * self.threshold
        if sign * current > sign * bound:
            self.best, self.num_bad_epochs = current, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            rates = [(group["lr"], max(group["lr"] * self.factor, low))
                     for group, low in zip(self.optimizer.param_groups, self.min_lrs, strict=True)]
            self._set(new if old - new > self.eps else old for old, new in rates)
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0


def _check_optimizer(function: str, optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{function}: optimizer must be an Optimizer, got {type(optimizer).__name__}")


def _check(function: str, name: str, value: Any, kind: type, holds: Callable[[Any], bool], wanted: str) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{function}: {name} must be {wanted}, got {value!r}")
    if not holds(value):
        raise ValueError(f"{function}: {name} must be {wanted}, got {value!r}")


def _check_count(function: str, name: str, value: Any, least: int = 1) -> None:
    _check(function, name, value, Integral, lambda v: v >= least, f"an int of {least} or more")


def _check_factor(function: str, name: str, value: Any) -> None:
    _check(function, name, value, Real, lambda v: 0 <= v < math.inf, "a finite number of 0 or more")


def _per_group(function: str, name: str, value: Any, optimizer: Optimizer) -> list[Any]:
    """One value per group, from one for all or a list."""
    groups = len(optimizer.param_groups)
    values = list(value) if isinstance(value, (list, tuple)) else [value] * groups
    if len(values) != groups:
        raise ValueError(f"{function}: got {len(values)} values of {name} for {groups} groups")
    return values
