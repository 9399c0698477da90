"""What public functions take: one table, by which every call is checked at the door, and by which every error gets a name.

A parameter's kind follows from its name, or else from its annotation; its default, or `| None`, says whether None will do.
`guard` puts the door in front of all public functions of a module, or methods of a class.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Collection, Set
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from ..primitive import NAMELESS, named_error
from .geometry import DTYPES, pair

PACKAGE = __name__.partition(".")[0] + "."


class Kind(NamedTuple):
    """What an argument must be: `check(function, name, value)` raises if it is not. Values of the types in `plain` need no look."""

    check: Callable[[str, str, Any], Any]
    plain: Set[type] = frozenset()


def describe(value: Any) -> str:
    """A value in an error message: short, and of tensors only what they are."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"a {type(value).__name__} of shape {tuple(value.shape)} and dtype {value.dtype}"
    return f"{type(value).__name__} {value!r:.60}"


def _kind(wanted: str, fits: Callable[[Any], bool], plain: Set[type] = frozenset(), error: type[Exception] = TypeError) -> Kind:
    def check(function: str, name: str, value: Any) -> None:
        if not fits(value):
            raise error(f"{function}: {name} must be {wanted}, got {describe(value)}")
    return Kind(check, plain)


_tensors: set[type] = set()


def _is_tensor(value: Any) -> bool:
    if hasattr(type(value), "_record"):
        _tensors.add(type(value))              # the next one needs no look
        return True
    return isinstance(value, np.ndarray) and value.dtype in DTYPES


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating))


