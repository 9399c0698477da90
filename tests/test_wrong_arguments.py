"""Wrong arguments: no crash, no hang, no answer to nonsense, and an error that says what is wrong."""

import collections
import math

import numpy as np
import pytest

import tinygrad_cnn as tg
from tests import wrong_arguments
from tinygrad_cnn import nn

from . import child

F = nn.functional
EVERY = 12
"""Of the calls, every so many are made; all with `--long`."""


@pytest.mark.filterwarnings("ignore:.*softmax. dim is not given")
def test_every_example_is_right():
    wrong = {}
    for space, name, function in wrong_arguments.public():
        try:
            wrong_arguments.Call(space, name, function, "").run(None)
        except Exception as error:
            wrong[f"{space}.{name}"] = error
    assert set(wrong) <= {"data.MNIST", "draw.save"}, wrong                 # which want files


def test_one_wrong_argument(tmp_path, long):
    count, every = len(wrong_arguments.calls()), 1 if long else EVERY
    printed = child.run("tests.wrong_arguments", "0", str(count), str(every), seconds=60 + count / every / 10, cwd=tmp_path)
    ends = [line.split("\t") for line in printed.splitlines()]
    assert len(ends) == -(-count // every)
    errors = [end for end in ends if end[4] != "returned"]
    nameless = [end for end in errors if end[4] == "NAMELESS"]
    assert len(nameless) <= len(errors) / 100, nameless
    late = [end for end in errors if end[5] in ("TimeoutError", "SystemError", "AssertionError", "RecursionError", "NotImplementedError")]
    assert not late
    assert collections.Counter(end[4] for end in ends)["named"] > len(ends) / 2


NONSENSE = [1 + 2j, "x", b"x", None, object(), float("nan"), [1, [2]], np.ones(2, complex), np.array(["a"]), np.ones(2, np.float16), {}]
X, IMAGE = tg.ones(2, 3), tg.ones(1, 2, 4, 4)
REFUSING = {
    "full": lambda v: tg.full((2,), v) if not (isinstance(v, float) and math.isnan(v)) else tg.full((v,), 1), "full's shape": lambda v: tg.full(v, 1.0), "zeros": lambda v: tg.zeros(v),
    "arange": lambda v: tg.arange(v), "arange's step": lambda v: tg.arange(0, 3, v), "linspace": lambda v: tg.linspace(0, v, 3), "linspace's steps": lambda v: tg.linspace(0, 1, v),
    "eye": lambda v: tg.eye(v), "randint": lambda v: tg.randint(v), "randint's size": lambda v: tg.randint(0, 3, v), "randperm": lambda v: tg.randperm(v), "manual_seed": lambda v: tg.manual_seed(v),
    "sum": lambda v: tg.sum(v), "prod": lambda v: tg.prod(v), "mean": lambda v: tg.mean(v), "clone": lambda v: tg.clone(v) if not isinstance(v, float) else tg.clone("x"),
    "abs": lambda v: tg.abs(v) if not isinstance(v, float) else tg.abs("x"), "tile": lambda v: X.tile(v), "repeat": lambda v: X.repeat(v, 1), "reshape": lambda v: X.reshape(v),
    "view": lambda v: X.view(v, 3), "expand": lambda v: X.expand(v, 2, 3), "keepdim": lambda v: X.sum(0, keepdim=v), "norm's p": lambda v: X.norm(v),
    "batch_norm's eps": lambda v: F.batch_norm(X, None, None, training=True, eps=v), "BatchNorm2d's eps": lambda v: nn.BatchNorm2d(2, eps=v),
    "layer_norm's eps": lambda v: F.layer_norm(X, (3,), eps=v), "ignore_index": lambda v: F.cross_entropy(X, tg.tensor([0, 1]), ignore_index=v),
    "CrossEntropyLoss": lambda v: nn.CrossEntropyLoss(ignore_index=v), "label_smoothing": lambda v: nn.CrossEntropyLoss(label_smoothing=v), "dropout": lambda v: nn.Dropout(v),
    "MaxPool2d": lambda v: nn.MaxPool2d(v), "MaxPool2d's padding": lambda v: nn.MaxPool2d(2, padding="x" if v is None else v), "AvgPool2d": lambda v: nn.AvgPool2d(v),
    "AdaptiveAvgPool2d": lambda v: nn.AdaptiveAvgPool2d("x" if v is None else v), "Conv2d": lambda v: nn.Conv2d(v, 2, 3), "Conv2d's kernel": lambda v: nn.Conv2d(1, 2, v),
    "Conv2d's stride": lambda v: nn.Conv2d(1, 2, 3, stride=v), "Linear": lambda v: nn.Linear(v, 2), "Upsample": lambda v: nn.Upsample(scale_factor="x" if v is None else v), "ReLU": lambda v: nn.ReLU(v),
    "Fold": lambda v: nn.Fold(v, 2), "Unflatten": lambda v: nn.Unflatten(1, v), "max_pool2d": lambda v: F.max_pool2d(IMAGE, v), "groups": lambda v: F.conv2d(IMAGE, tg.ones(2, 2, 3, 3), groups=v),
    "SGD": lambda v: tg.optim.SGD([tg.ones(1, requires_grad=True)], lr=v), "momentum": lambda v: tg.optim.SGD([tg.ones(1, requires_grad=True)], lr=0.1, momentum=v),
    "fill_": lambda v: X.clone().fill_(v) if not isinstance(v, float) else X.clone().fill_("x"), "dtype": lambda v: X.to(dtype="x" if v is None else v), "as_tensor": lambda v: tg.tensor({1: v}),
    "max": lambda v: X.max("x" if v is None else v) if not isinstance(v, np.ndarray) else X.max("x"), "gradcheck": lambda v: tg.autograd.gradcheck(lambda t: t, tg.ones(2, dtype=tg.float64, requires_grad=True), eps=v),
}


@pytest.mark.parametrize("name", REFUSING)
@pytest.mark.parametrize("value", NONSENSE, ids=lambda v: repr(v)[:20])
def test_nonsense_is_refused(name, value):
    with pytest.raises((TypeError, ValueError)) as caught:
        REFUSING[name](value)
    assert str(caught.value)


@pytest.mark.parametrize("call", [lambda: tg.zeros(2**24, 2**24), lambda: tg.ones(2**47), lambda: tg.ones(1).expand(2**47).clone(), lambda: tg.randn(2**47), lambda: tg.ones(2**23, 1) + tg.ones(1, 2**24)])
def test_failed_allocations_say_so(call):
    """More than any address space holds."""
    with pytest.raises(MemoryError):
        call()


def test_arguments_may_be_named():
    x, y = tg.tensor([1.0, -2.0], requires_grad=True), tg.tensor([3.0, 4.0])
    assert tg.add(x=x, y=y).tolist() == tg.add(x, y=y).tolist() == [4, 2] and tg.where(x > 0, x=x, y=y).tolist() == [1, 4] and tg.clamp(x=x, min=0).tolist() == [1, 0]
    with pytest.raises(TypeError, match=r"add: .*unexpected keyword argument 'z'"):
        tg.add(x, y, z=y)
    with pytest.raises(TypeError, match=r"exp\(\) takes 1 positional argument but 2 were given"):
        tg.exp(x, y)


def test_errors_of_others_keep_their_class_and_text():
    class Mine(ValueError):
        pass

    def fail(t):
        raise Mine("boom")

    with pytest.raises(Mine, match="^boom$"):
        tg.autograd.gradcheck(fail, tg.ones(1, dtype=tg.float64, requires_grad=True))


NUMBERS = {
    "arange": lambda lib, t: lib.arange(t(5)), "arange from": lambda lib, t: lib.arange(t(0.5), t(3.0), t(0.5)), "full": lambda lib, t: lib.full((2,), t(3.0)), "full of ints": lambda lib, t: lib.full((2,), t(3)),
    "full_like": lambda lib, t: lib.full_like(lib.ones(2), t(3.0)), "linspace": lambda lib, t: lib.linspace(t(0.0), t(1.0), 3), "alpha": lambda lib, t: lib.ones(2).add_(lib.ones(2), alpha=t(2.0)),
    "fill_": lambda lib, t: lib.zeros(2).fill_(t(2.0)), "tril": lambda lib, t: lib.ones(3, 3).tril(t(1)), "roll": lambda lib, t: lib.arange(4).roll(t(1)), "chunk": lambda lib, t: lib.arange(4).chunk(t(2))[0],
    "leaky_relu": lambda lib, t: lib.nn.functional.leaky_relu(lib.tensor([-1.0, 2.0]), t(0.25)), "dropout": lambda lib, t: lib.nn.functional.dropout(lib.ones(2), t(0.0)),
    "std": lambda lib, t: lib.arange(4.0).std(correction=t(0)), "uniform_": lambda lib, t: lib.zeros(2).uniform_(t(1.0), t(1.0)), "randint": lambda lib, t: lib.randint(t(0), t(1), (2,)),
    "randint of a shape": lambda lib, t: lib.randint(1, (2,)), "eye": lambda lib, t: lib.eye(t(2)), "clamp": lambda lib, t: lib.arange(4.0).clamp(t(1.0), t(2.0)), "norm": lambda lib, t: lib.arange(4.0).norm(t(2.0)),
    "ignore_index": lambda lib, t: lib.nn.functional.cross_entropy(lib.zeros(2, 1), lib.tensor([0, 1]), ignore_index=t(1)), "index": lambda lib, t: lib.arange(4)[t(1)], "view": lambda lib, t: lib.ones(4).view(t(2), t(2)),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_tensor_without_dims_does_for_a_number_as_in_pytorch(name):
    torch = pytest.importorskip("torch")
    expected, actual = NUMBERS[name](torch, torch.tensor), NUMBERS[name](tg, tg.tensor)
    assert str(actual.dtype) == str(expected.dtype).removeprefix("torch.")
    np.testing.assert_allclose(actual.numpy(), expected.numpy(), rtol=1e-6)


def test_but_not_where_its_gradient_would_be_lost():
    slope = tg.tensor(0.25, requires_grad=True)
    with pytest.raises(TypeError, match="leaky_relu: negative_slope must be a real number"):
        F.leaky_relu(tg.ones(2), slope)
