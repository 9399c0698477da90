"""Loss functions. They compare equal shapes only: a target that would broadcast raises.

What stands after PyTorch's deprecated arguments size_average and reduce, which do not exist here, is keyword-only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..ops import elementwise
from ..ops.cross_entropy import Wanted
from ..ops.cross_entropy import cross_entropy as softmax_cross_entropy
from ..ops.elementwise import where
from ..ops.geometry import check_float
from ..ops.reduce import log_softmax
from ..tensor import Tensor, as_tensor

LOG_FLOOR = -100.0
"""Where binary cross-entropy stops log at 0 short of -inf; PyTorch's."""


def _check(function: str, input: Any, reduction: str) -> None:
    """TypeError unless the input is a Tensor of floats, ValueError for an unknown reduction."""
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{function}: reduction must be 'none', 'mean' or 'sum', got {reduction!r}")
    if not isinstance(input, Tensor):
        raise TypeError(f"{function}: input must be a Tensor, got {type(input).__name__}")
    check_float(function, input=input)


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    return losses if reduction == "none" else losses.sum() if reduction == "sum" else losses.mean()


def _paired(function: str, input: Tensor, target: Any, reduction: str) -> Tensor:
    """The target as a Tensor, after checking that it is compared with the input element by element."""
    _check(function, input, reduction)
    target = as_tensor(target)
    if target.shape != input.shape:
        raise ValueError(f"{function}: input has shape {input.shape}, target {target.shape}; they must be equal, "
                         "reshape one of them")
    return target


def _weighted(function: str, name: str, losses: Any, weight: Any, like: Tensor) -> Any:
    """The losses times a weight that broadcasts to the shape of `like`; themselves without one."""
    if weight is None:
        return losses
    factor = as_tensor(weight).to(like.dtype)
    fits = factor.ndim <= like.ndim and all(
        n in (1, m) for n, m in zip(factor.shape[::-1], like.shape[::-1], strict=False))
    if not fits:
        raise ValueError(f"{function}: {name} of shape {factor.shape} does not broadcast to the input's shape "
                         f"{like.shape}")
    return losses * factor


def mse_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """Squared difference.

    Args:
        input: float tensor.
        target: of the same shape.
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError: different shapes (PyTorch broadcasts with a warning), an unknown reduction.
    """
    target = _paired("mse_loss", input, target, reduction)
    return _reduced((input - target).square(), reduction)


def l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """Absolute difference; arguments as in `mse_loss`."""
    target = _paired("l1_loss", input, target, reduction)
    return _reduced((input - target).abs(), reduction)


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """d^2 / 2 for differences d up to delta, delta (|d| - delta / 2) beyond; arguments as in `mse_loss`.

    Source: Huber 1964, "Robust Estimation of a Location Parameter".
    """
    if delta <= 0:
        raise ValueError(f"huber_loss: delta must be positive, got {delta}")
    target = _paired("huber_loss", input, target, reduction)
    distance = (input - target).abs()
    return _reduced(where(distance < delta, 0.5 * distance.square(), delta * (distance - 0.5 * delta)), reduction)


def smooth_l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """`huber_loss` with delta = beta, over beta; the absolute difference for beta = 0."""
    if beta < 0:
        raise ValueError(f"smooth_l1_loss: beta must be 0 or more, got {beta}")
    if beta == 0:
        return l1_loss(input, target, reduction=reduction)
    return huber_loss(input, target, reduction=reduction, delta=beta) / beta


def _floored_log(x: Tensor, log: Any, end: float) -> Tensor:
    """log(x), not below LOG_FLOOR, with gradient 0 at the `end` where it would be -inf."""
    return where(x == end, LOG_FLOOR, elementwise.clamp(log(where(x == end, 0.5, x)), min=LOG_FLOOR))


