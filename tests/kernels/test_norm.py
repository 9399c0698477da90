"""Channel statistics and normalisation against NumPy in float64 or better."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_cnn.kernels import norm

from .reference import DTYPES, assert_unchanged, frozen, poisoned, variant

VARIANTS = pytest.mark.parametrize("name", ["serial", "parallel"])
MATRICES = {"M": st.integers(1, 3000), "C": st.integers(1, 40), "dtype": st.sampled_from(DTYPES),
            "seed": st.integers(0, 2**31)}


@VARIANTS
@settings(max_examples=25, deadline=None)
@given(**MATRICES)
def test_mean_and_variance(name, M, C, dtype, seed):
    random = np.random.default_rng(seed)
    x = (random.standard_normal((M, C)) * random.uniform(0.01, 10, C) + random.uniform(-1e3, 1e3, C)).astype(dtype)
    before = frozen(x)
    mean, var = poisoned((C,), dtype), poisoned((C,), dtype)
    with variant(name):
        norm.channel_mean_var(x, mean, var)
    exact = x.astype(np.longdouble)
    # The result is rounded; and each float64 addition rounds a sum of deviations, at most the range each, four by four
    # (Higham 2002, "Accuracy and Stability of Numerical Algorithms", eq. 4.4).
    additions = np.finfo(float).eps * (M / 4 + 8) * np.ptp(exact, axis=0)
    assert (np.abs(mean - exact.mean(axis=0)) <= np.finfo(dtype).eps * np.abs(exact.mean(axis=0)) + additions).all()
    np.testing.assert_allclose(var, exact.var(axis=0).astype(dtype), rtol=1e-5 if dtype == np.float32 else 1e-9)
    assert_unchanged([x], before)


def test_a_mean_far_above_the_deviation_costs_no_accuracy():
    x = (1e4 + 0.01 * np.random.default_rng(0).standard_normal((100_000, 3))).astype(np.float32)
    mean, var = poisoned((3,), np.float64), poisoned((3,), np.float64)
    norm.channel_mean_var(x, mean, var)
    np.testing.assert_allclose(var, x.astype(np.longdouble).var(axis=0).astype(float), rtol=1e-9)
    np.testing.assert_allclose(mean, x.astype(np.longdouble).mean(axis=0).astype(float), rtol=1e-15)


def test_statistics_of_one_row_and_of_none():
    mean, var = poisoned((2,), np.float32), poisoned((2,), np.float32)
    norm.channel_mean_var(np.array([[3, 4]], np.float32), mean, var)
    assert (mean == [3, 4]).all() and (var == 0).all()
    norm.channel_mean_var(np.empty((0, 2), np.float32), mean, var)
    assert np.isnan(mean).all() and np.isnan(var).all()


@VARIANTS
@settings(max_examples=25, deadline=None)
@given(**MATRICES, relu=st.booleans())
def test_batch_norm_passes(name, M, C, dtype, seed, relu):
    random = np.random.default_rng(seed)
    g, x = (random.standard_normal((M, C)).astype(dtype) for _ in range(2))
    mean, weight, shift = (random.standard_normal(C).astype(dtype) for _ in range(3))
    invstd = random.uniform(0.1, 3, C).astype(dtype)
    exact = x.astype(np.float64) * weight + shift
    g[np.abs(exact) < 1e-5] = 0                # so near 0 rounding decides what ReLU lets back
    inputs = [g, x, mean, invstd, weight, shift]
    before = frozen(*inputs)
    sum_g, sum_gx = poisoned((C,), dtype), poisoned((C,), dtype)
    scaled, back = poisoned((M, C), dtype), g.copy()
    with variant(name):
        norm.channel_sums(g, x, mean, invstd, weight, shift, relu, sum_g, sum_gx)
        norm.normalize(x, weight, shift, relu, scaled)
        norm.batch_norm_input_grad(x, mean, invstd, weight, weight, shift, relu, sum_g, sum_gx, back)
    assert_unchanged(inputs, before)
    if relu:
        exact, g = np.maximum(exact, 0), np.where(exact > 0, g, 0)
    eps = np.finfo(dtype).eps
    xhat = (x.astype(np.float64) - mean) * invstd
    bound = 4 * eps + 1e-13  # the longer part: float64 accumulators
    assert (np.abs(sum_g - g.sum(axis=0, dtype=np.float64)) <= bound * np.abs(g).sum(axis=0)).all()
    deviation = (np.abs(x) + np.abs(mean)) * invstd
    assert (np.abs(sum_gx - (g * xhat).sum(axis=0)) <= bound * np.abs(g * deviation).sum(axis=0)).all()
    np.testing.assert_allclose(scaled, exact, rtol=0, atol=32 * eps)
    expected = weight * invstd * (g - sum_g.astype(np.float64) / M - xhat * sum_gx / M)
    terms = np.abs(weight) * invstd * (np.abs(g) + np.abs(sum_g) / M + deviation * np.abs(sum_gx) / M)
    assert (np.abs(back - expected) <= 8 * eps * terms).all()


@VARIANTS
@settings(max_examples=25, deadline=None)
@given(**MATRICES)
def test_relu_gradient_and_its_sum(name, M, C, dtype, seed):
    random = np.random.default_rng(seed)
    g, y = random.standard_normal((M, C)).astype(dtype), np.maximum(random.standard_normal((M, C)), 0).astype(dtype)
    y[random.random((M, C)) < 0.05] = np.nan
    expected, before = np.where((y > 0) | np.isnan(y), g, 0), frozen(y)
    total = poisoned((C,), dtype)
    with variant(name):
        norm.relu_grad_sum(g, y, total)
    assert_unchanged([y], before)
    np.testing.assert_array_equal(g, expected)
    bound = 4 * np.finfo(dtype).eps + 1e-13
    assert (np.abs(total - expected.sum(axis=0, dtype=np.float64)) <= bound * np.abs(expected).sum(axis=0, dtype=np.float64)).all()


def test_a_long_sum_of_ones_is_exact():
    out = poisoned((1,), np.float32)
    norm.channel_sum(np.ones((1 << 25, 1), np.float32), out)
    assert out[0] == 1 << 25


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_inf_stay_in_their_channel(value):
    x = np.ones((50, 20), np.float32)
    x[7, 3] = value
    ones = np.ones(20, np.float32)
    mean, var, sum_g, sum_gx = (poisoned((20,), np.float32) for _ in range(4))
    out = poisoned(x.shape, np.float32)
    norm.channel_mean_var(x, mean, var)
    norm.channel_sums(x, x, ones, ones, ones, ones, False, sum_g, sum_gx)
    for result in (mean, var, sum_g, sum_gx):
        assert not np.isfinite(result[3]) and np.isfinite(np.delete(result, 3)).all()
    norm.normalize(x, ones, ones, True, out)
    assert (~np.isfinite(out)).sum() == 1 and not np.isfinite(out[7, 3])
    out = x.copy()
    norm.batch_norm_input_grad(np.ones_like(x), ones, ones, ones, ones, ones, False, sum_g, ones, out)
    assert not np.isfinite(out[:, 3]).any() and np.isfinite(np.delete(out, 3, axis=1)).all()


def test_no_rows():
    empty, c, out = np.empty((0, 3)), np.ones(3), np.ones(3)
    norm.channel_sums(empty, empty, c, c, c, c, True, out, out.copy())
    norm.normalize(empty, c, c, True, empty.copy())
    norm.batch_norm_input_grad(empty, c, c, c, c, c, True, c, c, empty.copy())
    assert not out.any()
