"""Sequential computes batch norm and ReLU in one pass; nothing else may tell the difference."""

import numpy as np
import pytest

import tinygrad_cnn as tg


class Apart(tg.nn.Module):
    """The same layers, called one by one."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def _layers():
    return tg.nn.Sequential(tg.nn.Conv2d(2, 5, 3, dtype=tg.float64), tg.nn.BatchNorm2d(5, dtype=tg.float64), tg.nn.ReLU(),
                            tg.nn.Conv2d(5, 3, 2, dtype=tg.float64), tg.nn.ReLU())


def _all(model, layers, x):
    """Output, gradients, second-order gradients of the parameters and buffers."""
    layers.zero_grad()
    y = model(x)
    parameters = [x, *layers.parameters()]
    weights = tg.arange(y.numel()).reshape(y.shape).to(y.dtype).sin()
    first = tg.autograd.grad((y * weights).sum(), parameters, create_graph=True)
    second = tg.autograd.grad(sum((g * g).sum() for g in first), parameters, allow_unused=True)
    return [y, *first, *(g for g in second if g is not None), *layers.buffers()]


@pytest.mark.parametrize("training", [True, False])
def test_values_gradients_and_buffers_are_the_same(training):
    tg.manual_seed(0)
    layers = _layers()
    copy = _layers()
    layers[1].weight.data = tg.tensor([1.0, -0.5, 2.0, 0.3, 1.5], dtype=tg.float64)
    layers[1].bias.data = tg.tensor([0.1, 0.5, -0.2, 0.0, 1.0], dtype=tg.float64)
    copy.load_state_dict(layers.state_dict())
    x = tg.randn(4, 2, 6, 5, dtype=tg.float64, requires_grad=True)
    for model in (layers, copy):
        model.train(training)
    for a, b in zip(_all(layers, layers, x), _all(Apart(copy), copy, x), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("index", [1, 2])
@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"])
def test_hooks_see_the_value_between(index, register):
    layers = _layers()
    seen = []
    getattr(layers[index], register)(lambda *args: seen.append(args))
    x = tg.randn(4, 2, 6, 5, dtype=tg.float64, requires_grad=True)
    layers(x).sum().backward()
    assert len(seen) == 1
    between = seen[0][-1][0] if isinstance(seen[0][-1], tuple) else seen[0][-1]
    assert between.shape == (4, 5, 4, 3)
    if "forward" in register:                  # only what ReLU returned has no negative numbers
        assert bool((between.numpy() < 0).any()) != (index == 2 and register == "register_forward_hook")


def test_drawings_show_both():
    tg.manual_seed(0)
    layers = _layers()
    x = tg.randn(4, 2, 6, 5, dtype=tg.float64)
    fused, apart = (tg.draw.graph(model(x), params=dict(layers.named_parameters()), show_saved=False).source for model in (layers, Apart(layers)))
    assert sorted(fused.splitlines()) == sorted(apart.splitlines())
