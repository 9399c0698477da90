"""Interpolation by tables against slow loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_cnn.kernels import resize as kernels

from .reference import DTYPES, assert_unchanged, frozen, pairs, poisoned, variant


def _table(random, size, outputs):
    lo = random.integers(0, size, outputs)
    hi = np.minimum(lo + random.integers(0, 2, outputs), size - 1)
    return lo, hi, random.choice([0.0, 0.25, 0.7, 1.0], outputs)


@pytest.mark.parametrize("name", ["serial", "parallel"])
@settings(max_examples=30, deadline=None)
@given(N=st.integers(0, 2), size=pairs(1, 9), outputs=pairs(1, 13), C=st.integers(1, 35),
       seed=st.integers(0, 2**31), dtype=st.sampled_from(DTYPES))
def test_resize_and_adjoint_equal_the_slow_loop(name, N, size, outputs, C, seed, dtype):
    random = np.random.default_rng(seed)
    x, g = (random.standard_normal((N, *s, C)).astype(dtype) for s in (size, outputs))
    rows, columns = _table(random, size[0], outputs[0]), _table(random, size[1], outputs[1])
    inputs = [x, g, *rows, *columns]
    before = frozen(*inputs)
    out, back = poisoned(g.shape, dtype), poisoned(x.shape, dtype)
    with variant(name):
        kernels.resize(x, *rows, *columns, out)
        kernels.resize_adjoint(g, *rows, *columns, back)
    expected, expected_back = np.zeros(g.shape), np.zeros(x.shape)
    for i, j in np.ndindex(*outputs):
        for h, v in ((rows[0][i], 1 - rows[2][i]), (rows[1][i], rows[2][i])):
            for w, u in ((columns[0][j], 1 - columns[2][j]), (columns[1][j], columns[2][j])):
                expected[:, i, j] += u * v * x[:, h, w]
                expected_back[:, h, w] += u * v * g[:, i, j]
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(out, expected, rtol=0, atol=8 * eps * np.abs(x).max(initial=0))
    terms = 4 * outputs[0] * outputs[1]
    np.testing.assert_allclose(back, expected_back, rtol=0, atol=terms * eps * np.abs(g).max(initial=0))
    assert_unchanged(inputs, before)


def test_a_pixel_of_weight_zero_stays_out():
    x = np.zeros((1, 2, 2, 1), np.float32)
    x[0, 1, 1] = np.inf
    lo, hi, frac = np.array([0, 0, 1]), np.array([1, 1, 1]), np.array([0.0, 0.5, 0.0])
    out, back = poisoned((1, 3, 3, 1), np.float32), poisoned(x.shape, np.float32)
    kernels.resize(x, lo, hi, frac, lo, hi, frac, out)
    np.testing.assert_array_equal(np.isinf(out[0, ..., 0]), np.outer(lo + frac > 0, lo + frac > 0))
    assert not np.isnan(out).any()
    kernels.resize_adjoint(out, lo, hi, frac, lo, hi, frac, back)
    assert np.isinf(back[0, 1, 1, 0]) and not np.isnan(back).any()
