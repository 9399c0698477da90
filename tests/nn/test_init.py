"""Initial values: distributions by their moments and bounds, structure, seeds; PyTorch for gains and fans."""

import math

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn import nn
from tinygrad_cnn.nn import init

SHAPE = (64, 48, 5, 3)                         # fan_in 48 * 15 = 720, fan_out 64 * 15 = 960


@pytest.fixture(autouse=True)
def seed():
    tg.manual_seed(0)


def is_uniform(values, bound):
    """Within the bound, reaching it, with a uniform distribution's variance; 46,080 draws."""
    assert np.abs(values).max() <= bound * (1 + 1e-6)
    assert np.abs(values).max() > 0.999 * bound
    assert values.var() == pytest.approx(bound**2 / 3, rel=0.02)


def is_normal(values, std):
    """Mean 0 to five standard errors, the standard deviation, and the fourth moment 3 std^4."""
    assert abs(values.mean()) < 5 * std / math.sqrt(values.size)
    assert values.std() == pytest.approx(std, rel=0.02)
    assert (values**4).mean() == pytest.approx(3 * std**4, rel=0.1)


@pytest.mark.parametrize(("fill", "bound"), [
    (lambda w: init.uniform_(w, -0.3, 0.3), 0.3),
    (init.xavier_uniform_, math.sqrt(6 / (720 + 960))),
    (lambda w: init.xavier_uniform_(w, gain=2), 2 * math.sqrt(6 / (720 + 960))),
    (init.kaiming_uniform_, math.sqrt(2) * math.sqrt(3 / 720)),
    (lambda w: init.kaiming_uniform_(w, a=math.sqrt(5)), 1 / math.sqrt(720)),
    (lambda w: init.kaiming_uniform_(w, mode="fan_out", nonlinearity="tanh"), 5 / 3 * math.sqrt(3 / 960)),
])
def test_uniform(fill, bound):
    w = nn.Parameter(tg.zeros(*SHAPE))
    assert fill(w) is w and w.is_leaf and w.requires_grad
    is_uniform(w.numpy(), bound)


@pytest.mark.parametrize(("fill", "std"), [
    (lambda w: init.normal_(w, 0, 0.1), 0.1),
    (init.xavier_normal_, math.sqrt(2 / (720 + 960))),
    (init.kaiming_normal_, math.sqrt(2 / 720)),
    (lambda w: init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"), math.sqrt(2 / 960)),
])
def test_normal(fill, std):
    w = nn.Parameter(tg.zeros(*SHAPE))
    assert fill(w) is w
    is_normal(w.numpy(), std)


def truncated_mean(mean, std, a, b):
    """Of a normal distribution cut to a .. b: mean + std (phi(alpha) - phi(beta)) / (Phi(beta) - Phi(alpha))."""
    alpha, beta = (a - mean) / std, (b - mean) / std
    phi = [math.exp(-v * v / 2) / math.sqrt(2 * math.pi) for v in (alpha, beta)]
    cdf = [0.5 * (1 + math.erf(v / math.sqrt(2))) for v in (alpha, beta)]
    return mean + std * (phi[0] - phi[1]) / (cdf[1] - cdf[0])


@pytest.mark.parametrize(("mean", "std", "a", "b"), [(0, 1, -2, 2), (0.5, 2, -0.5, 3), (0, 1, 0.5, 1), (0, 1, 1.9, 2.5),
                                                     (3, 1, 1, 1.5), (0, 0.02, -2, 2)])
def test_truncated_normal(mean, std, a, b):
    w = init.trunc_normal_(tg.zeros(200, 300), mean, std, a, b).numpy()
    assert w.min() >= np.float32(a) and w.max() <= np.float32(b)
    assert w.mean() == pytest.approx(truncated_mean(mean, std, a, b), abs=5 * float(w.std()) / math.sqrt(w.size))


def test_constants():
    w = nn.Parameter(tg.zeros(2, 3))
    assert init.constant_(w, 2.5) is w and (w == 2.5).all()
    assert (init.ones_(w) == 1).all()
    assert (init.zeros_(w) == 0).all()
    np.testing.assert_array_equal(init.eye_(w).numpy(), np.eye(2, 3))


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (6, 2, 3, 3)])
def test_orthogonal(shape):
    m = init.orthogonal_(tg.zeros(*shape, dtype=tg.float64), gain=1.5).numpy().reshape(shape[0], -1)
    m = m if m.shape[0] <= m.shape[1] else m.T
    np.testing.assert_allclose(m @ m.T, 1.5**2 * np.eye(len(m)), atol=1e-12)


