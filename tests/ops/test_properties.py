"""Properties over random shapes: broadcasting, reductions, reshaping, convolution and pooling against NumPy and loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_cnn as tg
from tinygrad_cnn.autograd import grad
from tinygrad_cnn.ops.conv import conv2d, conv_transpose2d, fold, unfold
from tinygrad_cnn.ops.pool import avg_pool2d, max_pool2d

from .. import slow

quick = settings(deadline=None, max_examples=60)
pair = st.tuples(st.integers(1, 3), st.integers(1, 3))


def array(shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


@quick
@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3, min_side=0))
def test_broadcasting_and_its_gradient(shapes):
    (a_shape, b_shape), out_shape = shapes
    a, b, g = array(a_shape), array(b_shape, 1), array(out_shape, 2)
    x, y = tg.tensor(a, requires_grad=True), tg.tensor(b, requires_grad=True)
    out = x * y
    assert out.shape == out_shape
    np.testing.assert_array_equal(out.numpy(), a * b)
    gx, gy = grad(out, (x, y), g)
    np.testing.assert_allclose(gx.numpy(), slow.sum_to(g * b, a_shape), atol=1e-12)
    np.testing.assert_allclose(gy.numpy(), slow.sum_to(g * a, b_shape), atol=1e-12)


@quick
@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3), st.data())
def test_shapes_that_do_not_broadcast_are_refused_as_numpy_does(shapes, data):
    other = data.draw(hnp.array_shapes(max_dims=3, max_side=3))
    shape = shapes.result_shape
    try:
        expected = np.broadcast_shapes(shape, other)
    except ValueError:
        with pytest.raises(ValueError, match="add: shapes"):
            tg.ones(shape) + tg.ones(other)
    else:
        assert (tg.ones(shape) + tg.ones(other)).shape == expected


REDUCTIONS = {"sum": np.sum, "mean": np.mean, "prod": np.prod, "amax": np.max, "amin": np.min, "any": np.any, "all": np.all}


@quick
@given(st.sampled_from(sorted(REDUCTIONS)), hnp.array_shapes(min_dims=0, max_dims=4, max_side=3), st.booleans(), st.data())
def test_reductions(name, shape, keepdim, data):
    dims = data.draw(st.one_of(st.none(), st.lists(st.integers(-len(shape), len(shape) - 1), unique_by=lambda d: d % len(shape), max_size=len(shape)) if shape else st.none()))
    a = array(shape)
    axis = None if not dims else tuple(dims)
    out = getattr(tg, name)(tg.tensor(a), axis, keepdim)
    expected = REDUCTIONS[name](a, axis=axis, keepdims=keepdim)
    assert out.shape == expected.shape
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-12, atol=1e-12)


@quick
@given(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4), st.integers(0, 1))
def test_variance_and_standard_deviation(shape, correction):
    a = array(shape)
    if math.prod(shape) > correction:
        np.testing.assert_allclose(tg.var(tg.tensor(a), correction=correction).item(), a.var(ddof=correction), rtol=1e-10)
        np.testing.assert_allclose(tg.std(tg.tensor(a), correction=correction).item(), a.std(ddof=correction), rtol=1e-10)


@quick
@given(hnp.array_shapes(min_dims=0, max_dims=4, max_side=4, min_side=0), st.data())
def test_reshapes_permutes_and_flips(shape, data):
    a, x = array(shape), tg.tensor(array(shape), requires_grad=True)
    order = data.draw(st.permutations(range(len(shape))))
    dims = data.draw(st.lists(st.sampled_from(range(len(shape))), unique=True)) if shape else []
    factors = [f for n in shape for f in ((2, n // 2) if n % 2 == 0 else (n,))]
    out = x.permute(order).reshape([a.shape[d] for d in order]).permute([order.index(d) for d in range(len(order))]).reshape(factors).reshape(shape).flip(*dims)
    np.testing.assert_array_equal(out.numpy(), np.flip(a, dims))
    g = array(shape, 1)
    np.testing.assert_array_equal(grad(out, x, g)[0].numpy(), np.flip(g, dims))


@quick
@given(hnp.array_shapes(min_dims=1, max_dims=3, max_side=5), st.data())
def test_splitting_and_joining_are_inverse(shape, data):
    x = tg.tensor(array(shape))
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    size = data.draw(st.integers(1, 5))
    for parts in (x.split(size, dim), x.chunk(size, dim)):
        assert tg.cat(parts, dim).tolist() == x.tolist()
    assert tg.stack(x.unbind(dim), dim).tolist() == x.tolist()
    np.testing.assert_array_equal(x.roll(size, dim).numpy(), np.roll(x.numpy(), size, dim))
    np.testing.assert_array_equal(x.tile(2, size).numpy(), np.tile(x.numpy(), (2, size)))


@st.composite
def convolutions(draw):
    n, groups = draw(st.integers(0, 2)), draw(st.integers(1, 2))
    c, k = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    kernel, stride, dilation = draw(pair), draw(pair), draw(pair)
    padding = tuple(p - 1 for p in draw(pair))
    image = tuple(draw(st.integers(max(1, d * (r - 1) + 1 - 2 * p), 7)) for d, r, p in zip(dilation, kernel, padding, strict=True))
    return (n, c, *image), (k, c // groups, *kernel), stride, padding, dilation, groups


@quick
@given(convolutions())
def test_conv2d_and_its_gradients(how):
    x_shape, w_shape, stride, padding, dilation, groups = how
    a, b, bias = array(x_shape), array(w_shape, 1), array(w_shape[:1], 2)
    x, w, v = (tg.tensor(t, requires_grad=True) for t in (a, b, bias))
    out = conv2d(x, w, v, stride, padding, dilation, groups)
    attributes = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    np.testing.assert_allclose(out.numpy(), slow.conv2d(a, b, bias, size=out.shape[2:], **attributes), atol=1e-10)
    g = array(out.shape, 3)
    gx, gw, gb = grad(out, (x, w, v), g)
    np.testing.assert_allclose(gx.numpy(), slow.conv2d_input_grad(g, b, size=x_shape[2:], **attributes), atol=1e-10)
    np.testing.assert_allclose(gw.numpy(), slow.conv2d_weight_grad(g, a, size=w_shape[2:], **attributes), atol=1e-10)
    np.testing.assert_allclose(gb.numpy(), g.sum((0, 2, 3)), atol=1e-10)


@quick
@given(convolutions())
def test_conv2d_is_torchs(how):
    torch = pytest.importorskip("torch")
    x_shape, w_shape, stride, padding, dilation, groups = how
    a, b = array(x_shape), array(w_shape, 1)
    theirs = torch.nn.functional.conv2d(torch.tensor(a), torch.tensor(b), None, stride, padding, dilation, groups)
    np.testing.assert_allclose(conv2d(tg.tensor(a), tg.tensor(b), None, stride, padding, dilation, groups).numpy(), theirs.numpy(), atol=1e-10)


@quick
@given(convolutions(), pair)
def test_conv_transpose2d_is_torchs(how, extra):
    torch = pytest.importorskip("torch")
    (n, c, *image), (k, _, *kernel), stride, padding, dilation, groups = how
    a, b = array((n, c, *image)), array((c, k // groups, *kernel), 1)
    output_padding = tuple(min(e - 1, max(s, d) - 1) for e, s, d in zip(extra, stride, dilation, strict=True))
    size = [(i - 1) * s - 2 * p + d * (r - 1) + e + 1 for i, s, p, d, r, e in zip(image, stride, padding, dilation, kernel, output_padding, strict=True)]
    if n == 0 or min(size) < 1:
        return
    theirs = torch.nn.functional.conv_transpose2d(torch.tensor(a), torch.tensor(b), None, stride, padding, output_padding, groups, dilation)
    ours = conv_transpose2d(tg.tensor(a), tg.tensor(b), None, stride, padding, output_padding, groups, dilation)
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-10)


@quick
@given(convolutions())
def test_unfold_and_fold_are_adjoint(how):
    x_shape, (_, _, *kernel), stride, padding, dilation, _ = how
    a = array(x_shape)
    x = tg.tensor(a)
    columns = unfold(x, kernel, dilation, padding, stride)
    g = array(columns.shape, 1)
    back = fold(tg.tensor(g), x_shape[2:], kernel, dilation, padding, stride)
    np.testing.assert_allclose((columns.numpy() * g).sum(), (a * back.numpy()).sum(), atol=1e-9)


@quick
@given(st.integers(1, 2), st.integers(1, 2), st.tuples(st.integers(1, 7), st.integers(1, 7)), pair, pair, pair, pair, st.booleans(), st.booleans())
def test_pools_are_torchs(n, c, image, kernel, stride, padding, dilation, ceil, count):
    torch = pytest.importorskip("torch")
    padding = tuple(min(p - 1, k // 2) for p, k in zip(padding, kernel, strict=True))
    a = array((n, c, *image))

    def both(ours, theirs):
        x, y = tg.tensor(a, requires_grad=True), torch.tensor(a, requires_grad=True)
        try:
            expected = theirs(y)
        except RuntimeError:
            with pytest.raises(ValueError, match="pool2d: kernel_size"):
                ours(x)
            return
        out = ours(x)
        np.testing.assert_allclose(out.numpy(), expected.detach().numpy(), atol=1e-12)
        if not np.isfinite(out.numpy()).all():
            return                             # a window of padding only
        g = array(out.shape, 1)
        expected.backward(torch.tensor(g))
        np.testing.assert_allclose(grad(out, x, g)[0].numpy(), y.grad.numpy(), atol=1e-12)

    f = torch.nn.functional
    both(lambda x: max_pool2d(x, kernel, stride, padding, dilation, ceil), lambda y: f.max_pool2d(y, kernel, stride, padding, dilation, ceil))
    both(lambda x: avg_pool2d(x, kernel, stride, padding, ceil, count), lambda y: f.avg_pool2d(y, kernel, stride, padding, ceil, count))
