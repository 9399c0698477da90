"""Direct convolution kernels against slow loops."""

import numba
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinygrad_cnn.kernels import conv as kernels
from tinygrad_cnn.kernels import jit, options

from . import reference
from .reference import Conv, assert_sums_close, assert_unchanged, convs, frozen, poisoned, variant


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    monkeypatch.setattr(options, "conv_algorithm", "direct")


VARIANTS = pytest.mark.parametrize("name", ["serial", "parallel"])


@VARIANTS
@settings(max_examples=40, deadline=None)
@given(conv=convs())
def test_conv2d_equals_the_slow_loop(name, conv):
    x, w, bias, _ = conv.arrays()
    before = frozen(x, w, bias)
    out = poisoned((conv.N, conv.OH, conv.OW, conv.K), conv.dtype)
    with variant(name):
        kernels.conv2d(x, w, bias, *conv.how, out)
    expected = reference.conv2d(conv, x, w, bias)
    absolute = reference.conv2d(conv, abs(x), abs(w), abs(bias))
    assert_sums_close(out, expected, absolute, conv.R * conv.S * conv.C // conv.groups + 1)
    assert_unchanged([x, w, bias], before)


@VARIANTS
@settings(max_examples=40, deadline=None)
@given(conv=convs())
def test_input_gradient_equals_the_slow_loop(name, conv):
    x, w, _, g = conv.arrays()
    before = frozen(g, w)
    out = poisoned(x.shape, conv.dtype)
    with variant(name):
        kernels.conv2d_input_grad(g, w, *conv.how, out)
    expected = reference.conv2d_input_grad(conv, g, w)
    absolute = reference.conv2d_input_grad(conv, abs(g), abs(w))
    assert_sums_close(out, expected, absolute, conv.R * conv.S * conv.K // conv.groups)
    assert_unchanged([g, w], before)


# Constants of the cost model that make it take one way of reading windows wherever that can be.
WAYS = {"lines": {"COPY_CYCLES": 1e6, "MIN_TASKS": 1}, "windows": {"BAND_BYTES": 0}, "windows, in chunks": {"BAND_BYTES": 0, "DEPTH": 32}}


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=30, deadline=None)
@given(conv=convs())
@example(conv=Conv(2, 9, 8, 40, 6, 3, 2, 7, 7, (1, 1), (0, 0), (1, 1), 2, np.float32, 0))      # pieces of lines wider than a vector
@example(conv=Conv(2, 9, 9, 5, 20, 1, 1, 5, 5, (2, 2), (0, 0), (1, 1), 1, np.float32, 0))       # every other pixel of x
@example(conv=Conv(1, 13, 9, 3, 20, 2, 2, 5, 4, (3, 2), (1, 1), (1, 1), 1, np.float64, 0))      # lines that no window meets
@example(conv=Conv(1, 3, 9, 2, 3, 2, 3, 12, 9, (1, 1), (5, 1), (1, 1), 1, np.float32, 0))       # tiles that no tap reaches
def test_each_way_of_reading_windows_equals_the_slow_loop(way, conv):
    x, w, bias, g = conv.arrays()
    y, gx = poisoned(g.shape, conv.dtype), poisoned(x.shape, conv.dtype)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in WAYS[way].items():
            patch.setattr(kernels, name, value)
        patch.setattr(kernels, "_way", kernels._way.__wrapped__)
        kernels.conv2d(x, w, bias, *conv.how, y)
        kernels.conv2d_input_grad(g, w, *conv.how, gx)
    terms = conv.R * conv.S * max(conv.C, conv.K) // conv.groups + 1
    assert_sums_close(y, reference.conv2d(conv, x, w, bias), reference.conv2d(conv, abs(x), abs(w), abs(bias)), terms)
    assert_sums_close(gx, reference.conv2d_input_grad(conv, g, w), reference.conv2d_input_grad(conv, abs(g), abs(w)), terms)


@VARIANTS
@settings(max_examples=40, deadline=None)
@given(conv=convs())
def test_weight_gradient_equals_the_slow_loop(name, conv):
    x, w, _, g = conv.arrays()
    before = frozen(g, x)
    out = poisoned(w.shape, conv.dtype)
    with variant(name):
        kernels.conv2d_weight_grad(g, x, *conv.how, out)
    expected = reference.conv2d_weight_grad(conv, g, x)
    absolute = reference.conv2d_weight_grad(conv, abs(g), abs(x))
    assert_sums_close(out, expected, absolute, conv.N * conv.OH * conv.OW)
    assert_unchanged([g, x], before)


@VARIANTS
@settings(max_examples=30, deadline=None)
@given(shape=st.tuples(*[st.integers(0, 7)] * 3, st.integers(1, 40)), dtype=st.sampled_from(reference.DTYPES))
def test_bias_gradient_is_correctly_rounded(name, shape, dtype):
    g = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    out = poisoned(shape[3:], dtype)
    with variant(name):
        kernels.bias_grad(g, out)
    expected = g.astype(np.longdouble).sum(axis=(0, 1, 2))
    np.testing.assert_allclose(out, expected.astype(dtype), rtol=2 * np.finfo(dtype).eps, atol=1e-12)


def _plain(N, C, H, K, kernel=3, stride=1, padding=1, groups=1, dtype=np.float32):
    size = (H + 2 * padding - kernel) // stride + 1
    return Conv(N, H, H, C, K, kernel, kernel, size, size, (stride, stride), (padding, padding), (1, 1), groups, dtype,
                seed=0)


# Several bands, channel blocks, partial sums and tiles; each remainder of the tile's rows.
SIZES = [_plain(2, 70, 33, 77), _plain(40, 3, 20, 33, 5, 2, 2), _plain(5, 33, 13, 20, 1, 1, 0), _plain(3, 40, 7, 40),
         _plain(2, 66, 12, 34, 3, 2, 1, 2), _plain(33, 1, 28, 6, 5, 1, 0), _plain(3, 130, 11, 130, 3, 1, 1, 130),
         _plain(70, 20, 2, 10), _plain(2, 40, 9, 40, dtype=np.float64), _plain(20, 3, 31, 70, 7, 2, 3), _plain(9, 2, 30, 17, 7, 1, 3),
         _plain(6, 32, 21, 32, groups=8), _plain(5, 64, 20, 64, 3, 2, 1, 32), _plain(3, 16, 12, 16, groups=8, dtype=np.float64),
         _plain(70, 20, 2, 10), _plain(2, 40, 9, 40, dtype=np.float64), _plain(8, 16, 28, 40, 7, 1, 3), _plain(4, 150, 20, 40),
         _plain(3, 70, 13, 70, 5, 1, 2, 70), _plain(2, 40, 14, 40, 3, 2, 1, 10), _plain(2, 8, 9, 8, 3, 1, 1, 4, np.float64),
         Conv(6, 24, 60, 15, 20, 3, 19, 24, 60, (1, 1), (1, 9), (1, 1), 1, np.float32, 0),
         # Many phases of the stride, some of which no tap meets.
         Conv(2, 41, 37, 20, 24, 3, 2, 3, 3, (19, 17), (1, 1), (2, 1), 1, np.float32, 0),
         Conv(2, 41, 37, 20, 12, 3, 2, 3, 3, (19, 17), (1, 1), (2, 1), 2, np.float64, 0),
         Conv(2, 41, 37, 20, 40, 3, 2, 3, 3, (19, 17), (1, 1), (2, 1), 20, np.float32, 0),
         # Depthwise: every width of channels and a rest, fewer pixels than a tile, strides that taps share or do not.
         Conv(2, 5, 9, 115, 115, 3, 3, 5, 9, (1, 1), (1, 1), (1, 1), 115, np.float32, 0),
         Conv(9, 6, 3, 20, 20, 5, 5, 6, 3, (1, 1), (2, 2), (1, 1), 20, np.float32, 0),
         Conv(2, 7, 11, 36, 36, 5, 4, 4, 5, (2, 2), (2, 1), (1, 1), 36, np.float32, 0),
         Conv(2, 7, 13, 61, 61, 3, 3, 4, 7, (2, 2), (2, 2), (2, 2), 61, np.float64, 0),
         Conv(3, 4, 1, 6, 6, 4, 2, 3, 2, (1, 1), (1, 1), (1, 1), 6, np.float32, 0)]


@pytest.mark.parametrize("conv", SIZES, ids=lambda c: f"{c.N}x{c.C}x{c.H}-{c.K}")
def test_larger_sizes_equal_the_slow_loop(conv):
    x, w, bias, g = conv.arrays()
    y, gx, gw = poisoned(g.shape, conv.dtype), poisoned(x.shape, conv.dtype), poisoned(w.shape, conv.dtype)
    kernels.conv2d(x, w, bias, *conv.how, y)
    kernels.conv2d_input_grad(g, w, *conv.how, gx)
    kernels.conv2d_weight_grad(g, x, *conv.how, gw)
    scale = 20 * np.finfo(conv.dtype).eps  # random signs: errors grow as the square root of the number of terms
    for actual, expected in ((y, reference.conv2d(conv, x, w, bias)), (gx, reference.conv2d_input_grad(conv, g, w)),
                             (gw, reference.conv2d_weight_grad(conv, g, x))):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=scale * np.abs(expected).max())


