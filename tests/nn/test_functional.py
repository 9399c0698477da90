"""Functions: closed forms, edge values, bad input; PyTorch for those that no layer covers."""

import math

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn import nn
from tinygrad_cnn.nn import functional as F

rng = np.random.default_rng(0)


def gradient(function, values):
    x = tg.tensor(np.asarray(values, np.float64), requires_grad=True)
    function(x).sum().backward()
    return x.grad.tolist()


# ---- activations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("function", "at", "slope"), [
    (F.relu, 0.0, 0.0), (F.relu6, 0.0, 0.0), (F.relu6, 6.0, 0.0), (F.relu6, 3.0, 1.0),
    (F.leaky_relu, 0.0, 0.01), (F.elu, 0.0, 1.0),
    (F.hardswish, 3.0, 1.0), (F.hardswish, -3.0, 0.0), (F.hardswish, 0.0, 0.5), (F.silu, 0.0, 0.5), (F.gelu, 0.0, 0.5)])
def test_slopes_at_kinks(function, at, slope):
    assert gradient(function, [at]) == [pytest.approx(slope, abs=1e-15)]


@pytest.mark.parametrize("function", [F.relu, F.relu6, F.leaky_relu, F.elu, F.silu, F.gelu, F.hardswish, F.softplus,
                                      F.sigmoid, F.tanh])
def test_nan_stays_nan(function):
    assert math.isnan(function(tg.tensor([math.nan])).item())


