"""Shapes, dims and dtypes: the rules every op's arguments are checked with. Arrays and integers only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np

LARGEST = 1 << 60
"""Of sizes, steps and paddings, and of the elements of an array: sums of a few of them stay below 2**63, where integers would wrap."""

DEFAULT_DTYPE = np.dtype(np.float32)
DTYPES = {np.dtype(t) for t in ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")}


def check_dtype(function: str, dtype: Any) -> np.dtype:
    """The dtype as NumPy's; TypeError for one that tensors do not hold (float16, complex, object, big-endian ...)."""
    try:
        dtype = np.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"{function}: {dtype!r} is not a dtype; wanted one of {_dtype_names()}") from error
    if dtype not in DTYPES:
        raise TypeError(f"{function}: dtype {dtype} is not supported; wanted one of {_dtype_names()}")
    return dtype


def _dtype_names() -> str:
    return ", ".join(sorted(map(str, DTYPES)))


def check_fits(function: str, values: np.ndarray, dtype: np.dtype) -> None:
    """ValueError for Python numbers that an integer dtype cannot hold, as in PyTorch: fractions are cut, -1 is the largest uint8."""
    if dtype.kind not in "iu" or not values.size or values.dtype.kind == "b":
        return
    most = int(np.iinfo(dtype).max)
    least = -most if dtype.kind == "u" and values.dtype.kind != "f" else int(np.iinfo(dtype).min)
    fits = (least <= values) & (values <= most)            # NaN does not
    if not fits.all():
        raise ValueError(f"{function}: {values[~np.asarray(fits, bool)].reshape(-1)[0]} does not fit {dtype}, which holds "
                         f"{np.iinfo(dtype).min} .. {most}")


def number(function: str, name: str, value: Any, dtype: np.dtype) -> np.ndarray:
    """A real number as a 0-d array of a dtype.

    Raises:
        TypeError: something else than a real number.
        ValueError: an integer dtype cannot hold it.
    """
    array = np.asarray(value)
    if array.ndim or array.dtype.kind not in "fiub":
        if not isinstance(value, int):         # NumPy knows larger ones as objects
            raise TypeError(f"{function}: {name} must be a real number, got {value!r:.80}")
        array = np.asarray(float(value) if dtype.kind == "f" else value)
    check_fits(function, array, dtype)
    return array.astype(dtype)


def promote(function: str, *values: Any) -> np.dtype:
    """The dtype of an operation's result, by PyTorch's rules.

    Tensors with dimensions decide before 0-d tensors, those before Python (and NumPy) scalars; a lower rank matters
    only if it is of a higher category (bool < integer < float). An integer array with a Python float gives float32.

    Raises:
        TypeError: neither a tensor, an array of a dtype that tensors hold, nor a real number.
    """
    ranks: list[np.dtype | None] = [None, None, None]
    for value in values:
        if isinstance(value, (bool, int, float, np.bool_, np.integer, np.floating)):
            kind = np.dtype(type(value)).kind
            rank, dtype = 2, DEFAULT_DTYPE if kind == "f" else np.dtype(bool if kind == "b" else np.int64)
        elif hasattr(value, "dtype") and hasattr(value, "ndim"):
            rank, dtype = (0 if value.ndim else 1), check_dtype(function, value.dtype)
        else:
            raise TypeError(f"{function}: wanted tensors, arrays or real numbers, got {type(value).__name__} {value!r:.40}")
        ranks[rank] = dtype if ranks[rank] is None else promote_types(ranks[rank], dtype)
    result: np.dtype | None = None
    for dtype in reversed(ranks):              # lowest rank first
        if dtype is None:
            continue
        if result is None or dtype.kind == "f":
            result = dtype
        elif result.kind == "f":
            pass
        elif dtype.kind == "b" or result.kind == "b":
            result = promote_types(dtype, result)
        else:
            result = dtype
    assert result is not None
    return result


def promote_types(a: Any, b: Any) -> np.dtype:
    """The common dtype of two tensors of the same rank; a float wins over any integer (PyTorch, unlike NumPy)."""
    a, b = np.dtype(a), np.dtype(b)
    if (a.kind == "f") != (b.kind == "f"):
        return a if a.kind == "f" else b
    return np.promote_types(a, b)


def floating(dtype: np.dtype) -> np.dtype:
    """The dtype itself if floating, else the default: what exp of an integer tensor returns."""
    return dtype if dtype.kind == "f" else DEFAULT_DTYPE