@pytest.mark.parametrize("conv", [_plain(0, 4, 6, 8), _plain(0, 4, 6, 4, groups=4), _plain(0, 8, 6, 8, groups=2)],
                         ids=["dense", "depthwise", "grouped"])
def test_no_images_give_no_output_and_zero_gradients(conv):
    x, w, bias, g = conv.arrays()
    kernels.conv2d(x, w, bias, *conv.how, np.empty_like(g))
    kernels.conv2d_input_grad(g, w, *conv.how, np.empty_like(x))
    gw, gb = poisoned(w.shape, np.float32), poisoned(bias.shape, np.float32)
    kernels.conv2d_weight_grad(g, x, *conv.how, gw)
    kernels.bias_grad(g, gb)
    assert not gw.any() and not gb.any()


@pytest.mark.parametrize("conv", [_plain(1, 256, 8, 32), _plain(1, 64, 8, 256), _plain(2, 512, 6, 32, 1, 1, 0), _plain(1, 32, 12, 32, 7, 1, 3)],
                         ids=["3x3", "3x3, few channels", "1x1", "7x7"])
@pytest.mark.parametrize("way", WAYS)
def test_errors_of_long_sums_are_those_of_short_chains(monkeypatch, way, conv):
    """By norm. In one chain 2,304 products err by 8e-7."""
    for name, value in WAYS[way].items():
        monkeypatch.setattr(kernels, name, value)
    monkeypatch.setattr(kernels, "_way", kernels._way.__wrapped__)
    x, w, bias, g = conv.arrays()
    y, gx, gw = (poisoned(a.shape, conv.dtype) for a in (g, x, w))
    kernels.conv2d(x, w, bias, *conv.how, y)
    kernels.conv2d_input_grad(g, w, *conv.how, gx)
    kernels.conv2d_weight_grad(g, x, *conv.how, gw)
    for actual, expected in ((y, reference.conv2d(conv, x, w, bias)), (gx, reference.conv2d_input_grad(conv, g, w)),
                             (gw, reference.conv2d_weight_grad(conv, g, x))):
        assert np.linalg.norm(actual - expected) < 2.2e-7 * np.linalg.norm(expected)


