"""Kernels must not depend on what their scratch memory held before."""

import numpy as np
import pytest

from tinygrad_cnn import memory

collect_ignore = ["guard.py", "ragged.py"]     # they replace allocators, and run in processes of their own


@pytest.fixture(autouse=True, scope="module")
def _poisoned_scratch():
    """`memory.empty` as kernels see it: NaN, or numbers that lie in no array."""
    empty = memory.empty

    def poisoned(shape, dtype):
        array = empty(shape, dtype)
        array.fill(np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).min // 2 if array.dtype.kind == "i" else 77)
        return array

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "empty", poisoned)
        yield
