"""Containers: modules that hold modules (or parameters) in a list, in a dict, or one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..tensor import Tensor
from . import fusion
from .module import Module, indent
from .state import Parameter


def _position(owner: Module, index: int, length: int) -> int:
    """An index in 0 .. length - 1 from one that may be negative."""
    if not -length <= index < length:
        raise IndexError(f"{type(owner).__name__}: index {index} is out of range for {length} entries")
    return index % length


class _ModuleSequence(Module):
    """Modules under the names "0", "1", ...: what Sequential and ModuleList share."""

    def _key(self, index: Any) -> str:
        return list(self._modules)[_position(self, index.__index__(), len(self))]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)._of(list(self._modules.items())[index])
        return self._modules[self._key(index)]

    @classmethod
    def _of(cls, items: list[tuple[str, Module]]) -> Any:
        raise NotImplementedError

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._key(index), module)

    def __delitem__(self, index: Any) -> None:
        keys = list(self._modules)
        for key in keys[index] if isinstance(index, slice) else [self._key(index)]:
            delattr(self, key)
        if keys == [str(i) for i in range(len(keys))]:
            left = list(self._modules.values())
            self._modules.clear()
            self._modules.update({str(i): module for i, module in enumerate(left)})

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def append(self, module: Module) -> Any:
        """Add a module at the end; returns self."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """Add several modules at the end; returns self."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Any:
        """Put a module before the one at an index, moving the rest on; returns self."""
        if not isinstance(module, Module):
            raise TypeError(f"insert: wanted a Module, got {type(module).__name__}")
        modules = list(self)
        modules.insert(index, module)
        self._modules.clear()
        return self.extend(modules)

    def pop(self, index: int = -1) -> Module:
        """Take a module out and return it."""
        module = self[index]
        del self[index]
        return module


class Sequential(_ModuleSequence):
    """Modules called one after the other, each with the output of the one before.

    Args:
        args: modules, or one OrderedDict of names and modules.

    Example:
        >>> import tinygrad_cnn as tg
        >>> model = tg.nn.Sequential(tg.nn.Flatten(), tg.nn.Linear(784, 10))
        >>> model(tg.zeros(2, 1, 28, 28)).shape
        (2, 10)
        >>> model[-1]
        Linear(in_features=784, out_features=10, bias=True)
    """

    def __init__(self, *args: Any):
        super().__init__()
        named = args[0] if len(args) == 1 and isinstance(args[0], Mapping) else {str(i): m for i, m in enumerate(args)}
        for name, module in named.items():
            self.add_module(name, module)

    @classmethod
    def _of(cls, items: list[tuple[str, Module]]) -> Sequential:
        return cls(dict(items))

    def forward(self, x: Any) -> Any:
        """The last module's output. Some neighbours are computed together where no hook looks in between: see `nn.fusion`."""
        return fusion.run(self, x)


class ModuleList(_ModuleSequence):
    """A list whose modules are registered; it has no `forward`.

    Args:
        modules: an iterable of modules.
    """

    def __init__(self, modules: Iterable[Module] = ()):
        super().__init__()
        self.extend(modules)

    @classmethod
    def _of(cls, items: list[tuple[str, Module]]) -> ModuleList:
        return cls(module for _, module in items)

    def __iadd__(self, modules: Iterable[Module]) -> ModuleList:
        return self.extend(modules)

    def __repr__(self) -> str:
        """As PyTorch's: neighbours that print alike share a line."""
        runs: list[tuple[int, int, str]] = []
        for i, text in enumerate(map(repr, self)):
            if runs and runs[-1][2] == text:
                runs[-1] = (runs[-1][0], i, text)
            else:
                runs.append((i, i, text))
        lines = [f"({a}): {indent(text)}" if a == b else f"({a}-{b}): {b - a + 1} x {indent(text)}"
                 for a, b, text in runs]
        return f"{type(self).__name__}(" + "".join(f"\n  {line}" for line in lines) + ("\n)" if lines else ")")


class ModuleDict(Module):
    """A dict whose modules are registered; it has no `forward`.

    Args:
        modules: a mapping or pairs of names and modules.
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] = ()):
        super().__init__()
        self.update(modules)

    def __getitem__(self, key: str) -> Any:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: str) -> bool:
        return key in self._modules

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._modules.keys()

    def values(self) -> Iterable[Any]:
        """The modules."""
        return self._modules.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """The (name, module) pairs."""
        return self._modules.items()

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add or replace modules."""
        for name, module in modules.items() if isinstance(modules, (Mapping, ModuleDict)) else modules:
            self[name] = module

    def pop(self, key: str) -> Any:
        """Take a module out and return it."""
        return self._modules.pop(key)

    def clear(self) -> None:
        """Take all modules out."""
        self._modules.clear()


class ParameterList(Module):
    """A list whose tensors are registered as Parameters.

    Args:
        values: an iterable of Parameters, or Tensors to become Parameters.
    """

    def __init__(self, values: Iterable[Tensor] = ()):
        super().__init__()
        for value in values:
            self.append(value)

    def append(self, value: Tensor) -> ParameterList:
        """Add a parameter at the end; returns self."""
        self.register_parameter(str(len(self)), value if isinstance(value, Parameter) else Parameter(value))
        return self

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return ParameterList(list(self)[index])
        return self._parameters[str(_position(self, index.__index__(), len(self)))]

    def __setitem__(self, index: int, value: Tensor) -> None:
        name = str(_position(self, index, len(self)))
        setattr(self, name, value if isinstance(value, Parameter) else Parameter(value))

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self._parameters.values())

    def extra_repr(self) -> str:
        """One line per parameter."""
        return "\n".join(f"({i}): Parameter containing: [{p.dtype} of size {'x'.join(map(str, p.shape))}]"
                         for i, p in enumerate(self))
