"""Pooling kernels against slow loops that follow PyTorch's definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_cnn.kernels import pool

from .reference import DTYPES, assert_unchanged, frozen, pairs, poisoned, variant

VARIANTS = pytest.mark.parametrize("name", ["serial", "parallel"])
SEEDS, TYPES = st.integers(0, 2**31), st.sampled_from(DTYPES)


def _image(seed, size, dtype, N=2, C=None):
    random = np.random.default_rng(seed)
    return random.standard_normal((N, *size, C or int(random.integers(1, 37)))).astype(dtype)


def _outputs(size, kernel, stride, padding, dilation=1, ceil=False):
    """PyTorch's output size: with ceil_mode a last window may hang over, if it starts inside image or left padding."""
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    outputs = (room + (stride - 1 if ceil else 0)) // stride + 1
    return outputs - 1 if ceil and (outputs - 1) * stride >= size + padding else outputs


@st.composite
def windows(draw):
    """(size, kernel, stride, padding, dilation, output size) with at least one window, padding at most half of it."""
    kernel, dilation = draw(pairs(1, 4)), draw(pairs(1, 2))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    size = tuple(draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), 15))
                 for k, d, p in zip(kernel, dilation, padding, strict=True))
    stride, ceil = draw(pairs(1, 4)), draw(st.booleans())
    outputs = tuple(_outputs(*axis, ceil) for axis in zip(size, kernel, stride, padding, dilation, strict=True))
    return size, kernel, stride, padding, dilation, outputs


def _window(image, i, j, kernel, stride, padding, dilation):
    """(h, w) of the window's elements inside the image."""
    H, W = image.shape[1:3]
    for r, s in np.ndindex(*kernel):
        h, w = i * stride[0] - padding[0] + r * dilation[0], j * stride[1] - padding[1] + s * dilation[1]
        if 0 <= h < H and 0 <= w < W:
            yield h, w


def _poisoned_maxima(x, outputs, windows):
    shape = (x.shape[0], *outputs, x.shape[3])
    return poisoned(shape, x.dtype), poisoned(shape, pool.tap_dtype(x.shape[1:3], outputs, windows))


@VARIANTS
@settings(max_examples=50, deadline=None)
@given(shape=windows(), seed=SEEDS, dtype=TYPES, waste=st.sampled_from((-2, pool.WASTE, 1000)))
def test_max_pool2d_equals_the_slow_loop(name, shape, seed, dtype, waste):
    size, *how, outputs = shape
    x = np.round(_image(seed, size, dtype), 0)  # many ties
    before = frozen(x)
    out, taps = _poisoned_maxima(x, outputs, tuple(how))
    assert taps.dtype == np.uint8
    with variant(name), pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "WASTE", waste)
        pool.max_pool2d(x, tuple(how), out, taps)
    indices = pool.plane_indices(taps, size, tuple(how))
    for i, j in np.ndindex(*outputs):
        elements = list(_window(x, i, j, *how))
        if not elements:  # dilation may step over a small image
            assert (out[:, i, j] == -np.inf).all()
            assert ((indices[:, i, j] >= 0) & (indices[:, i, j] < size[0] * size[1])).all()
            continue
        values = np.stack([x[:, h, w] for h, w in elements])  # (elements, N, C)
        np.testing.assert_array_equal(out[:, i, j], values.max(axis=0))
        flat = np.array([h * size[1] + w for h, w in elements])
        np.testing.assert_array_equal(indices[:, i, j], flat[values.argmax(axis=0)])
    assert_unchanged([x], before)


@pytest.mark.parametrize("C", [1, 6, 16, 70])
@pytest.mark.parametrize("how", [((2, 2), (2, 2), (0, 0), (1, 1)), ((3, 3), (2, 2), (1, 1), (1, 1)), ((3, 3), (1, 1), (1, 1), (1, 1)), None])
def test_nan_ties_and_infinities_are_chosen_as_in_torch(how, C):
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    x = random.choice(np.array([-np.inf, -1, 0, 1, np.inf, np.nan], np.float32), (2, 7, 8, C), p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.1])
    y = torch.tensor(x).permute(0, 3, 1, 2)
    expected = (torch.nn.functional.adaptive_max_pool2d(y, (3, 4), return_indices=True) if how is None else
                torch.nn.functional.max_pool2d(y, *how, return_indices=True))
    expected, places = (e.permute(0, 2, 3, 1).numpy() for e in expected)
    out, taps = _poisoned_maxima(x, expected.shape[1:3], how)
    pool.max_pool2d(x, how, out, taps)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(pool.plane_indices(taps, (7, 8), how), places)


