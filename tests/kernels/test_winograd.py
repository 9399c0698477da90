"""Winograd's algorithm against slow loops, and the choice of algorithm."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinygrad_cnn.backends as backends
from tinygrad_cnn.kernels import conv as kernels
from tinygrad_cnn.kernels import options, weight_grad, winograd, winograd_grad

from . import reference
from .reference import Conv, assert_unchanged, frozen, pairs, poisoned, variant

TILE_BOUND = 4e-6  # documented: of the largest output that values as large as those that a tile reads could make


@pytest.fixture(autouse=True)
def forced(monkeypatch):
    monkeypatch.setattr(options, "conv_algorithm", "winograd")


@pytest.fixture
def no_direct_sums(monkeypatch):
    """Fails where Winograd's algorithm is left for direct sums, which a result that is not finite alone may cause."""
    monkeypatch.setattr(kernels, "_correlate", None)
    monkeypatch.setattr(kernels, "columns", None)
    monkeypatch.setattr(weight_grad, "partial_sums", None)


def _conv(N, C, H, K, padding=1):
    size = H + 2 * padding - 2
    return Conv(N, H, H, C, K, 3, 3, size, size, (1, 1), (padding, padding), (1, 1), 1, np.float32, seed=0)


def _error(actual, expected):
    return np.abs(actual - expected).max() / np.abs(expected).max()


@st.composite
def convs(draw: st.DrawFn) -> Conv:
    (H, W), (OH, OW), (C, K) = draw(pairs(1, 19)), draw(pairs(1, 17)), draw(pairs(1, 70))
    return Conv(draw(st.integers(1, 3)), H, W, C, K, 3, 3, OH, OW, (1, 1), draw(pairs(0, 5)), (1, 1), 1, np.float32,
                draw(st.integers(0, 2**31)))


FEW = pytest.mark.parametrize("few", [True, False])
VARIANTS = pytest.mark.parametrize("name", ["serial", "parallel"])
CHECKS = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FEW
@VARIANTS
@CHECKS
@given(conv=convs())
def test_convolution_and_input_gradient_equal_the_slow_loop(no_direct_sums, name, few, conv):
    x, w, bias, g = conv.arrays()
    before = frozen(x, w, bias, g)
    y, gx = poisoned(g.shape, np.float32), poisoned(x.shape, np.float32)
    with pytest.MonkeyPatch.context() as patch, variant(name):
        patch.setattr(winograd, "few_tiles", lambda *_: few)
        kernels.conv2d(x, w, bias, *conv.how, y)
        kernels.conv2d_input_grad(g, w, *conv.how, gx)
    # Errors scale with what a tile reads, which may be more than its outputs need.
    for actual, expected, image, axes in ((y, reference.conv2d(conv, x, w, bias), x, (0, 1, 2)),
                                          (gx, reference.conv2d_input_grad(conv, g, w), g, (0, 1, 3))):
        scale = np.abs(image).max() * np.sqrt((w**2).sum(axis=axes).max())
        assert np.abs(actual - expected).max() < 4e-6 * (scale + 1)
    assert_unchanged([x, w, bias, g], before)


@VARIANTS
@CHECKS
@given(conv=convs())
def test_weight_gradient_equals_the_slow_loop(no_direct_sums, name, conv):
    x, w, _, g = conv.arrays()
    before = frozen(x, g)
    out = poisoned(w.shape, np.float32)
    with variant(name):
        kernels.conv2d_weight_grad(g, x, *conv.how, out)
    expected = reference.conv2d_weight_grad(conv, g, x)
    scale = np.abs(x).max() * np.sqrt((g**2).sum(axis=(0, 1, 2)).max())
    assert np.abs(out - expected).max() < 4e-6 * (scale + 1)
    assert_unchanged([x, g], before)


