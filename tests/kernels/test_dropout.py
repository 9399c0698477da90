"""The dropout kernel against NumPy."""

import numpy as np
import pytest

from tinygrad_cnn.kernels import dropout

from .reference import DTYPES, assert_unchanged, frozen, poisoned, variant


@pytest.mark.parametrize("name", ["serial", "parallel"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0,), (), (7, 33), (3, 5, 2, 70)])
def test_kept_elements_are_scaled_and_others_are_0(name, dtype, shape):
    random = np.random.default_rng(0)
    x, kept = np.asarray(random.standard_normal(shape), dtype), np.asarray(random.random(shape) < 0.5)
    if x.size > 1:
        x.flat[:6], kept.flat[:6] = [np.nan, np.nan, np.inf, np.inf, -np.inf, -np.inf], [True, False] * 3
    before, out = frozen(x, kept), poisoned(shape, dtype)
    with variant(name):
        dropout.keep(x, kept, 1.5, out)
    np.testing.assert_array_equal(out, np.where(kept, x * dtype(1.5), dtype(0)))
    assert_unchanged([x, kept], before)
