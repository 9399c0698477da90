"""Arrays that stay as they are for long: what kernels make of them (packed, transposed, transformed) is kept meanwhile."""

import weakref
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..memory import owner


class Stamped(Protocol):
    """Whose `stamp` changes with every write to an array, and equals nothing while others may write to it unseen."""

    @property
    def stamp(self) -> float:
        """A number."""


class _Never:
    stamp = 0.0


class _Made(NamedTuple):
    reference: weakref.ref[np.ndarray]
    storage: Stamped
    stamp: float
    results: dict[Hashable, np.ndarray] | None


_made: dict[int, _Made] = {}


def declare(array: np.ndarray, storage: Stamped | None = None) -> None:
    """Say that this array may be read many times between writes, of which `storage` knows; without one, that there are none.

    What is made of it is kept from the second time on that this is said of the same values: a step of training writes in between.
    """
    memory = owner(array)
    key, storage = id(memory), storage or _Never()
    made = _made.get(key)
    again = made is not None and made.storage is storage and made.stamp == storage.stamp
    if not again or made is not None and made.results is None:
        pop = _made.pop                        # at the interpreter's end globals go before arrays do
        _made[key] = _Made(weakref.ref(memory, lambda _: pop(key, None)), storage, storage.stamp,
                           {} if again or type(storage) is _Never else None)


def forget(array: np.ndarray) -> None:
    """Take back what `declare` said, and give back the memory."""
    if _made:
        _made.pop(id(owner(array)), None)


def is_kept(array: np.ndarray) -> bool:
    """Whether what is made of this array is kept."""
    return _results(array) is not None


def _results(array: np.ndarray) -> dict[Hashable, np.ndarray] | None:
    made = _made.get(id(owner(array)))
    return None if made is None or made.stamp != made.storage.stamp else made.results


def remembered(array: np.ndarray, key: tuple[Any, ...], make: Callable[[], np.ndarray]) -> np.ndarray:
    """What `make` returns: of a declared array only once for each key. The result is then declared, too.

    Several arrays may be views of the memory that was declared: where one begins, its shape, strides and dtype are part of the key.
    """
    results = _results(array)
    if results is None:
        return make()
    key = (*key, array.__array_interface__["data"][0], array.shape, array.strides, array.dtype)
    if key not in results:
        result = make()
        declare(result)
        results[key] = result
    return results[key]