def _largest(conv, image, w, y0, x0, shape):
    """Of each output the largest that it could be, given the largest value of each channel that its tile of 4 x 4 outputs reads."""
    image, w = np.abs(image).astype(np.float64), np.abs(w).astype(np.float64).sum((0, 1))
    largest = np.zeros((*shape[:3], w.shape[1]))
    for i, j in np.ndindex(-(-shape[1] // 4), -(-shape[2] // 4)):
        top, left = 4 * i + y0, 4 * j + x0
        read = image[:, max(0, top) : max(0, top + 6), max(0, left) : max(0, left + 6)].max((1, 2), initial=0)
        largest[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4] = (read @ w)[:, None, None]
    return largest


@FEW
@CHECKS
@given(conv=convs(), spread=st.floats(0, 7), seed=st.integers(0, 2**31))
def test_an_error_is_bounded_by_what_the_tile_reads(no_direct_sums, few, conv, spread, seed):
    x, w, bias, g = conv.arrays()
    random = np.random.default_rng(seed)
    for a in (x, g):                           # a few pixels, of some channels, that are larger than all others by far
        a *= np.where(random.random(a.shape) < 0.02, 10**spread, 1).astype(np.float32)
    y, gx = poisoned(g.shape, np.float32), poisoned(x.shape, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "few_tiles", lambda *_: few)
        kernels.conv2d(x, w, np.zeros_like(bias), *conv.how, y)
        kernels.conv2d_input_grad(g, w, *conv.how, gx)
    ph, pw = conv.padding
    error = np.abs(y - reference.conv2d(conv, x, w, np.zeros_like(bias)))
    assert (error <= TILE_BOUND * _largest(conv, x, w, -ph, -pw, y.shape)).all()
    error = np.abs(gx - reference.conv2d_input_grad(conv, g, w))
    assert (error <= TILE_BOUND * _largest(conv, g, w.swapaxes(2, 3), ph - 2, pw - 2, gx.shape)).all()


@FEW
@pytest.mark.parametrize("C", [64, 512])
def test_errors_stay_near_those_of_direct_sums(monkeypatch, no_direct_sums, C, few):
    """By norm and of the largest output; documented: 1e-6 and 5e-6."""
    monkeypatch.setattr(winograd, "few_tiles", lambda *_: few)
    conv = _conv(2, C, 9, C)
    x, w, bias, g = conv.arrays()
    for images in (x, abs(x)):  # all of one sign, as after a ReLU: sums grow
        y, gx, gw = (poisoned(a.shape, np.float32) for a in (g, x, w))
        kernels.conv2d(images, w, bias, *conv.how, y)
        kernels.conv2d_input_grad(g, w, *conv.how, gx)
        kernels.conv2d_weight_grad(g, images, *conv.how, gw)
        for actual, expected, by_norm in ((y, reference.conv2d(conv, images, w, bias), 5e-7), (gx, reference.conv2d_input_grad(conv, g, w), 8e-7),
                                          (gw, reference.conv2d_weight_grad(conv, g, images), 8e-7)):
            assert np.linalg.norm(actual - expected) < by_norm * np.linalg.norm(expected)
            assert _error(actual, expected) < 5e-6


@FEW
def test_relu_clamps_the_same_result(monkeypatch, no_direct_sums, few):
    monkeypatch.setattr(winograd, "few_tiles", lambda *_: few)
    conv = _conv(2, 20, 9, 33)
    x, w, bias, g = conv.arrays()
    plain, clamped = poisoned(g.shape, np.float32), poisoned(g.shape, np.float32)
    kernels.conv2d(x, w, bias, *conv.how, plain)
    kernels.conv2d(x, w, bias, *conv.how, clamped, relu=True)
    assert (plain < 0).any()
    np.testing.assert_array_equal(clamped, np.maximum(plain, 0))


def test_float64_strides_dilations_and_groups_are_always_direct(monkeypatch):
    monkeypatch.setattr(winograd, "conv2d", None)
    monkeypatch.setattr(winograd_grad, "conv2d_weight_grad", None)
    how = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    for dtype, change in ((np.float64, {}), (np.float32, {"stride": (2, 1)}), (np.float32, {"dilation": (1, 2)}),
                          (np.float32, {"groups": 2})):
        x, w = np.ones((1, 8, 8, 4), dtype), np.ones((3, 3, 4 // change.get("groups", 1), 6), dtype)
        out = np.empty((1, 4, 4, 6), dtype)
        kernels.conv2d(x, w, np.zeros(6, dtype), **{**how, **change}, out=out)
        kernels.conv2d_input_grad(out, w, **{**how, **change}, out=x)
        kernels.conv2d_weight_grad(out, x, **{**how, **change}, out=w)


def test_many_tiles_and_several_parts_sum_accurately(no_direct_sums):
    conv = _conv(20, 70, 25, 66)  # 980 tiles in several parts, two blocks of channels each way
    x, w, _, g = conv.arrays()
    out = poisoned(w.shape, np.float32)
    kernels.conv2d_weight_grad(g, x, *conv.how, out)
    assert _error(out, reference.conv2d_weight_grad(conv, g, x)) < 2e-6


def test_the_cost_model_prefers_few_products_where_transforms_are_cheap():
    for gradient in (False, True):
        assert winograd.pays(8, 64, 64, 56, 56, gradient) and winograd.pays(8, 512, 512, 7, 7, gradient)
        assert not winograd.pays(64, 1, 16, 28, 28, gradient) and not winograd.pays(1, 512, 512, 2, 2, gradient)
    assert winograd_grad.pays(8, 64, 64, 56, 56) and winograd_grad.pays(8, 512, 512, 7, 7)
    assert not winograd_grad.pays(64, 3, 16, 28, 28) and not winograd_grad.pays(64, 512, 512, 1, 1)


def test_the_knob_chooses(monkeypatch):
    calls = []
    monkeypatch.setattr(winograd, "conv2d", lambda *_: calls.append(1) or True)
    x, w = np.ones((8, 56, 56, 64), np.float32), np.ones((3, 3, 64, 64), np.float32)
    out = np.empty_like(x)
    for name, expected in (("direct", 0), ("auto", 1), ("winograd", 1)):
        backends.conv.algorithm = name
        assert backends.conv.algorithm == name
        calls.clear()
        kernels.conv2d(x, w, w[0, 0, 0], (1, 1), (1, 1), (1, 1), 1, out)
        assert len(calls) == expected
    with pytest.raises(ValueError, match="expected one of auto, direct, winograd, got 'fft'"):
        backends.conv.algorithm = "fft"
    assert backends.conv.algorithm == "winograd"
