"""R(I): what an image loses for not looking like an image. All are 0 or less, in the unit of f.

Both are means over an image's pixels and channels, so a weight means the same at every image size: l2(1) takes 1 from f
for an image whose pixels are all 1 (or -1); total_variation(1) takes 2 for one whose neighbours all differ by 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..tensor import Tensor


@dataclass(frozen=True)
class Regularizer:
    """R(I), with its weight and its name for the recipe; any function from (N, C, H, W) to (N,) does in its place."""

    label: str
    weight: float
    penalty: Callable[[Tensor], Tensor]

    def __call__(self, image: Tensor) -> Tensor:
        """R of each image: (N, C, H, W) -> (N,)."""
        return -self.weight * self.penalty(image)


def _check_weight(function: str, weight: float) -> float:
    if not (weight >= 0 and math.isfinite(weight)):
        raise ValueError(f"{function}: weight must be 0 or more (it is what is taken off), got {weight}")
    return float(weight)


def l2(weight: float) -> Regularizer:
    """R(I) = -weight * mean(I^2): no pixel goes far from 0.

    Args:
        weight: units of f per squared unit of pixel value, 0 or more.

    Example:
        >>> import tinygrad_cnn as tg
        >>> from tinygrad_cnn import explain
        >>> explain.l2(10.0)(tg.full((1, 3, 4, 4), 0.5))
        tensor([-2.5000], dtype=float32)

    Source: Simonyan, Vedaldi and Zisserman 2013, equation 1, with the mean in place of the sum.
    """
    weight = _check_weight("l2", weight)
    return Regularizer(f"l2({weight:g})", weight, lambda image: image.square().mean((1, 2, 3)))


def _total_variation(image: Tensor) -> Tensor:
    down = (image[:, :, 1:] - image[:, :, :-1]).abs().sum((1, 2, 3))
    right = (image[:, :, :, 1:] - image[:, :, :, :-1]).abs().sum((1, 2, 3))
    return (down + right) / math.prod(image.shape[1:])


def total_variation(weight: float) -> Regularizer:
    """R(I) = -weight * (sum of |differences| of vertical and horizontal neighbours) / (number of values).

    Smooths noise away and lets edges stand: a step costs its height once, however steep it is.

    Args:
        weight: units of f per unit of pixel value, 0 or more.

    Example:
        >>> import tinygrad_cnn as tg
        >>> from tinygrad_cnn import explain
        >>> explain.total_variation(1.0)(tg.tensor([[[[0., 1.], [0., 3.]]]]))      # -(1 + 3 to the right, 0 + 2 down) / 4
        tensor([-1.5000], dtype=float32)

    Source: Rudin, Osher and Fatemi 1992, in its anisotropic form; for pictures of networks Mahendran and Vedaldi 2015.
    """
    weight = _check_weight("total_variation", weight)
    return Regularizer(f"total_variation({weight:g})", weight, _total_variation)