@pytest.mark.parametrize("channels, groups", [(20, 1), (20, 20), (20, 5), (3, 1), (32, 8), (32, 16)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_inf_reach_what_depends_on_them_and_nothing_else(channels, groups, value):
    conv = _plain(2, channels, 9, 32 if channels == 32 else 20, groups=groups)
    x, w, bias, g = conv.arrays()
    x[1, 4, 4, 2] = g[1, 4, 4, 2] = value
    y, gx, gw = (poisoned(a.shape, np.float32) for a in (g, x, w))
    kernels.conv2d(x, w, bias, *conv.how, y)
    kernels.conv2d_input_grad(g, w, *conv.how, gx)
    kernels.conv2d_weight_grad(g, x, *conv.how, gw)
    for actual, expected in ((y, reference.conv2d(conv, x, w, bias)), (gx, reference.conv2d_input_grad(conv, g, w)),
                             (gw, reference.conv2d_weight_grad(conv, g, x))):
        np.testing.assert_array_equal(np.isfinite(actual), np.isfinite(expected))
        assert not np.isfinite(actual).all()


@pytest.mark.parametrize("algorithm", ["direct", "winograd"])
@pytest.mark.parametrize("conv", [_plain(2, 20, 9, 33), _plain(2, 40, 9, 40, groups=40), _plain(3, 300, 5, 20, 1, 1, 0),
                                  _plain(2, 33, 7, 70, dtype=np.float64), _plain(2, 40, 9, 40, groups=10), _plain(4, 150, 20, 40)],
                         ids=["dense", "depthwise", "deep", "float64", "grouped", "chunks"])
def test_relu_clamps_the_same_result_and_keeps_nan(monkeypatch, conv, algorithm):
    monkeypatch.setattr(options, "conv_algorithm", algorithm)
    x, w, bias, g = conv.arrays()
    x[0, 2, 2, 3] = np.nan
    plain, clamped = poisoned(g.shape, conv.dtype), poisoned(g.shape, conv.dtype)
    kernels.conv2d(x, w, bias, *conv.how, plain)
    kernels.conv2d(x, w, bias, *conv.how, clamped, relu=True)
    assert np.isnan(plain).any() and (plain < 0).any()
    np.testing.assert_array_equal(clamped, np.where(plain < 0, 0, plain))


@pytest.mark.parametrize("conv", SIZES, ids=lambda c: f"{c.N}x{c.C}x{c.H}-{c.K}")
def test_results_have_the_same_bits_on_any_number_of_threads(conv):
    x, w, bias, g = conv.arrays()
    results = []
    before = numba.get_num_threads()
    try:
        for threads in (1, before):
            numba.set_num_threads(threads)
            y, gx, gw = (poisoned(a.shape, conv.dtype) for a in (g, x, w))
            with variant("parallel"):
                kernels.conv2d(x, w, bias, *conv.how, y)
                kernels.conv2d_input_grad(g, w, *conv.how, gx)
                kernels.conv2d_weight_grad(g, x, *conv.how, gw)
            results.append((y, gx, gw))
    finally:
        numba.set_num_threads(before)
    for one, many in zip(*results, strict=True):
        np.testing.assert_array_equal(one, many)


def test_sums_of_a_million_ones_are_exact():
    g = np.ones((1, 1024, 1024, 1), np.float32)
    bias, weight = poisoned((1,), np.float32), poisoned((1, 1, 1, 1), np.float32)
    for _ in range(20):
        kernels.bias_grad(g, bias)
        kernels.conv2d_weight_grad(g, g, (1, 1), (0, 0), (1, 1), 1, weight)
        assert bias[0] == weight[0, 0, 0, 0] == 1 << 20


def test_input_gradient_is_zero_where_no_window_reaches():
    g, w = np.ones((1, 2, 2, 3), np.float32), np.ones((1, 1, 2, 3), np.float32)
    out = poisoned((1, 8, 8, 2), np.float32)
    kernels.conv2d_input_grad(g, w, (3, 3), (0, 0), (1, 1), 1, out)
    expected = np.zeros_like(out)
    expected[:, 0:4:3, 0:4:3] = 3
    np.testing.assert_array_equal(out, expected)


def test_integers_and_read_only_arrays_of_any_kind_compile_nothing_new():
    conv = _plain(2, 4, 6, 8)
    x, w, bias, g = conv.arrays()
    out = np.empty_like(g)
    for _ in range(2):
        kernels.conv2d(x, w, bias, *conv.how, out)
        first = out.copy()
        for a in (x, w, bias):
            a.flags.writeable = False
    kernels.conv2d(x, w, bias, np.array([1, 1]), (np.int64(1), True), [1, 1], np.int32(1), out)
    np.testing.assert_array_equal(out, first)
    compiled = [k for k in vars(kernels).values() if isinstance(k, jit.Kernel)]
    assert compiled and all(len(k.serial.signatures) <= 2 and len(k.parallel.signatures) <= 2 for k in compiled)
