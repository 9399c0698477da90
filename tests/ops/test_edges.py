"""Numbers at the edge: kinks, ties, NaN, infinities, overflow, long sums. Literal tables (PyTorch 2.13's results), without a warning."""

import math

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn.autograd import grad
from tinygrad_cnn.ops import elementwise
from tinygrad_cnn.ops.conv import conv2d, conv_transpose2d, local_conv2d
from tinygrad_cnn.ops.norm import batch_norm
from tinygrad_cnn.ops.pool import adaptive_avg_pool2d, avg_pool2d, max_pool2d
from tinygrad_cnn.ops.resize import interpolate

NAN, INF = math.nan, math.inf


@pytest.fixture(autouse=True, params=["warn", "raise"])
def _loud(request):
    """NumPy may be set to raise on every NaN, overflow and division: the package computes with them all the same."""
    with np.errstate(all=request.param):
        yield


def slope(function, *values):
    """The gradient of sum(function(x)) at the values."""
    x = tg.tensor(np.array(values, float), requires_grad=True)
    (g,) = grad(function(x).sum(), x)
    return g.tolist()


@pytest.mark.parametrize(("function", "expected"), [
    (lambda x: x.sqrt(), INF), (lambda x: x.abs(), 0), (lambda x: x.norm(), 0), (lambda x: x**0, 0), (lambda x: x**1, 1), (lambda x: x**2, 0), (lambda x: x.relu(), 0),
    (lambda x: x.clamp(0, 6), 1), (lambda x: x.clamp(max=0), 1), (lambda x: tg.maximum(x, tg.zeros_like(x)), 0.5), (lambda x: tg.minimum(tg.zeros_like(x), x), 0.5),
    (lambda x: x.log(), INF), (lambda x: x.sign(), 0), (lambda x: x.floor(), 0), (lambda x: x.round(), 0), (lambda x: x ** tg.tensor([0.0]).double(), 0),
    (lambda x: tg.where(x > 0, x.log(), 0.0), NAN), (lambda x: tg.where(x > 0, tg.where(x > 0, x, 1.0).log(), 0.0), 0), (lambda x: x.norm(3), 0), (lambda x: x.norm(1), 0),
    (lambda x: tg.cat([x, x]).std(), 0), (lambda x: x.rsqrt(), -INF), (lambda x: x.reciprocal(), -INF), (lambda x: x.asin(), 1), (lambda x: x.norm(INF), 0),
])
def test_gradients_at_zero(function, expected):
    (found,) = slope(function, 0.0)
    assert found == expected or math.isnan(found) and math.isnan(expected)


def test_ties():
    third = pytest.approx(1 / 3)
    assert slope(lambda x: x.max(), 2.0, 2.0, 2.0) == slope(lambda x: x.amax(0), 2.0, 2.0, 2.0) == slope(lambda x: x.min(), 1.0, 1.0, 1.0) == [third] * 3
    assert slope(lambda x: x.max(0).values, 2.0, 2.0, 2.0) == slope(lambda x: x.min(0).values, 2.0, 2.0, 2.0) == [1, 0, 0]
    assert slope(lambda x: max_pool2d(x.reshape(1, 1, 2, 2), 2), 1.0, 3.0, 3.0, 3.0) == [0, 1, 0, 0]
    assert tg.tensor([1, 3, 3]).argmax().item() == 1 and tg.tensor([3, 1, 1]).argmin().item() == 1


def test_nan_is_a_value():
    x = tg.tensor([NAN, 1.0])
    for out in (x.relu(), x.clamp(0, 1), x.clamp(min=0), tg.maximum(x, tg.ones(2)), tg.minimum(tg.ones(2), x), x.sigmoid(), elementwise.softplus(x), x.abs(), x.sign(), x.erf()):
        assert math.isnan(out.tolist()[0]) and not math.isnan(out.tolist()[1])
    for out in (x.max(), x.min(), x.amax(0), x.max(0).values, x.sum(), x.mean(), x.logsumexp(0), x.norm(), x.prod(), x.cumsum(0)[1], x.softmax(0)[1]):
        assert math.isnan(out.item())
    assert tg.tensor([1.0, NAN, 5.0, NAN]).argmax().item() == tg.tensor([1.0, NAN, 5.0, NAN]).argmin().item() == 1
    pooled, indices = max_pool2d(tg.tensor([[[[1.0, NAN], [5.0, 2.0]]]]), 2, return_indices=True)
    assert math.isnan(pooled.item()) and indices.item() == 1
    assert slope(lambda t: max_pool2d(t.reshape(1, 1, 2, 2), 2), 1.0, NAN, 5.0, 2.0) == [0, 1, 0, 0]
    assert slope(lambda t: t.relu(), NAN, 1.0) == [1, 1] and slope(lambda t: t.max(), 1.0, NAN) == [0, 1]
    assert tg.tensor([NAN]).isnan().item() and not (tg.tensor([NAN]) == tg.tensor([NAN])).item()


