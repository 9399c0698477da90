"""Losses: closed forms, edges and bad input; then PyTorch over all options, values and gradients in float64."""

import math

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn import nn
from tinygrad_cnn.nn import functional as F

rng = np.random.default_rng(0)


def t(values, requires_grad=False):
    return tg.tensor(np.asarray(values), requires_grad=requires_grad)


# ---- closed forms ---------------------------------------------------------------------------------------------------


def test_cross_entropy_of_equal_scores_is_log_classes():
    assert F.cross_entropy(tg.zeros(3, 7), t([0, 3, 6])).item() == pytest.approx(math.log(7), rel=1e-6)


def test_cross_entropy_gradient_is_softmax_minus_one_hot():
    scores, labels = rng.standard_normal((4, 5)), np.array([0, 4, 2, 2])
    x = t(scores, requires_grad=True)
    F.cross_entropy(x, t(labels)).backward()
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    p[np.arange(4), labels] -= 1
    np.testing.assert_allclose(x.grad.numpy(), p / 4, rtol=1e-12, atol=1e-15)


def test_cross_entropy_does_not_overflow():
    x = t(np.array([[1e38, -1e38, 0], [-1e38, 1e38, 0]], np.float32), requires_grad=True)
    loss = F.cross_entropy(x, t([0, 1]))
    loss.backward()
    assert loss.item() == 0
    np.testing.assert_array_equal(x.grad.numpy(), np.zeros((2, 3)))


def test_label_smoothing_is_cross_entropy_with_softened_probabilities():
    x, labels = t(rng.standard_normal((4, 3))), np.array([0, 2, 1, 1])
    soft = np.eye(3)[labels] * 0.8 + 0.2 / 3
    hard = F.cross_entropy(x, t(labels), label_smoothing=0.2)
    assert hard.item() == pytest.approx(F.cross_entropy(x, t(soft)).item(), rel=1e-12)
    log_p = np.asarray(x) - np.log(np.exp(np.asarray(x)).sum(1, keepdims=True))
    assert hard.item() == pytest.approx(-(soft * log_p).sum() / 4, rel=1e-12)


def test_ignored_targets_count_for_nothing():
    scores = rng.standard_normal((4, 3))
    x = t(scores, requires_grad=True)
    loss = F.cross_entropy(x, t([0, -1, 2, -1]), ignore_index=-1)
    loss.backward()
    assert loss.item() == pytest.approx(F.cross_entropy(t(scores[[0, 2]]), t([0, 2])).item(), rel=1e-12)
    assert (x.grad.numpy()[[1, 3]] == 0).all()


def test_an_ignored_row_of_infinities_leaves_the_loss_alone():
    log_p = t([[0.0, -np.inf], [-np.inf, -np.inf]])
    assert F.nll_loss(log_p, t([0, -100])).item() == 0


@pytest.mark.parametrize("shape", [(0, 3), (2, 3)])
def test_mean_over_no_targets_is_nan_and_sum_is_zero(shape):
    target = t(np.full(shape[0], -100))
    assert math.isnan(F.cross_entropy(tg.zeros(*shape), target).item())
    assert F.cross_entropy(tg.zeros(*shape), target, reduction="sum").item() == 0
    assert F.cross_entropy(tg.zeros(*shape), target, reduction="none").shape == (shape[0],)


def test_every_integer_dtype_of_labels_and_plain_arrays_work():
    x = tg.zeros(2, 4)
    for dtype in ("uint8", "int32", "int64"):
        assert F.cross_entropy(x, np.array([1, 3], dtype)).item() == pytest.approx(math.log(4), rel=1e-6)


def test_mse_l1_huber_values():
    x, y = t([1.0, 2.0, -3.0]), t([1.5, 0.0, -3.0])
    assert F.mse_loss(x, y).item() == pytest.approx((0.25 + 4) / 3)
    assert F.l1_loss(x, y, reduction="sum").item() == pytest.approx(2.5)
    np.testing.assert_allclose(F.huber_loss(x, y, reduction="none", delta=1.0), [0.125, 1.5, 0])
    np.testing.assert_allclose(F.smooth_l1_loss(x, y, reduction="none", beta=0.5), [0.25, 1.75, 0])


