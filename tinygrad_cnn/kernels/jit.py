"""How kernels are compiled, cached on disk and run: one place for all of it.

Three environment variables are read when this module is imported:

    TINYGRAD_CNN_CACHE_DIR   folder of compiled kernels, ~ being the user's (default: the user's cache folder)
    TINYGRAD_CNN_PARALLEL    0 compiles every kernel without threads (numba checks bounds only there)
    TINYGRAD_CNN_SIMD        see `tinygrad_cnn.kernels.simd`
"""

import functools
import importlib
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
from numba import njit

from . import options
from .store import KernelCache

# Never "nnan" or "ninf": NaN and Inf must pass through every kernel.
OPTIONS: dict[str, Any] = {
    "fastmath": {"contract", "reassoc", "nsz", "arcp"},
    "error_model": "numpy",
    "boundscheck": False,
}
PARALLEL = os.environ.get("TINYGRAD_CNN_PARALLEL", "1") != "0"
# Work in nanoseconds below which waking other threads costs more than it saves: a parallel region takes 5-20 us, and some
# 50 us where the threads went to sleep meanwhile, as they do between the kernels of a small network.
PARALLEL_WORK: float = 70_000

# How often GNU OpenMP looks for work before a thread sleeps: about 0.3 ms, a little more than Python needs from one kernel to the
# next. To wake a sleeping thread takes 45 us. Its own default, several milliseconds of spinning, takes the cores from the very
# threads waited for wherever other programs run.
SPINS = "20000"

# Kernels that need scratch for each thread take it for this many: the number in use may change before they run.
MAX_THREADS: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]

_door = threading.RLock()
_in_forked_child = False


def _after_fork_in_child() -> None:
    """A child has none of its parent's threads: OpenMP would abort it, so its kernels run on one thread, and none needs the lock."""
    global _in_forked_child
    _in_forked_child = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _load_openmp() -> None:
    """Load OpenMP, which reads its settings only then, with a short wait; the user's own setting stands."""
    if {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        return
    os.environ["GOMP_SPINCOUNT"] = SPINS
    try:
        importlib.import_module("numba.np.ufunc.omppool")
    except ImportError:                        # numba then has another threading layer
        pass
    finally:
        del os.environ["GOMP_SPINCOUNT"]


# Callers own the arrays: without reference counts, whose atomic steps cost more than a small tile, calls are cheap.
INLINE_OPTIONS: dict[str, Any] = {**OPTIONS, "_nrt": False}

inline = njit(**INLINE_OPTIONS)
"""Decorator of the functions that kernels call: compiled into, and cached with, their callers. They allocate nothing."""


class _Alias:
    """Presents the memory of a read-only array as a writable one."""

    def __init__(self, array: np.ndarray) -> None:
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}
        self.owner = array


def _writable(array: np.ndarray) -> np.ndarray:
    """The same memory typed as writable: numba would compile each kernel again for read-only arguments."""
    if array.flags.writeable:
        return array
    if array.size == 0:
        return np.empty(array.shape, array.dtype)
    return np.asarray(_Alias(array))


class Kernel:
    """A loop nest compiled twice at need: on one thread for small work, over all threads for large.

    Which of the two runs depends on the work alone, never on the number of threads, so results have the same bits on
    any number of threads. One lock lets a single Python thread at a time into the parallel variant, because numba's
    `workqueue` threading layer aborts the process when two of them enter it.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        functools.update_wrapper(self, function)
        self._function = function

    @functools.cached_property
    def serial(self) -> Callable[..., None]:
        """The compiled variant without threads."""
        return self._compile(parallel=False)

    @functools.cached_property
    def parallel(self) -> Callable[..., None]:
        """The compiled variant whose `prange` loops are spread over threads."""
        _load_openmp()
        return self._compile(parallel=True)

    def _compile(self, parallel: bool) -> Callable[..., None]:
        dispatcher = njit(parallel=parallel, **OPTIONS)(self._function)
        if hasattr(dispatcher, "_cache"):  # absent under NUMBA_DISABLE_JIT
            dispatcher._cache = KernelCache(self._function, "parallel" if parallel else "serial")
        return dispatcher

    def __call__(self, *args: Any, work: float) -> None:
        """Runs the kernel.

        Args:
            *args: arrays and integers, passed on to the function.
            work: about how many nanoseconds one thread would need.
        """
        for a in args:
            if type(a) is np.ndarray and not a.flags.writeable:
                args = tuple([_writable(a) if type(a) is np.ndarray else a for a in args])
                break
        if not is_parallel(work):
            self.serial(*args)
            return
        with _door:
            parallel = self.parallel           # loads OpenMP our way, before numba is asked about its threads
            if options.threads and options.threads != numba.get_num_threads():     # numba's setting is of this Python thread
                numba.set_num_threads(options.threads)
            parallel(*args)


def is_parallel(work: float) -> bool:
    """Whether a kernel of so many nanoseconds runs on several threads."""
    return work >= PARALLEL_WORK and PARALLEL and not _in_forked_child


@contextmanager
def forced(parallel: bool) -> Iterator[None]:
    """Inside, kernels run on all threads, or on one, however little or much they have to do."""
    global PARALLEL_WORK
    before, PARALLEL_WORK = PARALLEL_WORK, -1 if parallel else math.inf
    try:
        yield
    finally:
        PARALLEL_WORK = before


kernel = Kernel
"""Decorator of the functions that entries call: `kernel(loops)(*args, work=nanoseconds)`."""


def pair(values: Any) -> tuple[int, int]:
    """Two Python integers (NumPy's integer types would compile a kernel again)."""
    first, second = values
    return int(first), int(second)