def test_dirac_passes_channels_through():
    layer = nn.Conv2d(3, 5, 3, padding=1, bias=False)
    init.dirac_(layer.weight)
    x = tg.randn(1, 3, 4, 4)
    y = layer(x).numpy()
    np.testing.assert_allclose(y[:, :3], x.numpy(), rtol=1e-6)
    assert (y[:, 3:] == 0).all()
    grouped = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
    init.dirac_(grouped.weight, groups=2)
    x = tg.randn(1, 4, 4, 4)
    np.testing.assert_allclose(grouped(x).numpy(), x.numpy(), rtol=1e-6)


@pytest.mark.parametrize(("layer", "fan_in"), [
    (lambda: nn.Linear(300, 200), 300), (lambda: nn.Conv2d(40, 60, (3, 5)), 600),
    (lambda: nn.Conv2d(40, 80, 5, groups=4), 250),
    (lambda: nn.ConvTranspose2d(60, 40, 5), 1000), (lambda: nn.LocallyConnected2d(4, 10, 20, 5), 100)])
def test_default_distribution(layer, fan_in):
    made = [layer() for _ in range(4)]
    is_uniform(np.concatenate([m.weight.numpy().ravel() for m in made]), 1 / math.sqrt(fan_in))
    bias = np.concatenate([m.bias.numpy().ravel() for m in made])
    assert np.abs(bias).max() <= 1 / math.sqrt(fan_in)
    assert bias.std() == pytest.approx(1 / math.sqrt(3 * fan_in), rel=0.15)


def test_a_seed_repeats_a_model():
    def weights():
        tg.manual_seed(7)
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(4, 4)).state_dict()

    a, b = weights(), weights()
    assert all((a[k] == b[k]).all() for k in a)


def test_filling_keeps_the_memory_layout():
    layer = nn.Conv2d(3, 8, 5)
    for fill in (init.kaiming_normal_, init.orthogonal_, init.trunc_normal_, init.dirac_, init.zeros_):
        fill(layer.weight)
        assert layer.weight.numpy().transpose(2, 3, 1, 0).flags.c_contiguous


def test_empty_tensors_are_left_alone():
    for fill in (init.kaiming_uniform_, init.xavier_normal_, init.orthogonal_, init.trunc_normal_):
        assert fill(tg.zeros(0, 3)).shape == (0, 3)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: init.kaiming_uniform_(tg.zeros(3)), "at least 2 dims"),
    (lambda: init.kaiming_uniform_(tg.zeros(3, 3), mode="fan"), "mode must be"),
    (lambda: init.kaiming_normal_(tg.zeros(3, 3), nonlinearity="swish"), "unknown nonlinearity 'swish'"),
    (lambda: init.xavier_uniform_(tg.zeros(3)), "at least 2 dims"),
    (lambda: init.normal_(tg.zeros(3), std=-1), "std must be 0 or more"),
    (lambda: init.uniform_(tg.zeros(3), 1, 0), "a <= b"),
    (lambda: init.trunc_normal_(tg.zeros(3), a=1, b=1), "a < b"),
    (lambda: init.trunc_normal_(tg.zeros(3), std=math.nan), "trunc_normal_: std must be a number, got NaN"),
    (lambda: init.trunc_normal_(tg.zeros(3), math.nan), "trunc_normal_: mean must be a number, got NaN"),
    (lambda: init.trunc_normal_(tg.zeros(3), 5, 1, 0, 1), "more than 2 std outside"),
    (lambda: init.eye_(tg.zeros(3)), "2 dims"),
    (lambda: init.dirac_(tg.zeros(3, 3)), "3, 4 or 5 dims"),
    (lambda: init.dirac_(tg.zeros(3, 3, 3), groups=2), "groups=2 must divide the 3 filters"),
    (lambda: init.orthogonal_(tg.zeros(3)), "at least 2 dims"),
])
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_gains_and_dirac_against_torch():
    torch = pytest.importorskip("torch")
    for name, param in (("linear", None), ("conv2d", None), ("sigmoid", None), ("tanh", None), ("relu", None),
                        ("leaky_relu", None), ("leaky_relu", 0.3), ("selu", None)):
        assert init.calculate_gain(name, param) == pytest.approx(torch.nn.init.calculate_gain(name, param), rel=1e-15)
    for shape, groups in (((4, 6, 3, 3), 1), ((6, 2, 4, 5), 3), ((6, 3, 3), 2)):
        np.testing.assert_array_equal(init.dirac_(tg.zeros(*shape), groups).numpy(),
                                      torch.nn.init.dirac_(torch.zeros(shape), groups).numpy())