@pytest.mark.parametrize(("function", "low", "high"), [
    (F.sigmoid, 0, 1), (F.tanh, -1, 1), (F.silu, 0, 1e4), (F.gelu, 0, 1e4), (F.elu, -1, 1e4), (F.softplus, 0, 1e4),
    (F.logsigmoid, -1e4, 0), (F.hardswish, 0, 1e4), (lambda x: F.gelu(x, "tanh"), 0, 1e4)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_far_from_zero(function, low, high, dtype):
    x = tg.tensor(np.array([-1e4, 1e4], dtype), requires_grad=True)
    with np.errstate(all="raise"):
        y = function(x)
        y.sum().backward()
    assert y.tolist() == [low, high]
    assert y.dtype == dtype
    assert np.isfinite(x.grad.numpy()).all()


def test_softmax_edges():
    x = np.array([[1e38, -1e38, 1e38], [-np.inf, 0, -np.inf], [-np.inf] * 3], np.float32)
    p = F.softmax(tg.tensor(x), 1).numpy()
    np.testing.assert_array_equal(p[:2], [[0.5, 0, 0.5], [0, 1, 0]])
    assert np.isnan(p[2]).all()
    assert F.log_softmax(tg.tensor([1000.0, 0.0]), 0).tolist() == [0, -1000]


# ---- dropout --------------------------------------------------------------------------------------------------------


def test_dropout_keeps_the_mean_and_repeats_under_a_seed():
    tg.manual_seed(3)
    x = tg.ones(200, 300)
    y = F.dropout(x, 0.3)
    kept = y.numpy() != 0
    assert abs(kept.mean() - 0.7) < 0.01       # five standard deviations are 0.0094
    np.testing.assert_allclose(y.numpy()[kept], 1 / 0.7, rtol=1e-6)
    tg.manual_seed(3)
    np.testing.assert_array_equal(F.dropout(x, 0.3).numpy(), y.numpy())


def test_dropout_gradient_is_its_mask():
    x = tg.ones(50, 60, requires_grad=True)
    y = F.dropout(x, 0.5)
    g = rng.standard_normal(y.shape).astype(np.float32)
    y.backward(tg.tensor(g))
    np.testing.assert_allclose(x.grad.numpy(), y.numpy() * g, rtol=1e-6)


def test_dropping_everything_gives_zeros_without_nan():
    x = tg.tensor([1.0, math.inf, math.nan], requires_grad=True)
    y = F.dropout(x, 1.0)
    y.sum().backward()
    assert y.tolist() == [0, 0, 0]
    assert x.grad.tolist() == [0, 0, 0]


def test_dropout2d_drops_whole_channels():
    tg.manual_seed(0)
    y = F.dropout2d(tg.ones(20, 30, 3, 4), 0.5).numpy()
    per_channel = y.reshape(20, 30, -1)
    assert ((per_channel == 0).all(2) | (per_channel == 2).all(2)).all()
    assert 0.4 < (per_channel[:, :, 0] == 0).mean() < 0.6


def test_dropout_in_evaluation_is_the_identity():
    x = tg.randn(2, 3, 4, 4)
    assert nn.Dropout(0.5).eval()(x) is x
    assert nn.Dropout2d(0.5).eval()(x) is x


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize("make", [lambda p: F.dropout(tg.ones(2), p),
                                  lambda p: F.dropout(tg.ones(2), p, training=False), nn.Dropout, nn.Dropout2d,
                                  lambda p: F.dropout2d(tg.ones(1, 1, 2, 2), p, training=False)])
def test_probabilities_out_of_range(make, p):
    with pytest.raises(ValueError, match="p is a probability|p must be a number, got NaN"):
        make(p)


# ---- normalisation --------------------------------------------------------------------------------------------------


def test_batch_norm_running_variance_is_unbiased():
    layer = nn.BatchNorm1d(1)
    layer(tg.tensor([[1.0], [3.0]]))
    assert layer.running_mean.item() == pytest.approx(0.2)
    assert layer.running_var.item() == pytest.approx(1.1)      # 0.9 * 1 + 0.1 * ((1 + 1) / (2 - 1))
    assert layer.num_batches_tracked.item() == 1
    assert layer.num_batches_tracked.dtype == tg.int64


def test_batch_norm_without_momentum_averages_all_batches():
    layer = nn.BatchNorm1d(1, momentum=None)
    for batch in ([[0.0], [2.0]], [[4.0], [6.0]], [[5.0], [9.0]]):
        layer(tg.tensor(batch))
    assert layer.running_mean.item() == pytest.approx((1 + 5 + 7) / 3)
    assert layer.running_var.item() == pytest.approx((2 + 2 + 8) / 3)


def test_batch_norm_of_nearly_constant_numbers():
    x = tg.tensor(np.array([1e4 - 0.01, 1e4 + 0.01, 1e4 - 0.01, 1e4 + 0.01], np.float32).reshape(4, 1))
    y = nn.BatchNorm1d(1)(x).numpy()
    assert np.isfinite(y).all()
    assert 0.8 < y.std() < 1.2


def test_a_failed_batch_leaves_batch_norm_as_it_was():
    layer = nn.BatchNorm2d(3)
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        layer(tg.ones(1, 3, 1, 1))
    assert all((layer.state_dict()[k] == v).all() for k, v in before.items())


@pytest.mark.parametrize("layer, shape", [(nn.BatchNorm1d, (1, 3)), (nn.BatchNorm2d, (1, 3, 1, 1))])
def test_evaluation_without_running_statistics_says_what_is_missing(layer, shape):
    layer = layer(3, track_running_stats=False).eval()
    with pytest.raises(ValueError, match=r"without running statistics \(track_running_stats=False\) .*got input of shape") as caught:
        layer(tg.ones(*shape))
    assert "training" not in str(caught.value)
    with pytest.raises(ValueError, match="when training"):
        layer.train()(tg.ones(*shape))
    with pytest.raises(ValueError, match="has 5 channels"):
        layer.eval()(tg.ones(1, 5, *shape[2:]))
    x = tg.randn(4, *shape[1:])
    assert (layer(x) == layer.train()(x)).all()


def test_batch_norm_of_an_empty_batch():
    layer = nn.BatchNorm2d(3)
    assert layer(tg.zeros(0, 3, 4, 4)).shape == (0, 3, 4, 4)
    assert layer.running_var.tolist() == [1, 1, 1]


@pytest.mark.parametrize("make", [lambda: nn.LayerNorm((4, 5)), lambda: nn.GroupNorm(3, 3)])
def test_layer_and_group_norm_standardise(make):
    y = make().double()(tg.tensor(50 + 7 * rng.standard_normal((2, 3, 4, 5)))).numpy()
    np.testing.assert_allclose(y.mean((2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(y.std((2, 3)), 1, atol=1e-5)


def test_normalize_and_cosine_similarity():
    x = tg.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    y = F.normalize(x)
    np.testing.assert_allclose(y.numpy(), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    y.sum().backward()
    assert np.isfinite(x.grad.numpy()).all()
    cosines = F.cosine_similarity(tg.tensor([[1.0, 0], [1, 1]]), tg.tensor([[0.0, 2], [3, 3]]))
    np.testing.assert_allclose(cosines.numpy(), [0, 1], atol=1e-6)


@pytest.mark.parametrize("shapes", [((1, 2, 3), (2, 1, 3)), ((2, 3), (1, 3)), ((3,), (2, 3)), ((2, 1, 1), (4, 3)), ((2, 3), (2, 3)), ((3, 1), (1, 1))])
def test_cosine_similarity_of_shapes_that_broadcast_along_any_dim(shapes):
    a, b = (rng.standard_normal(shape) for shape in shapes)
    full_a, full_b = np.broadcast_arrays(a, b)
    for dim in range(-full_a.ndim, full_a.ndim):
        expected = np.sum(full_a * full_b, dim) / np.sqrt(np.sum(full_a**2, dim) * np.sum(full_b**2, dim))
        np.testing.assert_allclose(F.cosine_similarity(tg.tensor(a), tg.tensor(b), dim=dim).numpy(), expected, rtol=1e-12)
    args = tuple(tg.tensor(v, requires_grad=True) for v in (a, b))
    assert tg.autograd.gradcheck(lambda x, y: F.cosine_similarity(x, y, dim=0), args)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 2, 3), (0, 3), (1, 3)])
@pytest.mark.parametrize("relu", [False, True])
def test_linear_of_any_number_of_dims(shape, relu):
    x, w, b = (rng.standard_normal(s) for s in (shape, (4, 3), (4,)))
    tensors = [tg.tensor(v, requires_grad=True) for v in (x, w, b)]
    y = F.linear(*tensors, relu=relu)
    expected = np.array([[sum(w[k, i] * row[i] for i in range(3)) + b[k] for k in range(4)] for row in x.reshape(-1, 3)]).reshape(*shape[:-1], 4)
    np.testing.assert_allclose(y.numpy(), np.maximum(expected, 0) if relu else expected, rtol=1e-12)
    g = rng.standard_normal(y.shape)
    got = tg.autograd.grad(y, tensors, tg.tensor(g))
    rows = (g * (expected > 0) if relu else g).reshape(-1, 4)
    for found, right in zip(got, (rows @ w, rows.T @ x.reshape(-1, 3), rows.sum(0)), strict=True):
        np.testing.assert_allclose(found.numpy(), right.reshape(found.shape), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("shape", "dim"), [((), 0), ((3,), 0), ((2, 3), 1), ((2, 3, 4), 0), ((2, 3, 4, 1), 1)])
def test_softmax_without_a_dim_takes_pytorchs_and_warns(shape, dim):
    x = tg.tensor(np.asarray(rng.standard_normal(shape)))
    for layer, call in ((nn.Softmax(), F.softmax), (nn.LogSoftmax(), F.log_softmax)):
        with pytest.warns(UserWarning, match=f"softmax: dim is not given; {dim} is taken"):
            y = layer(x)
        assert y.tolist() == call(x, dim).tolist() and layer.dim is None


# ---- in place -------------------------------------------------------------------------------------------------------

IN_PLACE = {
    "relu": (F.relu, {}), "relu6": (F.relu6, {}), "leaky_relu": (F.leaky_relu, {"negative_slope": 0.2}), "leaky_relu that falls": (F.leaky_relu, {"negative_slope": -0.5}),
    "elu": (F.elu, {"alpha": 0.7}), "silu": (F.silu, {}), "hardswish": (F.hardswish, {}), "dropout": (F.dropout, {"p": 0.4}),
}


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 40, 40), (0, 2), ()])
@pytest.mark.parametrize("last", [False, True])
def test_in_place_activations_write_over_their_input_and_have_the_same_gradient(name, shape, last):
    function, options = IN_PLACE[name]
    values = np.asarray(rng.standard_normal(shape) * 4)
    if last and values.ndim == 4:
        values = np.moveaxis(np.ascontiguousarray(np.moveaxis(values, 1, -1)), -1, 1)

    def run(inplace):
        tg.manual_seed(0)
        leaf = tg.tensor(values, requires_grad=True)
        x = leaf * 1
        y = function(x, inplace=inplace, **options)
        z = (y * y * 0.5).sum()
        z.backward()
        return leaf, x, y

    leaf, x, y = run(False)
    again, written, out = run(True)
    assert out is written and y is not x
    np.testing.assert_array_equal(out.numpy(), y.numpy())
    np.testing.assert_array_equal(again.grad.numpy(), leaf.grad.numpy())
    plain = tg.tensor(values)
    tg.manual_seed(0)
    with tg.no_grad():
        assert function(plain, inplace=True, **options) is plain
    np.testing.assert_array_equal(plain.numpy(), y.numpy())


