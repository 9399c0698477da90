"""Samples of every primitive: how to call it, on what, and what must come out by an independent computation.

One row per primitive: `row(name, call, reference, *cases)`. A case is a tuple of inputs (arrays in float64, away from kinks and
ties, or constants), with keyword arguments, if any, as a dict at its end; `call` gets them as Tensors and `reference` as arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import tinygrad_cnn as tg
from tinygrad_cnn.ops import cross_entropy, dropout, elementwise, linalg, movement, norm, pool, reduce, resize
from tinygrad_cnn.primitive import registry

from . import slow


@dataclass
class Sample:
    """One call. `order`: up to which derivative it can be checked."""

    name: str
    call: Callable[..., Any]
    reference: Callable[..., Any]
    inputs: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    order: int = 2

    def tensors(self, dtype: Any = None, requires_grad: bool = True) -> list[Any]:
        """The inputs as fresh Tensors in memory laid out as given; floats require grad."""
        return [tensor(x, dtype, requires_grad) if isinstance(x, np.ndarray) else x for x in self.inputs]

    def run(self, *inputs: Any) -> Any:
        return self.call(*inputs, **self.kwargs)


def tensor(x: np.ndarray, dtype: Any = None, requires_grad: bool = True) -> tg.Tensor:
    """A Tensor whose memory has the very strides of x, also negative or with gaps."""
    is_float = x.dtype.kind == "f"
    if dtype is not None and is_float and x.dtype != dtype:
        x = x.astype(dtype, order="K")
    base = x
    while base is not None:
        base.flags.writeable = False           # memory nobody can write to is taken over by from_numpy as it is
        base = base.base
    out = tg.from_numpy(x)
    out._storage.foreign = False               # nobody has it: graphs may keep it with these strides, rather than a copy
    return out.requires_grad_(requires_grad and is_float)


SAMPLES: dict[str, list[Sample]] = {}


def row(name: str, call: Callable[..., Any], reference: Callable[..., Any], *cases: Any, order: int = 2) -> None:
    for case in cases:
        case = case if isinstance(case, tuple) else (case,)
        kwargs = case[-1] if case and isinstance(case[-1], dict) else {}
        inputs = case[: len(case) - bool(kwargs)]
        SAMPLES.setdefault(name, []).append(Sample(name, call, reference, inputs, kwargs, order))


# ---- inputs: float64, away from kinks and ties ------------------------------------------------------------------------

_random = np.random.default_rng(20)


def signed(*shape: int) -> np.ndarray:
    return np.array(_random.uniform(0.3, 1.4, shape) * _random.choice((-1, 1), shape))


def positive(*shape: int) -> np.ndarray:
    return np.array(_random.uniform(0.3, 1.8, shape))


def unit(*shape: int) -> np.ndarray:
    return np.array(_random.uniform(-0.8, 0.8, shape))


def normal(*shape: int) -> np.ndarray:
    return np.array(_random.standard_normal(shape))


def between(*shape: int) -> np.ndarray:
    """Away from integers and their halves."""
    return np.array(_random.integers(-3, 3, shape) + _random.choice((0.2, 0.7), shape) + _random.uniform(0, 0.1, shape))


def distinct(*shape: int) -> np.ndarray:
    count = math.prod(shape)
    return np.array(_random.permutation(np.linspace(-1.5, 1.7, count))).reshape(shape)


def whole(high: int, *shape: int) -> np.ndarray:
    return np.array(_random.integers(0, high, shape))


def flags(*shape: int) -> np.ndarray:
    return np.array(_random.random(shape) < 0.5)


def channels_last(make: Callable[..., np.ndarray], n: int, c: int, h: int, w: int) -> np.ndarray:
    return make(n, h, w, c).transpose(0, 3, 1, 2)      # (N, H, W, C) -> (N, C, H, W)


def layouts(make: Callable[..., np.ndarray]) -> tuple[np.ndarray, ...]:
    """0-d, row-major, transposed, strided, reversed, channels-last, broadcast and empty memory."""
    return (make(), make(2, 3), make(3, 2).T, make(4, 3)[::2], make(3)[::-1], channels_last(make, 2, 2, 1, 2),
            np.broadcast_to(make(2, 1), (2, 2)), make(0, 2))


def pairs(make: Callable[..., np.ndarray], other: Callable[..., np.ndarray] | None = None) -> tuple[tuple[Any, Any], ...]:
    """Shapes that broadcast against each other, and a Python number on either side."""
    other = other or make
    return ((make(2, 3), other(3)), (make(2, 1), other(1, 3)), (make(), other(2, 2)), (make(3), other()), (make(0, 3), other(3)),
            (channels_last(make, 1, 2, 2, 1), other(2, 1, 1)), (make(3, 2).T, other(2, 3)), (make(2), float(other())),
            (float(make()), other(2)), (make(2), other(1, 2)[:, ::-1]))


P = registry.__getitem__

# ---- elementwise ------------------------------------------------------------------------------------------------------

for _name, _function, _make in (
    ("neg", lambda x: -x, signed), ("abs", abs, signed), ("square", lambda x: x * x, signed), ("relu", lambda x: max(x, 0.0), signed),
    ("sign", lambda x: math.copysign(1, x), signed), ("floor", math.floor, between), ("ceil", math.ceil, between),
    ("round", round, between), ("trunc", math.trunc, between), ("exp", math.exp, signed), ("expm1", math.expm1, signed),
    ("log", math.log, positive), ("log1p", math.log1p, positive), ("log2", math.log2, positive), ("log10", math.log10, positive),
    ("sqrt", math.sqrt, positive), ("sin", math.sin, signed), ("cos", math.cos, signed), ("tan", math.tan, unit),
    ("sinh", math.sinh, signed), ("cosh", math.cosh, signed), ("tanh", math.tanh, signed), ("asin", math.asin, unit),
    ("acos", math.acos, unit), ("atan", math.atan, signed), ("sigmoid", lambda x: 1 / (1 + math.exp(-x)), signed),
    ("logsigmoid", lambda x: -math.log(1 + math.exp(-x)), signed), ("softplus", lambda x: math.log(1 + math.exp(x)), signed),
    ("erf", math.erf, signed), ("clone", lambda x: x, signed), ("relu6", lambda x: min(max(x, 0.0), 6.0), lambda *shape: np.array(5 * signed(*shape))),
):
    row(_name, getattr(elementwise, _name), lambda x, f=_function: slow.each(f, x) * 1.0, *layouts(_make))

_odd = np.array([0.0, -0.0, 1.5, math.nan, math.inf, -math.inf])
for _name, _function in (("isnan", math.isnan), ("isinf", math.isinf), ("isfinite", math.isfinite), ("logical_not", lambda x: not x)):
    row(_name, getattr(elementwise, _name), lambda x, f=_function: slow.each(f, x), _odd, _odd.reshape(2, 3).T, np.array(1.0), order=0)
row("bitwise_not", tg.bitwise_not, lambda x: slow.each(lambda v: not v if isinstance(v, bool) else ~v, x), whole(9, 2, 3), flags(4), order=0)

for _name, _function, _cases in (
    ("add", lambda x, y: x + y, pairs(signed)), ("sub", lambda x, y: x - y, pairs(signed)), ("mul", lambda x, y: x * y, pairs(signed)),
    ("div", lambda x, y: x / y, pairs(signed)), ("pow", lambda x, y: x**y, pairs(positive, signed)), ("atan2", math.atan2, pairs(signed)),
    ("maximum", max, pairs(signed)), ("minimum", min, pairs(signed)),
    ("remainder", lambda x, y: x - y * math.floor(x / y), pairs(lambda *s: 5 + unit(*s), lambda *s: 1.9 + unit(*s) / 20)),
):
    row(_name, getattr(elementwise, _name), lambda x, y, f=_function: slow.each(f, x, y), *_cases)
row("pow", tg.pow, lambda x, y: slow.each(lambda v, w: v**w, x, y), (signed(3), 2), (signed(3), 3.0), (signed(3), -1), (signed(2), 0))
row("floor_divide", tg.floor_divide, lambda x, y: slow.each(lambda v, w: math.floor(v / w), x, y), *pairs(signed), order=0)
row("_relu_grad", P("_relu_grad"), lambda g, out: slow.each(lambda a, b: a if b > 0 else 0.0, g, out),
    (signed(2, 3), signed(2, 3)), (signed(5), signed(5)), (signed(), signed()))
row("_share", P("_share"), lambda x, y: slow.each(lambda v, w: 1.0 if v > w else 0.5 if v == w else 0.0, x, y),
    (np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0])), (np.array([[1.0], [2.0]]), 1.0), order=0)

_close = (np.array([1.0, 2.0, math.nan, math.inf]), np.array([[1.0], [math.nan], [2.0], [-math.inf]]))
for _name, _function in (("eq", lambda x, y: x == y), ("ne", lambda x, y: x != y), ("lt", lambda x, y: x < y), ("le", lambda x, y: x <= y),
                         ("gt", lambda x, y: x > y), ("ge", lambda x, y: x >= y)):
    row(_name, getattr(elementwise, _name), lambda x, y, f=_function: slow.each(f, x, y), _close, (whole(3, 2, 3), whole(3, 3)), (signed(2), 0.5),
        (signed(0, 2), signed(2)), order=0)
for _name, _function in (("and", lambda x, y: x and y), ("or", lambda x, y: x or y), ("xor", lambda x, y: x != y)):
    row(f"logical_{_name}", getattr(elementwise, f"logical_{_name}"), lambda x, y, f=_function: slow.each(lambda v, w: bool(f(bool(v), bool(w))), x, y),
        (flags(2, 3), flags(3)), (whole(2, 4), whole(2, 3, 1)), (_odd, 1.0), order=0)
for _name, _function in (("and", lambda x, y: x & y), ("or", lambda x, y: x | y), ("xor", lambda x, y: x ^ y)):
    row(f"bitwise_{_name}", getattr(elementwise, f"bitwise_{_name}"), lambda x, y, f=_function: slow.each(f, x, y),
        (flags(2, 3), flags(3)), (whole(9, 4), whole(9, 3, 1)), (whole(9, 2), 5), order=0)

row("where", tg.where, lambda c, x, y: slow.each(lambda k, v, w: v if k else w, c, x, y), (flags(2, 3), signed(3), signed(2, 1)),
    (flags(2, 2, 1), signed(), signed(2)), (flags(3), signed(3), 0.0), (flags(3), 2.0, signed(3)), (flags(0), signed(1), signed(0)),
    (channels_last(flags, 1, 2, 1, 2), channels_last(signed, 1, 2, 1, 2), signed(2, 1, 1)))
row("clamp", tg.clip, lambda x, min=None, max=None: slow.each(lambda v: (v if min is None or v > min else min) if max is None or v < max else max, x),
    *((x, {"min": -0.55, "max": 0.77}) for x in layouts(signed)), (signed(4), {"min": 0.1}), (signed(4), {"max": 0.0}))
row("to", P("to"), lambda x, dtype: x.astype(dtype), (signed(2, 3), {"dtype": tg.float64}), (signed(), {"dtype": tg.float64}), order=2)
row("to", P("to"), lambda x, dtype: x.astype(dtype), (signed(2, 3), {"dtype": tg.int32}), (whole(3, 4), {"dtype": tg.bool}), order=0)

# ---- reductions -------------------------------------------------------------------------------------------------------

_dims = ({}, {"dim": 0}, {"dim": -1, "keepdim": True}, {"dim": (0, -1)}, {"dim": (1,), "keepdim": True})


def reductions(make: Callable[..., np.ndarray], empty: bool = True) -> tuple[Any, ...]:
    cases = [(make(2, 3), {"keepdim": False, **kw}) for kw in _dims] + [(make(), {"keepdim": False}), (make(), {"dim": 0})]
    cases += [(channels_last(make, 2, 2, 1, 2), {"dim": (0, 2, 3)}), (make(2, 3, 2), {"dim": (-1, 0)}), (make(4, 3)[::2].T, {"dim": -2})]
    return (*cases, *(((make(0, 2), {"dim": 0}), (make(2, 0), {"dim": 0})) if empty else ()))


for _name, _function, _cases in (
    ("_sum", math.fsum, reductions(normal)), ("_prod", math.prod, (*reductions(signed), (np.array([[1.5, 0.0, 2.0], [0.0, 0.0, 3.0]]), {"dim": 1}))),
    ("_amax", max, reductions(distinct, empty=False)), ("_amin", min, reductions(distinct, empty=False)),
):
    row(_name, getattr(reduce, _name.lstrip("_")), lambda x, f=_function, **kw: slow.along(f, x, **kw), *_cases)
row("_logsumexp", tg.logsumexp, lambda x, **kw: slow.along(lambda v: math.log(math.fsum(map(math.exp, v))), x, **kw),
    *reductions(normal, empty=False))
for _name, _function in (("_any", any), ("_all", all)):
    row(_name, getattr(reduce, _name.lstrip("_")), lambda x, f=_function, **kw: slow.along(f, x, **kw), *reductions(flags, empty=False),
        (_odd, {"dim": 0}), order=0)
for _name, _pick in (("_argmax", max), ("_argmin", min)):
    row(_name, getattr(reduce, _name.lstrip("_")), lambda x, f=_pick, **kw: slow.along(lambda v: v.index(f(v)), x, **kw),
        (distinct(2, 3), {"dim": 1}), (distinct(2, 3), {"dim": 0, "keepdim": True}), distinct(2, 3), (whole(2, 3, 4), {"dim": -1}), distinct(), order=0)
row("_argsort", tg.argsort, lambda x, dim=-1, descending=False: slow.normalised(
    lambda v, k: sorted(range(len(v)), key=lambda i: (-v[i] if descending else v[i], i))[k], x, dim % x.ndim),
    normal(5), (normal(3, 4), {"dim": 0}), (normal(2, 3, 2), {"dim": 1, "descending": True}), np.array([[1.0, 0.0, 1.0, 0.0]]),
    (np.array([2.0, 1.0, 2.0]), {"descending": True}), order=0)
row("_cumsum", tg.cumsum, lambda x, dim: slow.normalised(lambda v, k: math.fsum(v[: k + 1]), x, dim % max(x.ndim, 1)),
    (normal(2, 3), {"dim": -1}), (normal(2, 3).T, {"dim": 0}), (normal(0, 2), {"dim": 0}))
row("_cumsum", lambda x: P("_cumsum")(x, dim=0, reverse=True), lambda x: slow.normalised(lambda v, k: math.fsum(v[k:]), x, 0), normal(3, 2))
for _name, _function in (("_softmax", slow.softmax), ("_log_softmax", slow.log_softmax)):
    row(_name, getattr(reduce, _name.lstrip("_")), lambda x, dim, f=_function: slow.normalised(f, x, dim % max(x.ndim, 1)), (normal(2, 3), {"dim": -1}),
        (normal(2, 3), {"dim": 0}), (channels_last(normal, 1, 3, 1, 2), {"dim": 1}), (normal(), {"dim": 0}), (normal(0, 3), {"dim": 1}))

# ---- movement ---------------------------------------------------------------------------------------------------------

row("_reshape", movement.reshape, lambda x, shape: np.array(x.ravel().tolist()).reshape(shape), (signed(2, 3), (3, -1)), (signed(3, 2).T, (6,)),
    (signed(1), ()), (signed(), (1, 1)), (signed(0, 3), (3, 0)), (channels_last(signed, 2, 2, 1, 2), (2, -1)))
row("_permute", movement.permute, slow.permute, (signed(2, 3, 1), (2, 0, 1)), (signed(2, 3), (1, 0)), (signed(), ()),
    (channels_last(signed, 1, 2, 2, 2), (0, 2, 3, 1)), (signed(2, 0), (1, 0)))
row("_broadcast_to", movement.broadcast_to, lambda x, shape: slow.each(lambda v, _: v, x, np.empty(shape)), (signed(3), (2, 3)), (signed(2, 1), (2, 2)),
    (signed(), (2, 2)), (signed(1, 2, 1), (3, 1, 2, 2)), (signed(1, 2), (0, 2)))
row("_sum_to_size", movement.sum_to_size, slow.sum_to, (normal(2, 3), (3,)), (normal(2, 3), (2, 1)), (normal(2, 3), ()), (normal(2, 2, 3), (1, 2, 1)),
    (normal(0, 2), (2,)), (channels_last(normal, 2, 2, 1, 2), (1, 2, 1, 1)))
row("_flip", movement.flip, slow.flip, (signed(2, 3), (1,)), (signed(2, 3).T, (0, 1)), (signed(2, 0), (0,)),
    (channels_last(signed, 1, 2, 2, 2), (2, 3)))
row("_roll", movement.roll, slow.roll, (signed(2, 3), 1, 1), (signed(3, 2).T, (1, -2), (0, 1)), (signed(2, 3), 4), (signed(3), 0, 0), (signed(0, 2), 1, 0), (signed(4), (1, 2), (0, 0)),
    (channels_last(signed, 1, 2, 2, 3), (5, 1), (-1, 1)), (signed(), 1, 0), (signed(), 3))
row("_tile", movement.tile, slow.tile, (signed(2, 3), (2, 1)), (signed(3, 2).T, (1, 2)), (signed(2), (2, 3, 1)), (signed(2, 1, 2), (3,)), (signed(), (2, 2)),
    (signed(2, 2), (1, 1)), (signed(2, 3), (0, 2)), (channels_last(signed, 1, 2, 2, 2), (2, 1, 1, 2)), (np.broadcast_to(signed(1, 2), (3, 2)), (1, 2)))
row("_row_major", P("_row_major"), lambda x: x, *layouts(signed))
row("_cat", lambda *xs, dim=0: movement.cat(xs, dim), slow.cat,
    (signed(2, 2), signed(1, 2)), (signed(2, 1), signed(2, 2).T, {"dim": -1}), (signed(2), signed(0), signed(1)), (signed(0, 2), signed(0, 2)))
row("_pad", movement.pad_constant, slow.pad, (signed(2, 3), ((1, 0), (0, 2)), 0.5), (signed(2), ((1, 1),), 0), (signed(0, 2), ((1, 0), (0, 0)), 1.0),
    (channels_last(signed, 1, 2, 2, 1), ((0, 0), (0, 0), (1, 1), (1, 2)), 0))

_indices: tuple[tuple[tuple[int, ...], Any], ...] = (
    ((3, 4), 1), ((3, 4), (slice(None), 2)), ((3, 4), (slice(0, 3, 2), slice(None, None, -1))), ((3, 4), (Ellipsis, None, -1)), ((3,), slice(2, 0)),
    ((3, 4), [2, 0, 2]), ((3, 4), (np.array([[0, 1], [1, 1]]), np.array([3, 3]))), ((3, 4), (slice(1, None), np.array([0, 0, 3]))),
    ((2, 3), np.array([[True, False, True], [False, True, True]])), ((3, 2), np.array([True, False, True])), ((2, 3, 2), (np.array([0, 1]), slice(None), 1)),
    ((2, 3), np.zeros(0, np.int64)), ((), ()), ((0, 2), slice(None)), ((2,), (None, np.array(1))), ((2, 2), np.zeros((2, 2), bool)))


def surviving(x: np.ndarray, index: Any, shape: tuple[int, ...]) -> np.ndarray:
    where = slow.places(shape, index).ravel().tolist()
    return np.array([0.0 if i in where[k + 1 :] else v for k, (i, v) in enumerate(zip(where, x.ravel(), strict=True))]).reshape(x.shape)


row("_getitem", movement.getitem, lambda x, index: slow.take(x, index), *((signed(*shape), index) for shape, index in _indices),
    (channels_last(signed, 2, 3, 2, 1), (slice(None), 1)), (signed(3, 4)[::2].T, (slice(1, 3), np.array([1, 1]))))
row("_scatter_index", lambda x, index, shape: P("_scatter_index")(x, index=movement.check_index(index, shape), shape=shape), slow.scatter_index,
    *((signed(*slow.places(shape, index).shape), index, shape) for shape, index in _indices))
row("_assign", lambda x, value, index: P("_assign")(x, value, index=movement.check_index(index, x.shape)), slow.set_index,
    *((signed(*shape), signed(*slow.places(shape, index).shape), index) for shape, index in _indices),
    (signed(3, 4), signed(), 1), (signed(3, 4), signed(1, 1, 4), 0), (signed(2, 3), signed(1), np.array([[True, False, True], [False, False, False]])),
    (signed(4), signed(1), np.array([1, 1, 2])), (channels_last(signed, 1, 2, 2, 1), signed(2, 1), (0, slice(None), 0)))
row("_surviving", lambda x, index, shape: P("_surviving")(x, index=movement.check_index(index, shape), shape=shape), surviving,
    *((signed(*slow.places(shape, index).shape), index, shape) for shape, index in _indices))
row("_gather", movement.gather, slow.gather, (signed(3, 2), 0, whole(3, 4, 2)), (signed(2, 3).T, 1, whole(2, 3, 1)), (signed(4), 0, np.array([1, 1, 0])),
    (signed(2, 3), 0, whole(2, 2, 2)), (signed(2, 0), 1, np.zeros((2, 0), int)))
row("_scatter_add", lambda x, dim, index, shape: P("_scatter_add")(x, dim=dim, index=np.array(index.numpy()), shape=shape), slow.scatter_add,
    (signed(4, 2), 0, whole(3, 4, 2), (3, 2)), (signed(2, 3), 1, whole(2, 2, 3), (2, 2)), (signed(3), 0, np.array([1, 1, 0]), (3,)))

# ---- matrices ---------------------------------------------------------------------------------------------------------

row("_matmul", P("_matmul"), slow.matmul, (normal(2, 3), normal(3, 2)), (normal(2, 1, 2, 3), normal(2, 3, 1)), (normal(3, 2).T, normal(2, 2, 3).swapaxes(1, 2)),
    (normal(2, 0), normal(0, 3)), (normal(0, 2, 3), normal(3, 2)))
row("_linear_input_grad", P("_linear_input_grad"), lambda g, w: slow.matmul(g.reshape(-1, w.shape[0]), w).reshape(*g.shape[:-1], w.shape[1]),
    (normal(2, 4), normal(4, 3)), (normal(2, 1, 2), normal(2, 3)), (normal(3), normal(3, 2)))
row("_linear_weight_grad", P("_linear_weight_grad"), lambda g, x: slow.matmul(g.reshape(-1, g.shape[-1]).T, x.reshape(-1, x.shape[-1])),
    (normal(2, 4), normal(2, 3)), (normal(2, 1, 2), normal(2, 1, 3)), (normal(3), normal(2)))
row("_linear", lambda *a: linalg.linear(*a), lambda x, w, b=None: (slow.matmul(x.reshape(-1, w.shape[1]), w.T) + (0 if b is None else b)).reshape(*x.shape[:-1], len(w)), (normal(2, 3), normal(4, 3), normal(4)),
    (normal(3), normal(2, 3)), (normal(2, 2, 3), normal(3, 2).T, normal(2)), (normal(0, 3), normal(2, 3), normal(2)))
row("_linear_relu", lambda *a: linalg.linear(*a, relu=True), lambda x, w, b=0: np.maximum(slow.matmul(x, w.T) + b, 0),
    (normal(2, 3), normal(4, 3), normal(4)), (normal(3, 2), normal(2, 2).T), (normal(1, 2), normal(3, 2), normal(3)))
row("_einsum", lambda *xs, equation: linalg.einsum(equation, *xs), lambda *xs, equation: slow.einsum(equation, *xs),
    (normal(2, 3), normal(3, 2), {"equation": "ij,jk->ik"}), (normal(2, 3), {"equation": "ij->ji"}), (normal(2, 3), {"equation": "ij->"}),
    (normal(2, 2), normal(2, 2), normal(2), {"equation": "ij,jk,k->i"}), (normal(2), normal(3), {"equation": "i,j->ij"}),
    (normal(2, 3), normal(2), {"equation": "ij,i->i"}), (normal(0, 3), normal(3), {"equation": "ij,j->i"}))

# ---- images -----------------------------------------------------------------------------------------------------------


def conv_cases(first: str, second: str) -> list[Any]:
    """Inputs of conv2d or one of its gradients: strides, padding, dilation, groups, depthwise, 1 x 1, empty batch."""
    cases = []
    for n, c, k, image, kernel, stride, padding, dilation, groups in (
        (2, 2, 3, (4, 3), (3, 2), (1, 1), (1, 0), (1, 1), 1), (1, 4, 2, (4, 4), (2, 2), (2, 1), (0, 1), (1, 2), 2),
        (1, 3, 3, (3, 4), (3, 3), (1, 1), (1, 1), (1, 1), 3), (2, 3, 2, (2, 2), (1, 1), (1, 1), (0, 0), (1, 1), 1),
        (0, 2, 2, (3, 3), (2, 2), (1, 1), (0, 0), (1, 1), 1), (1, 1, 2, (5, 4), (3, 1), (3, 2), (2, 2), (1, 1), 1),
    ):
        size = tuple((i + 2 * p - d * (r - 1) - 1) // s + 1 for i, p, d, r, s in zip(image, padding, dilation, kernel, stride, strict=True))
        arrays = {"x": channels_last(normal, n, c, *image), "weight": normal(*kernel, c // groups, k).transpose(3, 2, 0, 1),
                  "g": normal(n, k, *size), "bias": normal(k)}
        target = size if "bias" in (first, second) or (first, second) == ("x", "weight") else image if second == "weight" else kernel
        cases.append((arrays[first], arrays[second], {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "size": target}))
    return cases


row("_conv2d", P("_conv2d"), slow.conv2d, *conv_cases("x", "weight"))
row("_conv2d", P("_conv2d"), slow.conv2d, *((x, w, normal(w.shape[0]), how) for x, w, how in conv_cases("x", "weight")[:3]))
row("_conv2d_relu", P("_conv2d_relu"), lambda *a, **how: np.maximum(slow.conv2d(*a, **how), 0), *conv_cases("x", "weight"),
    *((x, w, normal(w.shape[0]), how) for x, w, how in conv_cases("x", "weight")[:3]))
row("_conv2d_input_grad", P("_conv2d_input_grad"), slow.conv2d_input_grad, *conv_cases("g", "weight"))
row("_conv2d_weight_grad", P("_conv2d_weight_grad"), slow.conv2d_weight_grad, *conv_cases("g", "x"))
row("_channel_sum", P("_channel_sum"), lambda x: slow.along(math.fsum, x, (0, 2, 3)), channels_last(normal, 2, 3, 2, 1), normal(1, 2, 2, 2), normal(0, 2, 1, 1))


def relu_bias_grad_reference(g: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    passed = slow.each(lambda a, b: a if b > 0 else 0.0, g, y)
    return passed, slow.along(math.fsum, passed, (0, *range(2, g.ndim)))


row("_relu_bias_grad", P("_relu_bias_grad"), relu_bias_grad_reference, (channels_last(normal, 2, 3, 2, 1), channels_last(signed, 2, 3, 2, 1)),
    (normal(1, 2, 2, 2), signed(1, 2, 2, 2)), (normal(3, 4), signed(3, 4)))

_windows = ({"kernel": (2, 3), "stride": (1, 2), "padding": (1, 0), "dilation": (1, 1), "size": (5, 2)},
            {"kernel": (2, 2), "stride": (2, 1), "padding": (0, 1), "dilation": (2, 1), "size": (1, 6)})
row("_unfold", P("_unfold"), slow.unfold, *((make(1, 2, 4, 5), how) for how in _windows for make in (normal, lambda *s: channels_last(normal, *s))),
    (normal(0, 1, 4, 5), _windows[0]))
row("_fold", P("_fold"), slow.fold, (normal(1, 12, 10), {**_windows[0], "shape": (1, 2, 4, 5)}), (normal(2, 4, 6), {**_windows[1], "shape": (2, 1, 4, 5)}),
    (normal(0, 6, 10), {**_windows[0], "shape": (0, 1, 4, 5)}))
_pools = [({"windows": tuple(how[k] for k in ("kernel", "stride", "padding", "dilation")), "size": how["size"]}) for how in _windows]
_nine = {"windows": ((2, 2), (2, 2), (0, 0), (1, 1)), "size": (3, 3)}
row("_max_pool2d", P("_max_pool2d"), slow.max_pool2d,
    *((channels_last(distinct, 1, 2, 4, 5), how) for how in _pools), (distinct(2, 1, 4, 5), _pools[0]), (distinct(0, 2, 4, 5), _pools[0]),
    (distinct(1, 1, 5, 5), _nine), (distinct(1, 1, 17, 18), {"windows": ((17, 17), (1, 1), (0, 0), (1, 1)), "size": (1, 2)}))
row("_adaptive_max_pool2d", P("_adaptive_max_pool2d"), slow.max_pool2d, (distinct(1, 2, 4, 5), {"size": (2, 3)}),
    (channels_last(distinct, 2, 1, 3, 2), {"size": (1, 1)}), (distinct(1, 1, 2, 2), {"size": (3, 4)}))


def tap_cases() -> list[Any]:
    """Taps of windows of an image (3, 4), all of which exist, and how the windows lie."""
    overlapping, adaptive = {"windows": ((2, 3), (1, 1), (0, 0), (1, 1))}, {"windows": None}
    return [(np.array(_random.integers(0, 6, (1, 2, 2, 2))), overlapping), (channels_last(lambda *s: whole(6, *s), 2, 1, 2, 2), overlapping),
            (np.array(_random.integers(0, 2, (2, 1, 1, 3))), adaptive), (np.zeros((0, 2, 2, 2), np.int64), overlapping)]


row("_plane_indices", P("_plane_indices"), lambda taps, windows, size: slow.tap_places(taps, windows, size) @ np.array([size[1], 1]),
    *((taps, {**how, "size": (3, 4)}) for taps, how in tap_cases()), order=0)
row("_scatter_taps", P("_scatter_taps"), slow.scatter_taps, *((normal(*taps.shape), taps, {**how, "size": (3, 4)}) for taps, how in tap_cases()))
row("_gather_taps", P("_gather_taps"), slow.gather_taps, *((make(*taps.shape[:2], 3, 4), taps, how) for (taps, how), make in
    zip(tap_cases(), (normal, lambda *s: channels_last(normal, *s), normal, normal), strict=True)))


def mean_matrix(image: Any, size: Any, windows: Any, count_include_pad: bool, divisor: int) -> np.ndarray:
    return slow.adaptive_matrix(image, size) if windows is None else slow.pool_matrix(image, *windows, size, count_include_pad, divisor)


for _n, _c, _image, _how in (
    (1, 2, (4, 5), {"windows": ((2, 3), (2, 2), (1, 1)), "size": (3, 3), "count_include_pad": True, "divisor": 0}),
    (2, 1, (3, 3), {"windows": ((2, 2), (1, 2), (0, 0)), "size": (2, 2), "count_include_pad": False, "divisor": 0}),
    (1, 1, (4, 4), {"windows": ((3, 3), (2, 2), (1, 1)), "size": (3, 3), "count_include_pad": False, "divisor": 0}),
    (1, 2, (3, 4), {"windows": ((2, 2), (1, 1), (1, 0)), "size": (4, 3), "count_include_pad": True, "divisor": 3}),
    (1, 2, (4, 5), {"windows": None, "size": (2, 3), "count_include_pad": False, "divisor": 0}),
):
    _back = {**_how, "size": _image}
    row("_avg_pool2d", P("_avg_pool2d"), lambda x, size, **how: slow.apply(mean_matrix(x.shape[2:], size, **how), x), (channels_last(normal, _n, _c, *_image), _how))
    row("_avg_pool2d_adjoint", P("_avg_pool2d_adjoint"), lambda g, size, **how: slow.adjoint(mean_matrix(size, g.shape[2:], **how), g),
        (normal(_n, _c, *_how["size"]), _back))
row("_avg_pool2d", pool.avg_pool2d, lambda x, _: x[:, :, :, :], (normal(0, 2, 2, 2), 1))
row("_adaptive_avg_pool2d", P("_adaptive_avg_pool2d"), lambda x, size: slow.apply(slow.adaptive_matrix(x.shape[2:], size), x),
    *((channels_last(normal, 1, 2, *image), {"size": size}) for image, size in (((4, 5), (2, 3)), ((3, 2), (1, 1)), ((2, 2), (3, 4)))))


def tables(image: Any, size: Any, mode: str, align: bool) -> tuple[Any, Any]:
    return tuple(resize._table(n, o, mode, align, None) for n, o in zip(image, size, strict=True))


def resize_adjoint(g: tg.Tensor, image: Any, mode: str, align: bool) -> tg.Tensor:
    rows, columns = tables(image, g.shape[2:], mode, align)
    return P("_resize_adjoint")(g, rows=rows, columns=columns, size=image)


for _image, _size, _mode, _align in (((2, 3), (3, 5), "bilinear", False), ((4, 3), (2, 2), "bilinear", True), ((3, 4), (5, 2), "nearest", False),
                                     ((3, 4), (5, 2), "nearest-exact", False), ((2, 3), (1, 4), "bilinear", True)):
    row("_resize", lambda x, size, mode, align: resize.interpolate(x, size, mode=mode, align_corners=align or None),
        lambda x, size, mode, align: slow.apply(slow.resize_matrix(x.shape[2:], size, mode, align), x), (channels_last(normal, 1, 2, *_image), _size, _mode, _align))
    row("_resize_adjoint", resize_adjoint, lambda g, image, mode, align: slow.adjoint(slow.resize_matrix(image, g.shape[2:], mode, align), g),
        (normal(1, 2, *_size), _image, _mode, _align))

# ---- normalisation ----------------------------------------------------------------------------------------------------

_EPS = 1e-3


def batch_norm_grad(g: tg.Tensor, x: tg.Tensor, weight: tg.Tensor, bias: tg.Tensor, relu: bool) -> Any:
    mean, var = (m.numpy() for m in norm.channel_moments(x.detach()))
    return P("_batch_norm_grad")(g, x, weight, bias, mean=mean, invstd=((var + _EPS) ** -0.5).astype(x.dtype), relu=relu)


def batch_norm_grad_reference(g: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, relu: bool) -> tuple[np.ndarray, ...]:
    """Through the chain of mean, variance and normalisation, one channel at a time (Ioffe & Szegedy 2015, section 3)."""
    grad_x, grad_weight, grad_bias = np.empty_like(x), np.empty_like(weight), np.empty_like(weight)
    for c in range(x.shape[1]):
        v, gc = x[:, c], g[:, c]
        m, mu = v.size, v.mean()
        s2 = ((v - mu) ** 2).mean() + _EPS
        if relu:
            gc = np.where((v - mu) / math.sqrt(s2) * weight[c] + bias[c] > 0, gc, 0)
        hat = gc * weight[c]
        var_grad = (hat * (v - mu)).sum() * -0.5 * s2**-1.5
        mean_grad = -hat.sum() / math.sqrt(s2) - 2 * var_grad * (v - mu).mean()
        grad_x[:, c] = hat / math.sqrt(s2) + var_grad * 2 * (v - mu) / m + mean_grad / m
        grad_weight[c], grad_bias[c] = (gc * (v - mu)).sum() / math.sqrt(s2), gc.sum()
    return grad_x, grad_weight, grad_bias


row("channel_moments", norm.channel_moments, lambda x: (slow.along(lambda v: math.fsum(v) / len(v), x, (0, *range(2, x.ndim))),
    slow.along(lambda v: math.fsum((u - math.fsum(v) / len(v)) ** 2 for u in v) / len(v), x, (0, *range(2, x.ndim)))),
    channels_last(normal, 2, 3, 2, 2), normal(5, 2), order=0)
row("_batch_norm", lambda x, w, b: norm.batch_norm(x, weight=w, bias=b, training=True, eps=_EPS), lambda x, w, b: slow.batch_norm(x, w, b, _EPS),
    (channels_last(normal, 2, 3, 2, 1), signed(3), normal(3)), (normal(4, 2), signed(2), normal(2)), (normal(2, 1, 3), signed(1), normal(1)))
row("_batch_norm", lambda x, w, b: norm.batch_norm(x, weight=w, bias=b, training=True, eps=_EPS, relu=True),
    lambda x, w, b: np.maximum(slow.batch_norm(x, w, b, _EPS), 0), (channels_last(normal, 2, 3, 2, 2), signed(3), normal(3)), (normal(5, 2), signed(2), normal(2)))
row("_batch_norm_grad", batch_norm_grad, batch_norm_grad_reference,
    *((channels_last(normal, 2, 2, 2, 1), channels_last(normal, 2, 2, 2, 1), signed(2), normal(2), {"relu": relu}) for relu in (False, True)),
    *((normal(4, 2), normal(4, 2), signed(2), normal(2), {"relu": relu}) for relu in (False, True)))
row("_channel_affine", P("_channel_affine"), lambda x, scale, shift=None: np.stack(
    [x[:, c] * scale[c] + (0 if shift is None else shift[c]) for c in range(x.shape[1])], 1),
    (channels_last(normal, 2, 3, 1, 2), normal(3), normal(3)), (channels_last(normal, 2, 3, 1, 2), normal(3)), (normal(0, 2, 1, 1), normal(2), normal(2)))
row("_channel_affine_relu", P("_channel_affine_relu"), lambda x, scale, shift: np.stack(
    [np.maximum(x[:, c] * scale[c] + shift[c], 0) for c in range(x.shape[1])], 1),
    (channels_last(normal, 2, 3, 1, 2), normal(3), normal(3)), (normal(2, 2), normal(2), normal(2)))
row("_channel_dot", P("_channel_dot"), lambda x, y: slow.along(math.fsum, x * y, (0, *range(2, x.ndim))),
    (channels_last(normal, 2, 3, 2, 1), channels_last(normal, 2, 3, 2, 1)), (normal(4, 2), normal(4, 2)))

# ---- losses, dropout --------------------------------------------------------------------------------------------------


def wanted_cases() -> list[Any]:
    """Scores and what is asked of them: each shape with the options that classifiers use."""
    cases = []
    for make, axis, smoothed, ignore, reduced in (
        (lambda: normal(4, 3), 1, False, False, True), (lambda: normal(4, 3), 1, True, True, True), (lambda: normal(3), 0, True, False, False),
        (lambda: channels_last(normal, 2, 3, 2, 1), 1, False, True, False), (lambda: normal(2, 3, 2), 1, True, False, True), (lambda: normal(0, 3), 1, True, False, True),
    ):
        x = make()
        rows = math.prod(x.shape[:axis] + x.shape[axis + 1 :])
        ignored = flags(rows) if ignore else None
        share = positive(rows) if ignored is None else np.where(ignored, 0, positive(rows))
        cases.append((x, {"wanted": cross_entropy.Wanted(axis, whole(3, rows), share, positive(3) if smoothed else None, ignored, 2.5 if reduced else None)}))
    return cases


def in_dtype(call: Callable[..., Any]) -> Callable[..., Any]:
    """The call with the options' arrays in the dtype of the first argument."""
    return lambda x, *a, wanted: call(x, *a, wanted=wanted._replace(share=wanted.share.astype(x.dtype), spread=None if wanted.spread is None else wanted.spread.astype(x.dtype)))


