"""Losses as layers, configured once; what they compute is described at the functions of the same names.

What stands after PyTorch's deprecated arguments size_average and reduce, which do not exist here, is keyword-only.
"""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from . import functional as F
from .module import Module


class _Loss(Module):
    """A loss and how it is reduced.

    Args:
        weight: factors, kept as a buffer, or None.
        reduction: "mean", "sum" or "none".
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean"):
        super().__init__()
        if reduction not in ("none", "mean", "sum"):
            raise ValueError(f"{type(self).__name__}: reduction must be 'none', 'mean' or 'sum', got {reduction!r}")
        self.reduction = reduction
        self.register_buffer("weight", weight)


class _PlainLoss(_Loss):
    def __init__(self, *, reduction: str = "mean"):
        super().__init__(None, reduction)


class CrossEntropyLoss(_Loss):
    """-log softmax(x) at the right class: see `functional.cross_entropy`. Takes scores, so no softmax before it.

    Args:
        weight: (C,) factors per class.
        ignore_index: target indices of this value count for nothing.
        reduction: "mean", "sum" or "none".
        label_smoothing: this share of the target is spread evenly over all classes.

    Example:
        >>> import tinygrad_cnn as tg
        >>> tg.nn.CrossEntropyLoss()(tg.zeros(2, 4), tg.tensor([1, 3]))
        tensor(1.3863, dtype=float32)
    """

    def __init__(self, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: str = "mean",
                 label_smoothing: float = 0.0):
        super().__init__(weight, reduction)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, input: Tensor, target: Any) -> Tensor:
        """The loss of scores (N, C, ...) and class indices (N, ...) or probabilities (N, C, ...)."""
        return F.cross_entropy(input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction,
                               label_smoothing=self.label_smoothing)


class NLLLoss(_Loss):
    """The negative log-probability of the right class: see `functional.nll_loss`.

    Args:
        weight: (C,) factors per class.
        ignore_index: target indices of this value count for nothing.
        reduction: "mean", "sum" or "none".
    """

    def __init__(self, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: str = "mean"):
        super().__init__(weight, reduction)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Any) -> Tensor:
        """The loss of log-probabilities (N, C, ...) and class indices (N, ...)."""
        return F.nll_loss(input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class MSELoss(_PlainLoss):
    """Squared difference; shapes must be equal."""

    def forward(self, input: Tensor, target: Any) -> Tensor:
        """The loss of two tensors of one shape."""
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_PlainLoss):
    """Absolute difference; shapes must be equal."""

    def forward(self, input: Tensor, target: Any) -> Tensor:
        """The loss of two tensors of one shape."""
        return F.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(_PlainLoss):
    """Squared near 0, absolute beyond beta: `HuberLoss` over beta.

    Args:
        reduction: "mean", "sum" or "none".
        beta: where it changes over.
    """

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0):
        super().__init__(reduction=reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Any) -> Tensor:
        """The loss of two tensors of one shape."""
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(_PlainLoss):
    """Squared near 0, absolute beyond delta.

    Args:
        reduction: "mean", "sum" or "none".
        delta: where it changes over.
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0):
        super().__init__(reduction=reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Any) -> Tensor:
        """The loss of two tensors of one shape."""
        return F.huber_loss(input, target, reduction=self.reduction, delta=self.delta)


class BCELoss(_Loss):
    """Binary cross-entropy of probabilities: see `functional.binary_cross_entropy`.

    Args:
        weight: factors that broadcast to the input's shape.
        reduction: "mean", "sum" or "none".
    """

    def __init__(self, weight: Tensor | None = None, *, reduction: str = "mean"):
        super().__init__(weight, reduction)

    def forward(self, input: Tensor, target: Any) -> Tensor:
        """The loss of probabilities and targets of one shape."""
        return F.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """Binary cross-entropy of scores: see `functional.binary_cross_entropy_with_logits`.

    Args:
        weight: factors that broadcast to the input's shape.
        reduction: "mean", "sum" or "none".
        pos_weight: factors for the positive term.
    """

    pos_weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, *, reduction: str = "mean", pos_weight: Tensor | None = None):
        super().__init__(weight, reduction)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Any) -> Tensor:
        """The loss of scores and targets of one shape."""
        return F.binary_cross_entropy_with_logits(input, target, self.weight, reduction=self.reduction,
                                                  pos_weight=self.pos_weight)
