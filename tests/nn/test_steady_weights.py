"""In evaluation kernels keep weights in the order they read, and batch norm its scale and shift: whatever is written is seen at once."""

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn.kernels import constants
from tinygrad_cnn.nn import functional as F


def _others_weight(layer):
    other = type(layer)(layer.in_channels, layer.out_channels, 3, padding=1)
    return other.state_dict()


def _step(layer):
    tg.optim.SGD(layer.parameters(), lr=0.5).step()


def _in_place(layer):
    with tg.no_grad():
        layer.weight -= 0.25 * layer.weight ** 2


WRITES = {
    "nothing": lambda layer: None,
    "data in place": lambda layer: layer.weight.data.mul_(-1),
    "other data": lambda layer: setattr(layer.weight, "data", tg.randn(*layer.weight.shape)),
    "in place": _in_place,
    "an element": lambda layer: layer.weight.data.__setitem__((0, 0, 0, 0), 3.0),
    "a view": lambda layer: layer.weight.detach()[1].fill_(2.0),
    "an optimizer's step": _step,
    "load_state_dict": lambda layer: layer.load_state_dict(_others_weight(layer)),
    "init": lambda layer: tg.nn.init.xavier_normal_(layer.weight),
    "reset": lambda layer: layer.reset_parameters(),
    "another parameter": lambda layer: setattr(layer, "weight", tg.nn.Parameter(tg.randn(*layer.weight.shape))),
    "training and back": lambda layer: (layer.train()(tg.zeros(1, layer.in_channels, 4, 4)), _in_place(layer), layer.eval()),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize(("kind", "function", "C", "K", "size"), [
    ("Conv2d", F.conv2d, 3, 5, 6), ("Conv2d", F.conv2d, 32, 48, 24), ("ConvTranspose2d", F.conv_transpose2d, 4, 6, 5)])
def test_every_write_is_seen(kind, function, C, K, size, write):
    tg.manual_seed(1)
    layer = getattr(tg.nn, kind)(C, K, 3, padding=1).eval()
    x = tg.randn(1, C, size, size, requires_grad=True)
    g = tg.randn(*layer(x).shape)
    for change in ("nothing", "nothing", write, "nothing"):
        F.mse_loss(layer(x), g).backward()
        WRITES[change](layer)
        fresh = tg.tensor(layer.weight.numpy()).requires_grad_()       # memory that nothing was made of
        results = []
        for y, w in (layer(x), layer.weight), (function(x, fresh, layer.bias, padding=1), fresh):
            results.append([y, *tg.autograd.grad((y * g).sum(), [x, w])])
        for kept, expected in zip(*results, strict=True):              # Winograd may be chosen for kept weights alone
            scale = np.abs(expected.numpy()).max()
            np.testing.assert_allclose(kept.numpy(), expected.numpy(), rtol=0, atol=1e-5 * scale)


def test_weights_are_kept_in_evaluation_only():
    layer = tg.nn.Conv2d(2, 3, 3)
    x = tg.zeros(1, 2, 5, 5)
    layer(x)
    assert not constants.is_kept(layer.weight._data)
    layer.eval()(x)
    assert not constants.is_kept(layer.weight._data)                   # a step of training may follow
    layer(x)
    assert constants.is_kept(layer.weight._data)
    layer.weight.data.mul_(2)
    assert not constants.is_kept(layer.weight._data)
    layer(x)
    layer(x)
    assert constants.is_kept(layer.weight._data)
    layer.train()(x)
    assert not constants.is_kept(layer.weight._data)


def test_gradcheck_in_evaluation():
    layer = tg.nn.Conv2d(2, 3, 3, padding=1, dtype=tg.float64).eval()
    x = tg.randn(1, 2, 4, 3, dtype=tg.float64, requires_grad=True)

    def twice(x, *parameters):                 # from the second use on, each perturbed weight is read as it was packed
        return layer(x), layer(x * x), layer(2 * x)

    before, version = layer.weight.numpy().copy(), layer.weight._storage.version
    y = layer(x)
    assert tg.autograd.gradcheck(twice, (x, layer.weight, layer.bias))
    assert tg.autograd.gradgradcheck(twice, (x, layer.weight, layer.bias))
    y.sum().backward()                         # the graph from before still holds: the weight was not written to
    assert layer.weight._storage.version == version
    np.testing.assert_array_equal(layer.weight.numpy(), before)


def test_a_later_write_to_what_backward_needs_is_still_noticed():
    layer = tg.nn.Conv2d(2, 3, 3).eval()
    x = tg.zeros(1, 2, 5, 5, requires_grad=True)
    layer(x)
    y = layer(x)
    with tg.no_grad():
        layer.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an in-place"):
        y.sum().backward()


def _other_half(layer):
    """Other memory of one storage, whose version stays."""
    both = tg.randn(2, layer.num_features)
    layer.weight.data = both[0]
    layer(tg.zeros(1, layer.num_features, 1, 1))
    layer.weight.data = both[1]


STATISTICS = {
    "nothing": lambda layer: None,
    "scale": lambda layer: layer.weight.data.mul_(-1),
    "shift": lambda layer: layer.bias.data.add_(2),
    "mean": lambda layer: layer.running_mean.add_(1),
    "variance": lambda layer: layer.running_var.mul_(3),
    "other statistics": lambda layer: setattr(layer, "running_var", tg.rand(layer.num_features) + 1),
    "other half of a storage": _other_half,
    "eps": lambda layer: setattr(layer, "eps", 0.5),
    "a batch in training": lambda layer: (layer.train()(tg.randn(4, layer.num_features, 2, 2)), layer.eval()),
    "load_state_dict": lambda layer: layer.load_state_dict({k: v + 1 for k, v in layer.state_dict().items()}),
    "reset": lambda layer: layer.reset_parameters(),
}


@pytest.mark.parametrize("write", STATISTICS)
@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_sees_every_write(frozen, write):
    tg.manual_seed(1)
    layer = tg.nn.BatchNorm2d(3).requires_grad_(not frozen)
    layer(1 + 2 * tg.randn(8, 3, 2, 2))
    layer.eval()
    x = tg.randn(2, 3, 4, 5)
    for change in ("nothing", write, "nothing"):
        STATISTICS[change](layer)
        weight, bias, mean, var = (t.numpy().astype(np.float64).reshape(-1, 1, 1)
                                   for t in (layer.weight, layer.bias, layer.running_mean, layer.running_var))
        expected = (x.numpy() - mean) / np.sqrt(var + layer.eps) * weight + bias
        np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-5, atol=1e-5)
