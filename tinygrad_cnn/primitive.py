"""A primitive: an array function with derivative rules written in Tensors.

    @primitive
    def square(x):                       # the forward: arrays in, array out
        return x * x

    @square.vjp(0)                       # one rule per differentiable argument
    def _(g, x):                         # a rule names what it needs, and only that is saved
        return 2 * g * x                 # Tensors in, a Tensor out: so every derivative order works

Called with plain arrays a primitive just runs; called with a Tensor it hands itself to that Tensor's class to be
recorded. Therefore this module knows nothing of Tensors, and every forward can be tested with no engine at all.
"""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import numpy as np

registry: dict[str, Primitive] = {}
"""Every primitive by name; the tests walk it to find one without samples."""


NAMELESS = (TypeError, ValueError, IndexError, KeyError, AttributeError, ZeroDivisionError, OverflowError, MemoryError, RuntimeError)
"""Exceptions of Python and NumPy, whose messages may leave open where they come from."""


def named_error(error: Exception, function: str, parameters: Sequence[str] = ()) -> Exception:
    """The error itself, if it names the function or one of its parameters, or is of somebody's own class; else one that does."""
    text = str(error)
    if any(re.search(rf"\b{re.escape(name)}\b", text) for name in (function, *parameters)):
        return error
    kind = type(error)
    if kind.__module__.partition(".")[0] == "numpy":
        kind = next(base for base in NAMELESS if isinstance(error, base))
    if kind not in NAMELESS:
        return error
    return (TypeError if kind is AttributeError else kind)(f"{function}: {text}").with_traceback(error.__traceback__)


class _Silence(threading.local):
    on = False


_silence = _Silence()


@contextmanager
def silence() -> Iterator[None]:
    """Inside, this thread's primitives need not each tell NumPy to keep quiet, which costs as much as a small sum."""
    before, _silence.on = _silence.on, True
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        _silence.on = before


class Rule:
    """A vector-Jacobian rule and the names it asks for.

    A rule's parameters are looked up by name: `g` is the cotangent, an argument's name its value, `<argument>_shape` /
    `<argument>_dtype` facts that save no memory, an output's name (`out` by default) the result, an attribute's name
    the attribute. `needs` (joint rules) tells per argument whether its gradient is wanted. `spare` tells whether nobody
    else will read g's memory, so that the rule may write its result there; it is for rules that run alone: joint ones,
    and those of an only argument.
    """

    def __init__(self, function: Callable[..., Any], owner: Primitive):
        self.function = function
        self.reads: list[tuple[str, Any]] = []
        for name in inspect.signature(function).parameters:
            base, _, fact = name.rpartition("_")
            if name in ("g", "needs"):
                self.reads.append((name, None))
            elif name in owner.arguments:
                self.reads.append(("argument", owner.arguments.index(name)))
            elif name in owner.returns:
                self.reads.append(("output", owner.returns.index(name)))
            elif name in owner.attributes:
                self.reads.append(("attribute", name))
            elif owner.variadic and name == owner.variadic:
                self.reads.append(("arguments", None))
            elif fact in ("shape", "dtype") and base in owner.arguments:
                self.reads.append((fact, owner.arguments.index(base)))
            elif fact in ("shapes", "dtypes") and base == owner.variadic:
                self.reads.append((fact, None))
            elif name == "spare":
                self.reads.append((name, None))
            else:
                raise TypeError(
                    f"{owner.name}: a rule asks for {name!r}; it may name g, needs, spare, an argument {owner.arguments}, "
                    f"<argument>_shape, <argument>_dtype, an output {owner.returns} or an attribute {owner.attributes}"
                )
        self.saves_arguments = {i for kind, i in self.reads if kind == "argument"}
        self.saves_all = any(kind == "arguments" for kind, _ in self.reads)
        self.saves_outputs = {i for kind, i in self.reads if kind == "output"}
        self.overwrites = ("spare", None) in self.reads


