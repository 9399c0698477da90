"""Wrong use of every public function raises ValueError, TypeError, IndexError or RuntimeError, and the message names the function."""

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn.ops import conv, elementwise, linalg, movement, norm, pool, reduce, resize
from tinygrad_cnn.primitive import Primitive

X = tg.ones(2, 3)
I = tg.ones(2, 3, dtype=tg.int64)
B = tg.ones(2, 3, dtype=tg.bool)
IMAGE, WEIGHT = tg.ones(1, 4, 6, 6), tg.ones(2, 4, 3, 3)
BINARY = ["add", "sub", "mul", "div", "floor_divide", "remainder", "pow", "atan2", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or",
          "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor"]
WITH_DIM = ["sum", "prod", "amax", "amin", "argmax", "argmin", "any", "all", "mean", "var", "std", "logsumexp", "softmax", "log_softmax", "cumsum", "max", "min", "squeeze",
            "unsqueeze", "unbind", "flip", "norm", "argsort", "sort"]

TABLE = [
    *((name, f, arguments) for name in BINARY for f in (getattr(elementwise, name),) for arguments in ((X, tg.ones(4)), (X, "3"), (X, None), (X, [1, 2, 3]), (X, 1j), (X, np.ones(3, np.float16)))),
    *((name, getattr(elementwise, name), (I, X)) for name in ("bitwise_and", "bitwise_or", "bitwise_xor")),
    *((name, getattr(tg.Tensor, name), (X, None, *args) if name == "norm" else (X, *args)) for name in WITH_DIM for args in ((5,), (-9,), (1.5,), ("a",)) if name not in ("max", "min", "norm")),
    *((name, getattr(tg, name), (X, 7)) for name in ("max", "min")),
    *(("topk", tg.topk, arguments) for arguments in ((X, 4), (X, -1), (X, 1.5), (X, 1, 5))),
    *((name, getattr(tg, name), (X, (0, 0))) for name in ("sum", "prod", "mean", "amax", "any", "var", "logsumexp")),
    *((name, getattr(tg, name), (I,)) for name in ("mean", "var", "std", "logsumexp")),
    *((name, getattr(tg, name), (I, 0)) for name in ("softmax", "log_softmax")),
    *((name, getattr(tg, name), (B,)) for name in ("neg", "abs", "sign", "floor", "ceil", "round", "trunc", "square", "relu")),
    *((name, getattr(tg, name), ("text",)) for name in ("exp", "log", "sqrt", "sin", "sigmoid", "erf", "tanh")),
    *((name, getattr(tg, name), (np.ones(2, complex),)) for name in ("exp", "log", "sqrt", "cos")),
    ("sub", tg.sub, (B, B)), ("pow", tg.pow, (I, -1)), ("norm", tg.norm, (X, 0)), ("norm", tg.norm, (X, -1)), ("norm", lambda: X.norm(2, 5), ()),
    ("clamp", tg.clamp, (X,)), ("clamp", lambda: tg.clamp(X, min=X), ()), ("clamp", lambda: tg.clip(X, "a", 2), ()),
    ("where", tg.where, (X, X, X)), ("where", tg.where, (B, X, tg.ones(7))), ("where", tg.where, (B, X, "a")),
    ("reshape", tg.reshape, (X, (4,))), ("reshape", tg.reshape, (X, (-1, -1))), ("reshape", tg.reshape, (X, (4, -1))), ("reshape", tg.reshape, (X, (-2, 3))),
    ("flatten", tg.flatten, (X, 1, 0)), ("flatten", tg.flatten, (X, 5)), ("unflatten", tg.unflatten, (X, 1, (2, 2))), ("unflatten", tg.unflatten, (X, 4, (3,))),
    ("permute", tg.permute, (X, (0, 0))), ("permute", tg.permute, (X, (0,))), ("permute", tg.permute, (X, (0, 2))), ("transpose", tg.transpose, (X, 0, 2)),
    ("movedim", tg.movedim, (X, (0, 1), (0,))), ("movedim", tg.movedim, (X, 0, 3)), ("broadcast_to", tg.broadcast_to, (X, (2, 4))), ("broadcast_to", tg.broadcast_to, (X, (3,))),
    ("expand", tg.expand, (X, 3)), ("expand", tg.expand, (X, -1, 2, 3)), ("broadcast_to", tg.expand, (X, 5, 3)), ("sum_to_size", X.sum_to_size, (2, 2)),
    ("roll", tg.roll, (X, (1, 2), 0)), ("roll", tg.roll, (X, 1, 5)), ("cat", tg.cat, ([],)), ("cat", tg.cat, ([X, tg.ones(2, 2)],)), ("cat", tg.cat, ([X, X], 2)),
    ("cat", tg.cat, ([tg.ones(), tg.ones()],)), ("cat", tg.cat, ([X, tg.ones(3)],)), ("cat", tg.cat, (X.sum(),)), ("stack", tg.stack, ([],)), ("stack", tg.stack, ([X, tg.ones(2)],)),
    ("stack", tg.stack, ([X], 3)), ("split", tg.split, (X, 0)), ("split", tg.split, (X, [1, 1], 1)), ("split", tg.split, (X, [4, -1], 1)), ("chunk", tg.chunk, (X, 0)),
    ("split", tg.split, (X, 1, 2)), ("pad", movement.pad_constant, (X, ((0, 0), (-2, -2)))), ("tile", tg.tile, (X, -1)),
    ("gather", tg.gather, (X, 0, tg.tensor([[5, 0, 0]]))), ("gather", tg.gather, (X, 0, tg.tensor([[-1, 0, 0]]))), ("gather", tg.gather, (X, 0, tg.tensor([0]))),
    ("gather", tg.gather, (X, 0, X)), ("gather", tg.gather, (X, 2, tg.tensor([[0]]))), ("gather", tg.gather, (X, 1, tg.zeros(3, 1, dtype=tg.int64))),
    ("scatter_add", tg.scatter_add, (X, 0, tg.tensor([[2, 0, 0]]), tg.ones(1, 3))), ("scatter_add", tg.scatter_add, (X, 0, tg.tensor([[0], [1], [1]]), X)),
    ("scatter_add", tg.scatter_add, (X, 0, tg.zeros(1, 4, dtype=tg.int64), tg.ones(1, 4))), ("index_select", tg.index_select, (X, 0, tg.tensor([2]))),
    ("index_select", tg.index_select, (X, 0, tg.tensor([[0]]))), ("index_select", tg.index_select, (X, 0, tg.tensor([0.5]))), ("masked_fill", tg.masked_fill, (X, X, 0)),
    ("masked_select", tg.masked_select, (X, tg.ones(5, dtype=tg.bool))), ("tril", tg.tril, (tg.ones(3),)), ("triu", tg.triu, (tg.ones(()),)),
    ("matmul", tg.matmul, (X, X)), ("matmul", tg.matmul, (X, tg.ones(()))), ("matmul", tg.matmul, (X, 2.0)), ("matmul", tg.matmul, (tg.ones(2, 2, 3), tg.ones(3, 3, 2))),
    ("matmul", tg.matmul, (tg.ones((), requires_grad=True), X)), ("mm", tg.mm, (X, tg.ones(3))), ("bmm", tg.bmm, (X, X)), ("bmm", tg.bmm, (tg.ones(2, 2, 2), tg.ones(3, 2, 2))),
    ("dot", tg.dot, (tg.ones(2), tg.ones(3))), ("outer", tg.outer, (X, X)), ("einsum", tg.einsum, ("ij,jk->ik", X, X)), ("einsum", tg.einsum, ("ij->ij", X, X)),
    ("einsum", tg.einsum, ("ii->i", tg.ones(2, 2))), ("einsum", tg.einsum, ("ij->ik", X)), ("einsum", tg.einsum, ("...j->j", X)), ("einsum", tg.einsum, ("ij->ijj", X)),
    ("linear", linalg.linear, (X, tg.ones(4, 4))), ("linear", linalg.linear, (X, tg.ones(3))), ("linear", linalg.linear, (X, tg.ones(4, 3), tg.ones(3))),
    ("linear", linalg.linear, (X.double(), tg.ones(4, 3))), ("linear", linalg.linear, (tg.ones(()), tg.ones(4, 3))), ("linear", linalg.linear, (I, tg.ones(4, 3, dtype=tg.int64))),
    ("conv2d", conv.conv2d, (IMAGE, tg.ones(2, 3, 3, 3))), ("conv2d", conv.conv2d, (IMAGE, tg.ones(2, 4, 9, 3))), ("conv2d", conv.conv2d, (IMAGE, WEIGHT, tg.ones(3))),
    ("conv2d", conv.conv2d, (IMAGE, WEIGHT, None, 0)), ("conv2d", conv.conv2d, (IMAGE, WEIGHT, None, 1, -1)), ("conv2d", conv.conv2d, (IMAGE, WEIGHT, None, 1, "full")),
    ("conv2d", conv.conv2d, (IMAGE, WEIGHT, None, 1, 0, 0)), ("conv2d", conv.conv2d, (IMAGE, WEIGHT, None, 1, 0, 1, 3)), ("conv2d", conv.conv2d, (IMAGE, WEIGHT, None, 1, 0, 1, 0)),
    ("conv2d", conv.conv2d, (IMAGE, WEIGHT, None, 1, 0, 1, 1.0)), ("conv2d", conv.conv2d, (IMAGE, tg.ones(3, 2, 3, 3), None, 1, 0, 1, 2)), ("conv2d", conv.conv2d, (X, WEIGHT)),
    ("conv2d", conv.conv2d, (IMAGE.double(), WEIGHT)), ("conv2d", conv.conv2d, (IMAGE.long(), WEIGHT.long())), ("conv2d", conv.conv2d, (IMAGE, tg.ones(2, 4, 0, 3))),
    ("conv2d", conv.conv2d, (IMAGE, WEIGHT, None, (1, 2, 3))), ("conv2d", conv.conv2d, (IMAGE, WEIGHT, None, 1.5)), ("conv2d", conv.conv2d, (IMAGE, tg.ones(()))),
    ("conv2d", conv.conv2d, (tg.ones(1, 0, 5, 5), tg.ones(2, 0, 3, 3))), ("conv2d", conv.conv2d, (IMAGE, tg.ones(0, 4, 3, 3))),
    ("conv_transpose2d", conv.conv_transpose2d, (tg.ones(1, 0, 5, 5), tg.ones(0, 2, 3, 3))), ("conv_transpose2d", conv.conv_transpose2d, (IMAGE, tg.ones(4, 0, 3, 3))),
    ("conv2d", conv.conv2d, (IMAGE, tg.ones(4, 4))), ("conv2d", conv.conv2d, (IMAGE, WEIGHT, None, True)),
    ("conv_transpose2d", conv.conv_transpose2d, (IMAGE, tg.ones(3, 2, 3, 3))), ("conv_transpose2d", conv.conv_transpose2d, (IMAGE, tg.ones(4, 2, 3, 3), None, 1, 0, 1)),
    ("conv_transpose2d", conv.conv_transpose2d, (IMAGE, tg.ones(4, 2, 1, 1), None, 1, 9)), ("conv_transpose2d", conv.conv_transpose2d, (IMAGE, tg.ones(()))),
    ("conv_transpose2d", conv.conv_transpose2d, (IMAGE, tg.ones(4, 2, 3, 3), tg.ones(3))), ("conv_transpose2d", conv.conv_transpose2d, (IMAGE, tg.ones(4, 2, 3, 3), None, 1, 0, 0, 3)),
    ("unfold", conv.unfold, (X, 2)), ("unfold", conv.unfold, (IMAGE, 9)), ("unfold", conv.unfold, (IMAGE, 0)), ("fold", conv.fold, (X, 4, 2)),
    ("fold", conv.fold, (tg.ones(1, 4, 5), 4, 2)), ("fold", conv.fold, (tg.ones(1, 5, 9), 4, 2)), ("local_conv2d", conv.local_conv2d, (IMAGE, WEIGHT)),
    ("local_conv2d", conv.local_conv2d, (IMAGE, tg.ones(2, 4, 3, 3, 5, 5))), ("local_conv2d", conv.local_conv2d, (IMAGE, tg.ones(2, 3, 3, 3, 4, 4))),
    ("local_conv2d", conv.local_conv2d, (IMAGE, tg.ones(2, 4, 3, 3, 4, 4), tg.ones(2))),
    *((name, getattr(pool, name), (IMAGE, *args)) for name in ("max_pool2d", "avg_pool2d") for args in ((0,), (9,), (2, 0), (2, 1, 2), (2, 1, -1), (2.5,), ((1, 2, 3),))),
    *((name, getattr(pool, name), args) for name in ("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d") for args in ((X, 2), (IMAGE.long(), 2))),
    ("avg_pool2d", lambda: pool.avg_pool2d(IMAGE, 2, divisor_override=0), ()), ("adaptive_avg_pool2d", pool.adaptive_avg_pool2d, (IMAGE, 0)),
    ("adaptive_avg_pool2d", pool.adaptive_avg_pool2d, (tg.ones(1, 1, 0, 2), 1)), ("max_pool2d", lambda: pool.max_pool2d(IMAGE, 2, dilation=0), ()),
    ("interpolate", resize.interpolate, (IMAGE,)), ("interpolate", resize.interpolate, (IMAGE, 2, 2)), ("interpolate", resize.interpolate, (IMAGE, 0)),
    ("interpolate", lambda: resize.interpolate(IMAGE, 2, mode="cubic"), ()), ("interpolate", lambda: resize.interpolate(IMAGE, scale_factor=-1), ()),
    ("interpolate", lambda: resize.interpolate(IMAGE, scale_factor="2"), ()), ("interpolate", lambda: resize.interpolate(IMAGE, 2, align_corners=True), ()),
    ("interpolate", lambda: resize.interpolate(IMAGE, scale_factor=0.01), ()), ("interpolate", resize.interpolate, (X, 2)),
    ("batch_norm", norm.batch_norm, (tg.ones(3),)), ("batch_norm", norm.batch_norm, (X,)), ("batch_norm", lambda: norm.batch_norm(X, weight=tg.ones(2), training=True), ()),
    ("batch_norm", lambda: norm.batch_norm(X, training=True, eps=0), ()), ("batch_norm", lambda: norm.batch_norm(I, training=True), ()),
    ("batch_norm", lambda: norm.batch_norm(tg.ones(1, 3), training=True), ()), ("batch_norm", lambda: norm.batch_norm(X, bias=tg.ones(3).double(), training=True), ()),
    ("arange", tg.arange, (1, 2, 0)), ("randint", tg.randint, (3, 3)), ("zeros", tg.zeros, (2, -1)), ("ones", tg.ones, ("a",)), ("full", tg.full, ((-1,), 2)), ("randn", tg.randn, (1.5,)),
    ("linspace", tg.linspace, (0, 1, -1)), ("eye", tg.eye, (-1,)), ("from_numpy", tg.from_numpy, ([1, 2],)), ("tensor", tg.tensor, ([[1], [1, 2]],)),
    ("randperm", tg.randperm, (-1,)), ("set_num_threads", tg.set_num_threads, (0,)), ("manual_seed", tg.manual_seed, (-1,)), ("requires_grad_", I.requires_grad_, ()),
]


