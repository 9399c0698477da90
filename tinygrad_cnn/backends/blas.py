"""How many threads NumPy's BLAS uses: one setting of the whole process, which several Python threads may want changed at once."""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

Setting = tuple[Callable[[], int], Callable[[int], Any]]
"""What reads and what sets the number of threads of one library."""


def _loaded() -> Iterator[tuple[Setting, bool]]:
    """The setting of each BLAS library that is loaded now, and whether its threads are its own and not OpenMP's."""
    from threadpoolctl import ThreadpoolController  # looks through all loaded libraries

    for library in ThreadpoolController().select(user_api="blas").lib_controllers:
        setting: Setting = library.get_num_threads, library.set_num_threads
        own = getattr(library, "threading_layer", None) != "openmp"
        if own and library.internal_api == "openblas":     # set directly: threadpoolctl may obey one Python thread only
            functions = ctypes.PyDLL(library.filepath)     # which keeps the interpreter's lock: to give it up takes longer than the call
            for prefix, suffix in itertools.product(("", "scipy_"), ("", "64_", "_64")):
                if hasattr(functions, f"{prefix}openblas_get_num_threads{suffix}"):
                    setting = functions[f"{prefix}openblas_get_num_threads{suffix}"], functions[f"{prefix}openblas_set_num_threads{suffix}"]
        yield setting, own


@functools.cache
def _settings() -> list[Setting]:
    """Those to change for a product. OpenMP's threads are the kernels' own, and spin no longer than these."""
    return [setting for setting, own in _loaded() if own]  # at the first large product: NumPy's BLAS is loaded then


class _OneThread:
    """Inside, BLAS keeps to one thread. The first Python thread to enter saves the settings, the last to leave restores them."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.inside: set[int] = set()  # which threads, not how many: one that Ctrl-C stopped half-way in leaves after its next product
        self.saved: list[tuple[Setting, int]] = []

    def __enter__(self) -> None:
        with self.lock:
            if not self.saved:
                self.saved = [(setting, setting[0]()) for setting in _settings()]
                for (_, put), _ in self.saved:
                    put(1)
            self.inside.add(threading.get_ident())

    def __exit__(self, *exc: object) -> None:
        with self.lock:
            self.inside.discard(threading.get_ident())
            if not self.inside:
                for (_, put), threads in self.saved:
                    put(threads)
                self.saved = []

    def after_fork_in_child(self) -> None:
        """The child has none of the threads that are inside."""
        self.lock, self.inside = threading.RLock(), set()
        self.__exit__()


one_thread = _OneThread()
"""`with one_thread:` around a product."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=one_thread.after_fork_in_child)


def set_num_threads(threads: int) -> None:
    """Set the threads of every loaded BLAS. Products that keep to one thread now go on so, and restore this number."""
    with one_thread.lock:
        for (_, put), _ in _loaded():
            put(threads)
        one_thread.saved = [(setting, threads) for setting, _ in one_thread.saved]
        for (_, put), _ in one_thread.saved:
            put(1)
