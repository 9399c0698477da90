"""Rules that may write over their cotangent do so only where nobody else reads it."""

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn.autograd import grad
from tinygrad_cnn.ops.conv import conv2d
from tinygrad_cnn.ops.linalg import linear
from tinygrad_cnn.ops.norm import batch_norm
from tinygrad_cnn.primitive import primitive

SHAPE = (2, 8, 32, 32)
"""Large enough for kernels."""


def probe():
    """An identity that notes whether its rule was told that it may write over the cotangent, and then does."""
    told = []

    @primitive
    def overwritten(x, *, in_place=False):
        return x if in_place else x * 1

    @overwritten.vjp(0)
    def _(g, spare):
        told.append(spare)
        return overwritten(g, in_place=spare)

    return overwritten, told


def test_who_holds_the_cotangent_decides():
    overwritten, told = probe()
    x, c = tg.randn(3, requires_grad=True), tg.randn(3)

    def told_by(walk):
        y = overwritten(x)
        walk(y)
        return told.pop()

    assert told_by(lambda y: (y * 2).backward(c))
    assert told_by(lambda y: (y * 2 + y * 3).backward(c))              # a sum made by backward is its own
    assert told_by(lambda y: [y.retain_grad(), (y * 2).backward(c)])   # keeps a copy
    assert told_by(lambda y: grad(y * 2, x, c))
    assert not told_by(lambda y: y.backward(c))                        # the user's
    assert not told_by(lambda y: (y + x).backward(c))                  # goes two ways
    assert not told_by(lambda y: [y.register_hook(lambda g: None), (y * 2).backward(c)])
    assert not told_by(lambda y: grad(y * 2, [y, x], c))               # is returned
    assert not told_by(lambda y: (y * 2).backward(c, create_graph=True))
    assert not told_by(lambda y: y.sum().backward())                   # is one number, seen as many


def test_what_was_overwritten_may_be_again():
    overwritten, told = probe()
    x = tg.randn(3, requires_grad=True)
    (overwritten(overwritten(overwritten(x))) * 2).backward(tg.randn(3))
    assert told == [True, True, True]


def test_rules_beside_others_are_not_told():
    told = []

    @primitive
    def product(x, y):
        return x * y

    @product.vjp(0)
    def _(g, y, spare):
        told.append(spare)
        return g * y

    @product.vjp(1)
    def _(g, x):
        return g * x

    x, y = tg.randn(3, requires_grad=True), tg.randn(3, requires_grad=True)
    (product(x, y) * 2).sum().backward()
    (product(x, y.detach()) * 2).sum().backward()
    assert told == [False, True]


def weights(*shape):
    return tg.tensor(np.random.default_rng(1).standard_normal(shape), dtype=tg.float32, requires_grad=True)


LAYERS = {
    "relu": lambda x: x.relu(),
    "conv2d": lambda x: conv2d(x, weights(8, 8, 3, 3), weights(8), padding=1, relu=True),
    "conv2d without bias": lambda x: conv2d(x, weights(8, 8, 3, 3), padding=1, relu=True),
    "batch_norm": lambda x: batch_norm(x, None, None, weights(8), weights(8), training=True, relu=True),
    "linear": lambda x: linear(x.reshape(512, 32), weights(32, 32), weights(32), relu=True).reshape(SHAPE),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_that_someone_holds_stay(name):
    layer, x, c, d = LAYERS[name], tg.randn(*SHAPE, requires_grad=True), tg.randn(*SHAPE), tg.randn(*SHAPE)
    expected, = grad(layer(x) * d, x, c, create_graph=True)            # never overwrites
    kept, before = [], c.numpy().copy()

    def walks():
        yield lambda y: (y * d).backward(c)
        yield lambda y: [y.register_hook(lambda g: kept.append(g)), (y * d).backward(c)]
        yield lambda y: [y.retain_grad(), (y * d).backward(c), kept.append(y.grad)]
        yield lambda y: [y.retain_grad(), y.backward(c * d), kept.append(y.grad)]
        yield lambda y: kept.append(grad(y * d, [y, x], c)[0]) or setattr(x, "grad", expected)
        yield lambda y: y.backward(kept.append(c * d) or kept[-1])

    for walk in walks():
        x.grad = None
        walk(layer(x))
        np.testing.assert_allclose(x.grad.numpy(), expected.numpy(), rtol=1e-6, atol=1e-5)
    assert len(kept) == 5
    for g in kept:
        np.testing.assert_array_equal(g.numpy(), (c * d).numpy())
    np.testing.assert_array_equal(c.numpy(), before)


def test_two_paths_from_one_cotangent():
    x, w, c, d = tg.randn(*SHAPE, requires_grad=True), tg.zeros(*SHAPE, requires_grad=True), tg.randn(*SHAPE), tg.randn(*SHAPE)
    ((x.relu() + w) * d).backward(c)                       # the sum hands one cotangent to both
    np.testing.assert_array_equal(w.grad.numpy(), (c * d).numpy())
    np.testing.assert_array_equal(x.grad.numpy(), np.where(x.numpy() > 0, (c * d).numpy(), 0))


def test_a_walk_through_a_retained_graph_twice():
    x, c, d = tg.randn(*SHAPE, requires_grad=True), tg.randn(*SHAPE), tg.randn(*SHAPE)
    out = x.relu() * d
    first, = grad(out, x, c, retain_graph=True)
    second, = grad(out, x, c)
    np.testing.assert_array_equal(first.numpy(), second.numpy())
