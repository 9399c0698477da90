"""Dropout layers: noise in training mode, the identity in evaluation mode."""

from __future__ import annotations

from ..tensor import Tensor
from . import functional as F
from .module import Module


class Dropout(Module):
    """In training mode each element is zero with probability p, and 1 / (1 - p) times itself otherwise.

    Args:
        p: probability, 0 .. 1.
        inplace: write the result over the input.

    Raises:
        ValueError: p outside 0 .. 1.

    Source: Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting".
    """

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"{type(self).__name__}: p is a probability, wanted 0 .. 1, got {p}")
        self.p, self.inplace = p, inplace

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        return F.dropout(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        return f"p={self.p}, inplace={self.inplace}"


class Dropout2d(Dropout):
    """`Dropout` of whole channels of images (N, C, H, W).

    Source: Tompson et al. 2015, "Efficient Object Localization Using Convolutional Networks".
    """

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        return F.dropout2d(input, self.p, self.training, self.inplace)