def test_in_place_layers_are_in_place_and_safe():
    for layer in (nn.ReLU(inplace=True), nn.ReLU6(inplace=True), nn.LeakyReLU(0.1, inplace=True), nn.ELU(inplace=True), nn.SiLU(inplace=True),
                  nn.Hardswish(inplace=True), nn.Dropout(0.5, inplace=True)):
        x = tg.randn(3, 4)
        assert layer(x) is x
        leaf = tg.randn(3, requires_grad=True)
        with pytest.raises(RuntimeError, match="leaf tensor that requires grad"):
            layer(leaf)
        y = leaf.exp()                         # which needs its result
        layer(y)
        with pytest.raises(RuntimeError, match="the result 'out' of exp"):
            y.sum().backward()
    x = tg.randn(3)
    assert nn.Dropout(0.5, inplace=True).eval()(x) is x


def test_a_tensor_collected_before_an_activation_in_place_is_the_activated_one():
    """As in published networks that keep a block's output and then activate it in place."""
    norm = nn.BatchNorm2d(3)
    x = tg.randn(2, 3, 4, 4)
    out = norm(x)
    kept = [out]
    nn.Sequential(nn.ReLU(inplace=True), nn.Identity())(out)
    assert kept[0].amin().item() == 0
    weights = tg.randn(2, 3, 4, 4)
    (kept[0] * weights).sum().backward()
    right = nn.BatchNorm2d(3)
    (F.relu(right(x)) * weights).sum().backward()
    np.testing.assert_allclose(norm.weight.grad.numpy(), right.weight.grad.numpy(), rtol=1e-6)