def _is_int(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _are_ints(value: Any) -> bool:
    return _is_int(value) or isinstance(value, (tuple, list)) and all(map(_is_int, value))


def _check_number(function: str, name: str, value: Any) -> None:
    VALUE.check(function, name, value)
    if value != value:
        raise ValueError(f"{function}: {name} must be a number, got NaN")


def _check_padding(function: str, name: str, value: Any) -> None:
    if not isinstance(value, str):
        pair(function, name, value, minimum=0)
    elif value not in ("same", "valid"):
        raise ValueError(f"{function}: {name} must be 'same', 'valid', an int or a pair, got {value!r}")


def _check_output_size(function: str, name: str, value: Any) -> None:
    """An int or a pair, or None for the input's."""
    sizes = value if isinstance(value, (tuple, list)) else [value]
    pair(function, name, tuple([1 if size is None else size for size in sizes]), minimum=1)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and 0 < value < math.inf


def _are_positive(value: Any) -> bool:
    return all(map(_is_positive, value if isinstance(value, (tuple, list)) else [value]))


def _number(value: Any) -> Any:
    """The number in a tensor without dims, which does for a number, as in PyTorch, if no gradient is lost; else the value itself."""
    return value.item() if hasattr(type(value), "_record") and value.ndim == 0 and not value.requires_grad else value


def _pair(least: int) -> Kind:
    return Kind(lambda function, name, value: pair(function, name, value, minimum=least))


TENSOR = _kind("a Tensor, or an array of a dtype that tensors hold", _is_tensor, _tensors)
FLAG = _kind("True or False", lambda value: isinstance(value, np.bool_) or _is_int(value) and value in (0, 1), frozenset({bool}))
INT = _kind("an int", _is_int, frozenset({int}))
INTS = _kind("an int, or several", _are_ints, frozenset({int}))
VALUE = _kind("a real number", _is_number, frozenset({int, float}))
NUMBER = Kind(_check_number, frozenset({int}))
SHARE = _kind("a number in 0 .. 1", lambda value: _is_number(value) and 0 <= value <= 1, error=ValueError)
TEXT = _kind("a string", lambda value: isinstance(value, str), frozenset({str}))
FUNCTION = _kind("a function", callable)
NUMBERS = (INT, INTS, VALUE, NUMBER, SHARE)
LAYER = _kind("a name or a Module", lambda value: value is None or isinstance(value, str) or hasattr(value, "named_modules"))

BY_ANNOTATION = {"Tensor": TENSOR, "Tensor | np.ndarray": TENSOR, "bool": FLAG, "int": INT, "float": NUMBER, "str": TEXT, "Layer": LAYER}
BY_NAME = {
    **dict.fromkeys(("x", "y", "x1", "x2", "input", "src", "condition", "mask", "running_mean", "running_var"), TENSOR),
    **dict.fromkeys(("keepdim", "descending", "largest", "unbiased", "ceil_mode", "return_indices", "count_include_pad", "inplace", "relu",
                     "requires_grad", "training"), FLAG),
    **dict.fromkeys(("start_dim", "end_dim", "dim0", "dim1", "chunks", "diagonal", "steps", "n", "m"), INT),
    **dict.fromkeys(("source", "destination", "shifts"), INTS),
    **dict.fromkeys(("correction", "alpha", "beta", "delta", "momentum", "eps", "p"), NUMBER),
    **dict.fromkeys(("fill_value", "value", "val"), VALUE),
    "label_smoothing": SHARE, "divisor_override": INT, "func": FUNCTION, "collate_fn": FUNCTION,
    "transform": FUNCTION, "target_transform": FUNCTION,
}
BY_FUNCTION: dict[str, dict[str, Kind | None]] = {
    **{name: {"weight": TENSOR, "bias": TENSOR, "groups": INT} for name in (
        "conv2d", "conv_transpose2d", "local_conv2d", "linear", "batch_norm")},
    **{name: dict.fromkeys(("start", "end", "step"), NUMBER) for name in ("arange", "linspace")},
    "where": {"x": None, "y": None}, "model": {"x": None}, "copy_": {"source": None}, "is_tensor": {"value": None},
    "fill_": {"value": None}, "masked_fill": {"value": None}, "ZeroPad2d": {"padding": None}, "Unflatten": {"unflattened_size": INTS},
    "Fold": {"output_size": _pair(1)}, "randint": {"high": INTS},
}
"""Where a name means something else, or alone says too little."""
OF_LAYERS = {
    **dict.fromkeys(("kernel_size", "stride", "dilation", "size"), _pair(1)), "output_padding": _pair(0), "padding": Kind(_check_padding),
    "output_size": Kind(_check_output_size), "scale_factor": _kind("a positive number, or a pair", _are_positive, error=ValueError),
}
"""What functions check themselves, but layers are told long before they are called."""


def _kind_of(function: Callable[..., Any], parameter: inspect.Parameter) -> Kind | None:
    name, makes = function.__name__, function.__name__ == "__init__"
    special = BY_FUNCTION.get(function.__qualname__.split(".")[-2] if makes else name, {})
    table = {**BY_NAME, **(OF_LAYERS if makes else {}), **special}
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return None
    return table[parameter.name] if parameter.name in table else BY_ANNOTATION.get(_annotation(parameter))


def _annotation(parameter: inspect.Parameter) -> str:
    text = str(parameter.annotation).removesuffix(" | None")
    return text


@functools.cache
def _compiled(source: str) -> Any:
    return compile(source, "<arguments>", "exec")


@functools.cache
def checked(function: Any) -> Any:
    """The function behind a door: one of the same signature that checks its arguments by their kinds, and names its errors.

    It is written out and compiled, as `namedtuple` does it: a loop over the arguments would take three times as long.
    """
    parameters = list(inspect.signature(function).parameters.values())
    scope: dict[str, Any] = {"_function": function, "_type": type, "_named": named_error, "_NAMELESS": NAMELESS, "_name": function.__name__,
                             "_number": _number, "_names": [p.name for p in parameters if p.name != "self"]}
    name = "_type(self).__name__" if function.__name__ == "__init__" else "_name"
    head: list[str] = []
    checks, passed = [], []
    for i, p in enumerate(parameters):
        scope[f"_default{i}"] = p.default
        star = "*" if p.kind is p.VAR_POSITIONAL else "**" if p.kind is p.VAR_KEYWORD else ""
        if p.kind is p.KEYWORD_ONLY and not any(h.startswith("*") for h in head):
            head.append("*")
        head.append(f"{star}{p.name}" + (f"=_default{i}" if p.default is not p.empty else ""))
        passed.append(f"{p.name}={p.name}" if p.kind is p.KEYWORD_ONLY else f"{star}{p.name}")
        kind = _kind_of(function, p)
        if kind is not None:
            scope[f"_plain{i}"], scope[f"_check{i}"] = kind.plain, kind.check
            unless_none = f" and {p.name} is not None" if p.default is None or _annotation(p) != str(p.annotation) else ""
            number = f"{p.name} = _number({p.name}); " if kind in NUMBERS else ""
            checks.append(f"    if _type({p.name}) not in _plain{i}{unless_none}: {number}_check{i}({name}, {p.name!r}, {p.name})\n")
    source = (f"def call({', '.join(head)}):\n{''.join(checks)}"
              f"    try:\n        return _function({', '.join(passed)})\n"
              f"    except _NAMELESS as _error:\n        raise _named(_error, {name}, _names) from _error.__cause__\n")
    exec(_compiled(source), scope)
    return functools.update_wrapper(scope["call"], function)


def guard(namespace: dict[str, Any], names: Collection[str] | None = None) -> None:
    """Put the door in front of the public functions and constructors in a module's namespace: those named, or all of this package."""
    for name, value in list(namespace.items()):
        if name.startswith("_") or not getattr(value, "__module__", "").startswith(PACKAGE) or names is not None and name not in names:
            continue
        if isinstance(value, FunctionType):
            namespace[name] = checked(value)
        elif isinstance(value, type):
            guard_constructor(value)


def guard_methods(cls: type) -> None:
    """Put the door in front of a class's public methods."""
    for name, value in list(vars(cls).items()):
        if isinstance(value, FunctionType) and not name.startswith("_") and len(inspect.signature(value).parameters) > 1:
            setattr(cls, name, checked(value))


def guard_constructor(cls: type) -> None:
    """Put the door in front of the constructor that a class of this package defines."""
    own = vars(cls).get("__init__")
    if cls.__module__.startswith(PACKAGE) and isinstance(own, FunctionType) and own.__code__.co_filename != "<arguments>":
        cls.__init__ = checked(cls.__init__)   # type: ignore[misc]
