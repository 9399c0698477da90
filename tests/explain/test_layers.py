"""Finding layers, running as far as one of them, and leaving no trace."""

import copy
from contextlib import nullcontext

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn import explain, nn
from tinygrad_cnn.explain.layers import read

from .models import Digits, digits, fingerprint


def test_activations_by_name_by_module_and_of_the_output():
    model, x = digits(), tg.randn(2, 1, 8, 8, dtype=tg.float64)
    reference = copy.deepcopy(model).eval()
    inner = reference.bn1(reference.conv1(x)).detach()
    assert np.array_equal(explain.activations(model, x, "bn1"), inner)
    assert np.array_equal(explain.activations(model, x.numpy(), model.bn1), inner)
    assert np.array_equal(explain.activations(model, x, None), reference(x).detach())
    assert not explain.activations(model, x, "conv1").requires_grad


def test_the_forward_pass_stops_at_the_layer():
    ran = []
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(7, 2))     # the last does not fit
    for i, layer in enumerate(model):
        layer.register_forward_hook(lambda module, args, output, i=i: ran.append(i))
    assert explain.activations(model, tg.ones(1, 1, 5, 5), "1").shape == (1, 2, 3, 3)
    assert ran == [0, 1]


def test_a_model_that_catches_exceptions_still_stops():
    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Identity()

        def forward(self, x):
            try:
                return self.first(x)
            except Exception:
                caught.append(x)
                return x

    caught = []
    assert explain.activations(Careful(), tg.ones(1, 2), "first").tolist() == [[1.0, 1.0]]
    assert not caught


def test_of_a_layer_that_runs_twice_the_first_output_counts():
    model, x = Digits(), tg.randn(1, 1, 8, 8)
    assert explain.activations(model, x, "relu").shape == (1, 4, 8, 8)
    assert read("test", model, x, ["relu", "fc"])["relu"].shape == (1, 4, 8, 8)


def test_reading_several_layers_in_one_pass():
    model, x = Digits().eval(), tg.randn(3, 1, 8, 8)
    outputs = read("test", model, x, ["conv2", None, "conv1"])
    assert {layer: value.shape for layer, value in outputs.items()} == {"conv2": (3, 6, 4, 4), None: (3, 5), "conv1": (3, 4, 8, 8)}


def test_wrong_names_list_the_choices():
    model = Digits()
    with pytest.raises(ValueError, match="did you mean 'conv") as caught:
        explain.activations(model, tg.zeros(1, 1, 8, 8), "conv3")
    for part in ("'conv3'", "conv1 (Conv2d)", "bn2 (BatchNorm2d)", "fc (Linear)"):
        assert part in str(caught.value)
    with pytest.raises(ValueError, match="this ReLU is not a layer of the model"):
        explain.activations(model, tg.zeros(1, 1, 8, 8), nn.ReLU())
    with pytest.raises(TypeError, match="name or a Module, got int"):
        explain.activations(model, tg.zeros(1, 1, 8, 8), 3)
    with pytest.raises(TypeError, match="function"):
        explain.activations(lambda x: x, tg.zeros(1, 1, 8, 8), "conv1")


def test_wrong_images_and_layers_that_give_nothing():
    model = Digits()
    model.unused = nn.Identity()
    with pytest.raises(RuntimeError, match="layer unused did not run"):
        explain.activations(model, tg.zeros(1, 1, 8, 8), "unused")
    with pytest.raises(TypeError, match="float32 or float64, got int64"):
        explain.activations(model, tg.zeros(1, 1, 8, 8, dtype=tg.int64), "conv1")
    with pytest.raises(TypeError, match="got list"):
        explain.activations(model, [[0.0]], "conv1")
    with pytest.raises(TypeError, match="wanted a Tensor from the model, got tuple"):
        explain.activations(lambda x: (x, x), tg.zeros(1), None)


class Stop(Exception):
    pass


