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
        "direct": sums over taps. Error against float64, by norm, about 2e-7, as PyTorch's.
        "winograd": Winograd's F(4x4, 3x3), with a quarter to three tenths of the multiplications. Error by norm about 4e-7, of gradients
            7e-7, for up to 512 channels; below 5e-6 of the largest output.

    Gradients of whole networks in training, relative error by norm, medians of 20 seeds (docs/benchmarks.md has the table): with two
    images PyTorch 1.9e-6, "direct" 1.4e-6, "auto" 3.2e-6 for ResNet-18, and 1.2e-6, 0.9e-6, 1.6e-6 for a DenseNet. Where rounding turns
    the decision of a ReLU, as in most gradients of 32 images, errors are of the order of 1e-3 in any of the three.

    "winograd" computes 4 x 4 outputs from the 6 x 6 pixels that they see, so that one huge value costs its neighbours, up to five pixels
    away, some exactness: each output's error stays below 4e-6 times the largest output that values as large as those of its 6 x 6
    pixels could make. NaN, Inf and overflows reach only outputs that see them: such a convolution is computed again, directly.
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
