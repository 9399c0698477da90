"""Activation layers. With `inplace=True` they write their result over their input."""

from __future__ import annotations

from ..tensor import Tensor
from . import functional as F
from .module import Module


class _Inplace(Module):
    """An activation whose only setting is `inplace`.

    Args:
        inplace: write the result over the input.
    """

    def __init__(self, inplace: bool = False):
        super().__init__()
        self.inplace = inplace

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        return "inplace=True" if self.inplace else ""


class ReLU(_Inplace):
    """max(x, 0), elementwise; the gradient at 0 is 0."""

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        return F.relu(input, self.inplace)


class ReLU6(_Inplace):
    """min(max(x, 0), 6), elementwise."""

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        return F.relu6(input, self.inplace)


class SiLU(_Inplace):
    """x sigmoid(x), elementwise."""

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        return F.silu(input, self.inplace)


class Hardswish(_Inplace):
    """x relu6(x + 3) / 6, elementwise."""

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        return F.hardswish(input, self.inplace)

    def extra_repr(self) -> str:
        """Nothing, as in PyTorch."""
        return ""


class LeakyReLU(_Inplace):
    """x above 0, negative_slope * x below.

    Args:
        negative_slope: the slope below 0.
        inplace: write the result over the input.
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False):
        super().__init__(inplace)
        self.negative_slope = negative_slope

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        return F.leaky_relu(input, self.negative_slope, self.inplace)

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class ELU(_Inplace):
    """x above 0, alpha (exp(x) - 1) below.

    Args:
        alpha: minus the limit far below 0.
        inplace: write the result over the input.
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False):
        super().__init__(inplace)
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        return F.elu(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class Sigmoid(Module):
    """1 / (1 + exp(-x)), elementwise."""

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        return F.sigmoid(input)


class LogSigmoid(Module):
    """log(1 / (1 + exp(-x))), elementwise, computed without overflow."""

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        return F.logsigmoid(input)


class Tanh(Module):
    """Hyperbolic tangent, elementwise."""

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        return F.tanh(input)


class GELU(Module):
    """x times the share of a standard normal distribution below x.

    Args:
        approximate: "none" or "tanh".
    """

    def __init__(self, approximate: str = "none"):
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        return F.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        return f"approximate={self.approximate!r}"


class Softplus(Module):
    """log(1 + exp(beta x)) / beta, elementwise.

    Args:
        beta: sharpness.
        threshold: x itself is returned where beta x exceeds this.
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0):
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        return f"beta={self.beta}, threshold={self.threshold}"


class Softmax(Module):
    """exp(x) / sum(exp(x)) along one dim.

    Args:
        dim: the dim whose entries will sum to 1. None, with a warning as in PyTorch: 0 for inputs of 0, 1 or 3 dims, else 1.
    """

    def __init__(self, dim: int | None = None):
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        return F.softmax(input, self.dim)

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        return f"dim={self.dim}"


class LogSoftmax(Softmax):
    """log(softmax(x)) along one dim, computed without overflow.

    Args:
        dim: the dim whose exponentials sum to 1; None as in `Softmax`.
    """

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        return F.log_softmax(input, self.dim)