def test_binary_cross_entropy_at_the_ends():
    assert F.binary_cross_entropy(t([0.0, 1.0]), t([1.0, 0.0]), reduction="none").tolist() == [100.0, 100.0]
    assert F.binary_cross_entropy(t([0.0, 1.0]), t([0.0, 1.0]), reduction="none").tolist() == [0.0, 0.0]
    x = t([0.0, 1.0, 0.5], requires_grad=True)
    F.binary_cross_entropy(x, t([1.0, 0.0, 1.0]), reduction="sum").backward()
    assert x.grad.tolist() == [0.0, 0.0, -2.0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_binary_cross_entropy_with_large_scores(dtype):
    x = t(np.array([1e4, -1e4, 1e4, -1e4], dtype), requires_grad=True)
    with np.errstate(all="raise"):
        loss = F.binary_cross_entropy_with_logits(x, t(np.array([0, 1, 1, 0], dtype)), reduction="none")
        loss.sum().backward()
    assert loss.tolist() == [1e4, 1e4, 0, 0]
    assert x.grad.tolist() == [1, -1, 0, 0]


def test_second_derivative_of_cross_entropy():
    x = t(rng.standard_normal((3, 4)), requires_grad=True)
    assert tg.autograd.gradgradcheck(lambda v: F.cross_entropy(v, t([1, 0, 3]), label_smoothing=0.1), (x,))


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "error", "message"), [
    ([0, 3], IndexError, "Target 3 is out of bounds for 3 classes"),
    ([-1, 0], IndexError, "Target -1 is out of bounds for 3 classes"),
    ([0.0, 1.0], TypeError, "integer class indices, got float64"),
    ([True, False], TypeError, "integer class indices, got bool"),
    ([0, 1, 2], ValueError, r"wants a target of shape \(2,\), got \(3,\)"),
    ([[0], [1]], ValueError, r"wants a target of shape \(2,\), got \(2, 1\)"),
])
@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss, nn.CrossEntropyLoss(), nn.NLLLoss()])
def test_bad_class_targets(loss, target, error, message):
    with pytest.raises(error, match=message):
        loss(tg.zeros(2, 3), t(target))


@pytest.mark.parametrize("loss", [F.mse_loss, F.l1_loss, F.huber_loss, F.smooth_l1_loss, F.binary_cross_entropy,
                                  F.binary_cross_entropy_with_logits, nn.MSELoss(), nn.L1Loss(),
                                  nn.BCEWithLogitsLoss()])
def test_shapes_that_would_broadcast_raise(loss):
    with pytest.raises(ValueError, match=r"input has shape \(4, 1\), target \(4,\)"):
        loss(tg.full((4, 1), 0.5), tg.full((4,), 0.5))


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: F.cross_entropy(tg.zeros(2, 3), t([0, 1]), reduction="avg"), ValueError, "reduction"),
    (lambda: F.mse_loss(tg.zeros(2), tg.zeros(2), reduction="avg"), ValueError, "reduction"),
    (lambda: nn.MSELoss(reduction="avg"), ValueError, "MSELoss: reduction"),
    (lambda: F.cross_entropy(tg.zeros(2, 3), t([0, 1]), label_smoothing=1.5), ValueError, "label_smoothing"),
    (lambda: F.cross_entropy(tg.zeros(2, 3), t([0, 1]), tg.ones(2)), ValueError,
     "weight must have one entry for each of the 3"),
    (lambda: F.cross_entropy(tg.zeros(2, 3, dtype=tg.int64), t([0, 1])), TypeError, "input must be float"),
    (lambda: F.mse_loss(tg.zeros(2, dtype=tg.int64), tg.zeros(2)), TypeError, "input must be float"),
    (lambda: F.cross_entropy(tg.tensor(1.0), t(0)), ValueError, "0-d"),
    (lambda: F.binary_cross_entropy(t([1.5]), t([1.0])), ValueError, r"0 \.\. 1"),
    (lambda: F.binary_cross_entropy_with_logits(tg.zeros(2), tg.zeros(2), tg.ones(3)), ValueError, "weight"),
    (lambda: F.binary_cross_entropy_with_logits(tg.zeros(2), tg.zeros(2), pos_weight=tg.ones(3)), ValueError, "weight"),
    (lambda: F.huber_loss(tg.zeros(2), tg.zeros(2), delta=0), ValueError, "delta"),
    (lambda: F.smooth_l1_loss(tg.zeros(2), tg.zeros(2), beta=-1), ValueError, "beta"),
    (lambda: F.mse_loss(None, tg.zeros(2)), TypeError, "mse_loss: input must be a Tensor, or .*got NoneType"),
    (lambda: F.cross_entropy(np.zeros((2, 3)), t([0, 1])), TypeError,
     "cross_entropy: input must be a Tensor, got ndarray"),
])
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- PyTorch --------------------------------------------------------------------------------------------------------

SHAPES = [((5, 4), (5,)), ((4,), ()), ((2, 4, 3, 2), (2, 3, 2)), ((3, 4, 2), (3, 2))]
CLASS_OPTIONS = [{}, {"weight": True}, {"ignore_index": 1}, {"weight": True, "ignore_index": 2}]