def test_taps_of_large_windows_need_more_than_a_byte():
    x = np.arange(2 * 18 * 17, dtype=np.float32).reshape(2, 18, 17, 1)
    for how, size in ((((17, 16), (1, 1), (0, 0), (1, 1)), (2, 2)), (None, (1, 1))):
        out, taps = _poisoned_maxima(x, size, how)
        pool.max_pool2d(x, how, out, taps)
        assert taps.dtype == np.int32
        indices, back = pool.plane_indices(taps, (18, 17), how), poisoned(x.shape, np.float32)
        np.testing.assert_array_equal(indices[1, -1, -1], [18 * 17 - 1])
        pool.scatter_taps(out, taps, how, back)
        assert back[1, -1, -1, 0] == x[1, -1, -1, 0] and np.count_nonzero(back) == 2 * out[0].size


@VARIANTS
@settings(max_examples=40, deadline=None)
@given(shape=windows(), adaptive=st.booleans(), N=st.sampled_from((1, 9)), C=st.integers(1, 70), seed=SEEDS, dtype=TYPES)
def test_gather_and_scatter_equal_slow_loops(name, shape, adaptive, N, C, seed, dtype):
    size, *how, outputs = shape
    how = None if adaptive else tuple(how)
    x, g = _image(seed, size, dtype, N, C), _image(seed + 1, outputs, dtype, N, C)
    picked, taps = _poisoned_maxima(x, outputs, how)
    pool.max_pool2d(np.round(x), how, picked, taps)
    out, back = poisoned(g.shape, dtype), poisoned(x.shape, dtype)
    before = frozen(x, g, taps)
    with variant(name):
        pool.gather_taps(x, taps, how, out)
        pool.scatter_taps(g, taps, how, back)
    indices, expected = pool.plane_indices(taps, size, how), np.zeros(x.shape, dtype)
    everywhere = np.isneginf(picked)  # windows that miss the image chose nothing
    n, c = np.ogrid[:N, :C]
    for i, j in np.ndindex(*outputs):
        h, w = np.divmod(indices[:, i, j], size[1])
        np.testing.assert_array_equal(out[:, i, j], np.where(everywhere[:, i, j], 0, x[n, h, w, c]))
        expected[n, h, w, c] += np.where(everywhere[:, i, j], 0, g[:, i, j])
    np.testing.assert_array_equal(back, expected)  # the same order of additions
    assert_unchanged([x, g, taps], before)


@VARIANTS
@settings(max_examples=25, deadline=None)
@given(shape=windows(), seed=SEEDS, dtype=TYPES, count_include_pad=st.booleans(), divisor=st.sampled_from((0, 0, 3)),
       waste=st.sampled_from((-2, pool.WASTE, 1000)))
def test_avg_pool2d_and_adjoint_equal_the_slow_loop(name, shape, seed, dtype, count_include_pad, divisor, waste):
    size, kernel, stride, padding, _, _ = shape
    ceil = bool(seed % 2)
    outputs = tuple(_outputs(*axis, 1, ceil) for axis in zip(size, kernel, stride, padding, strict=True))
    x = _image(seed, size, dtype)
    g = _image(seed + 1, outputs, dtype, C=x.shape[3])
    before = frozen(x, g)
    out, back = poisoned(g.shape, dtype), poisoned(x.shape, dtype)
    how = kernel, stride, padding
    with variant(name), pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "WASTE", waste)
        pool.avg_pool2d(x, how, count_include_pad, divisor, out)
        pool.avg_pool2d_adjoint(g, how, count_include_pad, divisor, back)
    expected, expected_back = np.zeros(g.shape), np.zeros(x.shape)
    for i, j in np.ndindex(*outputs):
        elements = list(_window(x, i, j, kernel, stride, padding, (1, 1)))
        start = i * stride[0] - padding[0], j * stride[1] - padding[1]
        end = [min(start[a] + kernel[a], size[a] + padding[a]) for a in (0, 1)]
        whole = (end[0] - start[0]) * (end[1] - start[1])
        count = divisor or (whole if count_include_pad else len(elements))
        for h, w in elements:
            expected[:, i, j] += x[:, h, w] / count
            expected_back[:, h, w] += g[:, i, j] / count
    tolerance = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(out, expected, rtol=0, atol=tolerance * np.abs(x).max())
    np.testing.assert_allclose(back, expected_back, rtol=0, atol=16 * tolerance * np.abs(g).max())
    assert_unchanged([x, g], before)


