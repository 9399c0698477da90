"""Functions of one element that NumPy lacks, or leaves to one thread."""

import math

from numba import prange

from .jit import kernel

ERF_PER_NS = 0.1  # of one thread, roughly
FLOATS_PER_NS = 2


@kernel
def _erf(x, out):
    for i in prange(x.shape[0]):
        out[i] = math.erf(x[i])


def erf(x, out):
    """out = erf(x), the error function, element by element.

    Args:
        x: any shape, contiguous.
        out: the shape and dtype of x, overwritten.
    """
    _erf(x.reshape(-1), out.reshape(-1), work=x.size / ERF_PER_NS)


@kernel
def _add(x, y, out):
    for i in prange(x.shape[0]):
        out[i] = x[i] + y[i]


def add(x, y, out):
    """out = x + y, all of one shape and dtype, contiguous; out may be x or y."""
    _add(x.reshape(-1), y.reshape(-1), out.reshape(-1), work=x.size / FLOATS_PER_NS)


@kernel
def _relu(x, out):
    for i in prange(x.shape[0]):
        out[i] = 0 if x[i] < 0 else x[i]


def relu(x, out):
    """out = max(x, 0); NaN stays.

    Args:
        x: any shape, contiguous.
        out: the shape and dtype of x, overwritten.
    """
    _relu(x.reshape(-1), out.reshape(-1), work=x.size / FLOATS_PER_NS)


@kernel
def _relu_over(x):
    for i in prange(x.shape[0]):
        x[i] = 0 if x[i] < 0 else x[i]


def relu_over(x):
    """x = max(x, 0), in place; NaN stays. Were input and output two arguments, LLVM could not vectorise.

    Args:
        x: any shape, contiguous.
    """
    _relu_over(x.reshape(-1), work=x.size / FLOATS_PER_NS)


@kernel
def _relu_grad(y, g):
    for i in prange(g.shape[0]):
        g[i] = 0 if y[i] <= 0 else g[i]


def relu_grad(y, g):
    """g = 0 where y, what `relu` returned, is not above 0; a NaN there lets it stay.

    Args:
        y: any shape, contiguous.
        g: the shape and dtype of y, changed in place.
    """
    _relu_grad(y.reshape(-1), g.reshape(-1), work=g.size / FLOATS_PER_NS)
