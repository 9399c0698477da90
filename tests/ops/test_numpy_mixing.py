"""NumPy arrays and functions meet Tensors: either side of every operator, the same numbers and gradients, never an object array."""

import operator

import numpy as np
import pytest

import tinygrad_cnn as tg

OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "//": operator.floordiv, "%": operator.mod, "**": operator.pow,
             "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
A = np.array([[1.5, 2.0, 0.5], [3.0, 1.0, 2.5]])


@pytest.mark.parametrize("symbol", OPERATORS)
@pytest.mark.parametrize("other", [A, A[0], A[:, :1], np.array(2.0), np.float64(1.5), np.float32(1.5), np.int64(2), 2, 1.5], ids=repr)
def test_operators_from_either_side(symbol, other):
    f, values = OPERATORS[symbol], A + 0.25
    x = tg.tensor(values, requires_grad=True)
    for ours, numpys in ((f(x, other), f(values, other)), (f(other, x), f(other, values))):
        assert isinstance(ours, tg.Tensor) and ours.requires_grad == (symbol in ["+", "-", "*", "/", "%", "**"])
        np.testing.assert_allclose(ours.numpy(), numpys)
        if ours.requires_grad:
            (g,) = tg.autograd.grad(ours, x, np.ones(ours.shape))
            assert g.shape == x.shape and isinstance(g, tg.Tensor)


@pytest.mark.parametrize("symbol", ["&", "|", "^"])
def test_bitwise_operators_from_either_side(symbol):
    f = {"&": operator.and_, "|": operator.or_, "^": operator.xor}[symbol]
    a, b = np.array([True, True, False]), np.array([True, False, False])
    assert f(tg.tensor(a), b).tolist() == f(a, tg.tensor(b)).tolist() == f(a, b).tolist()


def test_matmul_from_either_side():
    a, b = np.random.default_rng(0).standard_normal((2, 3, 4)), np.random.default_rng(1).standard_normal((2, 4, 5))
    x, y = tg.tensor(a, requires_grad=True), tg.tensor(b, requires_grad=True)
    g = np.random.default_rng(2).standard_normal((2, 3, 5))
    for out in (x @ b, a @ y, np.matmul(x, b)):
        assert isinstance(out, tg.Tensor)
        np.testing.assert_allclose(out.numpy(), a @ b)
    np.testing.assert_allclose(tg.autograd.grad(x @ b, x, g)[0].numpy(), g @ b.swapaxes(1, 2))
    np.testing.assert_allclose(tg.autograd.grad(a @ y, y, g)[0].numpy(), a.swapaxes(1, 2) @ g)


UFUNCS = ["add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "arctan2", "floor_divide", "remainder", "equal", "less", "greater_equal",
          "negative", "absolute", "sign", "floor", "ceil", "rint", "trunc", "square", "exp", "expm1", "log", "log1p", "log2", "log10", "sqrt", "sin", "cos", "tan",
          "sinh", "cosh", "tanh", "arctan", "isnan", "isinf", "isfinite", "logical_not", "reciprocal"]


@pytest.mark.parametrize("name", UFUNCS)
def test_ufuncs_give_tensors(name):
    f = getattr(np, name)
    arguments = (A, A[::-1] + 0.25)[: f.nin]
    ours = f(*(tg.tensor(a, requires_grad=True) for a in arguments))
    assert isinstance(ours, tg.Tensor)
    np.testing.assert_allclose(ours.numpy(), f(*arguments))
    if f.nin == 2:
        mixed = f(arguments[0], tg.tensor(arguments[1]))
        np.testing.assert_allclose(mixed.numpy(), f(*arguments))


