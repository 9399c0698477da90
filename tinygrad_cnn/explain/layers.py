"""Looking into a model without touching it: find a layer, run as far as it, read what comes out."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from typing import Any

import numpy as np

from ..grad_mode import no_grad
from ..nn import Module
from ..random import get_rng_state, set_rng_state
from ..tensor import Tensor, tensor

Layer = str | Module | None
"""Where to read: a layer's name as in `model.named_modules()`, the layer itself, or None for the model's output."""


class _KeptTensor:
    """A parameter or buffer as it was: object, values, gradient, whether it requires one."""

    def __init__(self, kept: Tensor):
        self.tensor, self.grad = kept, kept.grad
        self.identity = kept._data, kept._storage, kept._layout, kept._rebased, kept._edge
        self.values = [(t, t._storage, t._storage.version, t._data.copy(order="K")) for t in (kept, kept.grad) if t is not None]

    def restore(self) -> None:
        t = self.tensor
        t._data, t._storage, t._layout, t._rebased, t._edge = self.identity
        t._grad = self.grad
        for t, storage, version, values in self.values:
            if storage.version != version:     # nobody wrote: a graph that saved the values must not think so
                t._write(values)


class _KeptModule:
    """A module's attributes as they were: mode, tables of parameters, buffers, children and hooks, what the user added."""

    def __init__(self, module: Module):
        self.attributes = module.__dict__
        self.before = dict(self.attributes)
        self.containers = [(value, copy(value)) for value in self.before.values() if isinstance(value, (dict, list, set))]

    def restore(self) -> None:
        for container, before in self.containers:
            container.clear()
            container.extend(before) if isinstance(container, list) else container.update(before)
        self.attributes.clear()
        self.attributes.update(self.before)


@contextmanager
def untouched(model: Module | Callable[..., Any]) -> Iterator[None]:
    """Run a model in eval mode, and leave it exactly as it was, however the block ends.

    Parameters, their `.grad` and `requires_grad`, buffers, the training mode of every submodule, hooks and attributes, also
    Tensors among these that were written into, are put back, and so is the state of the package's random generator. Costs a
    copy of all of the model's Tensors.

    Args:
        model: a Module; of another callable nothing is known, so only the random generator is put back.

    Example:
        >>> import tinygrad_cnn as tg
        >>> from tinygrad_cnn import explain
        >>> model = tg.nn.Linear(2, 2)
        >>> with explain.untouched(model):
        ...     model.training
        False
        >>> model.training
        True
    """
    random = get_rng_state()
    kept: list[_KeptModule | _KeptTensor] = []
    if isinstance(model, Module):
        own = (value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor))
        kept = [*map(_KeptModule, model.modules()), *map(_KeptTensor, [*model.parameters(), *model.buffers(), *own])]
    try:
        if isinstance(model, Module):
            model.eval()
        yield
    finally:
        for one in kept:
            one.restore()
        set_rng_state(random)


def find(function: str, model: Any, layer: str | Module) -> Module:
    """The layer of a model with a name, or the layer itself if it is part of the model.

    Raises:
        TypeError: the model is not a Module, or the layer is neither a name nor a Module.
        ValueError: the model has no such layer; lists those it has, the nearest names first.
    """
    if not isinstance(model, Module):
        raise TypeError(f"{function}: only a Module has layers to name, the model is a {type(model).__name__}")
    if not isinstance(layer, (str, Module)):
        raise TypeError(f"{function}: layer must be a name or a Module, got {type(layer).__name__}")
    modules = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    if isinstance(layer, Module):
        if any(module is layer for module in modules.values()):
            return layer
        problem = f"this {type(layer).__name__} is not a layer of the model"
    elif layer in modules:
        return modules[layer]
    else:
        near = difflib.get_close_matches(layer, modules)
        problem = f"the model has no layer {layer!r}" + (f"; did you mean {' or '.join(map(repr, near))}?" if near else "")
    listed = ", ".join(f"{name} ({type(module).__name__})" for name, module in modules.items())
    raise ValueError(f"{function}: {problem}. Its layers: {listed or 'none'}")