def wanted_matrix(shape: tuple[int, ...], wanted: cross_entropy.Wanted) -> np.ndarray:
    """q, class axis last, element by element."""
    q = np.zeros((len(wanted.share), shape[wanted.axis]))
    for row, k in np.ndindex(q.shape):
        if wanted.ignored is None or not wanted.ignored[row]:
            q[row, k] = (wanted.share[row] if wanted.indices[row] == k else 0) + (0 if wanted.spread is None else wanted.spread[k])
    return q.reshape(*shape[: wanted.axis], *shape[wanted.axis + 1 :], shape[wanted.axis])


def slow_cross_entropy(x: np.ndarray, wanted: cross_entropy.Wanted) -> tuple[np.ndarray, np.ndarray]:
    logs = np.moveaxis(slow.normalised(slow.log_softmax, x, wanted.axis), wanted.axis, -1)
    losses = np.zeros(logs.shape[:-1])
    for row in np.ndindex(losses.shape):
        losses[row] = -math.fsum(wanted_matrix(x.shape, wanted)[row] * logs[row])
    return losses if wanted.divisor is None else np.array(math.fsum(losses.ravel()) / wanted.divisor), slow.normalised(slow.softmax, x, wanted.axis)


def slow_cross_entropy_grad(g: np.ndarray, probs: np.ndarray, wanted: cross_entropy.Wanted) -> np.ndarray:
    q, p, out = wanted_matrix(probs.shape, wanted), np.moveaxis(probs, wanted.axis, -1), np.zeros(np.moveaxis(probs, wanted.axis, -1).shape)
    for row in np.ndindex(out.shape[:-1]):
        out[row] = (g[row] if wanted.divisor is None else g / wanted.divisor) * (math.fsum(q[row]) * p[row] - q[row])
    return np.moveaxis(out, -1, wanted.axis)


row("cross_entropy", in_dtype(cross_entropy.cross_entropy), slow_cross_entropy, *wanted_cases())
row("_cross_entropy_grad", in_dtype(P("_cross_entropy_grad")), slow_cross_entropy_grad,
    *((normal(*(() if how["wanted"].divisor else how["wanted"].rows_shape(x))), positive(*x.shape), how) for x, how in wanted_cases()))
row("keep_scaled", dropout.keep_scaled, lambda x, keep, scale: slow.each(lambda v, k: v * scale if k else 0.0, x, keep),
    *((x, np.array(flags(*x.shape)), {"scale": 1.5}) for x in layouts(normal)), (channels_last(normal, 2, 3, 2, 2), flags(2, 3, 1, 1), {"scale": 2.0}))

ALL = [sample for samples in SAMPLES.values() for sample in samples]
IDS = [f"{name}-{i}" for name, samples in SAMPLES.items() for i in range(len(samples))]
