"""Limits on gradients, between backward and the optimizer's step; PyTorch's `nn.utils`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real

import numpy as np

from ..ops import arguments
from ..tensor import Tensor, tensor


def _gradients(function: str, parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    for p in listed:
        if not isinstance(p, Tensor):
            raise TypeError(f"{function}: parameters must be Tensors, got {type(p).__name__}")
    return [p.grad.detach() for p in listed if p.grad is not None]


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0,
                    error_if_nonfinite: bool = False) -> Tensor:
    """Scale all gradients together, in place, so that their common norm is at most `max_norm`.

    Args:
        parameters: a Tensor or several; those without a gradient are skipped.
        max_norm: the largest norm allowed, 0 or more.
        norm_type: p of the p-norm, above 0; `math.inf` for the largest absolute value.
        error_if_nonfinite: raise if the norm is NaN or infinite, instead of spreading it over all gradients.

    Returns:
        The norm before, a 0-d Tensor.

    Raises:
        ValueError: max_norm below 0 or NaN, norm_type not above 0.
        RuntimeError: the norm is not finite and `error_if_nonfinite`; the gradients are then as before.

    Source: Pascanu, Mikolov, Bengio 2013, "On the difficulty of training recurrent neural networks", algorithm 1.

    Example:
        >>> import tinygrad_cnn as tg
        >>> w = tg.tensor([1.5, 2.0], requires_grad=True)
        >>> (w * w).sum().backward()
        >>> tg.nn.utils.clip_grad_norm_([w], max_norm=1)
        tensor(5., dtype=float32)
        >>> w.grad
        tensor([0.6, 0.8], dtype=float32)
    """
    for name, value, least in (("max_norm", max_norm, "0 or more"), ("norm_type", norm_type, "above 0")):
        if not isinstance(value, Real) or not (value >= 0 if name == "max_norm" else value > 0):
            raise ValueError(f"clip_grad_norm_: {name} must be a number {least}, got {value!r}")
    grads = _gradients("clip_grad_norm_", parameters)
    # float64, so that squares of large float32 numbers do not overflow
    norms = [np.linalg.norm(g._data.ravel(order="K").astype(np.float64), norm_type) for g in grads if g.numel()]
    total = float(np.linalg.norm(norms, norm_type)) if norms else 0.0
    if error_if_nonfinite and not math.isfinite(total):
        raise RuntimeError(f"clip_grad_norm_: the gradients' norm is {total}; error_if_nonfinite=False lets it pass")
    scale = max_norm / (total + 1e-6)          # PyTorch's guard against division by 0
    if not scale >= 1:
        for g in grads:
            g.mul_(scale)
    return tensor(total, dtype=grads[0].dtype if grads else None)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limit every element of the gradients to -clip_value .. clip_value, in place.

    Args:
        parameters: a Tensor or several; those without a gradient are skipped.
        clip_value: the largest absolute value allowed, 0 or more.

    Raises:
        ValueError: clip_value below 0 or NaN.

    Example:
        >>> import tinygrad_cnn as tg
        >>> w = tg.tensor([1.5, 0.25], requires_grad=True)
        >>> (w * w).sum().backward()
        >>> tg.nn.utils.clip_grad_value_([w], 1)
        >>> w.grad
        tensor([1.0, 0.5], dtype=float32)
    """
    if not isinstance(clip_value, Real) or not clip_value >= 0:
        raise ValueError(f"clip_grad_value_: clip_value must be a number of 0 or more, got {clip_value!r}")
    for g in _gradients("clip_grad_value_", parameters):
        g.clamp_(-clip_value, clip_value)


arguments.guard(globals())
