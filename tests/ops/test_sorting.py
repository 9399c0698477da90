"""Sorting: values, order of equals, NaN, and gradients that go back to where the values came from."""

import numpy as np
import pytest

import tinygrad_cnn as tg

X = np.random.default_rng(4).normal(size=(3, 5, 2))


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("descending", [False, True])
def test_sort_against_python(dim, descending):
    values, indices = tg.sort(tg.tensor(X), dim, descending)
    expected = np.apply_along_axis(lambda v: sorted(v, reverse=descending), dim, X)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(np.take_along_axis(X, indices.numpy(), dim), expected)


def test_topk_is_the_head_of_the_sorted():
    for largest in (True, False):
        values, indices = tg.tensor(X).topk(2, 1, largest)
        np.testing.assert_array_equal(values, np.sort(X, 1)[:, ::-1][:, :2] if largest else np.sort(X, 1)[:, :2])
        np.testing.assert_array_equal(np.take_along_axis(X, indices.numpy(), 1), values)
    assert tg.tensor(X).topk(0).values.shape == (3, 5, 0) and tg.tensor(2.0).topk(1).values.item() == 2


def test_equal_values_keep_their_order_and_nan_is_largest():
    x = tg.tensor([1.0, float("nan"), 1.0, 3.0])
    assert x.argsort().tolist() == [0, 2, 3, 1] and x.argsort(descending=True).tolist() == [1, 3, 0, 2]
    assert tg.tensor([True, False, True]).sort().indices.tolist() == [1, 0, 2]
    assert tg.tensor(5).argsort().item() == 0


def test_gradients_go_home():
    x = tg.tensor(X, requires_grad=True)
    g = np.random.default_rng(5).normal(size=(3, 2, 2))
    values, indices = x.topk(2, 1)
    values.backward(tg.tensor(g))
    expected = np.zeros_like(X)
    np.put_along_axis(expected, indices.numpy(), g, 1)
    np.testing.assert_array_equal(x.grad, expected)
    leaf = tg.tensor(X[0], requires_grad=True)
    assert tg.autograd.gradgradcheck(lambda t: t.sort(0).values ** 3, leaf)


@pytest.mark.parametrize("k", [-1, 6, 1.0, True])
def test_k_out_of_range(k):
    with pytest.raises(ValueError, match=r"topk: k must be an int in 0 \.\. 5"):
        tg.tensor(X).topk(k, 1)
