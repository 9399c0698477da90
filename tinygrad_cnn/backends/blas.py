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


def _loaded() -> Iterator[Setting]:
    """The settings of the BLAS libraries loaded now. One on OpenMP has none: it shares the threads of the kernels."""
    from threadpoolctl import ThreadpoolController  # looks through all loaded libraries

    for library in ThreadpoolController().select(user_api="blas").lib_controllers:
        if getattr(library, "threading_layer", None) == "openmp":
            continue
        setting: Setting = library.get_num_threads, library.set_num_threads
        if library.internal_api == "openblas":             # itself: threadpoolctl may let only one Python thread set it
            functions = ctypes.PyDLL(library.filepath)     # PyDLL: calls that take less than giving up the interpreter's lock
            for prefix, suffix in itertools.product(("", "scipy_"), ("", "64_", "_64")):
                if hasattr(functions, f"{prefix}openblas_get_num_threads{suffix}"):
                    setting = functions[f"{prefix}openblas_get_num_threads{suffix}"], functions[f"{prefix}openblas_set_num_threads{suffix}"]
        yield setting


@functools.cache
def _settings() -> list[Setting]:
    """Those of the libraries that are there at the first large product: NumPy's is."""
    return list(_loaded())


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
        """Those inside are threads of the parent."""
        self.lock, self.inside = threading.RLock(), set()
        self.__exit__()


one_thread = _OneThread()
"""`with one_thread:` around a product."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=one_thread.after_fork_in_child)


def set_num_threads(threads: int) -> None:
    """Set the threads of every loaded BLAS, for products to come: those that are kept to one thread go on so."""
    with one_thread.lock:
        for _, put in _loaded():
            put(threads)
        one_thread.saved = [(setting, threads) for setting, _ in one_thread.saved]
        for (_, put), _ in one_thread.saved:
            put(1)
