"""R(I): what an image loses for not looking like an image. All are 0 or less.

They are sums over the pixels, as in their papers, so their slope at a pixel does not depend on the image's size:
-2 weight I for `l2`, a whole multiple of weight from -4 to 4 for `total_variation`. `maximize` weighs that against a slope
of f of root mean square 1.
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
    """R(I) = -weight * sum(I^2): no pixel goes far from 0.

    Args:
        weight: 0 or more; per squared unit of pixel value.

    Example:
        >>> import tinygrad_cnn as tg
        >>> from tinygrad_cnn import explain
        >>> explain.l2(10.0)(tg.full((1, 3, 4, 4), 0.5))
        tensor([-120.], dtype=float32)

    Source: Simonyan, Vedaldi and Zisserman 2013, equation 1.
    """
    return Regularizer(f"l2({weight:g})", _check_weight("l2", weight), lambda image: image.square().sum((1, 2, 3)))


def total_variation(weight: float) -> Regularizer:
    """R(I) = -weight * sum of |differences| of vertical and horizontal neighbours.

    Smooths noise away and lets edges stand: a step costs its height once, however steep it is.

    Args:
        weight: 0 or more; per unit of pixel value.

    Example:
        >>> import tinygrad_cnn as tg
        >>> from tinygrad_cnn import explain
        >>> explain.total_variation(1.0)(tg.tensor([[[[0., 1.], [0., 3.]]]]))      # 1 + 3 to the right, 0 + 2 down
        tensor([-6.], dtype=float32)

    Source: Rudin, Osher and Fatemi 1992, in its anisotropic form; for pictures of networks Mahendran and Vedaldi 2015.
    """
    return Regularizer(f"total_variation({weight:g})", _check_weight("total_variation", weight), _variation)


def _variation(image: Tensor) -> Tensor:
    down, right = image[:, :, 1:] - image[:, :, :-1], image[:, :, :, 1:] - image[:, :, :, :-1]
    return down.abs().sum((1, 2, 3)) + right.abs().sum((1, 2, 3))