def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, *,
                         reduction: str = "mean") -> Tensor:
    """-(t log p + (1 - t) log(1 - p)), logs not below -100. `binary_cross_entropy_with_logits` saturates nowhere.

    Args:
        input: probabilities, 0 .. 1.
        target: probabilities of the same shape.
        weight: factors that broadcast to the shape.
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError: different shapes, an input outside 0 .. 1.
    """
    target = _paired("binary_cross_entropy", input, target, reduction)
    values = input._data
    if values.size and (values.min() < 0 or values.max() > 1):
        raise ValueError(f"binary_cross_entropy: input must lie in 0 .. 1, got {values.min()} .. {values.max()}; "
                         "use binary_cross_entropy_with_logits for scores")
    losses = -(target * _floored_log(input, elementwise.log, 0.0)
               + (1 - target) * _floored_log(input, lambda p: elementwise.log1p(-p), 1.0))
    return _reduced(_weighted("binary_cross_entropy", "weight", losses, weight, input), reduction)


def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None, *,
                                     reduction: str = "mean", pos_weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of sigmoid(x), computed from the scores x without overflow.

    Args:
        input: scores, any real numbers.
        target: probabilities of the same shape.
        weight: factors that broadcast to the shape.
        reduction: "mean", "sum" or "none".
        pos_weight: factors for the positive term, broadcasting to the shape.

    Raises:
        ValueError: shapes that do not fit.
    """
    name = "binary_cross_entropy_with_logits"
    target = _paired(name, input, target, reduction)
    positive = _weighted(name, "pos_weight", target, pos_weight, input)
    losses = (1 - target) * input + (positive + (1 - target)) * elementwise.softplus(-input)
    return _reduced(_weighted(name, "weight", losses, weight, input), reduction)


class _Labels(NamedTuple):
    """Checked class indices, as read-only arrays that the graph need not copy.

    Attributes:
        axis: the input's class dim.
        indices: int64 class indices, 0 where ignored; of the target's shape.
        ignored: bool, of the target's shape; None where nothing is.
        share: each target's weight in the loss, 0 where ignored; of the target's shape.
    """

    axis: int
    indices: np.ndarray
    ignored: np.ndarray | None
    share: np.ndarray

    def divisor(self, reduction: str) -> float | None:
        """Of the sum of losses: for their mean the sum of shares, which is 0 if nothing counts; None without a sum."""
        return None if reduction == "none" else 1.0 if reduction == "sum" else float(self.share.sum(dtype=np.float64))


def _labels(function: str, input: Tensor, target: Any, weights: np.ndarray | None, ignore_index: int) -> _Labels:
    """Check class indices against the scores, before anything is computed."""
    indices = target._data if isinstance(target, Tensor) else np.asarray(target)
    axis = _class_axis(function, input)
    classes, wanted = input.shape[axis], input.shape[:axis] + input.shape[axis + 1 :]
    if indices.dtype.kind not in "iu":
        raise TypeError(f"{function}: target must hold integer class indices, got {indices.dtype} of shape "
                        f"{indices.shape} for input of shape {input.shape}; convert it with .long()")
    if indices.shape != wanted:
        raise ValueError(f"{function}: input of shape {input.shape} wants a target of shape {wanted}, got "
                         f"{indices.shape}")
    safe, ignored = indices.astype(np.int64), None         # a copy: the graph keeps it
    if 0 <= ignore_index < classes or safe.view(np.uint64).max(initial=0) >= classes:      # negative ones are large there
        ignored = indices == ignore_index
        wrong = indices[~ignored & ((indices < 0) | (indices >= classes))]
        if wrong.size:
            raise IndexError(f"{function}: Target {wrong[0]} is out of bounds for {classes} classes")
        safe = np.where(ignored, 0, safe)
    share = np.ones(safe.shape, input.dtype) if weights is None else weights[safe]
    if ignored is not None:
        share = np.where(ignored, share.dtype.type(0), share)
    return _Labels(axis, np.asarray(safe), ignored, np.asarray(share))         # indexing makes scalars of 0-d arrays


def _class_axis(function: str, input: Tensor) -> int:
    if input.ndim < 1:
        raise ValueError(f"{function}: input must be (C,), (N, C) or (N, C, ...), got a 0-d tensor")
    return 0 if input.ndim == 1 else 1


def _class_weights(function: str, input: Tensor, weight: Any) -> np.ndarray | None:
    """The factors per class as an array of the input's dtype."""
    if weight is None:
        return None
    factors = as_tensor(weight)._data
    classes = input.shape[_class_axis(function, input)]
    if factors.shape != (classes,):
        raise ValueError(f"{function}: weight must have one entry for each of the {classes} classes, got shape "
                         f"{factors.shape}")
    return factors.astype(input.dtype)


