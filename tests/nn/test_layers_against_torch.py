"""Every layer against PyTorch in float64: same state_dict, outputs, input and parameter gradients, buffers, repr."""

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn import nn

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")       # PyTorch's, on an even kernel
rng = np.random.default_rng(0)

IMAGE = (2, 4, 7, 6)
LAYERS = [
    # (class name, positional arguments, keyword arguments, input shape)
    ("Linear", (5, 3), {}, (4, 5)),
    ("Linear", (5, 3), {"bias": False}, (2, 4, 5)),
    ("Conv2d", (4, 6, 3), {}, IMAGE),
    ("Conv2d", (4, 6, (3, 2)), {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}, IMAGE),
    ("Conv2d", (4, 4, 3), {"groups": 4, "padding": 1, "bias": False}, IMAGE),
    ("Conv2d", (4, 2, (3, 4)), {"padding": "same"}, IMAGE),
    ("Conv2d", (4, 2, 3), {"padding": "valid"}, IMAGE),
    ("Conv2d", (4, 2, 3), {}, IMAGE[1:]),
    ("Conv2d", (4, 2, 3), {"padding": (2, 1), "padding_mode": "reflect"}, IMAGE),
    ("Conv2d", (4, 2, 3), {"padding": (2, 1), "padding_mode": "replicate", "stride": 2}, IMAGE),
    ("Conv2d", (4, 2, 3), {"padding": (1, 2), "padding_mode": "circular"}, IMAGE),
    ("Conv2d", (4, 2, (2, 4)), {"padding": "same", "padding_mode": "reflect"}, IMAGE),
    ("ConvTranspose2d", (4, 6, 3), {}, IMAGE),
    ("ConvTranspose2d", (4, 6, (3, 2)),
     {"stride": (2, 3), "padding": 1, "output_padding": (1, 2), "groups": 2, "dilation": 2}, IMAGE),
    ("ConvTranspose2d", (4, 6, 3), {"bias": False}, IMAGE),
    ("Unfold", (3,), {"padding": 1, "stride": 2}, IMAGE),
    ("Fold", ((4, 5), (2, 2)), {"padding": 1, "stride": (2, 1)}, (2, 8, 18)),
    ("MaxPool2d", (2,), {}, IMAGE),
    ("MaxPool2d", (3,), {"stride": 2, "padding": 1, "ceil_mode": True}, IMAGE),
    ("MaxPool2d", ((2, 3),), {"dilation": (2, 1), "stride": 1}, IMAGE),
    ("AvgPool2d", (2,), {}, IMAGE),
    ("AvgPool2d", (3,), {"stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False}, IMAGE),
    ("AvgPool2d", (3,), {"stride": 1, "divisor_override": 5}, IMAGE),
    ("AdaptiveAvgPool2d", (3,), {}, IMAGE),
    ("AdaptiveAvgPool2d", ((None, 2),), {}, IMAGE),
    ("AdaptiveMaxPool2d", ((2, 4),), {}, IMAGE),
    ("BatchNorm2d", (4,), {}, IMAGE),
    ("BatchNorm2d", (4,), {"affine": False}, IMAGE),
    ("BatchNorm2d", (4,), {"track_running_stats": False, "eps": 1e-2}, IMAGE),
    ("BatchNorm2d", (4,), {"momentum": None}, IMAGE),
    ("BatchNorm1d", (5,), {"momentum": 0.3}, (6, 5)),
    ("BatchNorm1d", (5,), {}, (3, 5, 4)),
    ("LayerNorm", (6,), {}, IMAGE),
    ("LayerNorm", ((7, 6),), {"bias": False}, IMAGE),
    ("LayerNorm", ((7, 6),), {"elementwise_affine": False, "eps": 1e-3}, IMAGE),
    ("GroupNorm", (2, 4), {}, IMAGE),
    ("GroupNorm", (4, 4), {"affine": False}, IMAGE),
    ("Dropout", (0.0,), {}, IMAGE),
    ("Dropout2d", (1.0,), {}, IMAGE),
    ("Flatten", (), {}, IMAGE),
    ("Flatten", (0, 2), {}, IMAGE),
    ("Unflatten", (1, (2, -1)), {}, IMAGE),
    ("Identity", (), {}, IMAGE),
    ("Upsample", (), {"scale_factor": 2}, IMAGE),
    ("Upsample", ((9, 4),), {"mode": "bilinear", "align_corners": True}, IMAGE),
    ("Upsample", (), {"scale_factor": (1.5, 0.5), "mode": "bilinear"}, IMAGE),
    ("ZeroPad2d", (1,), {}, IMAGE),
    ("ZeroPad2d", ((1, 0, -2, 3),), {}, IMAGE),
    ("PixelShuffle", (2,), {}, IMAGE),
    ("ReLU", (), {}, IMAGE),
    ("ReLU", (), {"inplace": True}, IMAGE),
    ("LeakyReLU", (), {}, IMAGE),
    ("LeakyReLU", (0.3, True), {}, IMAGE),
    ("ReLU6", (), {}, IMAGE),
    ("Sigmoid", (), {}, IMAGE),
    ("LogSigmoid", (), {}, IMAGE),
    ("Tanh", (), {}, IMAGE),
    ("GELU", (), {}, IMAGE),
    ("GELU", (), {"approximate": "tanh"}, IMAGE),
    ("SiLU", (), {}, IMAGE),
    ("ELU", (0.7,), {}, IMAGE),
    ("Softplus", (), {}, IMAGE),
    ("Softplus", (2.0, 3.0), {}, IMAGE),
    ("Hardswish", (), {}, IMAGE),
    ("Softmax", (1,), {}, IMAGE),
    ("LogSoftmax", (-1,), {}, IMAGE),
]
IDS = [f"{name}-{i}" for i, (name, *_) in enumerate(LAYERS)]


def both(name, args, options):
    """The layer twice, ours with PyTorch's values loaded by key, in float64; running statistics not at their start."""
    theirs = getattr(torch.nn, name)(*args, **options).double()
    with torch.no_grad():
        for value in (*theirs.parameters(), *theirs.buffers()):
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.5)
    ours = getattr(nn, name)(*args, **options).double()
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    return ours, theirs


def compare(ours, theirs, shape):
    """Outputs, gradients and buffers agree; PyTorch's in-place layers get a non-leaf, since they overwrite it."""
    data = rng.standard_normal(shape) * 3
    x, xt = tg.tensor(data, requires_grad=True), torch.tensor(data, requires_grad=True)
    y, yt = ours(x * 1), theirs(xt * 1)
    np.testing.assert_allclose(y.numpy(), yt.detach().numpy(), rtol=1e-10, atol=1e-11)
    g = rng.standard_normal(y.shape)
    y.backward(tg.tensor(g))
    yt.backward(torch.tensor(g))
    np.testing.assert_allclose(x.grad.numpy(), xt.grad.numpy(), rtol=1e-8, atol=1e-10)
    for (key, p), (key_t, pt) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert key == key_t
        np.testing.assert_allclose(p.grad.numpy(), pt.grad.numpy(), rtol=1e-8, atol=1e-9, err_msg=key)
    for (key, b), (key_t, bt) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
        assert key == key_t
        np.testing.assert_allclose(b.numpy(), bt.numpy(), rtol=1e-11, err_msg=key)


@pytest.mark.parametrize(("name", "args", "options", "shape"), LAYERS, ids=IDS)
def test_training_mode(name, args, options, shape):
    ours, theirs = both(name, args, options)
    compare(ours, theirs, shape)
    if "Norm" in name:                         # a second batch: the statistics move on from the first
        ours.zero_grad()
        theirs.zero_grad()
        compare(ours, theirs, shape)


@pytest.mark.parametrize(("name", "args", "options", "shape"), LAYERS, ids=IDS)
def test_evaluation_mode(name, args, options, shape):
    ours, theirs = both(name, args, options)
    compare(ours.eval(), theirs.eval(), shape)


@pytest.mark.parametrize(("name", "args", "options", "shape"), LAYERS, ids=IDS)
def test_repr_and_state_dict_keys(name, args, options, shape):
    ours, theirs = getattr(nn, name)(*args, **options), getattr(torch.nn, name)(*args, **options)
    assert repr(ours) == repr(theirs)
    assert [(k, tuple(v.shape), str(v.dtype)) for k, v in ours.state_dict().items()] == [
        (k, tuple(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in theirs.state_dict().items()]


@pytest.mark.parametrize(("name", "shape"), [("MaxPool2d", IMAGE), ("AdaptiveMaxPool2d", IMAGE)])
def test_pooling_indices(name, shape):
    data = rng.standard_normal(shape)
    _, indices = getattr(nn, name)(3, return_indices=True)(tg.tensor(data))
    _, wanted = getattr(torch.nn, name)(3, return_indices=True)(torch.tensor(data))
    np.testing.assert_array_equal(indices.numpy(), wanted.numpy())


def test_conv_transpose_output_size():
    ours, theirs = both("ConvTranspose2d", (4, 2, 3), {"stride": 3, "padding": 1})
    data = rng.standard_normal(IMAGE)
    for size in ((19, 18), (21, 16)):
        y, yt = ours(tg.tensor(data), output_size=size), theirs(torch.tensor(data), output_size=size)
        np.testing.assert_allclose(y.numpy(), yt.detach().numpy(), rtol=1e-11, atol=1e-12)
    with pytest.raises(ValueError, match="output_size"):
        ours(tg.tensor(data), output_size=(22, 18))


def nested(n):
    block = n.Sequential(n.Conv2d(4, 4, 3, padding=1, bias=False), n.BatchNorm2d(4), n.ReLU(inplace=True))
    heads = n.ModuleDict({"digit": n.Linear(8, 10), "parity": n.Sequential(n.Dropout(0.2), n.Linear(8, 2))})
    same = n.ModuleList([n.Linear(3, 3), n.Linear(3, 3), n.ReLU(), n.Sequential(n.Tanh()), n.Sequential(n.Tanh())])
    return n.Sequential(block, n.MaxPool2d(2), n.Flatten(), heads, same, n.Sequential(), n.ModuleList(),
                        n.Upsample(scale_factor=2))


def test_nested_model_prints_and_names_as_pytorch():
    ours, theirs = nested(nn), nested(torch.nn)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for listing in ("named_parameters", "named_buffers", "named_children"):
        assert [name for name, _ in getattr(ours, listing)()] == [name for name, _ in getattr(theirs, listing)()]
    assert [(name, type(m).__name__) for name, m in ours.named_modules()] == [
        (name, type(m).__name__) for name, m in theirs.named_modules()]


def network(n):
    return n.Sequential(n.Conv2d(1, 4, 3, padding=1), n.BatchNorm2d(4), n.ReLU(), n.MaxPool2d(2),
                        n.Conv2d(4, 8, 3, stride=2), n.GELU(), n.AdaptiveAvgPool2d(2), n.Flatten(), n.Linear(32, 5))


def test_training_follows_pytorch_step_by_step():
    """The same network, initial weights and batches, plain gradient descent in float64: the losses agree to 1e-9."""
    theirs, ours = network(torch.nn).double(), network(nn).double()
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    for _ in range(15):
        images, labels = rng.standard_normal((6, 1, 10, 10)), rng.integers(0, 5, 6)
        loss = nn.CrossEntropyLoss(label_smoothing=0.1)(ours(tg.tensor(images)), tg.tensor(labels))
        loss_t = torch.nn.CrossEntropyLoss(label_smoothing=0.1)(theirs(torch.tensor(images)), torch.tensor(labels))
        assert abs(loss.item() - loss_t.item()) < 1e-9
        ours.zero_grad()
        theirs.zero_grad()
        loss.backward()
        loss_t.backward()
        with tg.no_grad():
            for p in ours.parameters():
                p -= 0.1 * p.grad
        with torch.no_grad():
            for p in theirs.parameters():
                p -= 0.1 * p.grad