@pytest.mark.parametrize(("name", "function", "arguments"), TABLE, ids=[f"{i}-{row[0]}" for i, row in enumerate(TABLE)])
def test_the_message_names_the_function(name, function, arguments):
    before = [a._storage.version for a in (X, I, B, IMAGE, WEIGHT)]
    with pytest.raises((ValueError, TypeError, IndexError, RuntimeError)) as error:
        function(*arguments)
    assert name in str(error.value), f"{type(error.value).__name__}: {error.value}"
    assert [a._storage.version for a in (X, I, B, IMAGE, WEIGHT)] == before


def test_every_public_operation_is_in_the_table():
    """Only those that cannot be called wrongly with tensors of numbers are left out."""
    unary = {n for n, p in vars(elementwise).items() if isinstance(p, Primitive) and len(p.arguments) == 1 and not p.attributes}
    harmless = unary | {"clone", "rsqrt", "reciprocal", "clip", "is_tensor", "as_tensor", "empty", "rand", "zeros_like", "ones_like", "empty_like", "rand_like", "randn_like", "full_like",
                        "is_grad_enabled", "get_rng_state", "set_rng_state", "get_num_threads", "primitive"}
    public = {n for n, f in vars(tg).items() if callable(f) and not n.startswith("_") and not isinstance(f, type) and getattr(f, "__module__", "").startswith("tinygrad_cnn")}
    tested = {row[0] for row in TABLE}
    assert public - harmless - tested == set()
    assert set(reduce.__all__) <= tested | {"any", "all"}