FUNCTIONS = {
    "sum": lambda x: np.sum(x, axis=1, keepdims=True), "mean": lambda x: np.mean(x, 0), "prod": lambda x: np.prod(x), "var": lambda x: np.var(x, axis=0),
    "var ddof": lambda x: np.var(x, axis=0, ddof=1), "std": lambda x: np.std(x), "max": lambda x: np.max(x, axis=1), "amin": lambda x: np.amin(x),
    "argmax": lambda x: np.argmax(x, axis=1), "argmin": lambda x: np.argmin(x), "any": lambda x: np.any(x), "all": lambda x: np.all(x, axis=0),
    "reshape": lambda x: np.reshape(x, (3, 2)), "ravel": np.ravel, "transpose": np.transpose, "transpose axes": lambda x: np.transpose(x, (1, 0)),
    "swapaxes": lambda x: np.swapaxes(x, 0, 1), "moveaxis": lambda x: np.moveaxis(x, 0, -1), "squeeze": lambda x: np.squeeze(x[None]),
    "expand_dims": lambda x: np.expand_dims(x, 1), "broadcast_to": lambda x: np.broadcast_to(x, (2, 2, 3)), "concatenate": lambda x: np.concatenate([x, x], axis=1),
    "stack": lambda x: np.stack([x, x], axis=2), "flip": lambda x: np.flip(x), "flip axis": lambda x: np.flip(x, 1), "roll": lambda x: np.roll(x, 1, 0), "tile": lambda x: np.tile(x, (2, 1)),
    "where": lambda x: np.where(A > 1, x, 0.0), "clip": lambda x: np.clip(x, 1.0, 2.0), "cumsum": lambda x: np.cumsum(x, 1), "dot": lambda x: np.dot(x, A.T),
    "outer": lambda x: np.outer(x[0], x[1]), "einsum": lambda x: np.einsum("ij,kj->ik", x, A), "tril": lambda x: np.tril(x), "triu": lambda x: np.triu(x, 1), "round": lambda x: np.round(x, 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_give_tensors_with_numpys_numbers(name):
    f = FUNCTIONS[name]
    x = tg.tensor(A, requires_grad=True)
    ours = f(x)
    assert isinstance(ours, tg.Tensor)
    np.testing.assert_allclose(ours.numpy(), f(A))
    assert ours.requires_grad == (name not in ("argmax", "argmin", "any", "all"))


def test_functions_without_a_derivative_here():
    x = tg.tensor(A)
    assert np.median(x) == np.median(A) and np.allclose(x, A) and np.array_equal(x, A)
    np.testing.assert_array_equal(x, A)
    x.requires_grad_()
    for call in (lambda: np.median(x), lambda: np.cbrt(x), lambda: np.linalg.norm(x), lambda: np.add.reduce(x), lambda: np.concatenate([x, [x[0]]], casting="unsafe")):
        with pytest.raises(TypeError, match=r"np\.|unexpected"):
            call()
    assert np.median(x.detach()) == np.median(A)
    assert (np.shape(x), np.ndim(x), np.size(x)) == ((2, 3), 2, 6)


def test_arrays_are_not_overwritten_by_tensors():
    array = np.ones((2, 3))
    with pytest.raises(TypeError, match="out= is not supported"):
        array += tg.tensor(A)
    with pytest.raises(TypeError, match="out= is not supported"):
        np.add(tg.tensor(A), 1, out=array)
    np.testing.assert_array_equal(array, 1)


def test_array_protocol():
    x = tg.tensor(A, dtype=tg.float32, requires_grad=True)
    assert np.asarray(x).dtype == np.float32 and np.asarray(x, np.float64).dtype == np.float64 and np.shares_memory(np.asarray(x), x.numpy())
    assert np.array(x).flags.writeable and not np.asarray(x).flags.writeable
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(x, dtype=np.float64, copy=False)
    assert np.asarray([x[0].detach(), x[1].detach()], dtype=np.float64).shape == (2, 3)
    array = np.zeros((2, 3))
    array[0] = x[0].detach()
    np.testing.assert_allclose(array[0], A[0])


@pytest.mark.parametrize("strange", [np.array([1j, 2, 3]), np.array(["a", "b", "c"]), np.array([None, 1, 2]), np.ones(3, np.float16), np.ones(3, ">f8")], ids=repr)
def test_arrays_that_tensors_cannot_hold(strange):
    x = tg.ones(3)
    for call in (lambda: x + strange, lambda: strange * x, lambda: x == strange, lambda: tg.where(x > 0, x, strange)):
        with pytest.raises(TypeError, match="not supported"):
            call()


def test_dot_of_more_dims_than_it_means_the_same_in_is_refused():
    with pytest.raises(TypeError, match=r"np\.dot"):
        np.dot(tg.ones(2, 2, 2), np.ones((2, 2, 2)))
    assert np.dot(tg.tensor(3.0), np.array(2.0)).item() == 6