class _AllRead(BaseException):
    """Ends a forward pass when there is nothing more to read; not an Exception, so that no model catches it."""


def read(function: str, model: Module | Callable[[Tensor], Tensor], x: Tensor, layers: Iterable[Layer]) -> dict[Layer, Tensor]:
    """Run the model on x, no further than needed, and return what the layers gave out.

    Where a layer runs several times in one pass, its first output counts, as it came out: a later layer may write into it.

    Args:
        function: the caller, for errors.
        model: a Module, or, if only its output is read, any callable.
        x: what the model takes, and may write into.
        layers: names, modules, or None for the model's output.

    Returns:
        The outputs by layer, recorded if x requires grad.

    Raises:
        RuntimeError: a layer did not run.
        TypeError: a layer gave something else than a Tensor.
    """
    outputs: dict[Layer, Any] = {layer: None for layer in layers}
    missing = set(outputs)

    def hook(layer: Layer) -> Callable[..., None]:
        def keep(module: Module, args: Any, output: Any) -> None:
            if layer in missing:
                missing.discard(layer)
                outputs[layer] = output.clone() if missing and isinstance(output, Tensor) else output
                if not missing:
                    raise _AllRead
        return keep

    with ExitStack() as hooks:
        for layer in outputs:
            if layer is not None:
                hooks.enter_context(find(function, model, layer).register_forward_hook(hook(layer)))
        try:
            outputs[None] = model(x)
            missing.discard(None)
        except _AllRead:
            pass
    if missing:
        raise RuntimeError(f"{function}: layer {sorted(map(str, missing))[0]} did not run in the model's forward pass")
    for layer, output in outputs.items():
        if not isinstance(output, Tensor):
            giver = "the model" if layer is None else f"layer {layer}"
            raise TypeError(f"{function}: wanted a Tensor from {giver}, got {type(output).__name__}")
    return outputs


def as_input(function: str, x: Tensor | np.ndarray, requires_grad: bool = False) -> Tensor:
    """A copy of the images, cut off from any graph: what is computed from it leaves the caller's tensor alone."""
    if not isinstance(x, (Tensor, np.ndarray)):
        raise TypeError(f"{function}: the images must be a Tensor or a NumPy array, got {type(x).__name__}")
    copied = tensor(x)
    if not copied.is_floating_point():
        raise TypeError(f"{function}: the images must be float32 or float64, got {copied.dtype}; convert and scale them as for training")
    return copied.requires_grad_(requires_grad)


def activations(model: Module | Callable[[Tensor], Tensor], x: Tensor | np.ndarray, layer: Layer) -> Tensor:
    """What a layer gives out for the images x. The forward pass stops there; the model runs in eval mode and stays as it was.

    Args:
        model: the model.
        x: its input, (N, C, H, W), float32 or float64. The model gets a copy, and may write into it.
        layer: the layer's name as in `model.named_modules()`, or the layer itself; None for the model's output. Where it
            runs several times in one pass, its first output counts.

    Returns:
        The output as the layer gave it, such as (N, channels, rows, columns), without a graph.

    Raises:
        ValueError: no such layer; lists the names there are.

    Example:
        >>> import tinygrad_cnn as tg
        >>> from tinygrad_cnn import explain
        >>> model = tg.nn.Sequential(tg.nn.Conv2d(1, 4, 3), tg.nn.ReLU(), tg.nn.Flatten(), tg.nn.Linear(144, 10))
        >>> explain.activations(model, tg.zeros(5, 1, 8, 8), "1").shape
        (5, 4, 6, 6)
    """
    images = as_input("activations", x)
    with untouched(model), no_grad():
        return read("activations", model, images, [layer])[layer]
