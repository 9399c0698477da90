"""Sliding windows against slow loops."""

import numpy as np
import pytest
from hypothesis import given, settings

from tinygrad_cnn.kernels import unfold as kernels

from .reference import assert_unchanged, convs, frozen, poisoned, variant


@pytest.mark.parametrize("name", ["serial", "parallel"])
@settings(max_examples=25, deadline=None)
@given(conv=convs())
def test_unfold_and_fold_equal_the_slow_loop(name, conv):
    x, _, _, _ = conv.arrays()
    how = ((conv.R, conv.S), conv.stride, conv.padding, conv.dilation, (conv.OH, conv.OW))
    shape = (conv.N, conv.OH * conv.OW, conv.R, conv.S, conv.C)
    g = np.random.default_rng(conv.seed).standard_normal(shape).astype(conv.dtype)
    before = frozen(x, g)
    out, back = poisoned(shape, conv.dtype), poisoned(x.shape, conv.dtype)
    with variant(name):
        kernels.unfold(x, *how, out)
        kernels.fold(g, *how, back)
    expected, expected_back = np.zeros(shape), np.zeros(x.shape)
    for i, j, r, s, h, v in conv.taps():
        expected[:, i * conv.OW + j, r, s] = x[:, h, v]
        expected_back[:, h, v] += g[:, i * conv.OW + j, r, s]
    np.testing.assert_array_equal(out, expected)
    largest = np.abs(g).max(initial=0)
    terms = conv.R * conv.S  # a pixel meets each tap once at most
    np.testing.assert_allclose(back, expected_back, rtol=0, atol=terms**2 * np.finfo(conv.dtype).eps * largest)
    assert_unchanged([x, g], before)


def test_nan_and_inf_pass():
    x = np.zeros((1, 3, 3, 2), np.float32)
    x[0, 1, 1] = np.nan, np.inf
    out, back = poisoned((1, 4, 2, 2, 2), np.float32), poisoned(x.shape, np.float32)
    how = ((2, 2), (1, 1), (0, 0), (1, 1), (2, 2))
    kernels.unfold(x, *how, out)
    kernels.fold(out, *how, back)
    assert (~np.isfinite(out)).sum() == 8
    np.testing.assert_array_equal(np.isfinite(back), np.isfinite(x))
