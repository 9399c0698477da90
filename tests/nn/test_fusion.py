"""Sequential computes batch norm and ReLU in one pass; nothing else may tell the difference."""

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn.nn import fusion


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
                            tg.nn.Conv2d(5, 3, 2, dtype=tg.float64), tg.nn.ReLU(),
                            tg.nn.Flatten(), tg.nn.Linear(18, 4, dtype=tg.float64), tg.nn.ReLU(), tg.nn.Linear(4, 3, dtype=tg.float64))


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


def _evaluated(layers, x):
    with tg.no_grad():
        return layers(x).numpy().copy(), Apart(layers)(x).numpy()


@pytest.mark.parametrize(("bias", "affine"), [(True, True), (False, True), (True, False), (False, False)])
def test_batch_norm_folded_into_a_convolution(bias, affine):
    tg.manual_seed(1)
    layers = tg.nn.Sequential(tg.nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, padding_mode="reflect", bias=bias, dtype=tg.float64),
                              tg.nn.BatchNorm2d(6, affine=affine, dtype=tg.float64), tg.nn.ReLU())
    x = tg.randn(5, 4, 9, 9, dtype=tg.float64)
    layers(x)                                  # moves the running statistics
    layers.eval()
    for change in (lambda: None, lambda: layers[0].weight.data.mul_(2), lambda: layers[1].running_var.add_(0.5), lambda: setattr(layers[1], "eps", 0.1),
                   lambda: layers.load_state_dict({k: v + 0.25 if v.is_floating_point() else v for k, v in layers.state_dict().items()}),
                   lambda: setattr(layers[0].weight, "data", tg.randn(6, 2, 3, 3, dtype=tg.float64))):
        change()                               # and every change of a parameter or a buffer is seen
        folded, apart = _evaluated(layers, x)
        np.testing.assert_allclose(folded, apart, rtol=1e-12, atol=1e-12)
        assert fusion._folded[layers[0]].bias.shape == (6,)


def test_gradients_with_respect_to_the_image_pass_a_folded_convolution():
    layers = _layers().eval().requires_grad_(False)
    x = tg.randn(2, 2, 6, 5, dtype=tg.float64, requires_grad=True)
    (folded,), (apart,) = (tg.autograd.grad((model(x) ** 3).sum(), x) for model in (layers, Apart(layers)))
    assert layers[0] in fusion._folded
    np.testing.assert_allclose(folded.numpy(), apart.numpy(), rtol=1e-10)


def test_nothing_is_folded_while_parameters_learn_or_hooks_look():
    layers = _layers().eval()
    x = tg.randn(2, 2, 6, 5, dtype=tg.float64)
    layers(x)
    assert layers[0] not in fusion._folded
    with tg.no_grad():
        layers(x)
        assert layers[0] in fusion._folded
        handle = layers[0].register_forward_hook(lambda *_: None)
        layers(x)
        handle.remove()
        layers.train()(x)
    assert layers[0] not in fusion._folded


def test_wrong_channels_are_named_by_the_layer():
    layers = tg.nn.Sequential(tg.nn.Conv2d(1, 3, 1), tg.nn.BatchNorm2d(4)).eval()
    with tg.no_grad(), pytest.raises(ValueError, match="batch_norm: running_mean has shape"):
        layers(tg.zeros(1, 1, 2, 2))


def test_a_forward_set_on_one_object_is_called():
    layers = _layers()
    layers[2].forward = lambda x: x * 0 + 1
    between = []
    layers[3].register_forward_pre_hook(lambda module, args: between.append(args[0].numpy()))
    layers(tg.randn(4, 2, 6, 5, dtype=tg.float64))
    assert (between[0] == 1).all()


def test_drawings_of_a_frozen_network_name_its_weights():
    layers = _layers().eval()
    x = tg.randn(1, 2, 6, 5, dtype=tg.float64, requires_grad=True)
    sources = [tg.draw.graph(layers(x), params=dict(layers.named_parameters()), show_saved=False).source for _ in range(3)]
    assert sources[0] == sources[1] == sources[2] and "0.weight" in sources[2]
