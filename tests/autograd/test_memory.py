"""Graphs are freed by reference counts alone: with the garbage collector off, nothing may stay behind."""

import gc
import sys
import weakref

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn.ops.conv import conv2d
from tinygrad_cnn.ops.norm import batch_norm
from tinygrad_cnn.ops.pool import max_pool2d
from tinygrad_cnn.primitive import primitive

from ..op_samples import SAMPLES

LIMIT = 5 * 2**20
"""Bytes of growth, of 1,000 steps."""


@pytest.fixture
def _no_collector():
    gc.collect()
    gc.freeze()                                # the test's own collections look at nothing older
    gc.disable()
    yield
    gc.enable()


def resident():
    """Bytes of memory in use by this process, from Linux's /proc."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def cnn():
    """A small CNN with batch norm, written by hand: parameters and the loss of a batch."""
    random = np.random.default_rng(0)
    w1, w2, w3 = (tg.tensor(random.standard_normal(shape) * 0.1, dtype=tg.float32, requires_grad=True) for shape in ((8, 1, 3, 3), (8, 8, 3, 3), (10, 8 * 9)))
    scale, shift = tg.ones(8, requires_grad=True), tg.zeros(8, requires_grad=True)
    mean, var = tg.zeros(8), tg.ones(8)

    def loss(x, y):
        h = max_pool2d(batch_norm(conv2d(x, w1, padding=1), mean, var, scale, shift, training=True).relu(), 2)
        h = max_pool2d(conv2d(h, w2, padding=1).relu(), 2)
        return -(h.flatten(1) @ w3.T).log_softmax(1).gather(1, y.unsqueeze(1)).mean()

    return [w1, w2, w3, scale, shift], loss


def grow(step, warm, steps):
    for _ in range(warm):
        step()
    before = resident()
    for _ in range(steps):
        step()
    return resident() - before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("train", [True, False], ids=["training", "forward only"])
def test_a_thousand_steps_of_a_cnn_grow_nothing(train):
    parameters, loss_of = cnn()
    x, y = tg.randn(4, 1, 12, 12), tg.randint(10, size=(4,))

    def step():
        loss = loss_of(x, y)
        if train:
            loss.backward()
            with tg.no_grad():
                for p in parameters:
                    p -= 0.01 * p.grad
                    p.grad = None

    assert grow(step, 100, 1000) < LIMIT


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("name", [n for n, s in SAMPLES.items() if s[0].order])
@pytest.mark.parametrize("walk", ["forward", "backward", "retained", "create_graph"])
def test_no_primitive_makes_a_cycle(name, walk):
    _watched(name, walk)                       # compiling leaves frames, and what they hold, to the collector
    gc.collect()
    watched = _watched(name, walk)
    assert [w() for w in watched] == [None] * len(watched)


def _watched(name, walk):
    """Weak references to all that one call of a primitive, and the walk back through it, made."""
    sample = SAMPLES[name][0]
    inputs = sample.tensors()
    out = sample.run(*inputs)
    out = out[0] if isinstance(out, tuple) else out
    watched = [weakref.ref(out), weakref.ref(out.grad_fn)]
    if walk != "forward":
        leaves = [t for t in inputs if isinstance(t, tg.Tensor) and t.requires_grad]
        found = tg.autograd.grad(out, leaves, tg.ones_like(out), retain_graph=walk == "retained" or None, create_graph=walk == "create_graph", allow_unused=True)
        watched += [weakref.ref(g) for g in found if g is not None]
    return watched


@pytest.mark.usefixtures("_no_collector")
def test_graphs_with_hooks_retained_gradients_and_in_place_writes_are_freed():
    x = tg.ones(3, requires_grad=True)
    y = x * 3
    y.retain_grad()
    y.register_hook(lambda g: g * 2)
    y.relu_()
    z = (y * y).sum()
    z.backward(retain_graph=True)
    watched = [weakref.ref(t) for t in (y, z, y.grad_fn, z.grad_fn)]
    del y, z
    assert [w() for w in watched] == [None] * 4


@pytest.mark.usefixtures("_no_collector")
def test_a_gradient_with_history_in_dot_grad_is_freed_with_it():
    x = tg.ones(3, requires_grad=True)
    (x**3).sum().backward(create_graph=True)
    node, leaf = weakref.ref(x.grad.grad_fn), weakref.ref(x)
    x.grad = None
    assert node() is None
    del x
    assert leaf() is None


def test_backward_drops_what_was_saved():
    x = tg.ones(3, requires_grad=True)
    y = x.exp()
    z = y.sin()
    assert [name for name, _ in z.grad_fn.saved()] == ["x"] and [name for name, _ in y.grad_fn.saved()] == ["out"]
    z.sum().backward()
    assert list(z.grad_fn.saved()) == list(y.grad_fn.saved()) == []


def test_only_what_the_wanted_gradients_need_is_saved():
    """A first layer's weights are not kept for the gradient of an image that nobody wants."""
    x, w = tg.ones(1, 1, 3, 3), tg.ones(1, 1, 2, 2, requires_grad=True)
    assert [name for name, _ in conv2d(x, w).grad_fn.saved()] == ["x"]
    assert [name for name, _ in conv2d(x.requires_grad_(), w.detach()).grad_fn.saved()] == ["weight"]
    assert list((x + 1).grad_fn.saved()) == []


def test_a_shape_costs_no_memory():
    x = tg.ones(1000, requires_grad=True)
    y = x * 2
    data = weakref.ref(y._data)
    z = y.sum()
    del y
    assert data() is None and z.requires_grad


def test_intermediate_cotangents_are_freed_on_the_way():
    live, most = [0], [0]

    @primitive
    def counted(x):
        return x + 1

    @counted.vjp(0)
    def _(g):
        out = g * 1
        live[0] += 1
        most[0] = max(most[0], live[0])
        weakref.finalize(out, lambda: live.__setitem__(0, live[0] - 1))
        return out

    x = tg.ones(10, requires_grad=True)
    y = x
    for _ in range(50):
        y = counted(y)
    y.sum().backward()
    assert most[0] <= 3
