"""Choices about how results are computed, never about what they mean.

Example:
    >>> import tinygrad_cnn.backends
    >>> tinygrad_cnn.backends.conv.algorithm
    'auto'
"""

from __future__ import annotations

import os
from numbers import Integral

from ..kernels import options
from . import blas

__all__ = ["conv", "get_num_threads", "set_num_threads"]

ALGORITHMS = ("auto", "direct", "winograd")


class _Conv:
    """Convolution.

    `algorithm` names what computes 3x3 convolutions of stride 1 and dilation 1 with one group in float32, and their
    gradients; all others, and all in float64, are always sums over taps ("direct").

        "auto": whichever is likely faster for the shape.
        "direct": sums over taps; error against float64 below 1e-6 of the largest output.
        "winograd": Winograd's F(4x4, 3x3), with a quarter of the multiplications; error against float64 below 2e-5 of
            the largest output, or gradient, for up to 512 channels. NaN and Inf spread over 4 x 4 pixels of the output.
    """

    @property
    def algorithm(self) -> str:
        """The algorithm in use."""
        return options.conv_algorithm

    @algorithm.setter
    def algorithm(self, name: str) -> None:
        if name not in ALGORITHMS:
            raise ValueError(f"backends.conv.algorithm: expected one of {', '.join(ALGORITHMS)}, got {name!r}")
        options.conv_algorithm = name


conv = _Conv()


def _cores() -> int:
    """The threads that numba will have: NUMBA_NUM_THREADS, or the cores this process may use."""
    if asked := os.environ.get("NUMBA_NUM_THREADS"):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def get_num_threads() -> int:
    """How many threads a large operation is spread over: by default one for each core. Small work stays on one thread."""
    return options.threads or _cores()


def set_num_threads(threads: int) -> None:
    """Set how many threads a large operation is spread over, in all of the process; results have the same bits for any number.

    Unlike in PyTorch there are never more than cores, or than NUMBA_NUM_THREADS says. NumPy's matrix products, which
    linear layers use, follow.

    Args:
        threads: at least 1.

    Raises:
        TypeError, ValueError: not an int, or less than 1.

    Example:
        >>> import tinygrad_cnn as tg
        >>> tg.set_num_threads(1)
        >>> tg.get_num_threads()
        1
        >>> tg.set_num_threads(64)
        >>> 1 <= tg.get_num_threads() <= 64
        True
    """
    if not isinstance(threads, Integral) or isinstance(threads, bool):
        raise TypeError(f"set_num_threads: threads must be an int, got {threads!r}")
    if threads < 1:
        raise ValueError(f"set_num_threads: threads must be at least 1, got {threads}")
    options.threads = min(int(threads), _cores())
    blas.set_num_threads(options.threads)
