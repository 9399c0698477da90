"""Matrix products: batched matmul, linear, einsum, on BLAS."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends.blas import one_thread
from ..primitive import primitive
from . import elementwise
from .conv import _relu_bias_grad
from .geometry import broadcast_shapes, check_float, promote

FEW, MANY = 1 << 18, 1 << 29  # multiply-adds: below, BLAS keeps to one thread by itself; above, all threads pay


def _product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """np.matmul, on one thread for all but huge products.

    The threads of BLAS go on spinning for milliseconds after a product, on the cores that the kernels' own threads need next.
    """
    if not FEW < x.size * y.shape[-1] < MANY:
        return np.matmul(x, y)
    with one_thread:
        return np.matmul(x, y)


@primitive(broadcasts=True)
def _matmul(x, y):
    dtype = promote("matmul", x, y)
    return _product(np.asarray(x, dtype), np.asarray(y, dtype))


@_matmul.vjp(0)
def _(g, y):
    return _matmul(g, y.transpose(-1, -2))


@_matmul.vjp(1)
def _(g, x):
    return _matmul(x.transpose(-1, -2), g)


def matmul(x, y):
    """Matrix product over the last two dims; leading dims broadcast; a 1-d argument is a row (left) or column (right).

    Args:
        x: (..., n, k) or (k,).
        y: (..., k, m) or (k,).

    Returns:
        (..., n, m), without the dims a 1-d argument lacks.

    Raises:
        ValueError: inner sizes differ, leading dims do not broadcast, or an argument is 0-d.

    Example:
        >>> import tinygrad_cnn as tg
        >>> tg.matmul(tg.ones(2, 3), tg.ones(3)).shape
        (2,)
    """
    if not (hasattr(x, "ndim") and hasattr(y, "ndim")) or x.ndim == 0 or y.ndim == 0:
        raise ValueError(f"matmul: both must have at least 1 dim, got shapes {np.shape(x)} and {np.shape(y)}")
    a = x.reshape(1, -1) if x.ndim == 1 else x
    b = y.reshape(-1, 1) if y.ndim == 1 else y
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: shapes {tuple(x.shape)} and {tuple(y.shape)} do not fit: {a.shape[-1]} columns, {b.shape[-2]} rows")
    broadcast_shapes("matmul", a.shape[:-2], b.shape[:-2])
    out = _matmul(a, b)
    if x.ndim == 1:
        out = out.reshape(*out.shape[:-2], out.shape[-1])
    return out.reshape(out.shape[:-1]) if y.ndim == 1 else out


def mm(x, y):
    """Product of two matrices, (n, k) and (k, m)."""
    if x.ndim != 2 or y.ndim != 2:
        raise ValueError(f"mm: wanted two matrices, got shapes {tuple(x.shape)} and {tuple(y.shape)}")
    return matmul(x, y)


def bmm(x, y):
    """Products of two batches of matrices, (b, n, k) and (b, k, m)."""
    if x.ndim != 3 or y.ndim != 3 or x.shape[0] != y.shape[0]:
        raise ValueError(f"bmm: wanted (b, n, k) and (b, k, m), got shapes {tuple(x.shape)} and {tuple(y.shape)}")
    return matmul(x, y)


def dot(x, y):
    """Inner product of two 1-d tensors of the same length."""
    if x.ndim != 1 or y.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"dot: wanted two 1-d tensors of one length, got shapes {tuple(x.shape)} and {tuple(y.shape)}")
    return matmul(x, y)


def outer(x, y):
    """Outer product of two 1-d tensors, (n,) and (m,): (n, m)."""
    if x.ndim != 1 or y.ndim != 1:
        raise ValueError(f"outer: wanted two 1-d tensors, got shapes {tuple(x.shape)} and {tuple(y.shape)}")
    return x.reshape(-1, 1) * y.reshape(1, -1)


@primitive
def _linear(x, weight, bias=None):
    out = _product(x.reshape(-1, x.shape[-1]), weight.T)          # (..., in) -> (rows, in): one BLAS call
    if bias is not None:
        out += bias
    return out.reshape(*x.shape[:-1], weight.shape[0])


@_linear.vjp(0)
def _(g, weight):
    return _linear_input_grad(g, weight)


@_linear.vjp(1)
def _(g, x):
    return _linear_weight_grad(g, x)


@_linear.vjp(2)
def _(g, bias_shape):
    return g.sum_to_size(bias_shape)


@primitive
def _linear_relu(x, weight, bias=None, *, relu=True):
    """max(linear, 0) of a matrix x; `relu`, always True, says so to who draws it."""
    out = _linear.forward(x, weight, bias)
    return np.maximum(out, 0, out=out)


@_linear_relu.joint_vjp
def _(g, needs, spare, x, weight, out):
    to_bias = None
    if needs[2:] == (True,):
        g, to_bias = _relu_bias_grad(g, out, in_place=spare)
    else:
        g = elementwise._relu_grad(g, out, in_place=spare)
    return (_linear_input_grad(g, weight) if needs[0] else None, _linear_weight_grad(g, x) if needs[1] else None, to_bias)[: len(needs)]


@primitive
def _linear_input_grad(grad_output, weight):
    """Like the two others of this bilinear triad one call of BLAS; each one's rules are the other two."""
    rows = _product(grad_output.reshape(-1, weight.shape[0]), weight)
    return rows.reshape(*grad_output.shape[:-1], weight.shape[1])


