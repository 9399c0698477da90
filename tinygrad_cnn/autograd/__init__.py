"""Gradients of outputs with respect to inputs, to any order, and the checks that they are right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import graph
from ..grad_mode import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from ..ops import arguments
from ..primitive import Primitive, primitive
from ..tensor import Tensor, _root
from .gradcheck import GradcheckError, gradcheck, gradgradcheck

__all__ = ["GradcheckError", "Primitive", "backward", "enable_grad", "grad", "gradcheck", "gradgradcheck", "is_grad_enabled",
           "no_grad", "primitive", "set_grad_enabled"]


def _listed(values: Any) -> list[Any]:
    return list(values) if isinstance(values, (tuple, list)) else [values]


def _roots(function: str, outputs: Any, grad_outputs: Any) -> list[Any]:
    tensors = _listed(outputs)
    if isinstance(outputs, Tensor) and not isinstance(grad_outputs, (list, tuple)):
        grad_outputs = [grad_outputs]
    cotangents = [None] * len(tensors) if grad_outputs is None else _listed(grad_outputs)
    if len(cotangents) != len(tensors):
        raise ValueError(f"{function}: got {len(cotangents)} gradients for {len(tensors)} outputs")
    return [_root(function, t, g) for t, g in zip(tensors, cotangents, strict=True)]


def grad(outputs: Tensor | Sequence[Tensor], inputs: Tensor | Sequence[Tensor], grad_outputs: Any = None,
         retain_graph: bool | None = None, create_graph: bool = False, allow_unused: bool = False) -> tuple[Tensor | None, ...]:
    """The gradients of the outputs, weighted with grad_outputs and summed, with respect to the inputs. `.grad` stays as it is.

    Args:
        outputs: a tensor or several.
        inputs: a tensor or several that require grad, leaves or computed.
        grad_outputs: a cotangent per output, of its shape; may be None for single elements.
        retain_graph: keep the graph for another walk; defaults to create_graph.
        create_graph: record the walk, so that the gradients can be differentiated again.
        allow_unused: give None for an input the outputs do not depend on, instead of raising.

    Returns:
        A tuple with one gradient per input.

    Raises:
        RuntimeError: an input that does not require grad, or is not used; and as `Tensor.backward`.

    Example:
        >>> import tinygrad_cnn as tg
        >>> x = tg.tensor(3.0, requires_grad=True)
        >>> (slope,) = tg.autograd.grad(x**3, x, create_graph=True)
        >>> tg.autograd.grad(slope, x)
        (tensor(18., dtype=float32),)
    """
    wanted = _listed(inputs)
    for i, t in enumerate(wanted):
        if not isinstance(t, Tensor):
            raise TypeError(f"grad: input {i} must be a Tensor, got {type(t).__name__}")
        t._own_edge("grad", f"input {i}")
    found = graph.backward(_roots("grad", outputs, grad_outputs), Tensor._wrap, create_graph=create_graph,
                           retain_graph=create_graph if retain_graph is None else retain_graph, targets=[t._edge for t in wanted])
    for i, t in enumerate(wanted):
        if t._edge not in found and not allow_unused:
            raise RuntimeError(f"grad: input {i} of shape {t.shape} was not used to compute the outputs; pass allow_unused=True for None")
    return tuple(found.get(t._edge) for t in wanted)


def backward(tensors: Tensor | Sequence[Tensor], grad_tensors: Any = None, retain_graph: bool | None = None,
             create_graph: bool = False) -> None:
    """Accumulate the gradients of several outputs in the leaves' `.grad`, in one walk; see `Tensor.backward`."""
    graph.backward(_roots("backward", tensors, grad_tensors), Tensor._wrap, create_graph=create_graph,
                   retain_graph=create_graph if retain_graph is None else retain_graph)


arguments.guard(globals(), ("backward", "grad", "gradcheck", "gradgradcheck"))
