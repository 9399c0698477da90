"""Tensors as Python objects: making them, dtypes and promotion, the Python protocols, NumPy, DLPack, copies and pickles."""

import copy
import itertools
import math
import pickle

import numpy as np
import pytest

import tinygrad_cnn as tg

NAMES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float32", "float64"]

# PyTorch 2.13's torch.promote_types, rows and columns in the order of NAMES.
PROMOTED = ["bool", "uint8", "int8", "int16", "int32", "int64", "float32", "float64", "uint8", "uint8", "int16", "int16", "int32", "int64", "float32", "float64", "int8", "int16", "int8", "int16", "int32", "int64", "float32", "float64", "int16", "int16", "int16", "int16", "int32", "int64", "float32", "float64", "int32", "int32", "int32", "int32", "int32", "int64", "float32", "float64", "int64", "int64", "int64", "int64", "int64", "int64", "float32", "float64", "float32", "float32", "float32", "float32", "float32", "float32", "float32", "float64", "float64", "float64", "float64", "float64", "float64", "float64", "float64", "float64"]
TABLE = dict(zip(itertools.product(NAMES, NAMES), PROMOTED, strict=True))


# ---- dtypes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b"), TABLE)
def test_promotion_of_two_tensors(a, b):
    x, y = tg.ones(2, dtype=a), tg.ones(2, dtype=b)
    assert str((x * y).dtype) == TABLE[a, b]
    assert str(tg.cat([x, y]).dtype) == TABLE[a, b]
    assert str(tg.where(tg.tensor([True, False]), x, y).dtype) == TABLE[a, b]
    assert str((x / y).dtype) == (TABLE[a, b] if TABLE[a, b].startswith("float") else "float32")
    assert (x == y).dtype == bool


CATEGORY = {"b": 0, "u": 1, "i": 1, "f": 2}


@pytest.mark.parametrize(("a", "b"), TABLE)
def test_a_0d_tensor_matters_only_by_its_category(a, b):
    x, y = tg.ones(2, dtype=a), tg.ones((), dtype=b)
    expected = TABLE[a, b] if a == "bool" or CATEGORY[np.dtype(b).kind] > CATEGORY[np.dtype(a).kind] else a
    assert str((x * y).dtype) == str((y * x).dtype) == expected


@pytest.mark.parametrize("name", NAMES)
def test_numbers_matter_only_by_their_category(name):
    x = tg.ones(2, dtype=name)
    for number, expected in ((True, name), (2, "int64" if name == "bool" else name), (2.0, name if name.startswith("float") else "float32")):
        for value in (number, np.asarray(number)[()]):
            assert str((x * value).dtype) == str((value * x).dtype) == expected, (name, number)


@pytest.mark.parametrize(("a", "b"), TABLE)
def test_promotion_is_torchs(a, b):
    torch = pytest.importorskip("torch")
    for shape, other in (((2,), (2,)), ((2,), ()), ((), (2,)), ((), ())):
        ours = tg.ones(*shape, dtype=a) * tg.ones(*other, dtype=b)
        theirs = torch.ones(shape, dtype=getattr(torch, a)) * torch.ones(other, dtype=getattr(torch, b))
        assert str(theirs.dtype) == f"torch.{ours.dtype}", (shape, other)


@pytest.mark.parametrize("function", ["exp", "log", "sqrt", "sin", "tanh", "sigmoid", "erf", "mean", "softmax", "var", "rsqrt", "reciprocal"])
@pytest.mark.parametrize("scalar", [2, 2.0, np.float64(2), np.float32(2), np.int64(2)])
def test_float32_does_not_drift(function, scalar):
    x = tg.rand(3, requires_grad=True) + 0.5
    x = x.detach().requires_grad_()
    y = getattr(x, function)(0) if function in ("softmax", "mean", "var") else getattr(x, function)()
    for z in (y * scalar, scalar - y, y / scalar, y**scalar, scalar + y, tg.maximum(y, scalar)):
        assert z.dtype == tg.float32
        (g,) = tg.autograd.grad(z.sum(), x, retain_graph=True)
        assert g.dtype == tg.float32


def test_gradients_come_back_in_each_leafs_dtype():
    a, b = tg.ones(2, requires_grad=True), tg.ones(2, dtype=tg.float64, requires_grad=True)
    (a * b).sum().backward()
    assert a.grad.dtype == tg.float32 and b.grad.dtype == tg.float64


