"""The gradient of f with respect to the pixels: closed forms, finite differences, PyTorch, and what is refused."""

import warnings

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn import explain, nn
from tinygrad_cnn.primitive import registry

from .models import Digits, digits


def finite_differences(model, x, score, eps=1e-6):
    """d sum(score(model(x))) / dx, pixel by pixel."""
    model.eval()
    x, out = np.array(x), np.empty(x.shape)
    for place in np.ndindex(x.shape):
        values = []
        for sign in (1, -1):
            moved = x.copy()
            moved[place] += sign * eps
            with tg.no_grad():
                values.append(float(score(model, tg.from_numpy(moved)).sum()))
        out[place] = (values[0] - values[1]) / (2 * eps)
    return out


def test_of_a_linear_model_it_is_the_row_of_the_class():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 5, 7))
    gradient = explain.saliency(model, tg.randn(4, 3, 4, 5), [6, 0, 3, 3])
    assert gradient.shape == (4, 3, 4, 5) and gradient.dtype == tg.float32 and not gradient.requires_grad
    assert np.array_equal(gradient, model[1].weight.numpy()[[6, 0, 3, 3]].reshape(4, 3, 4, 5))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("target, score", [
    (2, lambda m, x: m(x)[:, 2]),
    ([4, 0], lambda m, x: m(x)[np.arange(2), np.array([4, 0])]),
    (lambda out: out[:, 1] - 2 * out[:, 3], lambda m, x: m(x)[:, 1] - 2 * m(x)[:, 3]),
    (explain.neuron("conv2", 5, row=0, col=3), lambda m, x: m.conv2(m.pool(m.relu(m.bn1(m.conv1(x)))))[:, 5, 0, 3]),
    (explain.neuron("conv2", [5, 2]), lambda m, x: m.conv2(m.pool(m.relu(m.bn1(m.conv1(x)))))[np.arange(2), np.array([5, 2]), 2, 2]),
    (explain.neuron("bn1", 3, col=7), lambda m, x: m.bn1(m.conv1(x))[:, 3, 4, 7]),
    (explain.channel("bn1", 1), lambda m, x: m.bn1(m.conv1(x))[:, 1].mean((1, 2))),
    (explain.neuron("hidden", 4), lambda m, x: m.hidden(m.pool(m.relu(m.bn2(m.conv2(m.pool(m.relu(m.bn1(m.conv1(x)))))))).flatten(1))[:, 4]),
])
def test_against_finite_differences(channels, target, score):
    """With batch norm, a ReLU module that runs twice, a functional ReLU, in grey and in colour."""
    model, x = digits(channels), tg.randn(2, channels, 8, 8, dtype=tg.float64)
    gradient = explain.saliency(model, x, target)
    np.testing.assert_allclose(gradient, finite_differences(model, x, score), rtol=1e-5, atol=1e-8)


