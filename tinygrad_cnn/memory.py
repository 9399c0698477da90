"""A pool of buffers behind every large result, and what it holds.

Memory new to a process is mapped, zeroed page by page and unmapped again: for an activation of some megabytes that takes as
long as the convolution that fills it. A training step asks for the same sizes over and over, so what its arrays leave behind
serves the next ones. A buffer comes back when the last view of its array is gone, whichever thread or exception drops it.
"""

from __future__ import annotations

import contextlib
import functools
import math
import mmap
import os
import threading
import weakref
from collections import deque
from typing import Any, NamedTuple

import numpy as np

SMALLEST = 1 << 15  # bytes; malloc serves smaller arrays from its heap, as fast
STEPS = 8  # sizes of buffers between two powers of two
SLACK = 64 << 20  # bytes that may lie idle on top of a quarter of the peak
HUGE = 4 << 20  # bytes from which huge pages are asked for
LINE, COLOURS = 64, 16  # buffers start at different lines of a page: arrays read side by side do not meet in one cache set


class Stats(NamedTuple):
    """What the pool holds: see `stats`."""

    current: int
    peak: int
    cached: int
    reused: int


class _Buffer(NamedTuple):
    """Some mapped memory, where an array starts in it, and its rounded size."""

    mapping: mmap.mmap
    offset: int
    size: int


class _Lease(weakref.ref):
    """A reference to a lent array, called when it dies. NumPy's views of it keep it alive, since its base is no array."""

    __slots__ = ("buffer",)
    buffer: _Buffer


class _Pool:
    """All state but what a dying array may touch: that can happen in any thread, at any time, even under the lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.idle: dict[int, deque[tuple[int, _Buffer]]] = {}  # by size: (when, buffer), the longest idle first
        self.current = self.peak = self.cached = self.reused = self.mapped = self.clock = 0

    def collect(self) -> None:
        """Make what came back idle."""
        while _returned:
            buffer = _returned.popleft()
            self.clock += 1
            self.current -= buffer.size
            self.cached += buffer.size
            self.idle.setdefault(buffer.size, deque()).append((self.clock, buffer))

    def release(self, excess: int) -> None:
        """Unmap buffers, the longest idle first, until `excess` bytes are gone."""
        while excess > 0 and self.cached:
            size = min((size for size, buffers in self.idle.items() if buffers), key=lambda size: self.idle[size][0][0])
            self.idle[size].popleft()
            self.cached -= size
            excess -= size

    def take(self, size: int) -> _Buffer:
        """A buffer, the last one that came back if any did: it may still be in the cache of the processor."""
        with self.lock:
            self.collect()
            buffers = self.idle.get(size)
            if buffers:
                _, buffer = buffers.pop()
                self.cached -= size
                self.reused += 1
            else:
                self.release(self.current + self.cached + size - self.peak - self.peak // 4 - SLACK)
                buffer = _map(size, self.mapped % COLOURS * LINE)
                self.mapped += 1
            self.current += size
            self.peak = max(self.peak, self.current)
        return buffer


_pool = _Pool()
_leases: dict[int, _Lease] = {}
_returned: deque[_Buffer] = deque()


def _after_fork_in_child() -> None:
    _pool.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _came_back(lease: _Lease) -> None:
    _leases.pop(id(lease), None)
    _returned.append(lease.buffer)


def _rounded(nbytes: int) -> int:
    """The size of buffer that serves an array: the next of STEPS sizes between two powers of two."""
    step = max(mmap.PAGESIZE, (1 << (nbytes - 1).bit_length()) // (2 * STEPS))
    return -(-nbytes // step) * step


def _map(size: int, offset: int) -> _Buffer:
    """A new buffer. Private, so that a forked child does not write into its parent's arrays."""
    length = size + LINE * COLOURS
    private = {} if os.name == "nt" else {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}
    try:
        mapping = mmap.mmap(-1, length, **private)
    except (OSError, OverflowError, ValueError) as error:      # by what mmap says of too much, and of more than there can be
        raise MemoryError(f"no memory for an array of {size} bytes") from error
    if hasattr(mmap, "MADV_HUGEPAGE") and length >= HUGE:
        with contextlib.suppress(OSError):     # a kernel without huge pages
            mapping.madvise(mmap.MADV_HUGEPAGE)
    return _Buffer(mapping, offset, size)


def empty(shape: Any, dtype: Any) -> np.ndarray:
    """An array with arbitrary values, like `numpy.empty`; a large one starts at a cache line and comes from the pool.

    Args:
        shape: sizes, a tuple of ints.
        dtype: a NumPy dtype.
    """
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < SMALLEST:
        return np.empty(shape, dtype)
    buffer = _pool.take(_rounded(nbytes))
    array = np.ndarray(shape, dtype, buffer.mapping, buffer.offset)
    lease = _Lease(array, _came_back)
    lease.buffer = buffer
    _leases[id(lease)] = lease
    return array


def empty_like(x: np.ndarray, dtype: Any = None) -> np.ndarray:
    """`empty` of x's shape and layout: its dims lie in memory in the same order, without gaps."""
    if x.nbytes < SMALLEST:
        return np.empty_like(x, dtype)
    if x.flags.c_contiguous:
        return empty(x.shape, dtype or x.dtype)
    order, back = order_of(x.strides)
    return empty(tuple([x.shape[axis] for axis in order]), dtype or x.dtype).transpose(back)


def copy(x: np.ndarray, dtype: Any) -> np.ndarray:
    """x.astype(dtype), in new memory like `empty_like`'s."""
    out = empty_like(x, dtype)
    np.copyto(out, x, casting="unsafe")
    return out


@functools.lru_cache(maxsize=1024)
def order_of(strides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The dims in the order in which they lie in memory, the slowest first, and the transposition that undoes it."""
    order = sorted(range(len(strides)), key=lambda axis: -abs(strides[axis]))
    return tuple(order), tuple(sorted(range(len(order)), key=order.__getitem__))


def is_dense(x: np.ndarray) -> bool:
    """Whether x lies in memory without gaps, in some order of its dims."""
    return x.flags.c_contiguous or x.transpose(order_of(x.strides)[0]).flags.c_contiguous


def owner(array: np.ndarray) -> np.ndarray:
    """The array that an array is, perhaps through others, a view of."""
    while type(array.base) is np.ndarray:
        array = array.base
    return array


def zeros(shape: Any, dtype: Any) -> np.ndarray:
    """`empty`, filled with 0."""
    if math.prod(shape) * np.dtype(dtype).itemsize < SMALLEST:
        return np.zeros(shape, dtype)
    out = empty(shape, dtype)
    out.fill(0)
    return out


def stats() -> Stats:
    """What the pool holds, in bytes.

    Returns:
        A named tuple: `current`, lent to arrays in use; `peak`, the most that was lent at once; `cached`, idle, for
        arrays to come; `reused`, the number of arrays that were served with returned memory.

    Example:
        >>> import tinygrad_cnn as tg
        >>> x = tg.randn(1024, 1024).relu()
        >>> tg.memory.stats().current >= x.nbytes
        True
    """
    with _pool.lock:
        _pool.collect()
        return Stats(_pool.current, _pool.peak, _pool.cached, _pool.reused)


def empty_cache() -> None:
    """Give idle memory back to the system, and count the peak from what is in use now."""
    with _pool.lock:
        _pool.collect()
        _pool.release(_pool.cached)
        _pool.peak = _pool.current