def agree(ours, theirs, *inputs):
    """ours and theirs take Tensors of the inputs; floats get gradients, with a random cotangent."""
    torch = pytest.importorskip("torch")
    xs = [tg.tensor(v, requires_grad=v.dtype == np.float64) for v in inputs]
    xts = [torch.tensor(v, requires_grad=v.dtype == np.float64) for v in inputs]
    y, yt = ours(*xs), theirs(*xts)
    np.testing.assert_allclose(y.numpy(), yt.detach().numpy(), rtol=1e-11, atol=1e-12)
    g = rng.standard_normal(y.shape)
    y.backward(tg.tensor(g))
    yt.backward(torch.tensor(g))
    for x, xt in zip(xs, xts, strict=True):
        if xt.requires_grad:
            np.testing.assert_allclose(x.grad.numpy(), xt.grad.numpy(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", CLASS_OPTIONS)
@pytest.mark.parametrize(("shape", "target_shape"), SHAPES)
def test_class_losses_against_torch(shape, target_shape, options, reduction):
    torch = pytest.importorskip("torch")
    scores, labels = rng.standard_normal(shape), np.asarray(rng.integers(0, 4, target_shape))
    options = dict(options)
    weight = rng.random(4) if options.pop("weight", False) else None
    for name, smoothing in (("cross_entropy", {}), ("cross_entropy", {"label_smoothing": 0.3}), ("nll_loss", {})):
        settings = {**options, **smoothing, "reduction": reduction}

        def ours(x, y, name=name, settings=settings):
            return getattr(F, name)(x, y, None if weight is None else tg.tensor(weight), **settings)

        def theirs(x, y, name=name, settings=settings):
            factors = None if weight is None else torch.tensor(weight)
            return getattr(torch.nn.functional, name)(x, y, factors, **settings)

        agree(ours, theirs, scores, labels)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [shape for shape, _ in SHAPES])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_probability_targets_against_torch(shape, reduction, smoothing):
    torch = pytest.importorskip("torch")
    axis = 0 if len(shape) == 1 else 1
    soft = rng.random(shape)
    soft /= soft.sum(axis, keepdims=True)
    for weight in (None, rng.random(4)):
        settings = {"reduction": reduction, "label_smoothing": smoothing}
        agree(nn.CrossEntropyLoss(None if weight is None else tg.tensor(weight), **settings),
              torch.nn.CrossEntropyLoss(None if weight is None else torch.tensor(weight), **settings),
              rng.standard_normal(shape), soft)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("name", "options"), [("MSELoss", {}), ("L1Loss", {}), ("SmoothL1Loss", {}),
                                               ("SmoothL1Loss", {"beta": 0.3}), ("SmoothL1Loss", {"beta": 0}),
                                               ("HuberLoss", {"delta": 0.7}), ("BCEWithLogitsLoss", {})])
def test_elementwise_losses_against_torch(name, options, reduction):
    torch = pytest.importorskip("torch")
    agree(getattr(nn, name)(reduction=reduction, **options), getattr(torch.nn, name)(reduction=reduction, **options),
          rng.standard_normal((3, 4)), rng.random((3, 4)))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_binary_losses_with_weights_against_torch(reduction):
    torch = pytest.importorskip("torch")
    weight, positive = rng.random(4), rng.random(4) + 1
    agree(nn.BCELoss(tg.tensor(weight), reduction=reduction),
          torch.nn.BCELoss(torch.tensor(weight), reduction=reduction),
          rng.random((3, 4)) * 0.9 + 0.05, rng.random((3, 4)))
    agree(nn.BCEWithLogitsLoss(tg.tensor(weight), reduction=reduction, pos_weight=tg.tensor(positive)),
          torch.nn.BCEWithLogitsLoss(torch.tensor(weight), reduction=reduction, pos_weight=torch.tensor(positive)),
          rng.standard_normal((3, 4)), rng.random((3, 4)))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_of_huge_infinite_and_nan_scores_is_torchs(smoothing, dtype):
    torch = pytest.importorskip("torch")
    inf, nan = math.inf, math.nan
    scores = np.array([[1e38, -1e38, 0], [-1e38, 1e38, 0], [-inf, 0, 1], [0, -inf, 1], [inf, 0, 1], [0, inf, 1], [nan, 0, 1], [-inf, -inf, -inf],
                       [inf, nan, 1], [1000, 0, -1000]], dtype)
    labels = np.array([0, 0, 0, 0, 0, 0, 0, 0, -100, 2])
    x, y = tg.tensor(scores, requires_grad=True), torch.tensor(scores, requires_grad=True)
    ours = F.cross_entropy(x, t(labels), reduction="none", label_smoothing=smoothing)
    theirs = torch.nn.functional.cross_entropy(y, torch.tensor(labels), reduction="none", label_smoothing=smoothing)
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-6)
    ours.sum().backward()
    theirs.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-6, atol=1e-7)