# ---- padding, rearranging -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "numpy_mode"), [("constant", "constant"), ("reflect", "reflect"),
                                                  ("replicate", "edge"), ("circular", "wrap")])
@pytest.mark.parametrize("widths", [(0, 0), (2, 1), (0, 3, 1, 0), (3, 3, 2, 1), (1, 1, 0, 0, 1, 1)])
def test_pad_as_numpy(mode, numpy_mode, widths):
    x = rng.standard_normal((2, 2, 3, 4))
    pairs = list(zip(widths[::2], widths[1::2], strict=True))[::-1]
    wanted = np.pad(x, [(0, 0)] * (4 - len(pairs)) + pairs, mode=numpy_mode)
    np.testing.assert_array_equal(F.pad(tg.tensor(x), widths, mode=mode).numpy(), wanted)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_pad_gradients(mode):
    x = tg.tensor(rng.standard_normal((1, 2, 3, 4)), requires_grad=True)
    assert tg.autograd.gradcheck(lambda v: F.pad(v, (2, 1, 1, 2), mode=mode), (x,))


def test_pad_value_and_cropping():
    assert F.pad(tg.tensor([1.0, 2, 3]), (1, -1), value=9).tolist() == [9, 1, 2]


def test_pixel_shuffle_places():
    x = tg.arange(8).reshape(1, 4, 1, 2)       # channel 2 i + j goes to row i, column j of each pixel's block
    assert F.pixel_shuffle(x, 2).tolist() == [[[[0, 2, 1, 3], [4, 6, 5, 7]]]]
    assert F.pixel_shuffle(tg.zeros(3, 2, 18, 4, 5), 3).shape == (3, 2, 2, 12, 15)