def test_integer_arithmetic():
    x = tg.tensor([7, -7])
    assert (x // 2).tolist() == [3, -4] and (x % 3).tolist() == [1, 2] and (x / 2).dtype == tg.float32
    assert x.sum().dtype == tg.int64 and tg.tensor([True, True]).sum().item() == 2
    assert (x**2).tolist() == [49, 49] and (x & 3).tolist() == [3, 1] and (~x).tolist() == [-8, 6]
    with pytest.raises(TypeError, match="mean: x must be float"):
        x.mean()
    with pytest.raises(TypeError, match="sub: bool"):
        tg.tensor([True]) - tg.tensor([True])


# ---- making tensors --------------------------------------------------------------------------------------------------


def test_inferred_dtypes():
    assert [str(tg.tensor(v).dtype) for v in (1, 1.0, True, [1, 2.5], np.float64(1), np.ones(1, np.int16), [])] == [
        "int64", "float32", "bool", "float32", "float64", "int16", "float32"]
    assert tg.tensor([tg.tensor(1), tg.tensor(2)]).tolist() == [1, 2]
    assert tg.tensor([[1.0], [2.0]], dtype="float64").dtype == tg.float64


@pytest.mark.parametrize(("data", "error", "message"), [
    ([[1, 2], [3]], ValueError, "ragged"), ("text", TypeError, "tensor"), ([1, None], TypeError, "tensor"), (1j, TypeError, "complex"),
    (np.ones(2, np.float16), TypeError, "float16"), (np.ones(2, ">f4"), TypeError, "tensor"), (2**70, TypeError, "tensor"), ({"a": 1}, TypeError, "tensor"),
])
def test_data_that_tensors_cannot_hold(data, error, message):
    with pytest.raises(error, match=message):
        tg.tensor(data)


@pytest.mark.parametrize("dtype", ["float16", "complex64", "uint32", "U3", "object", "nonsense"])
def test_dtypes_that_tensors_do_not_have(dtype):
    for make in (lambda: tg.zeros(2, dtype=dtype), lambda: tg.ones(2).to(dtype), lambda: tg.tensor([1.0], dtype=dtype)):
        with pytest.raises(TypeError, match=r"(zeros|to|tensor): .*wanted one of"):
            make()
    if dtype != "nonsense":
        with pytest.raises(TypeError, match="from_numpy: .*wanted one of"):
            tg.from_numpy(np.ones(2, dtype))


def test_arrays_of_other_dtypes_are_converted_as_numpy_does():
    """As in PyTorch: only single numbers and lists of them must fit."""
    assert tg.tensor(np.array([300, -1]), dtype=tg.uint8).tolist() == [44, 255]
    assert tg.tensor(tg.tensor([300, -1]), dtype=tg.uint8).tolist() == [44, 255]
    with pytest.raises((ValueError, OverflowError), match="tensor: .*300"):
        tg.tensor(np.int64(300), dtype=tg.int8)


@pytest.mark.parametrize("call", [tg.autograd.grad, tg.autograd.backward])
def test_roots_that_are_no_tensors(call):
    with pytest.raises(TypeError, match=f"{call.__name__}: outputs must be Tensors, got ndarray"):
        call([np.ones(1)], [tg.ones(1, requires_grad=True)])


def test_factories():
    assert tg.arange(5).tolist() == [0, 1, 2, 3, 4] and tg.arange(1, 2, 0.5).tolist() == [1, 1.5] and tg.arange(3).dtype == tg.int64
    assert tg.linspace(0, 1, 3).tolist() == [0, 0.5, 1] and tg.eye(2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert tg.full((2,), 7).dtype == tg.int64 and tg.full((2,), 7.0).dtype == tg.float32 and tg.full_like(tg.ones(2), 3).tolist() == [3, 3]
    assert tg.zeros(2, 3).shape == tg.zeros((2, 3)).shape == tg.empty([2, 3]).shape == (2, 3) and tg.ones().shape == ()
    assert tg.zeros_like(tg.ones(2, dtype=tg.int8)).dtype == tg.int8 and tg.randn_like(tg.ones(2, 2)).shape == (2, 2)
    assert sorted(tg.randperm(5).tolist()) == [0, 1, 2, 3, 4] and set(tg.randint(3, size=(50,)).tolist()) == {0, 1, 2}
    assert set(tg.randint(3, (50,)).tolist()) == {0, 1, 2} and set(tg.randint(2, 4, [50]).tolist()) == {2, 3} and tg.randint(5).shape == ()
    assert tg.ones(2, requires_grad=True).requires_grad and tg.rand(100).min().item() >= 0 and tg.rand(100).max().item() < 1


def test_random_writes_have_pytorchs_ranges():
    x = tg.empty(10_000)
    assert 0 <= x.uniform_().min() < 0.01 and 0.99 < x.max() <= 1 and abs(x.mean() - 0.5) < 0.02
    assert abs(x.normal_().mean()) < 0.05 and abs(x.std() - 1) < 0.05


def test_manual_seed_repeats_everything():
    tg.manual_seed(5)
    first = [tg.randn(3), tg.rand(2), tg.randint(9, size=(4,)), tg.randperm(6), tg.zeros(3).normal_()]
    state = tg.get_rng_state()
    later = tg.rand(3)
    tg.manual_seed(5)
    for a, b in zip(first, [tg.randn(3), tg.rand(2), tg.randint(9, size=(4,)), tg.randperm(6), tg.zeros(3).normal_()], strict=True):
        assert a.tolist() == b.tolist()
    tg.set_rng_state(state)
    assert tg.rand(3).tolist() == later.tolist()
    for bad, error in ((-1, ValueError), (1.5, TypeError), ("a", TypeError), (True, TypeError)):
        with pytest.raises(error, match="manual_seed"):
            tg.manual_seed(bad)


def test_huge_and_impossible_shapes():
    for make in (lambda: tg.empty(2**40, 2**40), lambda: tg.zeros(-1), lambda: tg.ones(1).broadcast_to((2**40, 2**40)), lambda: tg.zeros(0, 3).reshape(0, -1)):
        with pytest.raises(ValueError, match=r"(empty|zeros|broadcast_to|reshape): "):
            make()
    with pytest.raises(TypeError, match="zeros: sizes must be ints"):
        tg.zeros(2.0)


# ---- Python's protocols ----------------------------------------------------------------------------------------------


def test_numbers_of_one_element():
    x = tg.tensor([[2.5]])
    assert (x.item(), float(x), int(x), bool(x), f"{x[0, 0]:.2f}") == (2.5, 2.5, 2, True, "2.50")
    assert f"{tg.tensor(9.375)}|{tg.tensor(2.0, requires_grad=True)}|{tg.tensor(7)}" == "9.375|2.0|7"      # PyTorch's
    assert isinstance(x.item(), float) and isinstance(tg.tensor(3).item(), int) and tg.tensor(True).item() is True
    assert [10, 20, 30][tg.tensor(1)] == 20 and list(range(tg.tensor(2))) == [0, 1]
    for call, error in ((lambda: tg.ones(2).item(), ValueError), (lambda: bool(tg.ones(2)), ValueError), (lambda: [1, 2][tg.tensor(1.0)], TypeError),
                        (lambda: float(tg.ones(2)), ValueError), (lambda: f"{tg.ones(2):.2f}", TypeError), (lambda: f"{tg.ones(1):.2f}", TypeError), (lambda: bool(tg.ones(0)), ValueError)):
        with pytest.raises(error):
            call()


def test_containers():
    x = tg.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert len(x) == 2 and [row.tolist() for row in x] == [[1, 2], [3, 4]] and 3.0 in x and 5.0 not in x and tg.tensor(4.0) in x
    assert x.tolist() == [[1, 2], [3, 4]] and isinstance(x.tolist()[0][0], float)
    _, b = x
    assert b.tolist() == [3, 4]
    for call in (lambda: len(tg.ones()), lambda: list(tg.ones())):
        with pytest.raises(TypeError, match="0-d"):
            call()


def test_identity_hash_and_comparison_with_strangers():
    x, y = tg.ones(2), tg.ones(2)
    assert {x: 1}[x] == 1 and hash(x) != hash(y) and y not in {x: 1}
    assert (x == None) is False and (x != "a") is True       # noqa: E711 - what Python itself answers
    for strange in ([1, 2], "a", None, 1j, object()):
        with pytest.raises(TypeError):
            x + strange
        with pytest.raises(TypeError):
            strange * x


def test_facts():
    x = tg.zeros(2, 3, dtype=tg.float64)
    assert (x.shape, x.size(), x.size(1), x.ndim, x.dim(), x.numel(), x.itemsize, x.nbytes) == ((2, 3), (2, 3), 3, 2, 2, 6, 8, 48)
    assert x.is_floating_point() and x.is_contiguous() and not x.T.is_contiguous() and x.contiguous() is x and x.device == "cpu" and x.cpu() is x
    assert tg.is_tensor(x) and not tg.is_tensor(np.ones(1))
    assert x.T.shape == x.mT.shape == (3, 2) and x.new_zeros(2).dtype == tg.float64 and x.new_tensor([1]).dtype == tg.float64


def test_conversions():
    x = tg.tensor([1.7, 0.0], requires_grad=True)
    assert [str(t.dtype) for t in (x.double(), x.float(), x.long(), x.int(), x.bool(), x.to("int8"), x.to(tg.ones(1, dtype=tg.int16)), x.type_as(tg.eye(1)))] == [
        "float64", "float32", "int64", "int32", "bool", "int8", "int16", "float32"]
    assert x.to() is x and x.to(tg.float32) is x and x.to("cpu") is x and x.long().tolist() == [1, 0]
    with pytest.raises(ValueError, match="to: device 'cuda:0'"):
        x.to("cuda:0")
    x.double().sum().backward()
    assert x.grad.dtype == tg.float32


@pytest.mark.parametrize(("make", "expected"), [
    (lambda: tg.tensor([1.0, 2.5]), "tensor([1.0, 2.5], dtype=float32)"),
    (lambda: tg.tensor([1.0, 2.0], requires_grad=True), "tensor([1., 2.], dtype=float32, requires_grad=True)"),
    (lambda: tg.tensor([1.0, 2.0], requires_grad=True) * 2, "tensor([2., 4.], dtype=float32, grad_fn=<MulBackward>)"),
    (lambda: tg.tensor([[1, 2], [3, 4]]), "tensor([[1, 2],\n        [3, 4]], dtype=int64)"),
    (lambda: tg.tensor([True, False]), "tensor([ True, False], dtype=bool)"),
    (lambda: tg.zeros(0, 3), "tensor([], shape=(0, 3), dtype=float32)"),
    (lambda: tg.tensor(3.5), "tensor(3.5, dtype=float32)"),
    (lambda: tg.tensor([float("nan"), float("inf")]), "tensor([nan, inf], dtype=float32)"),
])
def test_repr(make, expected):
    assert repr(make()) == str(make()) == expected


def test_the_repr_of_a_large_tensor_is_short():
    assert len(repr(tg.zeros(1000, 1000))) < 1000 and "..." in repr(tg.zeros(1000, 1000))


# ---- the legacy constructor, and numbers that do not fit ------------------------------------------------------------------


def test_the_legacy_constructor_is_pytorchs():
    assert tg.Tensor([1, 2, 3]).tolist() == [1, 2, 3] and tg.Tensor([1, 2, 3]).dtype == tg.float32
    assert tg.Tensor(5).shape == (5,) and tg.Tensor(2, 3).shape == (2, 3) and tg.Tensor().shape == (0,) and tg.Tensor(np.int64(3)).shape == (3,)
    assert tg.Tensor(np.array([1.0, 2.0])).dtype == tg.float32 and tg.Tensor((2, 3)).tolist() == [2, 3] and not tg.Tensor([1.0]).requires_grad
    x = tg.ones(2)
    tg.Tensor(x).fill_(5)                      # of a float32 tensor it is the same memory
    assert x.tolist() == [5, 5]
    for bad, error in (((5.0,), TypeError), ((True,), TypeError), (("x",), TypeError), ((-1,), ValueError), ((2, 1.5), TypeError), (([1, [2]],), ValueError)):
        with pytest.raises(error):
            tg.Tensor(*bad)


INTEGERS = ["uint8", "int8", "int16", "int32", "int64"]
NUMBERS = [0, 1, -1, 127, 128, 200, 255, 256, 300, -128, -129, -255, -256, -300, 2**31 - 1, 2**31, -(2**31), 2**40, 2**63 - 1, 2**70, 1.5, -1.5, 255.9, 256.5, 1e10, 1e20, math.inf, -math.inf, math.nan, True]
FILLING = {
    "tensor": lambda lib, v, dtype: lib.tensor(v, dtype=dtype), "tensor of a list": lambda lib, v, dtype: lib.tensor([0, v], dtype=dtype),
    "full": lambda lib, v, dtype: lib.full((2,), v, dtype=dtype), "fill_": lambda lib, v, dtype: lib.zeros(2, dtype=dtype).fill_(v),
    "x[0] = v": lambda lib, v, dtype: put(lib.zeros(2, dtype=dtype), v), "full_like": lambda lib, v, dtype: lib.full_like(lib.zeros(2, dtype=dtype), v),
}


def put(x, value):
    x[0] = value
    return x


def outcome(call):
    try:
        return call().tolist()
    except (RuntimeError, ValueError, OverflowError) as error:
        return type(error)


@pytest.mark.parametrize("how", FILLING)
def test_numbers_that_do_not_fit_are_refused_where_pytorch_refuses_them(how):
    torch = pytest.importorskip("torch")
    for name in INTEGERS:
        for value in NUMBERS:
            theirs = outcome(lambda name=name, value=value: FILLING[how](torch, value, getattr(torch, name)))
            ours = outcome(lambda name=name, value=value: FILLING[how](tg, value, getattr(tg, name)))
            assert ours == (ValueError if isinstance(theirs, type) else theirs), (name, value)


def test_arithmetic_with_numbers_that_do_not_fit_wraps_as_in_pytorch():
    torch = pytest.importorskip("torch")
    for name in INTEGERS:
        assert (tg.tensor([1, 2], dtype=getattr(tg, name)) > -1).tolist() == [True, True]      # comparisons do not wrap, as PyTorch's do
        for value in (300, -1, -300, 2**40, 2**31):
            for call in (lambda x, v: x + v, lambda x, v: v - x, lambda x, v: x * v):
                ours, theirs = (call(lib.tensor([1, 2], dtype=getattr(lib, name)), value) for lib in (tg, torch))
                assert ours.tolist() == theirs.tolist() and str(ours.dtype) == str(theirs.dtype).removeprefix("torch."), (name, value)


# ---- copies and pickles ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: tg.randn(2, 3), lambda: tg.randn(2, 3).T, lambda: tg.randn(2, 3)[:, ::2], lambda: tg.zeros(0, 2), lambda: tg.tensor(3),
                                  lambda: tg.ones(1).expand(3), lambda: tg.randn(2, requires_grad=True), lambda: tg.tensor([True])])