def broadcast_shapes(function: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape, or a ValueError that names the function and the shapes."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        listed = " and ".join(str(tuple(s)) for s in shapes)
        raise ValueError(f"{function}: shapes {listed} do not broadcast against each other") from None


def check_dim(function: str, dim: Any, ndim: int) -> int:
    """A dim in 0 .. ndim - 1 from one that may be negative."""
    if not isinstance(dim, Integral) or isinstance(dim, bool):
        raise TypeError(f"{function}: dim must be an int, got {dim!r}")
    limit = max(ndim, 1)                       # as in PyTorch a 0-d tensor has a dim 0
    if not -limit <= int(dim) < limit:
        raise IndexError(f"{function}: dim {dim} is out of range for {ndim} dimensions (wanted {-limit} .. {limit - 1})")
    return int(dim) % limit


def check_dims(function: str, dim: Any, ndim: int) -> tuple[int, ...]:
    """Sorted, distinct dims; all of them for None or ()."""
    if dim is None or (isinstance(dim, (tuple, list)) and not dim):
        return tuple(range(ndim))
    dims = [check_dim(function, d, ndim) for d in (dim if isinstance(dim, (tuple, list)) else (dim,))]
    if len(set(dims)) < len(dims):
        raise ValueError(f"{function}: dim {dim} names a dimension twice")
    return tuple(d for d in sorted(dims) if d < ndim)


def check_shape(function: str, shape: Any) -> tuple[int, ...]:
    """Sizes given as ints or as one tuple: `(2, 3)` from `((2, 3),)` or `(2, 3)`; each 0 or more."""
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = shape[0]
    if not all(isinstance(n, Integral) and not isinstance(n, bool) for n in shape):
        raise TypeError(f"{function}: sizes must be ints, got {tuple(shape)}")
    sizes = tuple(map(int, shape))
    if any(n < 0 for n in sizes):
        raise ValueError(f"{function}: sizes must be 0 or more, got {sizes}")
    check_size(function, sizes)
    return sizes


def check_size(function: str, sizes: Sequence[int]) -> None:
    """ValueError where the number of bytes would not fit a signed 64-bit integer, were sizes of 0 left out."""
    if math.prod([n or 1 for n in sizes]) >= LARGEST:
        raise ValueError(f"{function}: a tensor of shape {tuple(sizes)} is too large")


def pair(function: str, name: str, value: Any, *, minimum: int) -> tuple[int, int]:
    """(height, width) from an int or a pair of ints, each at least `minimum` and at most LARGEST."""
    if type(value) is int and minimum <= value <= LARGEST:     # the usual forms first: this runs for every layer
        return value, value
    if type(value) is tuple and len(value) == 2 and type(value[0]) is type(value[1]) is int and \
            minimum <= min(value) and max(value) <= LARGEST:
        return value
    both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(both) == 1:
        both = both * 2
    if len(both) != 2 or not all(isinstance(v, Integral) and not isinstance(v, bool) for v in both):
        raise TypeError(f"{function}: {name} must be an int or a pair of ints, got {value!r}")
    if min(both) < minimum:
        raise ValueError(f"{function}: {name} must be at least {minimum}, got {value!r}")
    if max(both) > LARGEST:
        raise ValueError(f"{function}: {name} must be at most {LARGEST}, got {value!r}")
    return int(both[0]), int(both[1])


def check_float(function: str, **arrays: Any) -> None:
    """TypeError unless all the named arrays hold floats of one dtype."""
    first = None
    for a in arrays.values():                  # the usual case first: this runs for every layer
        if a is not None and (dtype := a.dtype) is not first:
            if first is not None or dtype.kind != "f":
                break
            first = dtype
    else:
        return
    kinds = {name: a.dtype for name, a in arrays.items() if a is not None}
    for name, dtype in kinds.items():
        if dtype.kind != "f":
            raise TypeError(f"{function}: {name} must be float32 or float64, got {dtype}")
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{name} {dtype}" for name, dtype in kinds.items())
        raise TypeError(f"{function}: all must have one dtype, got {listed}; convert with .to(dtype)")


def window_count(size: int, kernel: int, stride: int, padding: int, dilation: int, *, ceil: bool = False) -> int:
    """How many windows fit: (W - F + 2P) / S + 1, `padding` being both sides together.

    With `ceil` a window may hang over the end if it starts inside the input or the padding before it.
    """
    room = size + padding - dilation * (kernel - 1) - 1
    count = (-(-room // stride) if ceil else room // stride) + 1
    if ceil and (count - 1) * stride >= size + padding - padding // 2:
        count -= 1
    return count


def padded(function: str, image: Any, padding: Any) -> tuple[int, int]:
    """The size of an image with `padding` on each side, of which every pixel must have a number: kernels step through it in 64 bits."""
    height, width = image[0] + 2 * padding[0], image[1] + 2 * padding[1]
    if height * width > LARGEST:
        raise ValueError(f"{function}: an image of {tuple(image)} with padding {tuple(padding)} is too large")
    return height, width


def at_most(steps: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Strides, or dilations, no larger than the padded image: where they are, only one window, or tap, fits, and no step is made."""
    return min(steps[0], max(size[0], 1)), min(steps[1], max(size[1], 1))


LONG_SUM = 1024
"""Terms from which float32 is summed in float64: along outer axes NumPy adds one by one, and 2**25 ones make 2**24."""
CHAIN = 32
"""Terms of shorter float32 sums that are added one by one, before such sums are: rounding errors grow with the number."""


def total(x: np.ndarray, dims: tuple[int, ...], keepdims: bool) -> np.ndarray:
    """The sum over dims in x's dtype (integers and bools in int64), without float32's loss of many small terms."""
    dtype = x.dtype if x.dtype.kind == "f" else np.dtype(np.int64)
    count = math.prod(x.shape[d] for d in dims)
    if dtype == np.float32 and 4 * CHAIN <= count < LONG_SUM:
        for d in sorted(dims, reverse=True):
            x = _chained(x, d)
        return x if keepdims else x.squeeze(dims)
    wide = np.float64 if dtype == np.float32 and count >= LONG_SUM else dtype
    return np.asarray(np.sum(x, axis=dims, keepdims=keepdims, dtype=wide), dtype)


def _chained(x: np.ndarray, dim: int) -> np.ndarray:
    """The sum over a dim, kept, in chains unless NumPy, where terms are neighbours, adds in pairs."""
    size = x.shape[dim]
    if size < 2 * CHAIN or x.strides[dim] == x.itemsize:
        return x.sum(dim, keepdims=True)
    rows = np.moveaxis(x, dim, 0)
    chains = rows[size % CHAIN :].reshape(-1, CHAIN, *rows.shape[1:]).sum(1)
    return np.expand_dims(rows[: size % CHAIN].sum(0) + chains.sum(0), dim)