def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, *, ignore_index: int = -100,
             reduction: str = "mean") -> Tensor:
    """The negative log-probability of the right class.

    Args:
        input: log-probabilities, (C,), (N, C) or (N, C, ...), float.
        target: class indices, (), (N,) or (N, ...), integers in 0 .. C - 1.
        weight: (C,) factors per class; the mean divides by the sum of those used.
        ignore_index: targets of this value count for nothing.
        reduction: "mean", "sum" or "none"; the mean over no targets is NaN.

    Raises:
        IndexError: a target out of range.
        TypeError: targets that are not integers.
        ValueError: shapes that do not fit.
    """
    _check("nll_loss", input, reduction)
    labels = _labels("nll_loss", input, target, _class_weights("nll_loss", input, weight), ignore_index)
    picked = input.gather(labels.axis, np.expand_dims(labels.indices, labels.axis)).squeeze(labels.axis)
    losses = picked * np.asarray(-labels.share)
    if labels.ignored is not None:
        losses = where(labels.ignored, 0.0, losses)        # even if infinite
    divisor = labels.divisor(reduction)
    return losses if divisor is None else losses.sum() / divisor


def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, *, ignore_index: int = -100,
                  reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
    """-log softmax(x) at the right class, computed without overflow; the usual loss of a classifier.

    Args:
        input: scores before softmax, (C,), (N, C) or (N, C, ...), float.
        target: class indices, (), (N,) or (N, ...), integers in 0 .. C - 1; or float probabilities of input's shape.
        weight: (C,) factors per class; with indices the mean divides by the sum of those used.
        ignore_index: target indices of this value count for nothing.
        reduction: "mean", "sum" or "none"; the mean over no targets is NaN.
        label_smoothing: this share of the target, 0 .. 1, is spread evenly over all classes.

    Raises:
        IndexError: a target out of range.
        TypeError: float targets that are not probabilities of input's shape.
        ValueError: shapes that do not fit, label_smoothing outside 0 .. 1.

    Source: label smoothing: Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision".

    Example:
        >>> import tinygrad_cnn as tg
        >>> tg.nn.functional.cross_entropy(tg.zeros(2, 4), tg.tensor([1, 3]))
        tensor(1.3863, dtype=float32)
    """
    name = "cross_entropy"
    _check(name, input, reduction)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{name}: label_smoothing must lie in 0 .. 1, got {label_smoothing}")
    axis, weights = _class_axis(name, input), _class_weights(name, input, weight)
    uniform = label_smoothing / max(input.shape[axis], 1)
    if isinstance(target, Tensor) and target.is_floating_point() and target.shape == input.shape:
        per_class: Any = 1.0 if weights is None else weights.reshape(-1, *(1,) * (input.ndim - axis - 1))
        soft = target * (1 - label_smoothing) + uniform
        return _reduced(-(log_softmax(input, axis) * soft * per_class).sum(axis), reduction)
    labels = _labels(name, input, target, weights, ignore_index)
    share, spread = labels.share.reshape(-1), None
    if label_smoothing:
        share, spread = share * share.dtype.type(1 - label_smoothing), np.full(input.shape[axis], uniform, input.dtype)
        spread = spread if weights is None else spread * weights
    ignored = None if labels.ignored is None else labels.ignored.reshape(-1)
    wanted = Wanted(axis, labels.indices.reshape(-1), share, spread, ignored, labels.divisor(reduction))
    return softmax_cross_entropy(input, wanted=wanted)[0]