@_linear_input_grad.vjp(0)
def _(g, weight):
    return _linear(g, weight)


@_linear_input_grad.vjp(1)
def _(g, grad_output):
    return _linear_weight_grad(grad_output, g)


@primitive
def _linear_weight_grad(grad_output, x):
    return _product(grad_output.reshape(-1, grad_output.shape[-1]).T, x.reshape(-1, x.shape[-1]))


@_linear_weight_grad.vjp(0)
def _(g, x):
    return _linear(x, g)


@_linear_weight_grad.vjp(1)
def _(g, grad_output):
    return _linear_input_grad(grad_output, g)


def linear(x, weight, bias=None, *, relu=False):
    """x @ weight.T + bias over the last dim: a fully connected layer. Differs from PyTorch only in `relu`.

    Args:
        x: (..., in_features), float.
        weight: (out_features, in_features), the same dtype.
        bias: (out_features,) or None.
        relu: end with max(., 0), in the same pass over memory; not in PyTorch.

    Returns:
        (..., out_features).

    Raises:
        ValueError: sizes that do not fit.
        TypeError: different or integer dtypes.
    """
    if weight.ndim != 2:
        raise ValueError(f"linear: weight must be (out_features, in_features), got shape {tuple(weight.shape)}")
    if x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"linear: x of shape {tuple(x.shape)} must end in in_features = {weight.shape[1]} (weight {tuple(weight.shape)})")
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise ValueError(f"linear: bias must have shape ({weight.shape[0]},), got {tuple(bias.shape)}")
    check_float("linear", x=x, weight=weight, bias=bias)
    if relu and (x.ndim != 2 or 0 in x.shape):
        return elementwise.relu(linear(x, weight, bias))
    if 0 in x.shape:                           # -1 is not determined in an empty reshape; matmul needs none
        out = matmul(x, weight.transpose(0, 1))
        return out if bias is None else out + bias
    args = (x, weight) if bias is None else (x, weight, bias)
    return _linear_relu(*args, relu=True) if relu else _linear(*args)


@primitive
def _einsum(*operands, equation):
    dtype = promote("einsum", *operands)
    out = np.einsum(equation, *(np.asarray(x, dtype) for x in operands), optimize=len(operands) > 2)
    return out if out.base is None else out.copy()          # NumPy gives a view for a mere transpose


@_einsum.joint_vjp
def _(g, needs, operands, operands_shapes, equation):
    inputs, output = equation.split("->")
    terms = inputs.split(",")
    gradients = []
    for i, need in enumerate(needs):
        if not need:
            gradients.append(None)
            continue
        others = [t for j, t in enumerate(terms) if j != i] + [output]
        tensors = [t for j, t in enumerate(operands) if j != i] + [g]
        kept = [c for c in dict.fromkeys(terms[i]) if any(c in o for o in others)]
        part = _einsum(*tensors, equation=f"{','.join(others)}->{''.join(kept)}")
        sizes = dict(zip(terms[i], operands_shapes[i], strict=True))
        shape = [sizes[c] if c in kept else 1 for c in dict.fromkeys(terms[i])]
        part = part.reshape(shape).expand([sizes[c] for c in dict.fromkeys(terms[i])])
        gradients.append(part)
    return gradients


def einsum(equation, *operands):
    """Sum of products by Einstein's convention, `einsum("ij,jk->ik", a, b)`.

    Args:
        equation: letters per operand, comma-separated; `->` and the letters of the result (all that appear once, in
            order, if left out). No ellipsis and no letter twice in one term.
        operands: tensors.

    Raises:
        ValueError: a malformed equation or sizes that do not fit.
    """
    if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
        operands = tuple(operands[0])
    equation = equation.replace(" ", "")
    inputs, arrow, output = equation.partition("->")
    terms = inputs.split(",")
    if not arrow:
        output = "".join(sorted(c for c in set(inputs) - {","} if inputs.count(c) == 1))
    if len(terms) != len(operands) or any(len(t) != x.ndim for t, x in zip(terms, operands, strict=False)):
        raise ValueError(f"einsum: {equation!r} does not fit operands of shapes {', '.join(str(tuple(x.shape)) for x in operands)}")
    letters = (inputs + output).replace(",", "")
    twice = any(len(set(t)) < len(t) for t in (*terms, output))
    if not set(output) <= set(inputs) or twice or (letters and not letters.isalpha()):
        raise ValueError(f"einsum: {equation!r}: result letters must appear in a term, and no letter twice in one term; no ellipsis")
    sizes: dict[str, Any] = {}
    for term, x in zip(terms, operands, strict=True):
        for letter, n in zip(term, x.shape, strict=True):
            if sizes.setdefault(letter, n) != n:
                raise ValueError(f"einsum: {equation!r}: {letter} stands for {sizes[letter]} and for {n}")
    return _einsum(*operands, equation=f"{inputs}->{output}")