def test_softmax_family():
    assert tg.tensor([1e38, -1e38, 1e38]).softmax(0).tolist() == [0.5, 0, 0.5]
    assert all(map(math.isnan, tg.tensor([-INF, -INF]).softmax(0).tolist()))
    assert tg.tensor([-INF, 0.0]).softmax(0).tolist() == [0, 1]
    assert tg.tensor([1000.0, 0.0]).log_softmax(0).tolist() == [0, -1000]
    assert tg.tensor([-INF, -INF]).logsumexp(0).item() == -INF and tg.tensor([INF, 0.0]).logsumexp(0).item() == INF
    assert slope(lambda x: x.logsumexp(0), -INF, 0.0) == [0, 1]
    assert tg.tensor([3e38, 3e38]).logsumexp(0).item() == pytest.approx(3e38)


@pytest.mark.parametrize(("name", "low", "high"), [("sigmoid", 0, 1), ("softplus", 0, 1e4), ("logsigmoid", -1e4, 0), ("tanh", -1, 1), ("erf", -1, 1)])
@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
def test_nothing_overflows(name, low, high, dtype):
    x = tg.tensor([-1e4, 1e4], dtype=dtype, requires_grad=True)
    out = getattr(elementwise, name)(x)
    assert out.tolist() == [low, high]
    (g,) = grad(out.sum(), x, create_graph=True)
    assert np.isfinite(g.numpy()).all() and np.isfinite(grad(g.sum(), x)[0].numpy()).all()


def test_infinities_pass_through():
    x = tg.tensor([INF, -INF, 0.0])
    assert x.exp().tolist() == [INF, 0, 1] and (x * 2).tolist() == [INF, -INF, 0] and (1 / x).tolist() == [0, 0, INF]
    assert math.isnan((x + x.flip(0)).tolist()[1]) is False and math.isnan((x - x).tolist()[0])
    assert (tg.tensor([3e38]) * 10).item() == INF
    y = tg.tensor([INF], requires_grad=True)
    for _ in range(2):
        (y * tg.tensor([INF])).backward()
    y.grad = tg.tensor([-INF])
    (y * tg.tensor([INF])).backward()          # inf - inf accumulates to NaN, in silence
    assert math.isnan(y.grad.item())


def test_padding_of_pools():
    assert max_pool2d(-tg.ones(1, 1, 2, 2), 2, padding=1).tolist() == [[[[-1, -1], [-1, -1]]]]
    everything = tg.full((1, 1, 2, 2), -INF)
    out, indices = max_pool2d(everything, 2, return_indices=True)
    assert out.item() == -INF and indices.item() == 0
    assert slope(lambda x: max_pool2d(x.reshape(1, 1, 2, 2), 2), -INF, -INF, -INF, -INF) == [1, 0, 0, 0]


def test_batch_norm_of_one_value_per_channel_and_the_unbiased_running_variance():
    with pytest.raises(ValueError, match="batch_norm: expected more than 1 value per channel"):
        batch_norm(tg.ones(1, 3), training=True)
    mean, var = tg.zeros(1), tg.ones(1)
    batch_norm(tg.tensor([[1.0], [3.0]]), mean, var, training=True, momentum=0.1)
    assert mean.item() == pytest.approx(0.2) and var.item() == pytest.approx(1.1)
    with pytest.raises(ValueError, match="batch_norm: running_mean has shape"):
        batch_norm(tg.ones(2, 3), tg.zeros(2), tg.ones(2), training=True)
    assert batch_norm(tg.ones(0, 3, 2, 2), training=True).shape == (0, 3, 2, 2)
    for training in (True, False):
        with pytest.raises(ValueError, match=r"batch_norm: x of shape \(2, 0, 4\) has no channels"):
            batch_norm(tg.ones(2, 0, 4), tg.zeros(0), tg.ones(0), training=training)


def test_batch_norm_far_from_zero():
    x = tg.tensor(np.array([[1e4 - 0.01], [1e4 + 0.01]] * 64, np.float32))
    out = batch_norm(x, training=True).numpy()
    assert np.isfinite(out).all() and abs(out.std() - 1) < 0.2


@pytest.mark.parametrize(("shape", "dim"), [((1000, 50), 0), ((50, 1000), 1), ((4, 50, 16, 16), (0, 2, 3)), ((200, 50), 0)])
def test_sums_of_hundreds_of_float32_are_added_in_short_chains(shape, dim):
    """By norm; one chain of 1,000 errs by 5e-7, of 200 by 2.9e-7."""
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = x.astype(np.float64).sum(dim)
    assert np.linalg.norm(tg.tensor(x).sum(dim).numpy() - expected) < 2e-7 * np.linalg.norm(expected)


