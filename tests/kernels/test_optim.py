"""One step of each optimizer against its formula in NumPy's extended precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_cnn.kernels import optim

from .reference import DTYPES, assert_unchanged, frozen, variant

VARIANTS = pytest.mark.parametrize("name", ["serial", "parallel"])
RATES = {"lr": st.floats(0, 1), "decay": st.sampled_from((0.0, 0.1))}
SIZES = {"size": st.sampled_from((0, 1, 7, 100, optim.BLOCK - 1, optim.BLOCK + 5, 3 * optim.BLOCK)),
         "dtype": st.sampled_from(DTYPES), "seed": st.integers(0, 2**31)}


def _arrays(size, dtype, seed, count):
    random = np.random.default_rng(seed)
    return [random.standard_normal(size).astype(dtype), *(random.uniform(0.1, 2, size).astype(dtype) for _ in range(count))]


def _exact(arrays):
    return [a.astype(np.longdouble) for a in arrays]


def _close(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e.astype(a.dtype), rtol=0, atol=30 * np.finfo(a.dtype).eps * max(1, np.abs(e).max(initial=0)))


@VARIANTS
@settings(max_examples=30, deadline=None)
@given(**SIZES, **RATES, momentum=st.sampled_from((0.0, 0.9)), dampening=st.sampled_from((0.0, 0.3)), first=st.booleans(), nesterov=st.booleans())
def test_sgd(name, size, dtype, seed, lr, decay, momentum, dampening, first, nesterov):
    arrays = w, g, v = _arrays(size, dtype, seed, 2)
    before = frozen(g)
    W, G, V = _exact(arrays)
    G = G + decay * W
    V = (G if first else momentum * V + (1 - dampening) * G) if momentum else V
    W = W - lr * (G if not momentum else G + momentum * V if nesterov else V)
    if first and momentum:
        v[:] = np.nan
    with variant(name):
        optim.sgd(w, g, v if momentum else None, lr, momentum, dampening, decay, first, nesterov)
    _close((w, v), (W, V))
    assert_unchanged([g], before)


@VARIANTS
@settings(max_examples=30, deadline=None)
@given(**SIZES, **RATES, shrink=st.sampled_from((0.0, 0.05)), amsgrad=st.booleans(), t=st.integers(1, 1000))
def test_adam(name, size, dtype, seed, lr, decay, shrink, amsgrad, t):
    arrays = w, g, m, v, largest = _arrays(size, dtype, seed, 4)
    before = frozen(g)
    W, G, M, V, L = _exact(arrays)
    G = G + decay * W
    M = 0.9 * M + (1 - 0.9) * G
    V = 0.99 * V + (1 - 0.99) * G**2
    L = np.maximum(L, V) if amsgrad else L
    W = W - shrink * W - lr * (M / (1 - 0.9**t)) / (np.sqrt((L if amsgrad else V) / (1 - 0.99**t)) + 1e-8)
    with variant(name):
        optim.adam(w, g, m, v, largest if amsgrad else None, lr, 0.9, 0.99, 1e-8, decay, shrink, t)
    _close((w, m, v, largest), (W, M, V, L))
    assert_unchanged([g], before)


@VARIANTS
@settings(max_examples=30, deadline=None)
@given(**SIZES, **RATES, centered=st.booleans(), momentum=st.sampled_from((0.0, 0.9)))
def test_rmsprop(name, size, dtype, seed, lr, decay, centered, momentum):
    arrays = w, g, v, a, b = _arrays(size, dtype, seed, 4)
    v += 4                                     # above the square of any mean
    before = frozen(g)
    W, G, V, A, B = _exact(arrays)
    G = G + decay * W
    V = 0.9 * V + (1 - 0.9) * G**2
    A = 0.9 * A + (1 - 0.9) * G if centered else A
    step = G / (np.sqrt(V - A**2 if centered else V) + 1e-8)
    B = momentum * B + step if momentum else B
    W = W - lr * (B if momentum else step)
    with variant(name):
        optim.rmsprop(w, g, v, a if centered else None, b if momentum else None, lr, 0.9, 1e-8, decay, momentum)
    _close((w, v, a, b), (W, V, A, B))
    assert_unchanged([g], before)


def _everything(dtype):
    """All kernels with all options, one after another, on one parameter of several blocks and its state."""
    size = 2 * optim.BLOCK + 100
    w, g, m, v, a, b, largest = _arrays(size, dtype, 5, 6)
    v += 4                                     # above the square of any mean
    g[3], g[optim.BLOCK + 3] = np.nan, np.inf
    optim.sgd(w, g, m, 0.1, 0.9, 0.1, 0.1, False, True)
    optim.adam(w, g, m, v, largest, 0.1, 0.9, 0.99, 1e-8, 0.1, 0.1, 3)
    optim.rmsprop(w, g, v, a, b, 0.1, 0.9, 1e-8, 0.1, 0.9)
    return w, m, v, a, b, largest


@pytest.mark.parametrize("dtype", DTYPES)
def test_both_variants_give_the_same_bits_and_nan_and_inf_pass(dtype):
    with variant("serial"):
        one = _everything(dtype)
    with variant("parallel"):
        many = _everything(dtype)
    for x, y in zip(one, many, strict=True):
        assert x.tobytes() == y.tobytes()
        assert np.isnan(x[3]) and not np.isfinite(x[optim.BLOCK + 3]) and np.isfinite(x).sum() == x.size - 2


def test_amsgrad_keeps_a_nan():
    nan, one = np.full(1, np.nan, np.float32), np.ones(1, np.float32)
    for largest, g in ((nan.copy(), one), (one.copy(), nan)):
        w = np.ones(1, np.float32)
        optim.adam(w, g, np.zeros_like(w), np.zeros_like(w), largest, 0.1, 0.9, 0.99, 1e-8, 0, 0, 1)
        assert np.isnan(largest).all() and np.isnan(w).all()


def test_any_order_of_dims():
    w = np.arange(24, dtype=np.float32).reshape(2, 3, 1, 4).transpose(3, 2, 0, 1)
    g = np.ones((2, 3, 4, 1), np.float32).transpose(2, 3, 0, 1)      # other strides of the dim of size 1
    expected = w - 0.5
    optim.sgd(w, g, None, 0.5, 0, 0, 0, True, False)
    np.testing.assert_array_equal(w, expected)
