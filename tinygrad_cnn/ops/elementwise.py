"""Elementwise primitives: arithmetic, comparison, exponentials, selection. Shapes broadcast; dtypes promote as in PyTorch.

Conventions at kinks and ties, as in PyTorch: relu'(0) = 0, abs'(0) = 0, maximum shares a tie half and half, clamp'(bound) = 1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import kernels, memory
from ..primitive import Primitive
from .geometry import broadcast_shapes, check_dtype, floating, promote

Array = Any


_NUMBERS = (float, int)
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def _through(kernel: Any, *arrays: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Runs an elementwise kernel on arrays of one shape and dtype, which it reads in the memory order of the last one.

    The result is written to `out`, which lies in memory as the last array does, or to new memory.
    """
    out = memory.empty_like(arrays[-1]) if out is None else out
    order, _ = memory.order_of(out.strides)
    kernel(*(np.asarray(a.transpose(order), order="C") for a in arrays), out.transpose(order))
    return out


def _large(x: Any) -> bool:
    """Whether kernels, and memory from the pool, are worth their call."""
    return type(x) is np.ndarray and x.nbytes >= memory.SMALLEST and x.dtype in _FLOATS


def _elementwise(function: Any, over: Any = None) -> Primitive:
    return Primitive(function, broadcasts=True, over=over)


def _arithmetic(ufunc: np.ufunc) -> Any:
    """Decorator of a sum, difference, product or quotient, which can be written over its first argument."""
    def over(x: Any, y: Any) -> bool:
        if x.dtype.kind != "f" or type(y) not in _NUMBERS and not (
                type(y) is np.ndarray and y.dtype == x.dtype and _fits_into(y.shape, x.shape)):
            return False
        if ufunc is np.add and _large(x) and type(y) is np.ndarray and y.shape == x.shape and _apart(x, y):
            _through(kernels.elementwise.add, y, x, out=x)
        else:
            ufunc(x, y, out=x)
        return True
    return lambda function: _elementwise(function, over)


