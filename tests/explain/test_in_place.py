"""Models that write in place are explained as the same models that do not, and the caller's images stay as they are."""

import copy

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn import draw, explain, nn


class Writing(nn.Module):
    """Normalises its input and takes its ReLUs; whether in place is asked each time."""

    def __init__(self, in_place):
        super().__init__()
        self.conv, self.conv2, self.fc = nn.Conv2d(1, 3, 3, dtype=tg.float64), nn.Conv2d(3, 3, 3, dtype=tg.float64), nn.Linear(48, 4, dtype=tg.float64)
        self.act = nn.ReLU(inplace=in_place)
        self.in_place = in_place

    def forward(self, x):
        if self.in_place:
            x -= 0.5
            x /= 0.25
            x[:, :, 0] = x[:, :, 0] * 0.5
            h = self.conv(x)
            h.relu_()
            h = self.act(self.conv2(h))
            h = 2 * h
            h.add_(1)
        else:
            top = np.ones((1, 1, 8, 1))
            top[:, :, 0] = 0.5
            x = (x - 0.5) / 0.25 * tg.tensor(top)
            h = self.act(self.conv2(self.conv(x).relu())) * 2 + 1
        return self.fc(h.flatten(1))


def twins():
    first, second = Writing(True), Writing(False)
    second.load_state_dict(first.state_dict())
    return first, second


def images(n=2):
    return tg.rand(n, 1, 8, 8, dtype=tg.float64)


both = explain.Objective("both", ("conv", "conv2", None),
                         lambda o: o["conv"].sum((1, 2, 3)) + 3 * o["conv2"].square().sum((1, 2, 3)) - 2 * o[None][:, 1])


def written(outputs):
    outputs -= outputs.mean(1, keepdim=True)
    return outputs[:, 2]


def named(target):
    return getattr(target, "label", None) or getattr(target, "__name__", str(target))


@pytest.mark.parametrize("target", [1, [3, 0], explain.neuron("conv", 1, row=0, col=0), explain.neuron("conv2", 2), explain.channel("conv", [0, 2]),
                                    both, written], ids=named)
def test_saliency(target):
    (first, second), x = twins(), images()
    kept = x.tolist()
    np.testing.assert_allclose(explain.saliency(first, x, target), explain.saliency(second, x, target), rtol=1e-12, atol=1e-14)
    assert x.tolist() == kept and not x.requires_grad
    x.requires_grad_()
    explain.saliency(first, x, target)
    assert x.tolist() == kept and x.grad is None


@pytest.mark.parametrize("layer", ["conv", "act", "conv2", "fc", None])
def test_activations(layer):
    (first, second), x = twins(), images()
    kept = x.tolist()
    np.testing.assert_allclose(explain.activations(first, x, layer), explain.activations(second, x, layer), rtol=1e-12, atol=1e-14)
    assert x.tolist() == kept


def near_half(x):
    x -= 0.5
    return -(x * x).sum((1, 2, 3))


@pytest.mark.parametrize("target", [1, both, written], ids=named)
def test_maximize(target):
    (first, second), x = twins(), images()
    kept = x.tolist()
    found = [explain.maximize(model, target, start=x, steps=4, progress=False, regularizers=regularizers)
             for model, regularizers in ((first, [near_half]), (second, [lambda x: -(x - 0.5).square().sum((1, 2, 3))]))]
    np.testing.assert_allclose(found[0].image, found[1].image, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found[0].history, found[1].history, rtol=1e-10, atol=1e-12)
    assert x.tolist() == kept and found[0].start.tolist() == kept


def test_a_function_that_writes_into_its_input_is_a_model_too():
    x = images()
    np.testing.assert_array_equal(explain.saliency(lambda x: x.mul_(3).flatten(1), x, 5)[:, 0, 0, 5], [3, 3])


def test_drawing():
    (first, _), x = twins(), images()
    kept = x.tolist()
    assert "Conv2d" in draw.model(first, x).source
    array = np.array(x)
    draw.model(first, array)
    assert x.tolist() == kept == array.tolist()


def test_what_a_model_writes_into_its_own_tensors_is_put_back():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", tg.zeros(1))
            self.seen, self.fc = tg.zeros(2), nn.Linear(3, 2)

        def forward(self, x):
            with tg.no_grad():
                self.calls += 1
                self.seen.add_(1)
                self.fc.weight.mul_(2)
            return self.fc(x)

    model, x = Counting(), tg.rand(1, 3)
    before = copy.deepcopy(model.state_dict())
    explain.saliency(model, x, 0)
    explain.activations(model, x, "fc")
    assert model.seen.tolist() == [0, 0]
    assert all((model.state_dict()[name] == value).all() for name, value in before.items())