def vandalise(model):
    """Change everything that can be changed about a model, then fail."""
    def objective(output):
        model.train()
        model(tg.randn(6, 1, 8, 8, dtype=tg.float64)).sum().backward()
        with tg.no_grad():
            model.fc.weight.mul_(2)
            model.bn1.running_var.add_(1)
            model.conv1.weight.grad.mul_(3)
        model.fc.bias.grad = tg.ones_like(model.fc.bias.detach())
        model.hidden.weight.data = tg.zeros(8, 24, dtype=tg.float64)
        model.hidden.bias = nn.Parameter(tg.zeros(8, dtype=tg.float64))
        model.bn2.running_mean = tg.zeros(6, dtype=tg.float64)
        model.requires_grad_(True)
        model.conv1.requires_grad_(False)
        model._modules["conv1"]._forward_hooks.clear()
        model.relu.register_forward_hook(lambda module, args, output: None)
        model.notes.append("not mine")
        model.extra = 1
        tg.manual_seed(99)
        raise Stop
    return objective


LOOKS = {
    "activations": (lambda m, x: explain.activations(m, x, "conv2"), None),
    "output": (lambda m, x: explain.activations(m, x, None), None),
    "saliency of classes": (lambda m, x: explain.saliency(m, x, [0, 1]), None),
    "saliency of a neuron": (lambda m, x: explain.saliency(m, x, explain.neuron("conv2", 3)), None),
    "maximize": (lambda m, x: explain.maximize(m, [0, 1], start=x, steps=2, bounds=None, progress=False), None),
    "filters": (lambda m, x: explain.filters(m.conv1), None),
    "wrong name": (lambda m, x: explain.saliency(m, x, explain.neuron("conv9", 3)), ValueError),
    "wrong class": (lambda m, x: explain.saliency(m, x, 5), IndexError),
    "wrong image": (lambda m, x: explain.activations(m, x[:, :, :3, :3].expand(2, 3, 3, 3), "conv2"), ValueError),
    "vandal in saliency": (lambda m, x: explain.saliency(m, x, vandalise(m)), Stop),
    "vandal in maximize": (lambda m, x: explain.maximize(m, vandalise(m), start=x, bounds=None, progress=False), Stop),
}


@pytest.mark.parametrize("name", LOOKS)
def test_the_model_is_left_exactly_as_it_was(name):
    model, x = digits(), tg.randn(2, 1, 8, 8, dtype=tg.float64, requires_grad=True)
    before, state = fingerprint(model), copy.deepcopy(tg.get_rng_state())
    look, error = LOOKS[name]
    with pytest.raises(error) if error else nullcontext():
        look(model, x)
    after = fingerprint(model)
    if error is Stop:                          # what was written was written back, so the versions have grown
        before, after = ([(*e[:5], *e[6:]) if len(e) == 9 else e for e in f] for f in (before, after))
    assert after == before
    assert tg.get_rng_state() == state
    assert x.grad is None and x.requires_grad


def test_the_fingerprint_notices():
    model = digits()
    before = fingerprint(model)
    with pytest.raises(Stop):
        vandalise(model)(None)
    assert fingerprint(model) != before


def test_a_graph_the_caller_recorded_before_still_goes_backward():
    model, x = digits(), tg.randn(2, 1, 8, 8, dtype=tg.float64)
    loss = model(x).square().sum()
    explain.saliency(model, x, 0)
    grads = tg.autograd.grad(loss, [model.conv1.weight, model.fc.weight])
    assert all(np.isfinite(np.array(g)).all() for g in grads)


def test_untouched_runs_in_eval_mode_and_nests():
    model = digits()
    before = fingerprint(model)
    with explain.untouched(model):
        with explain.untouched(model):
            assert not any(module.training for module in model.modules())
            model.train()
        assert not any(module.training for module in model.modules())
    assert fingerprint(model) == before


def test_looking_works_inside_no_grad_and_leaves_the_mode():
    model, x = digits(), tg.randn(2, 1, 8, 8, dtype=tg.float64)
    outside = np.array(explain.saliency(model, x, 1))
    with tg.no_grad():
        assert np.array_equal(explain.saliency(model, x, 1), outside)
        found = explain.maximize(model, 1, start=x[:1], steps=3, bounds=None, progress=False)
        assert found.activation[0] > found.history[0, 0]
        assert not tg.is_grad_enabled()
