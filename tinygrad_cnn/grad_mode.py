"""Whether operations are recorded: a mode of each thread, switched for a block or for all that a function does."""

from __future__ import annotations

import copy
import functools
import inspect
import threading
import types
import warnings
from collections.abc import Callable
from typing import Any


class _GradMode(threading.local):
    enabled = True

    def __init__(self) -> None:
        self.entered: list[tuple[_Scope, bool]] = []       # the blocks this thread is in, and the mode before each


_mode = _GradMode()


def is_grad_enabled() -> bool:
    """Whether operations are recorded in this thread."""
    return _mode.enabled


class _Scope:
    """A mode for a block, or for all that a function does.

    The mode before it is kept by the thread, not by the object, which may thus be entered within itself and in several threads.
    """

    mode: bool

    def __enter__(self) -> None:
        _mode.entered.append((self, _mode.enabled))
        _mode.enabled = self.mode

    def __exit__(self, *exc: object) -> None:
        entered = _mode.entered
        for i in range(len(entered) - 1, -1, -1):          # the last, unless a generator was left in the middle of a block
            if entered[i][0] is self:
                _mode.enabled = entered.pop(i)[1]
                break

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate a function, which then runs in this mode."""
        return _decorate(self, function)


def _decorate(scope: _Scope, function: Any) -> Any:
    """The function, running in the scope's mode; of generators and coroutines every resumption does, and only those."""
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(_decorate(scope, function.__func__))
    name = type(scope).__name__
    if not callable(function):
        raise TypeError(f"{name}: can only decorate a function, got {function!r:.80}")
    if isinstance(function, type):
        warnings.warn(f"{name}: of the class {function.__name__} only the constructor will run in this mode; decorate its methods instead",
                      UserWarning, stacklevel=3)
    scope = copy.copy(scope)                   # one that nobody else enters

    def is_a(kind: Callable[[Any], bool]) -> bool:
        return kind(function) or kind(type(function).__call__)

    wrapper: Callable[..., Any]
    if is_a(inspect.isgeneratorfunction):
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return (yield from _resumed(scope, function(*args, **kwargs)))
    elif is_a(inspect.iscoroutinefunction):
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await _resumed(scope, function(*args, **kwargs).__await__())
    elif is_a(inspect.isasyncgenfunction):
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            generator = function(*args, **kwargs)
            step = generator.asend(None)
            while True:
                try:
                    value = await _resumed(scope, step.__await__())
                except StopAsyncIteration:
                    return
                try:
                    step = generator.asend((yield value))
                except BaseException as error:
                    step = generator.athrow(error)
    else:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with scope:
                return function(*args, **kwargs)
    return functools.wraps(function)(wrapper)


@types.coroutine
def _resumed(scope: _Scope, generator: Any) -> Any:
    """`yield from generator` that enters the scope at each resumption and leaves it at each yield; also awaited."""
    resume, sent = generator.send, None
    while True:
        try:
            with scope:
                value = resume(sent)
        except StopIteration as stop:
            return stop.value
        finally:
            sent = None                        # an exception that passed through must not hold this frame, which holds it
        try:
            resume, sent = generator.send, (yield value)
        except BaseException as error:
            resume, sent = generator.throw, error


class set_grad_enabled(_Scope):
    """Switch recording on or off for this thread: a statement, a context manager or a decorator, as in PyTorch.

    As a decorator of a generator, coroutine or asynchronous generator it holds whenever that runs, and not for others
    while it waits.

    Args:
        mode: True records operations on tensors that require grad, False does not.

    Raises:
        TypeError: mode is no bool, as when it is used as a decorator without a mode.

    Example:
        >>> import tinygrad_cnn as tg
        >>> x = tg.ones(2, requires_grad=True)
        >>> with tg.set_grad_enabled(False):
        ...     y = x * 2
        >>> y.requires_grad
        False
    """

    def __init__(self, mode: bool):
        self.mode, self.previous = bool(mode), _mode.enabled
        self.place: Any = threading.get_ident(), len(_mode.entered)
        _mode.enabled = self.mode

    def __enter__(self) -> None:
        self._take_back()
        super().__enter__()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate a function, which then runs in this mode."""
        self._take_back()
        return super().__call__(function)

    def _take_back(self) -> None:
        """It is no statement: undo what constructing it switched, unless other blocks were entered or left since."""
        if self.place == (threading.get_ident(), len(_mode.entered)):
            _mode.enabled = self.previous
        self.place = None


class _Fixed(_Scope):
    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        scope = super().__new__(cls)
        return scope if function is None else scope(function)


class no_grad(_Fixed):
    """Context manager or decorator: nothing inside is recorded.

    As a decorator of a generator, coroutine or asynchronous generator it holds whenever that runs, and not for others
    while it waits. A `with` block around a `yield` or an `await` holds, as in PyTorch, for all that the thread does
    meanwhile: decorate the function instead.

    Example:
        >>> import tinygrad_cnn as tg
        >>> w = tg.ones(2, requires_grad=True)
        >>> (w * w).sum().backward()
        >>> with tg.no_grad():
        ...     w -= 0.1 * w.grad
        >>> w
        tensor([0.8, 0.8], dtype=float32, requires_grad=True)
        >>> @tg.no_grad()
        ... def doubled(batches):
        ...     for x in batches:
        ...         yield 2 * x
        >>> [y.requires_grad for y in doubled([w])]
        [False]
    """

    mode = False


class enable_grad(_Fixed):
    """Context manager or decorator: operations inside are recorded, also within `no_grad`. Otherwise as `no_grad`."""

    mode = True
