"""Initial values: functions that overwrite a tensor in place, unrecorded, and return it."""

from __future__ import annotations

import math

import numpy as np

from ..grad_mode import no_grad
from ..ops import arguments
from ..random import generator
from ..tensor import Tensor


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """How much a weight's standard deviation must grow to make up for a nonlinearity.

    Args:
        nonlinearity: "linear", "conv1d" ... "conv_transpose3d", "sigmoid" (1), "tanh" (5/3), "relu" (sqrt 2),
            "leaky_relu" (sqrt(2 / (1 + slope^2))) or "selu" (3/4).
        param: the negative slope of leaky_relu, 0.01 if None.

    Raises:
        ValueError: an unknown nonlinearity.
    """
    linear = {"linear", "sigmoid", *(f"conv{t}{d}d" for t in ("", "_transpose") for d in (1, 2, 3))}
    if nonlinearity in linear:
        return 1.0
    if nonlinearity == "leaky_relu":
        return math.sqrt(2.0 / (1 + (0.01 if param is None else param) ** 2))
    gains = {"tanh": 5.0 / 3, "relu": math.sqrt(2.0), "selu": 0.75}
    if nonlinearity not in gains:
        raise ValueError(f"calculate_gain: unknown nonlinearity {nonlinearity!r}; wanted one of "
                         f"{sorted({*linear, *gains, 'leaky_relu'})}")
    return gains[nonlinearity]


def _fans(function: str, tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out): inputs per output and outputs per input of a (K, C, ...) weight."""
    if tensor.ndim < 2:
        raise ValueError(f"{function}: tensor must have at least 2 dims to have fans, got shape {tensor.shape}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _fan(function: str, tensor: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"{function}: mode must be 'fan_in' or 'fan_out', got {mode!r}")
    return max(_fans(function, tensor)[mode == "fan_out"], 1)      # an empty tensor has nothing to scale


@no_grad
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Fill with uniform random numbers in a .. b."""
    if not a <= b:
        raise ValueError(f"uniform_: wanted a <= b, got a={a}, b={b}")
    return tensor.uniform_(a, b)


@no_grad
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Fill with normal random numbers; std must be 0 or more."""
    if not std >= 0:
        raise ValueError(f"normal_: std must be 0 or more, got {std}")
    return tensor.normal_(mean, std)


@no_grad
def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """Fill with normal random numbers, those outside a .. b (values, not standard deviations) drawn again.

    Raises:
        ValueError: a >= b, std <= 0, or a mean more than two std outside of a .. b.
    """
    if not (a < b and std > 0):
        raise ValueError(f"trunc_normal_: wanted a < b and std > 0, got a={a}, b={b}, std={std}")
    if not a - 2 * std <= mean <= b + 2 * std:
        raise ValueError(f"trunc_normal_: mean {mean} lies more than 2 std outside of {a} .. {b}; hardly any draw "
                         "would be kept")
    rng, values = generator(), np.empty(tensor.numel())
    low, high = np.asarray([a, b], tensor.dtype)           # so that rounding to float32 cannot leave a .. b
    mode = min(max(mean, a), b)
    todo = np.arange(values.size)
    while todo.size:
        if b - a < 2 * std:                    # a narrow window: uniform draws, kept in proportion to the density
            drawn = rng.uniform(a, b, todo.size)
            kept = rng.random(todo.size) < np.exp(((mode - mean) ** 2 - (drawn - mean) ** 2) / (2 * std**2))
        else:
            drawn = rng.normal(mean, std, todo.size)
            kept = (drawn >= a) & (drawn <= b)
        values[todo[kept]] = drawn[kept]
        todo = todo[~kept]
    return tensor.copy_(np.clip(values.astype(tensor.dtype), low, high).reshape(tensor.shape))


@no_grad
def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with one number."""
    return tensor.fill_(val)


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones."""
    return constant_(tensor, 1.0)


@no_grad
def eye_(tensor: Tensor) -> Tensor:
    """Fill a matrix with the identity: ones on the diagonal."""
    if tensor.ndim != 2:
        raise ValueError(f"eye_: tensor must have 2 dims, got shape {tensor.shape}")
    return tensor.copy_(np.eye(tensor.shape[0], tensor.shape[1]))


@no_grad
def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Fill a (K, C, ...) convolution weight so that it passes as many of its input channels through as it has filters.

    Args:
        tensor: 3 to 5 dims.
        groups: each group of filters passes its own channels; must divide K.
    """
    if tensor.ndim not in (3, 4, 5):
        raise ValueError(f"dirac_: tensor must have 3, 4 or 5 dims, got shape {tensor.shape}")
    filters, channels = tensor.shape[:2]
    if groups < 1 or filters % groups:
        raise ValueError(f"dirac_: groups={groups} must divide the {filters} filters")
    values = np.zeros(tensor.shape)
    centre = tuple(n // 2 for n in tensor.shape[2:])
    for k in range(filters):
        channel = k % (filters // groups)
        if channel < channels:
            values[(k, channel, *centre)] = 1
    return tensor.copy_(values)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Uniform with variance 2 gain^2 / (fan_in + fan_out): keeps activations and gradients alike in size.

    Source: Glorot & Bengio 2010, "Understanding the Difficulty of Training Deep Feedforward Neural Networks", eq. 16.
    """
    bound = gain * math.sqrt(6.0 / max(sum(_fans("xavier_uniform_", tensor)), 1))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Normal with variance 2 gain^2 / (fan_in + fan_out); see `xavier_uniform_`."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / max(sum(_fans("xavier_normal_", tensor)), 1)))


def kaiming_uniform_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Uniform with variance gain^2 / fan: keeps the size of activations through rectifiers.

    Args:
        tensor: at least 2 dims, (K, C, ...).
        a: the negative slope, for leaky_relu.
        mode: "fan_in" keeps the forward, "fan_out" the backward pass level.
        nonlinearity: as in `calculate_gain`.

    Source: He et al. 2015, "Delving Deep into Rectifiers", eq. 10.
    """
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3.0 / _fan("kaiming_uniform_", tensor, mode))
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Normal with variance gain^2 / fan; see `kaiming_uniform_`."""
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_fan("kaiming_normal_", tensor, mode)))


@no_grad
def orthogonal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Fill so that the rows or columns (the fewer) of the (K, rest) matrix are orthogonal with norm `gain`.

    Source: Saxe et al. 2013, "Exact Solutions to the Nonlinear Dynamics of Learning in Deep Linear Neural Networks".
    """
    if tensor.ndim < 2:
        raise ValueError(f"orthogonal_: tensor must have at least 2 dims, got shape {tensor.shape}")
    if tensor.numel() == 0:
        return tensor
    rows, columns = tensor.shape[0], tensor.numel() // tensor.shape[0]
    q, r = np.linalg.qr(generator().standard_normal((max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))                # makes Q uniform over all orthogonal matrices
    return tensor.copy_(gain * (q if rows >= columns else q.T).reshape(tensor.shape))


arguments.guard(globals())
