"""NaN, Inf and overflows reach what depends on them, and nothing else, in every convolution kernel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_cnn.kernels import conv as kernels
from tinygrad_cnn.kernels import options, winograd

from . import reference
from .reference import Conv, pairs, poisoned

HUGE = 3e38  # any transform of it overflows in float32, its product with a weight of at most 1 does not


@st.composite
def square_convs(draw: st.DrawFn) -> Conv:
    """3x3 of stride 1 in float32, which Winograd's algorithm takes."""
    (H, W), (OH, OW), (C, K) = draw(pairs(1, 12)), draw(pairs(1, 12)), draw(pairs(1, 40))
    return Conv(draw(st.integers(1, 2)), H, W, C, K, 3, 3, OH, OW, (1, 1), draw(pairs(0, 3)), (1, 1), 1, np.float32, draw(st.integers(0, 2**31)))


CASES = pytest.mark.parametrize("algorithm, few", [("direct", True), ("winograd", True), ("winograd", False)])
EXAMPLES = st.one_of(reference.convs().filter(lambda conv: conv.N > 0), square_convs())


def _results(conv, algorithm, few, x, w, bias, g):
    y, gx, gw = (poisoned(a.shape, conv.dtype) for a in (g, x, w))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(options, "conv_algorithm", algorithm)
        patch.setattr(winograd, "few_tiles", lambda *_: few)
        kernels.conv2d(x, w, bias, *conv.how, y)
        kernels.conv2d_input_grad(g, w, *conv.how, gx)
        kernels.conv2d_weight_grad(g, x, *conv.how, gw)
    return y, gx, gw


def _expected(conv, x, w, bias, g):
    return reference.conv2d(conv, x, w, bias), reference.conv2d_input_grad(conv, g, w), reference.conv2d_weight_grad(conv, g, x)


@CASES
@settings(max_examples=40, deadline=None)
@given(conv=EXAMPLES, value=st.sampled_from((np.nan, np.inf, -np.inf)), place=st.integers(0, 2**31))
def test_values_of_images_reach_exactly_what_sees_them(algorithm, few, conv, value, place):
    x, w, bias, g = conv.arrays()
    images, gradients = x.copy(), g.copy()
    images.flat[place % x.size] = gradients.flat[place % g.size] = value
    y, _, gw = _results(conv, algorithm, few, images, w, bias, g)
    _, gx, _ = _results(conv, algorithm, few, x, w, bias, gradients)
    expected_y, _, expected_gw = _expected(conv, images, w, bias, g)
    _, expected_gx, _ = _expected(conv, x, w, bias, gradients)
    for actual, expected in ((y, expected_y), (gx, expected_gx)):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-3)  # NaN, and Inf of the same sign, in the same places
    np.testing.assert_array_equal(np.isfinite(gw), np.isfinite(expected_gw))


@CASES
@settings(max_examples=40, deadline=None)
@given(conv=EXAMPLES, value=st.sampled_from((np.nan, np.inf)), place=st.integers(0, 2**31))
def test_padding_may_count_as_zeros_but_nothing_else_spreads(algorithm, few, conv, value, place):
    """What is combined with padding, a weight or the gradient of its output, may make a NaN there; other channels stay as they are."""
    x, w, bias, g = conv.arrays()
    weights, gradients = w.copy(), g.copy()
    weights.flat[place % w.size] = gradients.flat[place % g.size] = value
    _, _, c, k = np.unravel_index(place % w.size, w.shape)
    c += k // (conv.K // conv.groups) * (conv.C // conv.groups)
    y, gx, _ = _results(conv, algorithm, few, x, weights, bias, g)
    _, _, gw = _results(conv, algorithm, few, x, w, bias, gradients)
    expected_y, expected_gx, _ = _expected(conv, x, weights, bias, g)
    _, _, expected_gw = _expected(conv, x, w, bias, gradients)
    for actual, expected, channel in ((y, expected_y, k), (gx, expected_gx, c), (gw, expected_gw, place % conv.K)):
        sees = np.arange(actual.shape[3]) == channel
        assert not np.isfinite(actual[~np.isfinite(expected)]).any()
        np.testing.assert_allclose(actual[..., ~sees], expected[..., ~sees], rtol=1e-4, atol=1e-3)
        finite = np.isfinite(actual)
        np.testing.assert_allclose(actual[finite], expected[finite], rtol=1e-4, atol=1e-3)


@CASES
@settings(max_examples=25, deadline=None)
@given(conv=square_convs(), which=st.integers(0, 2), place=st.integers(0, 2**31))
def test_what_float32_holds_does_not_overflow(algorithm, few, conv, which, place):
    x, w, bias, g = (np.clip(a, -1, 1) for a in conv.arrays())
    huge = (x, w, g)[which]
    huge.flat[place % huge.size] = HUGE
    for actual, expected in zip(_results(conv, algorithm, few, x, w, bias, g), _expected(conv, x, w, bias, g), strict=True):
        assert np.isfinite(actual).all()
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-3 if algorithm == "direct" else 1e-5 * HUGE)
