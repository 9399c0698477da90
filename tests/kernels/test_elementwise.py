"""Functions of one element."""

import math

import numpy as np
import pytest

from tinygrad_cnn.kernels import elementwise

from .reference import DTYPES, poisoned, variant


@pytest.mark.parametrize("name", ["serial", "parallel"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_erf_equals_the_standard_library(name, dtype):
    x = np.concatenate([np.linspace(-7, 7, 4001), [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-30]]).astype(dtype)
    out = poisoned(x.shape, dtype)
    with variant(name):
        elementwise.erf(x, out)
    np.testing.assert_allclose(out, [math.erf(v) for v in x], rtol=4 * np.finfo(dtype).eps)


def test_erf_takes_any_shape():
    out = poisoned((2, 3, 4), np.float64)
    elementwise.erf(np.ones((2, 3, 4)), out)
    np.testing.assert_array_equal(out, math.erf(1))
    elementwise.erf(np.empty((0, 3)), np.empty((0, 3)))
    scalar = np.empty(())
    elementwise.erf(np.zeros(()), scalar)
    assert scalar == 0


@pytest.mark.parametrize("name", ["serial", "parallel"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_gradient_in_place(name, dtype):
    g, y = np.arange(1.0, 9001).astype(dtype), np.tile([0, 2, math.nan], 3000).astype(dtype)
    with variant(name):
        elementwise.relu_grad(y, g)
    np.testing.assert_array_equal(g, np.where(np.arange(9000) % 3 == 0, 0, np.arange(1.0, 9001)))