@pytest.mark.parametrize(("shape", "dim"), [((2**25,), None), ((2**24 + 2, 2), 0), ((2, 2**24 + 2), 1)])
def test_long_float32_sums(shape, dim):
    x = tg.ones(*shape)
    count = x.numel() if dim is None else shape[dim]
    for out in (x.sum(dim), x.mean(dim) * count):
        assert out.dtype == tg.float32 and np.unique(out.numpy()).tolist() == [np.float32(count)]
    if dim is None:
        assert x.sum_to_size(1).item() == count and (x * 2).var().item() == 0


def test_empty_reductions():
    x = tg.zeros(0, 3)
    assert x.sum().item() == 0 and x.prod().item() == 1 and math.isnan(x.mean().item()) and x.sum(0).tolist() == [0] * 3 and x.sum(1).shape == (0,)
    assert x.any().item() is False and x.all().item() is True and x.norm().item() == 0 and x.logsumexp(0).tolist() == [-INF] * 3
    assert x.max(1).values.shape == (0,) and x.argmax(1).shape == (0,) and x.softmax(0).shape == (0, 3)
    for name in ("max", "min", "argmax", "argmin", "amax", "amin"):
        with pytest.raises((IndexError, ValueError), match=name.replace("max", "a?max").replace("min", "a?min").replace("aa?", "a")):
            getattr(x, name)()
        with pytest.raises((IndexError, ValueError), match="max|min"):
            getattr(x, name)(0)
    assert math.isnan(tg.ones(1).var().item()) and tg.ones(1).var(correction=0).item() == 0


def test_empty_batches():
    x, w = tg.zeros(0, 2, 4, 4, requires_grad=True), tg.ones(3, 2, 2, 2, requires_grad=True)
    outputs = [conv2d(x, w, tg.ones(3)), conv_transpose2d(x, tg.ones(2, 3, 2, 2)), max_pool2d(x, 2), avg_pool2d(x, 2), adaptive_avg_pool2d(x, 1), interpolate(x, 3),
               local_conv2d(x, tg.ones(1, 2, 2, 2, 3, 3)), batch_norm(x, training=True), x.flatten(1) @ tg.ones(32, 5), tg.ops.linalg.linear(x, tg.ones(2, 4))]
    assert [o.shape for o in outputs] == [(0, 3, 3, 3), (0, 3, 5, 5), (0, 2, 2, 2), (0, 2, 2, 2), (0, 2, 1, 1), (0, 2, 3, 3), (0, 1, 3, 3), (0, 2, 4, 4), (0, 5), (0, 2, 4, 2)]
    sum(o.sum() for o in outputs).backward()
    assert x.grad.shape == x.shape and w.grad.tolist() == np.zeros((3, 2, 2, 2)).tolist()


def test_prod_with_zeros():
    assert slope(lambda x: x.prod(), 2.0, 0.0, 3.0) == [0, 6, 0] and slope(lambda x: x.prod(), 0.0, 0.0, 3.0) == [0, 0, 0]


def test_division_and_remainder_of_floats():
    x = tg.tensor([1.0, -1.0, 0.0])
    assert (x / 0).tolist()[:2] == [INF, -INF] and math.isnan((x / 0).tolist()[2])
    assert (tg.tensor([-7.5]) % 2).item() == 0.5 and (tg.tensor([-7.5]) // 2).item() == -4


def test_integer_division_by_zero_does_not_kill():
    assert (tg.tensor([4]) // tg.tensor([0])).dtype == tg.int64


@pytest.mark.parametrize(("values", "function"), [
    ([0.0, -0.0], lambda t: t.sqrt()), ([NAN, 1.0, 1.0], lambda t: t.max()), ([2.0, 2.0], lambda t: t.norm()), ([0.0, 0.0], lambda t: t.norm()),
    ([NAN, 1.0], lambda t: t.relu()), ([-1.0, 0.0, 2.0], lambda t: t**3), ([-2.0, 2.0], lambda t: t.clamp(-2, 2)), ([0.5, 0.5], lambda t: t.std()),
    ([0.0, 1.0], lambda t: t.abs()), ([-3.0, 3.0], lambda t: t.tanh()), ([1.0, 1.0, 0.0], lambda t: t.amin(0)), ([0.0, 2.0], lambda t: t.prod()),
    ([1.0, 2.0], lambda t: t**t), ([1.0, 2.5], lambda t: t % 2), ([NAN, 2.0], lambda t: t.max(0)[0]), ([0.3, -0.3], lambda t: t.sign()),
])
def test_gradients_are_torchs(values, function):
    torch = pytest.importorskip("torch")
    theirs = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    function(theirs).sum().backward()
    np.testing.assert_allclose(slope(function, *values), theirs.grad.numpy())