def test_one_hot():
    assert F.one_hot(tg.tensor([[0, 2]])).tolist() == [[[1, 0, 0], [0, 0, 1]]]
    assert F.one_hot(tg.tensor([1]), 4).dtype == tg.int64
    assert F.one_hot(tg.zeros(0, dtype=tg.int64), 4).shape == (0, 4)


def test_max_pooling_pads_with_minus_infinity():
    assert (F.max_pool2d(-tg.ones(1, 1, 3, 3), 3, stride=1, padding=1) == -1).all()


def test_one_pixel_through_a_locally_connected_layer():
    layer = nn.LocallyConnected2d(2, 3, (5, 4), (3, 2), stride=2, padding=1).double()
    x = rng.standard_normal((2, 2, 5, 4))
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
    weight, bias = layer.weight.numpy(), layer.bias.numpy()
    assert layer.output_size == (3, 3)
    wanted = np.zeros((2, 3, 3, 3))
    for n, k, i, j in np.ndindex(2, 3, 3, 3):
        window = padded[n, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 2]
        wanted[n, k, i, j] = (window * weight[k, :, :, :, i, j]).sum() + bias[k, i, j]
    np.testing.assert_allclose(layer(tg.tensor(x)).numpy(), wanted, rtol=1e-12, atol=1e-13)


def test_locally_connected_with_equal_filters_is_a_convolution():
    local, conv = nn.LocallyConnected2d(3, 4, 6, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
    with tg.no_grad():
        local.weight.copy_(conv.weight.reshape(4, 3, 3, 3, 1, 1))
        local.bias.copy_(conv.bias.reshape(4, 1, 1))
    x = tg.randn(2, 3, 6, 6)
    np.testing.assert_allclose(local(x).numpy(), conv(x).numpy(), rtol=1e-4, atol=1e-6)
    assert sum(p.numel() for p in local.parameters()) == 6 * 6 * ((3 * 3 * 3) * 4 + 4)


def test_gradients_of_a_locally_connected_layer():
    layer = nn.LocallyConnected2d(2, 2, (3, 4), 2, padding=1, stride=2, dilation=2).double()
    x = tg.tensor(rng.standard_normal((2, 2, 3, 4)), requires_grad=True)
    assert tg.autograd.gradcheck(lambda x, w, b: F.local_conv2d(x, w, b, 2, 1, 2), (x, layer.weight, layer.bias))


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(3, 4, 3), nn.LocallyConnected2d(3, 4, 6, 3),
                                   nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(2),
                                   nn.Upsample(scale_factor=2), nn.GroupNorm(1, 3),
                                   nn.LayerNorm(6), nn.Dropout2d(), nn.Flatten(), nn.ReLU(), nn.Softmax(1)],
                         ids=lambda layer: type(layer).__name__)
def test_empty_batches(layer):
    x = tg.zeros(0, 3, 6, 6, requires_grad=True)
    y = layer(x)
    assert y.shape[0] == 0
    y.sum().backward()
    assert x.grad.shape == (0, 3, 6, 6)
    for p in layer.parameters():
        assert (p.grad == 0).all()


# ---- bad input ------------------------------------------------------------------------------------------------------