class Primitive:
    """An array function that a Tensor can record; see the module's docstring.

    Args:
        forward: arrays positional, attributes keyword-only (or, for a variadic primitive, `*arrays`). Returns an
            array, or one array per name in `returns`.
        name: what errors, graphs and the registry call it; the function's name by default.
        returns: names of the outputs.
        view: the output may share memory with the first argument, as a reshape does: True, or a function like `forward` that
            raises ValueError where the output would have to be a copy.
        broadcasts: the arguments broadcast against each other; backward sums a gradient back to its argument's shape.
        over: for in-place operations, a function like `forward` that writes the result over the first argument and returns True,
            or changes nothing and returns False.
    """

    def __init__(self, forward: Callable[..., Any], *, name: str = "", returns: tuple[str, ...] = ("out",),
                 view: bool | Callable[..., Any] = False, broadcasts: bool = False, over: Callable[..., bool] | None = None):
        self.forward, self.name, self.returns = forward, name or forward.__name__, returns
        self.view: Callable[..., Any] | None = (forward if view is True else view) or None
        self.broadcasts, self.over = broadcasts, over
        self.__name__, self.__doc__, self.__wrapped__ = self.name, forward.__doc__, forward
        forward.__qualname__ = self.name       # what Python says of a wrong number of arguments
        self.__module__, self.__qualname__ = forward.__module__, self.name
        parameters = inspect.signature(forward).parameters.values()
        self.arguments = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
        self.attributes = tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
        self.variadic = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "")
        self.defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}
        self._known = frozenset(self.attributes)
        self.rules: dict[int, Rule] = {}
        self.joint_rule: Rule | None = None
        self.overwrites = False                # whether a rule may write over the cotangent
        self._plans: dict[tuple[bool, ...], tuple[frozenset[int], frozenset[int]]] = {}
        registry[self.name] = self

    def __call__(self, *args: Any, **attributes: Any) -> Any:
        """Run on arrays, or let the first Tensor among the arguments record the call."""
        if attributes and not self._known.issuperset(attributes):
            args, attributes = self._bind(args, attributes)
        for argument in args:
            record = getattr(type(argument), "_record", None)
            if record is not None:
                return record(self, args, attributes)
        return self.run(args, attributes)

    def _bind(self, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments by position, also those that were given by name."""
        try:
            bound = inspect.signature(self.forward).bind(*args, **given)
        except TypeError as error:
            raise TypeError(f"{self.name.lstrip('_')}: {error}") from None
        return bound.args, bound.kwargs

    def run(self, arrays: Sequence[Any], attributes: dict[str, Any]) -> Any:
        """The forward on arrays. Silent, as PyTorch is: NaN and Inf are values, found by looking at the result."""
        try:
            if _silence.on:
                return self.forward(*arrays, **attributes)
            with np.errstate(all="ignore"):
                return self.forward(*arrays, **attributes)
        except NAMELESS as error:
            raise named_error(error, self.name.lstrip("_"), self.arguments) from error.__cause__

    def run_over(self, arrays: Sequence[Any], attributes: dict[str, Any]) -> bool:
        """Write the result over the first array, if that can be done; as silent as `run`."""
        with np.errstate(all="ignore"):
            return self.over is not None and self.over(*arrays, **attributes)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """As a class attribute a primitive is a method: `x.exp()` is `exp(x)`."""
        return self if instance is None else MethodType(self, instance)

    def vjp(self, argument: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register the rule of one argument: `(g, names it needs ...) -> its gradient`."""
        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self.rules[argument] = Rule(function, self)
            self.overwrites |= self.rules[argument].overwrites
            self._plans.clear()
            return function
        return register

    def joint_vjp(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Register one rule for all arguments, `(g, needs, ...) -> a tuple of gradients`, None where not needed.

        For arguments that share work. With several outputs `g` is a tuple, None for an output nobody used.
        """
        self.joint_rule = Rule(function, self)
        self.overwrites |= self.joint_rule.overwrites
        self._plans.clear()
        return function

    def plan(self, wanted: tuple[bool, ...]) -> tuple[frozenset[int], frozenset[int]]:
        """Which arguments and which outputs the rules of the wanted arguments read, so must be saved."""
        if wanted not in self._plans:
            if self.joint_rule is not None:
                rules = [self.joint_rule]
            else:
                rules = [self.rules[i] for i, want in enumerate(wanted) if want]
            arguments = {i for rule in rules for i in rule.saves_arguments if i < len(wanted)}
            if any(rule.saves_all for rule in rules):
                arguments = set(range(len(wanted)))
            self._plans[wanted] = frozenset(arguments), frozenset(i for rule in rules for i in rule.saves_outputs)
        return self._plans[wanted]

    def differentiable(self, argument: int) -> bool:
        """Whether a rule leads from the output back to this argument."""
        return self.joint_rule is not None or argument in self.rules

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


def primitive(forward: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Make a function of arrays a `Primitive`; as a decorator with or without options.

    Example:
        >>> import numpy as np
        >>> import tinygrad_cnn as tg
        >>> from tinygrad_cnn.primitive import primitive
        >>> @primitive
        ... def cube(x):
        ...     return x**3
        >>> @cube.vjp(0)
        ... def _(g, x):
        ...     return 3 * g * x * x
        >>> x = tg.tensor(2.0, requires_grad=True)
        >>> cube(x).backward()
        >>> x.grad
        tensor(12., dtype=float32)
    """
    if forward is None:
        return lambda function: Primitive(function, **options)
    return Primitive(forward, **options)
