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


@VARIANTS
@settings(max_examples=25, deadline=None)
@given(shape=windows(), seed=SEEDS, dtype=TYPES)
def test_max_pool2d_equals_the_slow_loop(name, shape, seed, dtype):
    size, kernel, stride, padding, dilation, outputs = shape
    x = np.round(_image(seed, size, dtype), 0)  # many ties
    before = frozen(x)
    out, indices = poisoned((2, *outputs, x.shape[3]), dtype), poisoned((2, *outputs, x.shape[3]), np.int64)
    with variant(name):
        pool.max_pool2d(x, kernel, stride, padding, dilation, out, indices)
    for i, j in np.ndindex(*outputs):
        elements = list(_window(x, i, j, kernel, stride, padding, dilation))
        if not elements:  # dilation may step over a small image
            assert (out[:, i, j] == -np.inf).all()
            assert ((indices[:, i, j] >= 0) & (indices[:, i, j] < size[0] * size[1])).all()
            continue
        values = np.stack([x[:, h, w] for h, w in elements])  # (elements, N, C)
        np.testing.assert_array_equal(out[:, i, j], values.max(axis=0))
        flat = np.array([h * size[1] + w for h, w in elements])
        np.testing.assert_array_equal(indices[:, i, j], flat[values.argmax(axis=0)])
    assert_unchanged([x], before)


def test_max_pool2d_at_the_edge_of_numbers():
    x = np.full((1, 4, 4, 3), -np.inf, np.float32)
    x[0, 1, 1, 1] = np.nan
    x[..., 2] = -1
    out, indices = poisoned((1, 3, 3, 3), np.float32), poisoned((1, 3, 3, 3), np.int64)
    pool.max_pool2d(x, (2, 2), (2, 2), (1, 1), (1, 1), out, indices)
    assert (out[..., 0] == -np.inf).all()
    np.testing.assert_array_equal(indices[0, :, :, 0], [[0, 1, 3], [4, 5, 7], [12, 13, 15]])
    assert np.isnan(out[0, 1, 1, 1]) and indices[0, 1, 1, 1] == 5
    assert (out[..., 2] == -1).all()


@VARIANTS
@settings(max_examples=15, deadline=None)
@given(size=pairs(1, 9), outputs=pairs(1, 9), seed=SEEDS, dtype=TYPES)
def test_gather_and_scatter_are_adjoint(name, size, outputs, seed, dtype):
    x = _image(seed, size, dtype)
    random = np.random.default_rng(seed)
    shape = (2, *outputs, x.shape[3])
    indices, g = random.integers(0, size[0] * size[1], shape), random.standard_normal(shape).astype(dtype)
    before = frozen(x, g, indices)
    out, back = poisoned(shape, dtype), poisoned(x.shape, dtype)
    with variant(name):
        pool.gather_plane(x, indices, out)
        pool.scatter_plane(g, indices, back)
    expected = np.zeros(x.shape, dtype)
    for n, i, j, c in np.ndindex(*shape):
        h, w = divmod(indices[n, i, j, c], size[1])
        assert out[n, i, j, c] == x[n, h, w, c]
        expected[n, h, w, c] += g[n, i, j, c]
    np.testing.assert_array_equal(back, expected)  # the same order of additions
    assert_unchanged([x, g, indices], before)


@VARIANTS
@settings(max_examples=25, deadline=None)
@given(shape=windows(), seed=SEEDS, dtype=TYPES, count_include_pad=st.booleans(), divisor=st.sampled_from((0, 0, 3)))
def test_avg_pool2d_and_adjoint_equal_the_slow_loop(name, shape, seed, dtype, count_include_pad, divisor):
    size, kernel, stride, padding, _, _ = shape
    ceil = bool(seed % 2)
    outputs = tuple(_outputs(*axis, 1, ceil) for axis in zip(size, kernel, stride, padding, strict=True))
    x = _image(seed, size, dtype)
    g = _image(seed + 1, outputs, dtype, C=x.shape[3])
    before = frozen(x, g)
    out, back = poisoned(g.shape, dtype), poisoned(x.shape, dtype)
    with variant(name):
        pool.avg_pool2d(x, kernel, stride, padding, count_include_pad, divisor, out)
        pool.avg_pool2d_adjoint(g, kernel, stride, padding, count_include_pad, divisor, back)
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
    mean, largest, back = poisoned(g.shape, dtype), poisoned(g.shape, dtype), poisoned(x.shape, dtype)
    indices = poisoned(g.shape, np.int64)
    with variant(name):
        pool.adaptive_avg_pool2d(x, mean)
        pool.adaptive_avg_pool2d_adjoint(g, back)
        pool.adaptive_max_pool2d(x, largest, indices)
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
    x, out, indices = np.empty((0, 4, 4, 3)), np.empty((0, 2, 2, 3)), np.empty((0, 2, 2, 3), np.int64)
    pool.max_pool2d(x, (2, 2), (2, 2), (0, 0), (1, 1), out, indices)
    pool.gather_plane(x, indices, out)
    pool.scatter_plane(out, indices, x)
    pool.avg_pool2d(x, (2, 2), (2, 2), (0, 0), True, 0, out)
    pool.avg_pool2d_adjoint(out, (2, 2), (2, 2), (0, 0), True, 0, x)
    pool.adaptive_avg_pool2d(x, out)
    pool.adaptive_avg_pool2d_adjoint(out, x)
    pool.adaptive_max_pool2d(x, out, indices)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_inf_pass(value):
    x = np.zeros((1, 4, 4, 20), np.float32)
    x[0, 0, 0, 17] = value
    out, indices, back = np.empty((1, 2, 2, 20), np.float32), np.empty((1, 2, 2, 20), np.int64), np.empty_like(x)
    for run in (lambda: pool.max_pool2d(x, (2, 2), (2, 2), (0, 0), (1, 1), out, indices),
                lambda: pool.avg_pool2d(x, (2, 2), (2, 2), (0, 0), True, 0, out),
                lambda: pool.adaptive_avg_pool2d(x, out)):
        run()
        assert not np.isfinite(out[0, 0, 0, 17]) and np.isfinite(out).sum() == out.size - 1
    pool.avg_pool2d_adjoint(out, (2, 2), (2, 2), (0, 0), True, 0, back)
    assert (~np.isfinite(back)).sum() == 4