def _apart(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether a kernel may write over x while it reads y."""
    return memory.is_dense(x) and (y is x or not np.may_share_memory(x, y))


def _fits_into(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether arrays of a shape broadcast to a target shape."""
    lead = len(target) - len(shape)
    return lead >= 0 and all(n in (1, m) for n, m in zip(shape, target[lead:], strict=True))


def _binary(ufunc: np.ufunc, name: str, x: Array, y: Array, *, real: bool = False) -> Array:
    """Apply a ufunc in the promoted dtype; `real` makes integers floats first (division)."""
    try:
        if _large(x) and (type(y) in _NUMBERS or type(y) is np.ndarray and y.dtype == x.dtype and y.shape == x.shape):
            if ufunc is np.add and type(y) is np.ndarray:
                return _through(kernels.elementwise.add, x, y)
            return ufunc(x, y, out=memory.empty_like(x))
        if type(x) is np.ndarray and (type(y) in _NUMBERS or type(y) is np.ndarray and y.dtype == x.dtype) and x.dtype in _FLOATS:
            return ufunc(x, y)                 # the common case: NumPy's own promotion is right
        dtype = promote(name, x, y)
        if dtype.kind in "iu":                 # Python's integers wrap, as PyTorch's do
            x, y = (np.asarray(v).astype(dtype) if type(v) is int else v for v in (x, y))
        return ufunc(x, y, dtype=floating(dtype) if real else dtype, casting="unsafe")
    except (ValueError, OverflowError) as error:
        broadcast_shapes(name, np.shape(x), np.shape(y))
        raise type(error)(f"{name}: {error}") from None      # a negative integer power, a number the dtype cannot hold


@_arithmetic(np.add)
def add(x, y):
    """Sum of two tensors, elementwise. Shapes broadcast.

    Args:
        x, y: tensors or scalars.

    Example:
        >>> import tinygrad_cnn as tg
        >>> tg.add(tg.tensor([1., 2.]), 3)
        tensor([4., 5.], dtype=float32)
    """
    return _binary(np.add, "add", x, y)


@add.vjp(0)
def _(g):
    return g


@add.vjp(1)
def _(g):
    return g


@_arithmetic(np.subtract)
def sub(x, y):
    """Difference `x - y`, elementwise. Raises TypeError for two bool tensors."""
    if getattr(x, "dtype", np.dtype(bool)).kind == "b" and promote("sub", x, y).kind == "b":
        raise TypeError("sub: bool tensors cannot be subtracted; use logical_xor")
    return _binary(np.subtract, "sub", x, y)


@sub.vjp(0)
def _(g):
    return g


@sub.vjp(1)
def _(g):
    return -g


@_arithmetic(np.multiply)
def mul(x, y):
    """Product, elementwise."""
    return _binary(np.multiply, "mul", x, y)


@mul.vjp(0)
def _(g, y):
    return g * y


@mul.vjp(1)
def _(g, x):
    return g * x


@_arithmetic(np.true_divide)
def div(x, y):
    """Quotient `x / y`, elementwise; integers give float32. Division by zero gives inf or nan, as floats do."""
    return _binary(np.true_divide, "div", x, y, real=True)


@div.vjp(0)
def _(g, y):
    return g / y


@div.vjp(1)
def _(g, x, y):
    return -g * x / (y * y)


@_elementwise
def floor_divide(x, y):
    """Quotient rounded down; not differentiable."""
    return _binary(np.floor_divide, "floor_divide", x, y)


@_elementwise
def remainder(x, y):
    """Remainder with the divisor's sign, as Python's `%`."""
    return _binary(np.remainder, "remainder", x, y)


@remainder.vjp(0)
def _(g):
    return g


@remainder.vjp(1)
def _(g, x, y):
    return -g * floor_divide(x, y)


@_elementwise
def pow(x, y):
    """Power `x ** y`. The gradient at a base of 0 is 0 where the exponent is 0, and 0 for the exponent, as in PyTorch."""
    return _binary(np.power, "pow", x, y)


@pow.vjp(0)
def _(g, x, y):
    if isinstance(y, (int, float)):
        return g * 0.0 if y == 0 else g * (y * x ** (y - 1))
    return where(equal_to(y, 0), 0.0, g * (y * x ** (y - 1)))


@pow.vjp(1)
def _(g, x, y, out):
    if isinstance(x, (int, float)):
        return g * out * (math.log(x) if x > 0 else 0.0 if x == 0 else math.nan)
    return where((x == 0) & (y >= 0), 0.0, g * out * log(x))


def equal_to(x: Array, value: float) -> Array:
    """`x == value` for a Tensor or an array."""
    return x == value


@_elementwise
def atan2(x, y):
    """Angle of the point (y, x) in radians, -pi .. pi."""
    return _binary(np.arctan2, "atan2", x, y, real=True)


@atan2.vjp(0)
def _(g, x, y):
    return g * y / (x * x + y * y)


@atan2.vjp(1)
def _(g, x, y):
    return -g * x / (x * x + y * y)


@_elementwise
def maximum(x, y):
    """The larger of two, elementwise; NaN wins; a tie shares the gradient half and half."""
    return _binary(np.maximum, "maximum", x, y)


@maximum.vjp(0)
def _(g, x, y):
    return g * _share(x, y)


@maximum.vjp(1)
def _(g, x, y):
    return g * _share(y, x)


@_elementwise
def minimum(x, y):
    """The smaller of two, elementwise; NaN wins; a tie shares the gradient half and half."""
    return _binary(np.minimum, "minimum", x, y)


@minimum.vjp(0)
def _(g, x, y):
    return g * _share(y, x)


@minimum.vjp(1)
def _(g, x, y):
    return g * _share(x, y)


@_elementwise
def _share(x, y):
    """0 where x < y, 1/2 where equal, else 1 (NaN too): the share of x in a maximum."""
    return (1 - (0.5 * (x == y) + (x < y))).astype(floating(promote("maximum", x, y)))


@_elementwise
def where(condition, x, y):
    """x where the condition holds, else y.

    The unchosen side gets gradient 0; if that side's own derivative is infinite there, 0 * inf gives NaN (as in PyTorch):
    put the guard inside, `where(x > 0, x, 1).log()`.

    Args:
        condition: bool tensor.
        x, y: tensors or scalars.
    """
    condition = np.asarray(condition)
    if condition.dtype != bool:
        raise TypeError(f"where: condition must be bool, got {condition.dtype}")
    broadcast_shapes("where", condition.shape, np.shape(x), np.shape(y))
    dtype = promote("where", x, y)
    return np.where(condition, np.asarray(x, dtype), np.asarray(y, dtype))


@where.vjp(1)
def _(g, condition):
    return where(condition, g, 0.0)


@where.vjp(2)
def _(g, condition):
    return where(condition, 0.0, g)


@_elementwise
def clamp(x, *, min=None, max=None):
    """x limited to min .. max; NaN stays NaN. The gradient is 1 inside and at the bounds, else 0.

    Args:
        x: tensor.
        min, max: numbers or None for no bound.
    """
    if min is None and max is None:
        raise ValueError("clamp: at least one of min and max must be given")
    dtype = promote("clamp", *(v for v in (x, min, max) if v is not None))
    out = np.asarray(x, dtype)
    if min is not None:
        out = np.maximum(out, np.asarray(min, dtype))
    return out if max is None else np.minimum(out, np.asarray(max, dtype))


@clamp.vjp(0)
def _(g, x, min, max):
    low = (x >= min) if min is not None else None
    high = (x <= max) if max is not None else None
    inside = high if low is None else low if high is None else low & high
    return where(inside, g, 0.0)


def _unary(ufunc: Any, name: str, doc: str, *, real: bool = True, over: Any = None) -> Primitive:
    def forward(x):
        x = np.asarray(x)
        if type(ufunc) is np.ufunc and _large(x):
            return ufunc(x, out=memory.empty_like(x))
        if real:
            return ufunc(x, dtype=floating(promote(name, x)))
        if x.dtype == bool:
            raise TypeError(f"{name}: x must hold numbers, got bool")
        if x.dtype not in _FLOATS:
            check_dtype(name, x.dtype)
        return ufunc(x)
    forward.__name__, forward.__doc__, forward.__module__ = name, doc, __name__
    return _elementwise(forward, over)


def _square(x):
    return np.multiply(x, x)


def _stable_sigmoid(x, dtype=None):
    e = np.exp(-np.abs(x, dtype=dtype))        # in 0 .. 1, so nothing overflows; NaN stays
    return np.where(x >= 0, 1, e) / (1 + e)


def _softplus(x, dtype=None):
    return np.logaddexp(x, 0, dtype=dtype)


def _erf(x, dtype=None):
    return _through(kernels.elementwise.erf, np.asarray(x, dtype))


def _relu(x):
    if _large(x):
        return _through(kernels.elementwise.relu, x)
    return np.maximum(x, 0)                    # NumPy's maximum lets NaN through


def _relu_over(x: np.ndarray) -> bool:
    if _large(x) and memory.is_dense(x):
        order, _ = memory.order_of(x.strides)
        kernels.elementwise.relu_over(x.transpose(order))
    else:
        np.maximum(x, 0, out=x)
    return True


def _relu6(x):
    return np.clip(x, 0, 6, out=memory.empty_like(x) if _large(x) else None)


def _relu6_over(x: np.ndarray) -> bool:
    np.clip(x, 0, 6, out=x)
    return True


@Primitive
def _relu_grad(g, out, *, in_place=False):
    """g where `out`, what relu returned, is above 0; a NaN there passes its gradient on. In g's memory, if that is allowed."""
    if not (in_place and g.flags.writeable and g.strides == out.strides and memory.is_dense(g)):
        g, given = memory.empty_like(out, g.dtype), g
        g[...] = given
    if _large(g) and g.dtype == out.dtype:
        return _through(kernels.elementwise.relu_grad, out, out=g)
    np.copyto(g, 0, where=out <= 0)
    return g


@_relu_grad.vjp(0)
def _(g, out, spare):
    return _relu_grad(g, out, in_place=spare)


def _log_sigmoid(x, dtype=None):
    return -np.logaddexp(np.negative(x, dtype=dtype), 0)


neg = _unary(np.negative, "neg", "-x, elementwise.", real=False)
abs = _unary(np.abs, "abs", "Absolute value; the gradient at 0 is 0.", real=False)
sign = _unary(np.sign, "sign", "-1, 0 or 1; gradient 0.", real=False)
floor = _unary(np.floor, "floor", "Round down; gradient 0.", real=False)
ceil = _unary(np.ceil, "ceil", "Round up; gradient 0.", real=False)
round = _unary(np.round, "round", "Round to the nearest integer, halves to even; gradient 0.", real=False)
trunc = _unary(np.trunc, "trunc", "Round towards zero; gradient 0.", real=False)
square = _unary(_square, "square", "x * x, elementwise.", real=False)
relu = _unary(_relu, "relu", "max(x, 0), elementwise; the gradient at 0 is 0, relu(NaN) is NaN.", real=False, over=_relu_over)
relu6 = _unary(_relu6, "relu6", "min(max(x, 0), 6), elementwise; the gradient at 0 and at 6 is 0, relu6(NaN) is NaN.", real=False,
               over=_relu6_over)
exp = _unary(np.exp, "exp", "e to the power of x.")
expm1 = _unary(np.expm1, "expm1", "exp(x) - 1, accurate near 0.")
log = _unary(np.log, "log", "Natural logarithm; -inf at 0, NaN below.")
log1p = _unary(np.log1p, "log1p", "log(1 + x), accurate near 0.")
log2 = _unary(np.log2, "log2", "Logarithm to base 2.")
log10 = _unary(np.log10, "log10", "Logarithm to base 10.")
sqrt = _unary(np.sqrt, "sqrt", "Square root; NaN below 0, gradient inf at 0.")
sin = _unary(np.sin, "sin", "Sine of an angle in radians.")
cos = _unary(np.cos, "cos", "Cosine of an angle in radians.")
tan = _unary(np.tan, "tan", "Tangent of an angle in radians.")
sinh = _unary(np.sinh, "sinh", "Hyperbolic sine.")
cosh = _unary(np.cosh, "cosh", "Hyperbolic cosine.")
tanh = _unary(np.tanh, "tanh", "Hyperbolic tangent, in -1 .. 1.")
asin = _unary(np.arcsin, "asin", "Arc sine in radians; NaN outside -1 .. 1.")
acos = _unary(np.arccos, "acos", "Arc cosine in radians; NaN outside -1 .. 1.")
atan = _unary(np.arctan, "atan", "Arc tangent in radians.")
sigmoid = _unary(_stable_sigmoid, "sigmoid", "1 / (1 + exp(-x)), computed without overflow; in 0 .. 1.")
logsigmoid = _unary(_log_sigmoid, "logsigmoid", "log(sigmoid(x)), computed without overflow.")
softplus = _unary(_softplus, "softplus", "log(1 + exp(x)), computed without overflow.")
erf = _unary(_erf, "erf", "Error function, 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x.")


@neg.vjp(0)
def _(g):
    return -g


@abs.vjp(0)
def _(g, x):
    return g * sign(x)


for _step in (sign, floor, ceil, round, trunc):
    @_step.vjp(0)
    def _(g):
        return g * 0.0


@square.vjp(0)
def _(g, x):
    return g * (2 * x)


@relu.vjp(0)
def _(g, out, spare):
    return _relu_grad(g, out, in_place=spare)


@relu6.vjp(0)
def _(g, out):
    return where((out <= 0) | (out >= 6), 0.0, g)


@exp.vjp(0)
def _(g, out):
    return g * out


@expm1.vjp(0)
def _(g, out):
    return g * (out + 1)


@log.vjp(0)
def _(g, x):
    return g / x


@log1p.vjp(0)
def _(g, x):
    return g / (x + 1)


@log2.vjp(0)
def _(g, x):
    return g / (x * math.log(2))


@log10.vjp(0)
def _(g, x):
    return g / (x * math.log(10))


@sqrt.vjp(0)
def _(g, out):
    return g / (2 * out)


@sin.vjp(0)
def _(g, x):
    return g * cos(x)


@cos.vjp(0)
def _(g, x):
    return -g * sin(x)


@tan.vjp(0)
def _(g, out):
    return g * (1 + out * out)


@sinh.vjp(0)
def _(g, x):
    return g * cosh(x)


@cosh.vjp(0)
def _(g, x):
    return g * sinh(x)


@tanh.vjp(0)
def _(g, out):
    return g * (1 - out * out)


@asin.vjp(0)
def _(g, x):
    return g / sqrt(1 - x * x)


@acos.vjp(0)
def _(g, x):
    return -g / sqrt(1 - x * x)


@atan.vjp(0)
def _(g, x):
    return g / (1 + x * x)


@sigmoid.vjp(0)
def _(g, out):
    return g * out * (1 - out)


@logsigmoid.vjp(0)
def _(g, x):
    return g * sigmoid(-x)


@softplus.vjp(0)
def _(g, x):
    return g * sigmoid(x)


@erf.vjp(0)
def _(g, x):
    return g * (2 / math.sqrt(math.pi)) * exp(-x * x)


def rsqrt(x):
    """1 / sqrt(x)."""
    return 1 / sqrt(x)


def reciprocal(x):
    """1 / x."""
    return 1 / x


def clip(x, min=None, max=None):
    """x limited to min .. max: another name of `clamp`."""
    return clamp(x, min=min, max=max)


@_elementwise
def to(x, *, dtype):
    """x in another dtype; the gradient comes back in x's own.

    Raises:
        TypeError: a dtype that tensors do not hold.
    """
    return np.asarray(x).astype(check_dtype("to", dtype))


@to.vjp(0)
def _(g, x_dtype):
    return to(g, dtype=x_dtype)


@_elementwise
def clone(x):
    """A copy of the values in memory of its own; gradients pass through."""
    out = np.array(x, copy=True, order="K")
    check_dtype("clone", out.dtype)
    return out


@clone.vjp(0)
def _(g):
    return g


def _comparison(ufunc: np.ufunc, name: str, doc: str) -> Primitive:
    def forward(x, y):
        broadcast_shapes(name, np.shape(x), np.shape(y))
        dtype = promote(name, x, y)
        if dtype.kind == "f":                  # compare in the promoted dtype, so that 0.1 equals float32's 0.1
            return ufunc(np.asarray(x, dtype), np.asarray(y, dtype))
        return ufunc(x, y)
    forward.__name__, forward.__doc__ = name, doc + ", elementwise; a bool tensor, not differentiable."
    return _elementwise(forward)


eq = _comparison(np.equal, "eq", "x == y")
ne = _comparison(np.not_equal, "ne", "x != y")
lt = _comparison(np.less, "lt", "x < y")
le = _comparison(np.less_equal, "le", "x <= y")
gt = _comparison(np.greater, "gt", "x > y")
ge = _comparison(np.greater_equal, "ge", "x >= y")


def _predicate(ufunc: Any, name: str, doc: str) -> Primitive:
    def forward(x):
        x = np.asarray(x)
        check_dtype(name, x.dtype)
        return ufunc(x)
    forward.__name__, forward.__doc__ = name, doc + "; not differentiable."
    return _elementwise(forward)


def _bitwise(x: Array) -> Array:
    return np.bitwise_not(x)


isnan = _predicate(np.isnan, "isnan", "Where x is not a number")
isinf = _predicate(np.isinf, "isinf", "Where x is infinite")
isfinite = _predicate(np.isfinite, "isfinite", "Where x is neither infinite nor NaN")
logical_not = _predicate(np.logical_not, "logical_not", "Where x is zero or False")
bitwise_not = _predicate(_bitwise, "bitwise_not", "Bits inverted; for bool tensors, logical not")


def _logical(ufunc: np.ufunc, name: str, doc: str) -> Primitive:
    def forward(x, y):
        broadcast_shapes(name, np.shape(x), np.shape(y))
        if promote(name, x, y).kind == "f" and name.startswith("bitwise"):
            raise TypeError(f"{name}: wanted bool or integer tensors, got {np.asarray(x).dtype} and {np.asarray(y).dtype}")
        return ufunc(x, y)
    forward.__name__, forward.__doc__ = name, doc + ", elementwise; not differentiable."
    return _elementwise(forward)


logical_and = _logical(np.logical_and, "logical_and", "Both are non-zero")
logical_or = _logical(np.logical_or, "logical_or", "Either is non-zero")
logical_xor = _logical(np.logical_xor, "logical_xor", "Exactly one is non-zero")
bitwise_and = _logical(np.bitwise_and, "bitwise_and", "Bits in both; for bool tensors, logical and")
bitwise_or = _logical(np.bitwise_or, "bitwise_or", "Bits in either; for bool tensors, logical or")
bitwise_xor = _logical(np.bitwise_xor, "bitwise_xor", "Bits in exactly one; for bool tensors, logical xor")
