"""Module: a tree of layers that knows its parameters, buffers and modes. Behaves and prints as PyTorch's does."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..grad_mode import no_grad
from ..ops.arguments import guard_constructor
from ..tensor import RemovableHandle, Tensor, tensor, zeros_like
from .backward_hook import BackwardWatch
from .state import LoadResult, Parameter, misfits


def indent(text: str) -> str:
    """All lines but the first moved right by two."""
    return text.replace("\n", "\n  ")


class Module:
    """Base class of layers and models.

    Subclasses call `super().__init__()`, assign Parameters and Modules to attributes, and define `forward`. Calling the
    module runs `forward` and the hooks.

    Attributes:
        training: whether layers such as dropout and batch norm are in training mode; see `train` and `eval`.

    Example:
        >>> import tinygrad_cnn as tg
        >>> class Twice(tg.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = tg.nn.Linear(3, 3)
        ...     def forward(self, x):
        ...         return self.layer(self.layer(x))
        >>> Twice()
        Twice(
          (layer): Linear(in_features=3, out_features=3, bias=True)
        )
        >>> [name for name, _ in Twice().named_parameters()]
        ['layer.weight', 'layer.bias']
    """

    training: bool

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        guard_constructor(cls)

    def __init__(self) -> None:
        for name in ("_parameters", "_buffers", "_modules", "_forward_pre_hooks", "_forward_hooks", "_backward_hooks"):
            self.__dict__[name] = {}
        self.__dict__["_non_persistent"] = set()
        self.__dict__["training"] = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; subclasses define it."""
        raise NotImplementedError(f"{type(self).__name__}: define a method forward(self, ...)")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the hooks and `forward`."""
        if not self.watched:
            return self.forward(*args, **kwargs)
        for hook in list(self._forward_pre_hooks.values()):
            replaced = hook(self, args)
            if replaced is not None:
                args = replaced if isinstance(replaced, tuple) else (replaced,)
        watch = BackwardWatch(self, self._backward_hooks) if self._backward_hooks else None
        if watch is not None:
            args = watch.inputs(args)
        output = self.forward(*args, **kwargs)
        for hook in list(self._forward_hooks.values()):
            replaced = hook(self, args, output)
            if replaced is not None:
                output = replaced
        return output if watch is None else watch.outputs(output)

    @property
    def watched(self) -> bool:
        """Whether a hook sees its calls."""
        return bool(self._forward_pre_hooks or self._forward_hooks or self._backward_hooks)

    # ---- attributes --------------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        tables = self.__dict__
        if isinstance(value, (Parameter, Module)):
            if "_parameters" not in tables:
                raise AttributeError(f"{type(self).__name__}: call super().__init__() before assigning {name!r}")
            own = "_parameters" if isinstance(value, Parameter) else "_modules"
            for table in KINDS.keys() - {own}:             # in its own table a replacement keeps its place
                tables[table].pop(name, None)
            tables.pop(name, None)
            tables["_non_persistent"].discard(name)
            self._register(own, name, value)
            return
        for table, (kind, wanted) in KINDS.items():
            if name in tables.get(table, ()):
                if value is not None and not isinstance(value, wanted):
                    raise TypeError(f"{type(self).__name__}: cannot assign {type(value).__name__!r} as {kind} "
                                    f"{name!r}; wanted a {wanted.__name__} or None")
                tables[table][name] = value
                return
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        attributes = self.__dict__
        for table in KINDS:
            if table in attributes and name in attributes[table]:
                return attributes[table][name]
        if "_parameters" not in self.__dict__ and not name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}; was super().__init__() "
                                 "called?")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for table in KINDS:
            if name in self.__dict__[table]:
                del self.__dict__[table][name]
                self._non_persistent.discard(name)
                return
        super().__delattr__(name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parameters, *self._buffers, *self._modules})

    def _register(self, table: str, name: str, value: Any) -> None:
        kind, wanted = KINDS[table]
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}: call super().__init__() before registering a {kind}")
        if not isinstance(name, str):
            raise TypeError(f"{type(self).__name__}: the name of a {kind} must be a string, got {type(name).__name__}")
        if "." in name or not name:
            raise KeyError(f"{type(self).__name__}: the name of a {kind} must not be empty or contain a dot, got "
                           f"{name!r}")
        if hasattr(self, name) and name not in self.__dict__[table]:
            raise KeyError(f"{type(self).__name__} already has an attribute {name!r}; choose another name for the "
                           f"{kind}")
        if value is not None and not isinstance(value, wanted):
            raise TypeError(f"{type(self).__name__}: {kind} {name!r} must be a {wanted.__name__} or None, "
                            f"got {type(value).__name__}")
        self.__dict__[table][name] = value

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under a name; None reserves the name."""
        self._register("_parameters", name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that belongs to the module's state but is not learned, such as a running mean.

        Args:
            name: the attribute's name.
            tensor: its value; None reserves the name.
            persistent: whether it is part of `state_dict()`.
        """
        self._register("_buffers", name, tensor)
        if persistent:
            self._non_persistent.discard(name)
        else:
            self._non_persistent.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child module under a name; None reserves the name."""
        self._register("_modules", name, module)

    register_module = add_module

    # ---- the tree ----------------------------------------------------------------------------------------------------

    def named_modules(self, memo: set[Module] | None = None, prefix: str = "",
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """(name, module) of itself and everything below, parents first; a shared module once."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                yield from child.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """Itself and every module below; a shared one once."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the direct children; a shared one once."""
        seen = set()
        for name, child in self._modules.items():
            if child is not None and child not in seen:
                seen.add(child)
                yield name, child

    def children(self) -> Iterator[Module]:
        """The direct children; a shared one once."""
        return (child for _, child in self.named_children())

    def _named(self, table: str, prefix: str, recurse: bool, remove_duplicate: bool) -> Iterator[tuple[str, Any]]:
        seen = set()
        modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, value in module.__dict__[table].items():
                if value is None or id(value) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(value))
                yield f"{path}.{name}" if path else name, value

    def named_parameters(self, prefix: str = "", recurse: bool = True,
                         remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """(name, parameter), names as in `state_dict`; a shared parameter once, under its first name."""
        return self._named("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, each once; what an optimizer takes."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True,
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
        """(name, buffer), names as in `state_dict`."""
        return self._named("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The module at a path such as "features.0"; itself for "".

        Raises:
            AttributeError: there is none.
        """
        module: Any = self
        for name in target.split(".") if target else ():
            if name not in module._modules or module._modules[name] is None:
                raise AttributeError(f"get_submodule: {type(module).__name__} has no module {name!r} (looking for "
                                     f"{target!r}); it has {', '.join(module._modules) or 'none'}")
            module = module._modules[name]
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a path such as "features.0.weight".

        Raises:
            AttributeError: there is none.
        """
        path, _, name = target.rpartition(".")
        return self.get_submodule(path)._entry("_parameters", name, target)

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a path such as "features.1.running_mean".

        Raises:
            AttributeError: there is none.
        """
        path, _, name = target.rpartition(".")
        return self.get_submodule(path)._entry("_buffers", name, target)

    def _entry(self, table: str, name: str, target: str) -> Any:
        entries = self.__dict__[table]
        if entries.get(name) is None:
            raise AttributeError(f"{type(self).__name__} has no {table[1:-1]} {name!r} (looking for {target!r}); "
                                 f"it has {', '.join(entries) or 'none'}")
        return entries[name]

    # ---- modes and conversion ----------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Module:
        """Switch itself and everything below to training mode; returns self."""
        if not isinstance(mode, bool):
            raise ValueError(f"train: mode must be a bool, got {mode!r}")
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self) -> Module:
        """Switch itself and everything below to evaluation mode; returns self."""
        return self.train(False)

    def apply(self, fn: Callable[[Module], Any]) -> Module:
        """Call `fn(module)` for every module below and then itself, for instance to initialise; returns self."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Switch whether gradients flow to the parameters (freeze with False); returns self."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the parameters' gradients, or set them to zero."""
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad = None if set_to_none else zeros_like(parameter.grad)

    def to(self, dtype: Any = None, device: Any = None) -> Module:
        """Convert floating parameters, gradients and buffers in place; returns self. They stay the same objects.

        Args:
            dtype: float32 or float64, or a Tensor that stands for its dtype.
            device: "cpu", the only one; may also come first, as in PyTorch.

        Raises:
            TypeError: a dtype that is not floating.
            ValueError: a device that is not there.
        """
        if isinstance(dtype, str) and dtype.split(":")[0] in ("cpu", "cuda", "mps"):
            dtype, device = device, dtype      # PyTorch's order: to(device, dtype)
        wanted = tensor(0.0).to(dtype, device)
        if not wanted.is_floating_point():
            raise TypeError(f"to: a module converts to float32 or float64, got {wanted.dtype}")
        if dtype is None:
            return self
        for value in (*self.parameters(), *self.buffers()):
            if value.is_floating_point() and value.dtype != wanted.dtype:
                gradient, value.grad = value.grad, None
                value.data = value.detach().to(wanted.dtype)
                value.grad = None if gradient is None else gradient.detach().to(wanted.dtype)
        return self

    def float(self) -> Module:
        """Convert to float32 in place; returns self."""
        return self.to(np.float32)

    def double(self) -> Module:
        """Convert to float64 in place; returns self."""
        return self.to(np.float64)

    def cpu(self) -> Module:
        """Itself."""
        return self

    # ---- hooks -------------------------------------------------------------------------------------------------------

    def register_forward_pre_hook(self, hook: Callable[[Module, tuple[Any, ...]], Any]) -> RemovableHandle:
        """Call `hook(module, args)` before each forward; what it returns, if anything, replaces the arguments."""
        return RemovableHandle(self._forward_pre_hooks, hook)

    def register_forward_hook(self, hook: Callable[[Module, tuple[Any, ...], Any], Any]) -> RemovableHandle:
        """Call `hook(module, args, output)` after each forward; what it returns, if anything, replaces the output.

        Returns:
            A handle with `remove()`, also a context manager.

        Example:
            >>> import tinygrad_cnn as tg
            >>> seen = []
            >>> layer = tg.nn.ReLU()
            >>> with layer.register_forward_hook(lambda module, args, output: seen.append(output.shape)):
            ...     _ = layer(tg.ones(2, 3))
            >>> seen
            [(2, 3)]
        """
        return RemovableHandle(self._forward_hooks, hook)

    def register_full_backward_hook(
            self, hook: Callable[[Module, tuple[Any, ...], tuple[Any, ...]], Any]) -> RemovableHandle:
        """Call `hook(module, grad_input, grad_output)` when backward has passed the module.

        `grad_input` has one entry per positional argument (None for one that needs no gradient), `grad_output` one per
        output. What the hook returns, if anything, replaces grad_input; unlike in PyTorch only where a single argument
        needs a gradient, since several arrive one by one.
        """
        return RemovableHandle(self._backward_hooks, hook)

    # ---- state -------------------------------------------------------------------------------------------------------

    def state_dict(self, *, prefix: str = "", keep_vars: bool = False) -> OrderedDict[str, Tensor]:
        """Parameters and persistent buffers by name, in PyTorch's order and naming.

        Args:
            prefix: put before every name.
            keep_vars: the Parameters themselves instead of detached tensors over the same memory.

        Returns:
            An ordered dict of tensors that share memory with the model: clone them to keep a snapshot.
        """
        state: OrderedDict[str, Tensor] = OrderedDict()
        for table in (self._parameters, self._buffers):
            for name, value in table.items():
                if value is not None and name not in self._non_persistent:
                    state[prefix + name] = value if keep_vars else value.detach()
        for name, child in self._modules.items():
            if child is not None:
                state.update(child.state_dict(prefix=f"{prefix}{name}.", keep_vars=keep_vars))
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copy values into the parameters and buffers: all of them, or, on an error, none.

        Args:
            state_dict: Tensors or NumPy arrays by name, as `state_dict()` names them; floats are converted to the
                model's dtype.
            strict: refuse missing and unexpected names.

        Returns:
            (missing_keys, unexpected_keys).

        Raises:
            RuntimeError: lists every missing, unexpected, mis-shaped and wrong-typed key; the model is unchanged.
            TypeError: state_dict is not a mapping.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"load_state_dict: wanted a mapping of names to tensors, got {type(state_dict).__name__}")
        own = self.state_dict()
        missing, unexpected = [k for k in own if k not in state_dict], [k for k in state_dict if k not in own]
        errors = []
        if strict and unexpected:
            errors.append(f"Unexpected key(s) in state_dict: {', '.join(map(repr, unexpected))}.")
        if strict and missing:
            errors.append(f"Missing key(s) in state_dict: {', '.join(map(repr, missing))}.")
        shared = [key for key in own if key in state_dict]
        errors += [f"{problem} for {key}: {detail}." for key in shared
                   for problem, detail in misfits(own[key], state_dict[key])]
        if errors:
            raise RuntimeError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t" + "\n\t".join(errors))
        with no_grad():
            for key in shared:
                own[key].copy_(state_dict[key])
        return LoadResult(missing, unexpected)

    # ---- printing ----------------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """The layer's hyper-parameters, as `repr` shows them."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = [*(extra.split("\n") if extra else ()),
                 *(f"({name}): {indent(repr(child))}" for name, child in self._modules.items())]
        if extra and len(lines) == 1:
            return f"{type(self).__name__}({extra})"
        return f"{type(self).__name__}(" + "".join(f"\n  {line}" for line in lines) + ("\n)" if lines else ")")


KINDS: dict[str, tuple[str, type]] = {"_parameters": ("parameter", Parameter), "_modules": ("child module", Module),
                                      "_buffers": ("buffer", Tensor)}
"""A module's tables: what their entries are called, and their type."""