IMAGE = tg.zeros(1, 3, 4, 4)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: nn.Conv2d(3, 4, 0), ValueError, "kernel_size must be at least 1"),
    (lambda: nn.Conv2d(3, 4, 3, stride=0), ValueError, "stride must be at least 1"),
    (lambda: nn.Conv2d(3, 4, 3, padding=-1), ValueError, "padding must be at least 0"),
    (lambda: nn.Conv2d(3, 4, 3, padding="full"), ValueError, "'same', 'valid'"),
    (lambda: nn.Conv2d(3, 4, 3, padding_mode="mirror"), ValueError, "padding_mode"),
    (lambda: nn.Conv2d(3, 4, 3, 2, padding="same", padding_mode="reflect"), ValueError, "stride 1"),
    (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "groups=2 must divide in_channels=3"),
    (lambda: nn.Conv2d(3, 4, 3, groups=0), ValueError, "groups must be a positive int"),
    (lambda: nn.Conv2d(0, 4, 3), ValueError, "in_channels must be a positive int"),
    (lambda: nn.Conv2d(3, 4.5, 3), TypeError, "Conv2d: out_channels must be an int, got float 4.5"),
    (lambda: nn.Conv2d(3, 4, 3, dtype="float16"), TypeError, "float16"),
    (lambda: nn.Conv2d(3, 4, 3)(tg.zeros(1, 2, 5, 5)), ValueError, "x has 2 channels, weight expects 3"),
    (lambda: nn.Conv2d(3, 4, 7)(IMAGE), ValueError, "more than the padded input"),
    (lambda: nn.Conv2d(3, 4, 3)(tg.zeros(3, 4)), ValueError, r"\(N, C, H, W\)"),
    (lambda: nn.Conv2d(3, 4, 3)(tg.zeros(1, 3, 4, 4, dtype=tg.float64)), TypeError, "one dtype"),
    (lambda: nn.ConvTranspose2d(3, 4, 3, padding_mode="reflect"), ValueError, "padding_mode must be 'zeros'"),
    (lambda: nn.ConvTranspose2d(3, 4, 3, padding="same"), ValueError, "int or a pair"),
    (lambda: nn.ConvTranspose2d(3, 4, 3, output_padding=1)(IMAGE), ValueError, "output_padding"),
    (lambda: nn.LocallyConnected2d(3, 4, 2, 3), ValueError, "LocallyConnected2d: the kernel covers"),
    (lambda: nn.LocallyConnected2d(3, 4, 5, 3)(IMAGE), ValueError, "positions"),
    (lambda: nn.Linear(3, 0), ValueError, "out_features must be a positive int"),
    (lambda: nn.Linear(3, 2)(tg.zeros(2, 4)), ValueError, "in_features = 3"),
    (lambda: nn.MaxPool2d(0)(IMAGE), ValueError, "kernel_size must be at least 1"),
    (lambda: nn.MaxPool2d(2, padding=2)(IMAGE), ValueError, "at most half"),
    (lambda: nn.MaxPool2d(5)(IMAGE), ValueError, "larger than the padded input"),
    (lambda: nn.AvgPool2d(2, stride=0)(IMAGE), ValueError, "stride must be at least 1"),
    (lambda: nn.AdaptiveAvgPool2d(0)(IMAGE), ValueError, "output_size must be at least 1"),
    (lambda: nn.BatchNorm2d(4)(IMAGE), ValueError, "3 channels"),
    (lambda: nn.BatchNorm2d(3)(tg.zeros(2, 3)), ValueError, "expected 4D input"),
    (lambda: nn.BatchNorm1d(3)(IMAGE), ValueError, "expected 2D or 3D input"),
    (lambda: nn.BatchNorm2d(3, eps=0), ValueError, "eps must be positive"),
    (lambda: nn.BatchNorm2d(3, momentum=2), ValueError, "momentum"),
    (lambda: nn.BatchNorm2d(-1), ValueError, "num_features"),
    (lambda: nn.LayerNorm(5)(IMAGE), ValueError, "normalized_shape"),
    (lambda: nn.GroupNorm(2, 3), ValueError, "num_groups=2 must divide num_channels=3"),
    (lambda: nn.GroupNorm(2, 4)(IMAGE), ValueError, r"\(N, 4, \.\.\.\)"),
    (lambda: F.group_norm(IMAGE, 2), ValueError, "multiple of num_groups=2"),
    (lambda: nn.Unflatten(1, (2, 2))(IMAGE), ValueError, "multiply to 4"),
    (lambda: nn.ZeroPad2d((1, 2)), ValueError, "left, right, top, bottom"),
    (lambda: nn.PixelShuffle(2)(IMAGE), ValueError, "upscale_factor"),
    (lambda: nn.Upsample(scale_factor=-1)(IMAGE), ValueError, "scale_factor must be a positive number"),
    (lambda: nn.Softmax(2)(tg.zeros(2, 3)), IndexError, "dim 2 is out of range"),
    (lambda: F.softmax(tg.zeros(2), "1"), TypeError, "dim must be an int"),
    (lambda: F.gelu(IMAGE, "exact"), ValueError, "approximate"),
    (lambda: F.softplus(IMAGE, beta=0), ValueError, "beta"),
    (lambda: F.dropout(tg.ones(2, dtype=tg.int64)), TypeError, "input must be float"),
    (lambda: F.dropout2d(tg.ones(2, 3)), ValueError, r"\(N, C, H, W\)"),
    (lambda: F.pad(IMAGE, (1,)), ValueError, "before, after"),
    (lambda: F.pad(IMAGE, (1,) * 10), ValueError, "at most 4 dims"),
    (lambda: F.pad(IMAGE, (1, 1), "mirror"), ValueError, "mode must be"),
    (lambda: F.pad(IMAGE, (4, 0), "reflect"), ValueError, r"can add 0 \.\. 3"),
    (lambda: F.pad(IMAGE, (5, 0), "circular"), ValueError, r"can add 0 \.\. 4"),
    (lambda: F.pad(IMAGE, (-1, 0), "replicate"), ValueError, r"can add 0 \.\. inf"),
    (lambda: F.pad(IMAGE, (1, 1), "reflect", 2), ValueError, "value is for mode 'constant' only"),
    (lambda: F.pad(IMAGE, (-5, 0)), ValueError, "crop more"),
    (lambda: F.one_hot(tg.tensor([1.0])), TypeError, "integer"),
    (lambda: F.one_hot(tg.tensor([3]), 3), ValueError, r"0 \.\. 2"),
    (lambda: F.one_hot(tg.tensor([-1])), ValueError, "-1"),
    (lambda: F.one_hot(tg.zeros(0, dtype=tg.int64)), ValueError, "num_classes"),
])
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- PyTorch --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("call", "shapes"), [
    (lambda f, x: f.normalize(x, p=2, dim=1), [(3, 4, 2)]),
    (lambda f, x: f.normalize(x, p=1, dim=-1), [(3, 4)]),
    (lambda f, x, y: f.cosine_similarity(x, y), [(3, 4), (3, 4)]),
    (lambda f, x, y: f.cosine_similarity(x, y, dim=0), [(3, 4), (3, 1)]),
    (lambda f, x: f.pixel_shuffle(x, 3), [(2, 18, 2, 3)]),
    (lambda f, x: f.pad(x, (1, 2, 0, 1), mode="reflect"), [(2, 3, 4, 5)]),
    (lambda f, x, w, b: f.group_norm(x, 2, w, b), [(3, 4, 5), (4,), (4,)]),
    (lambda f, x, w, b: f.layer_norm(x, (4, 5), w, b), [(3, 4, 5), (4, 5), (4, 5)]),
    (lambda f, x: f.interpolate(x, scale_factor=2.5, mode="nearest"), [(1, 2, 3, 4)]),
    (lambda f, x: f.logsigmoid(x), [(3, 4)]),
])
def test_against_torch(call, shapes):
    torch = pytest.importorskip("torch")
    data = [rng.standard_normal(shape) for shape in shapes]
    xs = [tg.tensor(v, requires_grad=True) for v in data]
    xts = [torch.tensor(v, requires_grad=True) for v in data]
    y, yt = call(F, *xs), call(torch.nn.functional, *xts)
    np.testing.assert_allclose(y.numpy(), yt.detach().numpy(), rtol=1e-11, atol=1e-13)
    g = rng.standard_normal(y.shape)
    y.backward(tg.tensor(g))
    yt.backward(torch.tensor(g))
    for x, xt in zip(xs, xts, strict=True):
        np.testing.assert_allclose(x.grad.numpy(), xt.grad.numpy(), rtol=1e-9, atol=1e-12)
