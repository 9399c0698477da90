"""The fully connected layer, and layers that only rearrange."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..tensor import Tensor
from . import functional as F
from . import init
from .module import Module
from .state import Parameter


def check_sizes(layer: str, **sizes: Any) -> None:
    """ValueError unless every named size is a positive int."""
    for name, value in sizes.items():
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{layer}: {name} must be a positive int, got {value!r}")


def fan_in_uniform(fan_in: int, weight: Parameter, bias: Parameter | None) -> None:
    """PyTorch's default distribution of weights and biases: uniform in +-1 / sqrt(fan_in).

    It is Kaiming's with a = sqrt(5), LeCun's variance 1 / (3 fan_in).
    """
    bound = 1 / math.sqrt(fan_in)
    init.uniform_(weight, -bound, bound)
    if bias is not None:
        init.uniform_(bias, -bound, bound)


class Linear(Module):
    """A fully connected layer, x W^T + b over the last dim: in_features * out_features + out_features parameters.

    Args:
        in_features: size of the input's last dim.
        out_features: size of the output's last dim.
        bias: whether to add one.
        dtype: float32 or float64.

    Attributes:
        weight: (out_features, in_features).
        bias: (out_features,) or None.

    Example:
        >>> import tinygrad_cnn as tg
        >>> tg.nn.Linear(784, 10)(tg.zeros(2, 784)).shape
        (2, 10)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, dtype: Any = np.float32):
        super().__init__()
        check_sizes("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(np.empty((out_features, in_features), dtype))
        self.register_parameter("bias", Parameter(np.empty(out_features, dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        fan_in_uniform(self.in_features, self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Identity(Module):
    """Returns its input. Arguments are accepted and ignored."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()

    def forward(self, input: Any) -> Any:
        """The input."""
        return input


class Flatten(Module):
    """Merges dims start_dim .. end_dim into one: by default all but the batch.

    Args:
        start_dim: the first dim merged.
        end_dim: the last one.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C H W)."""
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Splits one dim into several.

    Args:
        dim: the dim to split.
        unflattened_size: the sizes; one may be -1.
    """

    def __init__(self, dim: int, unflattened_size: tuple[int, ...]):
        super().__init__()
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, input: Tensor) -> Tensor:
        """(..., product of the sizes, ...) -> (..., *unflattened_size, ...)."""
        return input.unflatten(self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