@VARIANTS
@settings(max_examples=20, deadline=None)
@given(size=pairs(1, 13), outputs=pairs(1, 15), seed=SEEDS, dtype=TYPES)
def test_adaptive_pooling_equals_the_slow_loop(name, size, outputs, seed, dtype):
    x = _image(seed, size, dtype)
    g = _image(seed + 1, outputs, dtype, C=x.shape[3])
    before = frozen(x, g)
    mean, back = poisoned(g.shape, dtype), poisoned(x.shape, dtype)
    largest, taps = _poisoned_maxima(x, outputs, None)
    with variant(name):
        pool.avg_pool2d(x, None, False, 0, mean)
        pool.avg_pool2d_adjoint(g, None, False, 0, back)
        pool.max_pool2d(x, None, largest, taps)
    indices = pool.plane_indices(taps, size, None)
    expected, expected_back = np.zeros(g.shape), np.zeros(x.shape)
    for i, j in np.ndindex(*outputs):
        (top, left), (bottom, right) = zip(*((a * n // m, -(-(a + 1) * n // m)) for a, n, m in
                                             zip((i, j), size, outputs, strict=True)), strict=True)
        window = x[:, top:bottom, left:right].astype(np.float64)
        expected[:, i, j] = window.mean(axis=(1, 2))
        expected_back[:, top:bottom, left:right] += g[:, None, None, i, j] / window[0, ..., 0].size
        np.testing.assert_array_equal(largest[:, i, j], window.max(axis=(1, 2)))
    picked = np.take_along_axis(x.reshape(2, -1, x.shape[3]), indices.reshape(2, -1, x.shape[3]), axis=1)
    np.testing.assert_array_equal(picked.reshape(g.shape), largest)
    tolerance = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(mean, expected, rtol=0, atol=tolerance * np.abs(x).max())
    np.testing.assert_allclose(back, expected_back, rtol=0, atol=16 * 15 * tolerance * np.abs(g).max())
    assert_unchanged([x, g], before)


def test_no_images():
    x, out, taps = np.empty((0, 4, 4, 3)), np.empty((0, 2, 2, 3)), np.empty((0, 2, 2, 3), np.uint8)
    for windows in ((2, 2), (2, 2), (0, 0)), None:
        dilated = windows if windows is None else (*windows, (1, 1))
        pool.max_pool2d(x, dilated, out, taps)
        pool.gather_taps(x, taps, dilated, out)
        pool.scatter_taps(out, taps, dilated, x)
        pool.avg_pool2d(x, windows, True, 0, out)
        pool.avg_pool2d_adjoint(out, windows, True, 0, x)


@pytest.mark.parametrize("windows", [None, ((40, 25), (10, 10), (0, 0)), ((2, 40), (1, 2), (0, 3))])
def test_means_of_many_values_are_as_exact_as_of_few(windows):
    """By norm; one chain of 1,600 values errs by 7e-7."""
    x = _image(0, (40, 40), np.float32, C=16) + np.float32(0.1)
    (kernel, stride, padding) = windows or ((40, 40), (1, 1), (0, 0))
    size = tuple((40 + 2 * p - k) // s + 1 for k, s, p in zip(kernel, stride, padding, strict=True))
    out = poisoned((2, *size, 16), np.float32)
    pool.avg_pool2d(x, windows, True, 0, out)
    padded = np.pad(x, ((0, 0), *((p, p) for p in padding), (0, 0))).astype(np.float64)
    seen = np.lib.stride_tricks.sliding_window_view(padded, kernel, (1, 2))[:, :: stride[0], :: stride[1]]
    expected = seen.mean((-2, -1))
    assert np.linalg.norm(out - expected) < 2e-7 * np.linalg.norm(expected)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_inf_pass(value):
    x = np.zeros((1, 4, 4, 20), np.float32)
    x[0, 0, 0, 17] = value
    out, taps, back = np.empty((1, 2, 2, 20), np.float32), np.empty((1, 2, 2, 20), np.uint8), np.empty_like(x)
    how = (2, 2), (2, 2), (0, 0)
    for run in (lambda: pool.max_pool2d(x, (*how, (1, 1)), out, taps), lambda: pool.avg_pool2d(x, how, True, 0, out),
                lambda: pool.avg_pool2d(x, None, True, 0, out)):
        run()
        assert not np.isfinite(out[0, 0, 0, 17]) and np.isfinite(out).sum() == out.size - 1
    pool.avg_pool2d_adjoint(out, how, True, 0, back)
    assert (~np.isfinite(back)).sum() == 4