def test_pickles_and_copies_are_equal_and_independent(make):
    x = make()
    for y in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
        assert y.tolist() == x.tolist() and y.dtype == x.dtype and y.shape == x.shape and y.requires_grad == x.requires_grad and y.is_leaf
        assert not np.shares_memory(x._data, y._data)
        if y.numel() and y.is_floating_point():
            with tg.no_grad():
                y.zero_()
            assert x.tolist() != y.tolist()


def test_deepcopy_keeps_shared_tensors_shared():
    x = tg.ones(2, requires_grad=True)
    a, b = copy.deepcopy([x, x])
    assert a is b and a is not x


def test_computed_tensors_do_not_pickle():
    with pytest.raises(RuntimeError, match=r"pickle: .*detach\(\)"):
        pickle.dumps(tg.ones(2, requires_grad=True) * 2)


# ---- DLPack -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 2)])
def test_dlpack_to_numpy(dtype, shape):
    x = tg.ones(*shape, dtype=dtype)
    array = np.from_dlpack(x)
    assert array.dtype == x.dtype and array.shape == shape and np.array_equal(array, x.numpy())
    array[...] = 0                             # a copy: whoever takes it may write
    assert bool((x == 1).all())
    view = np.from_dlpack(x, copy=False)
    assert np.shares_memory(view, x._data) or not x.numel()
    with pytest.raises(ValueError, match="read-only"):
        view[...] = 0


def test_dlpack_with_torch():
    torch = pytest.importorskip("torch")
    x = tg.randn(2, 3, 4, 5).permute(0, 3, 1, 2)
    theirs = torch.from_dlpack(x)
    assert tuple(theirs.shape) == x.shape and theirs.tolist() == x.tolist()
    version = x._storage.version
    theirs.zero_()
    assert x.abs().sum().item() > 0 and x._storage.version == version          # torch cannot write into our memory
    back = tg.from_numpy(np.from_dlpack(torch.arange(3.0)))
    assert back.tolist() == [0, 1, 2]


def test_dlpack_refuses_what_would_be_unsafe():
    with pytest.raises(BufferError, match=r"requires grad.*detach\(\)"):
        np.from_dlpack(tg.ones(2, requires_grad=True))
    with pytest.raises(BufferError, match="copy=False"):
        tg.ones(2).__dlpack__(copy=False)
    assert tg.ones(2).__dlpack_device__() == (1, 0)


def test_nobody_iterates_over_a_tensor_without_dims():
    with pytest.raises(TypeError, match="iteration over a 0-d tensor"):
        iter(tg.tensor(1.0))