def test_against_torch():
    torch = pytest.importorskip("torch")
    model, x = digits(3), tg.randn(2, 3, 8, 8, dtype=tg.float64)
    state = {name: torch.tensor(np.array(value)) for name, value in model.state_dict().items()}
    F, image = torch.nn.functional, torch.tensor(np.array(x), requires_grad=True)
    h = image
    for i in (1, 2):
        h = F.conv2d(h, state[f"conv{i}.weight"], state[f"conv{i}.bias"], padding=1)
        h = F.batch_norm(h, state[f"bn{i}.running_mean"], state[f"bn{i}.running_var"], state[f"bn{i}.weight"], state[f"bn{i}.bias"])
        h = F.max_pool2d(F.relu(h), 2)
    h = F.relu(F.linear(h.flatten(1), state["hidden.weight"], state["hidden.bias"]))
    F.linear(h, state["fc.weight"], state["fc.bias"])[:, 4].sum().backward()
    np.testing.assert_allclose(explain.saliency(model, x, 4), image.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_each_image_by_itself_as_in_eval_mode():
    model, x = digits().train(), tg.randn(3, 1, 8, 8, dtype=tg.float64)
    together = explain.saliency(model, x, [0, 1, 2])
    for i in range(3):
        np.testing.assert_allclose(together[i:i + 1], explain.saliency(model, x[i:i + 1], i), rtol=1e-12, atol=1e-15)


def test_labels_as_tensor_or_array_or_single_tensor():
    model, x = digits(), tg.randn(2, 1, 8, 8, dtype=tg.float64)
    wanted = np.array(explain.saliency(model, x, [3, 1]))
    assert np.array_equal(explain.saliency(model, x, tg.tensor([3, 1])), wanted)
    assert np.array_equal(explain.saliency(model, x, np.array([3, 1], np.uint8)), wanted)
    assert np.array_equal(explain.saliency(model, x, tg.tensor(3)), explain.saliency(model, x, 3))
    assert not x.requires_grad


def test_no_gradient_of_a_weight_is_computed(monkeypatch):
    def refuse(*args):
        raise AssertionError("the rule of a weight ran")
    for name, argument in (("_conv2d", 1), ("_conv2d", 2), ("_linear", 1), ("_linear", 2)):
        monkeypatch.setattr(registry[name].rules[argument], "function", refuse)
    explain.saliency(Digits(), tg.randn(1, 1, 8, 8), 0)
    explain.maximize(Digits(), 0, shape=(1, 8, 8), steps=2, progress=False)


def test_the_map_is_the_greatest_absolute_value_over_the_channels():
    gradient = tg.tensor([[[[1.0, -2.0]], [[-3.0, 0.5]], [[2.0, 1.0]]]])
    assert explain.saliency_map(gradient).tolist() == [[[3.0, 2.0]]]
    with pytest.raises(ValueError, match=r"got \(2, 3\)"):
        explain.saliency_map(tg.zeros(2, 3))


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(1)])
def test_a_score_behind_softmax_warns_and_names_the_way_out(last):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), last)
    x = tg.randn(1, 1, 2, 2)
    with pytest.warns(UserWarning, match=r"behind a (log_)?softmax.*class_logit\(k, layer=...\); the layers: 0, 1, 2"):
        explain.saliency(model, x, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradient = explain.saliency(model, x, explain.class_logit(1, layer="1"))
        explain.saliency(model, x, lambda out: out[:, 1])                        # who says so means it
    assert np.array_equal(gradient.flatten(), model[1].weight[1].detach())


def test_a_functional_softmax_under_a_reshape_warns_too():
    with pytest.warns(UserWarning, match="behind a softmax"):
        explain.maximize(lambda x: x.flatten(1).softmax(1).reshape(-1, 4), 1, shape=(1, 2, 2), steps=3, progress=False)


@pytest.mark.parametrize("target, error, words", [
    (5, IndexError, "class 5 is out of range, there are 5"),
    (-1, IndexError, "0 or more, got -1"),
    ([0, 1, 2], ValueError, "3 values of class for 2 images"),
    (1.5, TypeError, "got 1.5"),
    (True, TypeError, "got True"),
    ("conv1", TypeError, "got 'conv1'"),
    (explain.neuron("conv1", 4), IndexError, "channel 4 is out of range, there are 4"),
    (explain.neuron("conv1", 0, row=8), IndexError, "8 rows and 8 columns"),
    (explain.neuron("fc", 0, row=0), ValueError, "no rows and columns"),
    (explain.channel("fc", 0), ValueError, "wanted an output (N, C, H, W), got (2, 5)"),
    (explain.class_logit(0, layer="conv1"), ValueError, "(N, classes), got (2, 4, 8, 8)"),
    (lambda out: out, ValueError, "one number per image, shape (2,), got shape (2, 5)"),
    (lambda out: out.sum(), ValueError, "got shape ()"),
    (lambda out: 1.0, ValueError, "got float"),
    (lambda out: out[:, 0].detach(), RuntimeError, "does not depend on the image"),
])
def test_wrong_targets_are_named(target, error, words):
    with pytest.raises(error) as caught:
        explain.saliency(Digits(), tg.zeros(2, 1, 8, 8), target)
    assert words in str(caught.value)


def test_an_objective_that_only_depends_on_weights():
    model = Digits()
    with pytest.raises(RuntimeError, match="does not depend on the image"):
        explain.saliency(model, tg.zeros(1, 1, 8, 8), lambda out: model.fc.weight.sum().reshape(1))
