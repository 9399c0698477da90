"""Layer 0: numba loops over NumPy arrays that know neither Tensor nor graph.

Every entry takes C-contiguous float32 or float64 arrays (images channels-last, (N, H, W, C)), tuples of integers, and
writes its result into the last argument(s). Nothing is validated here: callers check shapes, dtypes and indices first. No load or
store touches memory outside an array, not even in lanes that a mask throws away (`tests/kernels/test_guard.py`); prefetches may.
Submodules are imported at first use, so `from tinygrad_cnn import kernels` does not import numba.
"""

import importlib
from types import ModuleType

__all__ = ["conv", "dropout", "elementwise", "norm", "optim", "pool", "resize", "unfold"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
