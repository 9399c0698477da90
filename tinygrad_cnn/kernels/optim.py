"""One step of an optimizer in one pass over a parameter and its state. Formulas are in the optimizers' docstrings.

All arrays are of one shape and lie in memory alike, in any order of dims but without gaps. A state that an option leaves
out is an empty array. Numbers come in one array of the parameter's dtype, computed in float64.
"""

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import kernel

STEPS_PER_NS = 2  # elements updated by one thread, roughly
# Elements of one task. Inner loops of their own, indexed without sign: LLVM then takes the options out of the loops, and
# vectorises; as one `prange` it would first check that arrays, empty ones too, do not overlap, and might give up.
BLOCK = 1 << 13


@intrinsic
def _fused(typing_context, a, b, c):
    """a * b + c, rounded once where the machine can.

    Of a sum of two products LLVM itself may fuse either one, here this and there that. Said outright, every variant of a
    kernel takes a step with the same bits.
    """

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(args[0].type, [args[0].type] * 3)
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.f{a.bitwidth}")
        return builder.call(function, args)

    return (a(a, a, a), codegen) if isinstance(a, types.Float) and a == b == c else None


def _run(loops, arrays, numbers, *options):
    w = arrays[0]
    nothing = np.empty(0, w.dtype)
    flat = [nothing if a is None else a.ravel(order="K") for a in arrays]
    loops(*flat, np.array(numbers, w.dtype), *options, work=w.size * len(arrays) / 4 / STEPS_PER_NS)


@kernel
def _sgd(w, g, v, numbers, momentous, begins, nesterov):
    lr, momentum, fresh, decay = numbers[0], numbers[1], numbers[2], numbers[3]
    for block in prange((w.size + BLOCK - 1) // BLOCK):
        first = np.int64(block) * BLOCK
        for i in range(np.uint64(first), np.uint64(min(first + BLOCK, w.size))):
            step = _fused(decay, w[i], g[i]) if decay != 0 else g[i]
            if momentous:
                v[i] = step if begins else _fused(momentum, v[i], fresh * step)
                step = _fused(momentum, v[i], step) if nesterov else v[i]
            w[i] = _fused(-lr, step, w[i])


def sgd(w, g, v, lr, momentum, dampening, decay, begins, nesterov):
    """w and the running sum v, in place; v is None without momentum, and overwritten if it begins with this step."""
    _run(_sgd, (w, g, v), (lr, momentum, 1 - dampening, decay), v is not None, begins, bool(nesterov))


@kernel
def _adam(w, g, m, v, largest, numbers, amsgrad):
    keep, decay, fresh1, beta2, fresh2 = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    root, eps, rate = numbers[5], numbers[6], numbers[7]
    for block in prange((w.size + BLOCK - 1) // BLOCK):
        first = np.int64(block) * BLOCK
        for i in range(np.uint64(first), np.uint64(min(first + BLOCK, w.size))):
            gradient = _fused(decay, w[i], g[i]) if decay != 0 else g[i]
            m[i] = _fused(fresh1, gradient - m[i], m[i])
            v[i] = _fused(fresh2 * gradient, gradient, beta2 * v[i])
            square = v[i]
            if amsgrad:
                if square > largest[i] or square != square:
                    largest[i] = square
                square = largest[i]
            w[i] = _fused(-rate, m[i] / _fused(np.sqrt(square), root, eps), keep * w[i])


def adam(w, g, m, v, largest, lr, beta1, beta2, eps, decay, shrink, t):
    """w and its moments m, v, in place; `largest`, if not None, becomes the largest v so far, by which w's step is divided.

    `decay` * w is added to the gradient, w becomes (1 - shrink) * w before its step, the t-th.
    """
    numbers = (1 - shrink, decay, 1 - beta1, beta2, 1 - beta2, (1 - beta2**t) ** -0.5, eps, lr / (1 - beta1**t))
    _run(_adam, (w, g, m, v, largest), numbers, largest is not None)


@kernel
def _rmsprop(w, g, v, a, b, numbers, centered, momentous):
    lr, alpha, fresh, eps, decay, momentum = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5]
    for block in prange((w.size + BLOCK - 1) // BLOCK):
        first = np.int64(block) * BLOCK
        for i in range(np.uint64(first), np.uint64(min(first + BLOCK, w.size))):
            gradient = _fused(decay, w[i], g[i]) if decay != 0 else g[i]
            v[i] = _fused(fresh * gradient, gradient, alpha * v[i])
            square = v[i]
            if centered:
                a[i] = _fused(fresh, gradient - a[i], a[i])
                square = _fused(-a[i], a[i], square)
            step = gradient / (np.sqrt(square) + eps)
            if momentous:
                b[i] = _fused(momentum, b[i], step)
                step = b[i]
            w[i] = _fused(-lr, step, w[i])


def rmsprop(w, g, v, a, b, lr, alpha, eps, decay, momentum):
    """w, its mean square v, its mean a (None unless centered) and running sum b (None without momentum), in place."""
    _run(_rmsprop, (w, g, v, a, b), (lr, alpha, 1 - alpha, eps, decay, momentum), a is not None, b is not None)
