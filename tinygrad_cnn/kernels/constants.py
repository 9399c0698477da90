"""Arrays that stay as they are for long: what kernels make of them (packed, transposed, transformed) is kept meanwhile."""

import weakref
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..memory import owner


class Versioned(Protocol):
    """Whose `version` grows with every write to an array."""

    version: int


class _Never:
    version = 0


class _Made(NamedTuple):
    reference: weakref.ref[np.ndarray]
    storage: Versioned
    version: int
    results: dict[Hashable, np.ndarray] | None


_made: dict[int, _Made] = {}


def declare(array: np.ndarray, storage: Versioned | None = None) -> None:
    """Say that this array may be read many times between writes, which `storage` counts; without one, that there are none.

    What is made of it is kept from the second time on that this is said of one version: a step of training writes in between.
    """
    memory = owner(array)
    key, storage = id(memory), storage or _Never()
    made = _made.get(key)
    again = made is not None and made.storage is storage and made.version == storage.version
    if not again or made is not None and made.results is None:
        pop = _made.pop                        # at the interpreter's end globals go before arrays do
        _made[key] = _Made(weakref.ref(memory, lambda _: pop(key, None)), storage, storage.version,
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
    return None if made is None or made.version != made.storage.version else made.results


def remembered(array: np.ndarray, key: tuple[Any, ...], make: Callable[[], np.ndarray]) -> np.ndarray:
    """What `make` returns: of a declared array only once for each key. The result is then declared, too."""
    results = _results(array)
    if results is None:
        return make()
    key = (*key, array.shape, array.strides)
    if key not in results:
        result = make()
        declare(result)
        results[key] = result
    return results[key]
