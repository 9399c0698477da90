"""What `numpy.f(tensor)` does: NumPy's names and arguments, our ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import elementwise, linalg, movement, reduce

_RENAMED = {"true_divide": "div", "divide": "div", "subtract": "sub", "multiply": "mul", "negative": "neg", "power": "pow",
            "absolute": "abs", "arctan2": "atan2", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "equal": "eq",
            "not_equal": "ne", "less": "lt", "less_equal": "le", "greater": "gt", "greater_equal": "ge", "rint": "round",
            "invert": "bitwise_not", "float_power": "pow"}


def call_ufunc(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """A NumPy ufunc on Tensors: ours of the same meaning, else NumPy's on values that need no gradient."""
    name = _RENAMED.get(ufunc.__name__, ufunc.__name__)
    if method == "__call__" and not options:
        if ufunc is np.matmul:
            return linalg.matmul(*inputs)
        if hasattr(elementwise, name):
            return getattr(elementwise, name)(*inputs)
    if any(isinstance(o, np.ndarray) for o in options.get("out", ())) or any(hasattr(o, "_record") for o in options.get("out", ())):
        raise TypeError(f"np.{ufunc.__name__}: out= is not supported with Tensors")
    return getattr(ufunc, method)(*_values(f"np.{ufunc.__name__}", inputs), **options)


def call_function(function: Callable[..., Any], args: Any, options: Any) -> Any:
    """A NumPy function on Tensors: ours of the same meaning, else NumPy's on values that need no gradient."""
    ours = _FUNCTIONS.get(function)
    if ours is not None:
        return ours(*args, **options)
    name = f"np.{function.__name__}"
    return function(*_values(name, args), **{k: _values(name, (v,))[0] for k, v in options.items()})


def _values(name: str, values: Any) -> list[Any]:
    out = []
    for value in values:
        if isinstance(value, (list, tuple)):
            value = type(value)(_values(name, value))
        elif hasattr(type(value), "_record"):
            if value.requires_grad:
                raise TypeError(f"{name} has no derivative here and the tensor requires grad; pass x.detach()")
            value = value.numpy()
        out.append(value)
    return out


def _reduction(ours: Callable[..., Any]) -> Callable[..., Any]:
    def call(a: Any, axis: Any = None, keepdims: Any = False, **options: Any) -> Any:
        for name, value in options.items():    # NumPy passes its own defaults on
            if name == "ddof":
                continue
            if value is not None and value is not np._NoValue:
                raise TypeError(f"np.{ours.__name__}: {name}= is not supported with Tensors")
        extra = {"correction": options.get("ddof", 0)} if ours in (reduce.var, reduce.std) else {}
        return ours(a, axis, keepdims is not np._NoValue and bool(keepdims), **extra)
    return call


def _dot(a: Any, b: Any) -> Any:
    if a.ndim > 2 or b.ndim > 2:
        raise TypeError("np.dot: tensors of more than 2 dims are not supported; use np.matmul or np.einsum")
    return linalg.matmul(a, b) if a.ndim and b.ndim else elementwise.mul(a, b)


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.sum: _reduction(reduce.sum), np.mean: _reduction(reduce.mean), np.prod: _reduction(reduce.prod),
    np.var: _reduction(reduce.var), np.std: _reduction(reduce.std),
    np.max: _reduction(reduce.amax), np.min: _reduction(reduce.amin),
    np.amax: _reduction(reduce.amax), np.amin: _reduction(reduce.amin),
    np.argmax: _reduction(reduce.argmax), np.argmin: _reduction(reduce.argmin),
    np.any: _reduction(reduce.any), np.all: _reduction(reduce.all),
    np.reshape: lambda a, shape: movement.reshape(a, shape),
    np.ravel: lambda a: movement.reshape(a, -1),
    np.transpose: lambda a, axes=None: movement.permute(a, tuple(axes) if axes is not None else tuple(range(a.ndim))[::-1]),
    np.swapaxes: lambda a, axis1, axis2: movement.transpose(a, axis1, axis2),
    np.moveaxis: lambda a, source, destination: movement.movedim(a, source, destination),
    np.squeeze: lambda a, axis=None: movement.squeeze(a, axis),
    np.expand_dims: lambda a, axis: movement.unsqueeze(a, axis),
    np.broadcast_to: lambda a, shape: movement.broadcast_to(a, shape),
    np.concatenate: lambda arrays, axis=0: movement.cat(arrays, axis),
    np.stack: lambda arrays, axis=0: movement.stack(arrays, axis),
    np.flip: lambda m, axis=None: movement.flip(m, tuple(range(m.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)),
    np.roll: lambda a, shift, axis=None: movement.roll(a, shift, axis),
    np.tile: lambda A, reps: movement.tile(A, reps),
    np.where: lambda condition, x, y: elementwise.where(condition, x, y),
    np.clip: lambda a, a_min=None, a_max=None: elementwise.clip(a, a_min, a_max),
    np.shape: lambda a: a.shape, np.ndim: lambda a: a.ndim, np.size: lambda a, axis=None: a.numel() if axis is None else a.shape[axis],
    np.cumsum: lambda a, axis: reduce.cumsum(a, axis),
    np.dot: _dot, np.outer: linalg.outer,
    np.einsum: lambda subscripts, *operands: linalg.einsum(subscripts, *operands),
    np.tril: movement.tril, np.triu: movement.triu,
    np.round: lambda a, decimals=0: elementwise.round(a) if decimals == 0 else elementwise.round(a * 10**decimals) / 10**decimals,
}
