"""Movement: the same numbers in another shape, order or place. Each op's rule is its partner, so the set is closed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import memory
from ..primitive import primitive
from .elementwise import clone, where
from .geometry import broadcast_shapes, check_dim, check_dims, check_size, promote, total

# ---- shape ---------------------------------------------------------------------------------------------------------


@primitive(view=lambda x, *, shape: np.reshape(x, shape, copy=False))
def _reshape(x, *, shape):
    return np.reshape(x, shape)


@_reshape.vjp(0)
def _(g, x_shape):
    return reshape(g, x_shape)


def _sizes(function: str, shape: tuple[Any, ...]) -> tuple[int, ...]:
    """Ints, given apart or as one tuple."""
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    for n in shape:
        if type(n) is not int and (not hasattr(n, "__index__") or isinstance(n, (bool, np.bool_))):
            raise TypeError(f"{function}: sizes must be ints, got {n!r:.60} in {shape!r:.80}")
    return tuple([n.__index__() for n in shape])


def reshape(x, *shape):
    """The same elements, in row-major order, in another shape; one size may be -1 and follows from the others.

    Args:
        x: tensor.
        shape: ints, or one tuple of ints.

    Raises:
        ValueError: another number of elements, or a -1 that is not determined.

    Example:
        >>> import tinygrad_cnn as tg
        >>> tg.arange(6).reshape(2, -1).shape
        (2, 3)
    """
    sizes = _sizes("reshape", shape)
    count, known = math.prod(x.shape), math.prod(n for n in sizes if n != -1)
    if sizes.count(-1) > 1 or any(n < -1 for n in sizes):
        raise ValueError(f"reshape: shape {sizes} may hold one -1 and no other negative size")
    if -1 in sizes:
        if known == 0 or count % known:
            raise ValueError(f"reshape: x of shape {tuple(x.shape)} has {count} elements; -1 in {sizes} is not determined")
        sizes = tuple(count // known if n == -1 else n for n in sizes)
    if math.prod(sizes) != count:
        raise ValueError(f"reshape: x of shape {tuple(x.shape)} has {count} elements, {sizes} wants {math.prod(sizes)}")
    return _reshape(x, shape=sizes)


def flatten(x, start_dim=0, end_dim=-1):
    """Merge dims start_dim .. end_dim into one; a 0-d tensor becomes 1-d. Of one dim nothing changes: the tensor itself."""
    if x.ndim == 0:
        return reshape(x, 1)
    start, end = check_dim("flatten", start_dim, x.ndim), check_dim("flatten", end_dim, x.ndim)
    if start > end:
        raise ValueError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    if start == end:
        return x
    return reshape(x, (*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))


def unflatten(x, dim, sizes):
    """Split one dim into several; one size may be -1."""
    d = check_dim("unflatten", dim, x.ndim)
    sizes = _sizes("unflatten", (sizes,))
    if -1 in sizes:
        known = -math.prod(sizes)
        sizes = tuple(x.shape[d] // known if n == -1 and known else n for n in sizes)
    if math.prod(sizes) != x.shape[d]:
        raise ValueError(f"unflatten: dim {dim} has size {x.shape[d]}, sizes {sizes} multiply to {math.prod(sizes)}")
    return reshape(x, (*x.shape[:d], *sizes, *x.shape[d + 1 :]))


def squeeze(x, dim=None):
    """Drop dims of size 1: all of them, or those named (a named dim of another size stays)."""
    dims = tuple(range(x.ndim)) if dim is None else check_dims("squeeze", dim, x.ndim) if dim != () else ()
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if not (i in dims and n == 1)))


def unsqueeze(x, dim):
    """Insert a dim of size 1 at `dim`, -ndim-1 .. ndim."""
    d = check_dim("unsqueeze", dim, x.ndim + 1)
    return reshape(x, (*x.shape[:d], 1, *x.shape[d:]))


@primitive(view=True)
def _permute(x, *, dims):
    return np.transpose(x, dims)


@_permute.vjp(0)
def _(g, dims):
    return _permute(g, dims=tuple(dims.index(i) for i in range(len(dims))))


def permute(x, *dims):
    """Reorder the dims: result dim i is x's dim dims[i]. A view.

    Raises:
        ValueError: dims is not a permutation of x's dims.
    """
    order = dims[0] if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims
    order = tuple(check_dim("permute", d, x.ndim) for d in order)
    if sorted(order) != list(range(x.ndim)):
        raise ValueError(f"permute: dims {order} must name each of x's {x.ndim} dims once")
    return _permute(x, dims=order)


def transpose(x, dim0, dim1):
    """Swap two dims. A view."""
    a, b = check_dim("transpose", dim0, x.ndim), check_dim("transpose", dim1, x.ndim)
    order = list(range(x.ndim))
    if order:
        order[a], order[b] = b, a
    return _permute(x, dims=tuple(order))


def movedim(x, source, destination):
    """Move dims to new places; the others keep their order."""
    src = [check_dim("movedim", d, x.ndim) for d in (source if isinstance(source, (tuple, list)) else [source])]
    dst = [check_dim("movedim", d, x.ndim) for d in (destination if isinstance(destination, (tuple, list)) else [destination])]
    if len(src) != len(dst) or len(set(src)) < len(src) or len(set(dst)) < len(dst):
        raise ValueError(f"movedim: source {source} and destination {destination} must name equally many distinct dims")
    order = [d for d in range(x.ndim) if d not in src]
    for d, s in sorted(zip(dst, src, strict=True)):
        order.insert(d, s)
    return _permute(x, dims=tuple(order))


@primitive(view=True)
def _broadcast_to(x, *, shape):
    return np.broadcast_to(x, shape)


@_broadcast_to.vjp(0)
def _(g, x_shape):
    return sum_to_size(g, x_shape)


def broadcast_to(x, shape):
    """Repeat along new dims and dims of size 1, without copying. A read-only view.

    Raises:
        ValueError: x does not broadcast to the shape.
    """
    shape = _sizes("broadcast_to", (shape,))
    check_size("broadcast_to", shape)
    try:
        return _broadcast_to(x, shape=shape)
    except ValueError:
        raise ValueError(f"broadcast_to: x of shape {tuple(x.shape)} does not broadcast to {shape}") from None


def expand(x, *shape):
    """`broadcast_to`, where -1 keeps a dim's size."""
    sizes = _sizes("expand", shape)
    if len(sizes) < x.ndim:
        raise ValueError(f"expand: x has {x.ndim} dims, got {len(sizes)} sizes {sizes}")
    lead = len(sizes) - x.ndim
    if any(n == -1 for n in sizes[:lead]):
        raise ValueError(f"expand: -1 in {sizes} stands at a dim x of shape {tuple(x.shape)} does not have")
    return broadcast_to(x, tuple(x.shape[i - lead] if n == -1 else n for i, n in enumerate(sizes)))


@primitive
def _sum_to_size(x, *, shape):
    lead = x.ndim - len(shape)
    dims = tuple(range(lead)) + tuple(lead + i for i, n in enumerate(shape) if n == 1 and x.shape[lead + i] != 1)
    return total(x, dims, True).reshape(shape)


@_sum_to_size.vjp(0)
def _(g, x_shape):
    return broadcast_to(g, x_shape)


def sum_to_size(x, *shape):
    """Sum so that the result has a shape that broadcasts to x's: the adjoint of `broadcast_to`."""
    sizes = _sizes("sum_to_size", shape)
    lead = x.ndim - len(sizes)
    if lead < 0 or any(n not in (1, x.shape[lead + i]) for i, n in enumerate(sizes)):
        raise ValueError(f"sum_to_size: {sizes} does not broadcast to x's shape {tuple(x.shape)}")
    return _sum_to_size(x, shape=sizes)


# ---- order ---------------------------------------------------------------------------------------------------------


@primitive
def _flip(x, *, dims):
    return np.flip(x, dims).copy(order="K")    # not a view, as in PyTorch


@_flip.vjp(0)
def _(g, dims):
    return _flip(g, dims=dims)


def flip(x, *dims):
    """Reverse the order along dims."""
    chosen = dims[0] if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims
    return _flip(x, dims=check_dims("flip", tuple(chosen), x.ndim) if chosen else ())


@primitive
def _roll(x, *, shifts, dims):
    return np.roll(x, shifts, dims)


@_roll.vjp(0)
def _(g, shifts, dims):
    return _roll(g, shifts=tuple(-shift for shift in shifts), dims=dims)


def roll(x, shifts, dims=None):
    """Shift along dims, what falls off one end coming back at the other; without dims, over the flattened tensor."""
    shifts = tuple(shifts) if isinstance(shifts, (tuple, list)) else (shifts,)
    if dims is None:
        if len(shifts) != 1:
            raise ValueError(f"roll: got {len(shifts)} shifts without dims, wanted one")
        return _roll(x, shifts=shifts, dims=None)
    dims = tuple(dims) if isinstance(dims, (tuple, list)) else (dims,)
    if len(shifts) != len(dims):
        raise ValueError(f"roll: got {len(shifts)} shifts for {len(dims)} dims")
    dims = tuple(check_dim("roll", dim, x.ndim) for dim in dims)
    return _roll(x, shifts=shifts, dims=dims) if x.ndim else _roll(x, shifts=(0,), dims=None)


# ---- joining and padding -------------------------------------------------------------------------------------------


@primitive
def _cat(*tensors, dim):
    dtype = promote("cat", *tensors)
    return np.concatenate([np.asarray(t, dtype) for t in tensors], axis=dim)


@_cat.joint_vjp
def _(g, needs, tensors_shapes, dim):
    gradients, start = [], 0
    for shape, need in zip(tensors_shapes, needs, strict=True):
        stop = start + shape[dim]
        gradients.append(_getitem(g, index=(slice(None),) * dim + (slice(start, stop),)) if need else None)
        start = stop
    return gradients


def _several(function: str, tensors: Any) -> list[Any]:
    if not isinstance(tensors, (tuple, list)):
        raise TypeError(f"{function}: tensors must be a list or tuple of tensors, got {type(tensors).__name__}")
    if not tensors:
        raise ValueError(f"{function}: got no tensors")
    return list(tensors)


def cat(tensors, dim=0):
    """Join tensors along an existing dim; all other sizes must agree.

    Args:
        tensors: a list or tuple of tensors.
        dim: where to join.

    Raises:
        ValueError: no tensors, or shapes that do not fit.
    """
    tensors = _several("cat", tensors)
    tensors = [t for t in tensors if tuple(t.shape) != (0,)] or tensors[:1]      # PyTorch's legacy: 1-d empties join anything
    d = check_dim("cat", dim, tensors[0].ndim)
    rest = [tuple(t.shape[:d]) + tuple(t.shape[d + 1 :]) for t in tensors]
    if tensors[0].ndim == 0 or any(r != rest[0] or t.ndim != tensors[0].ndim for r, t in zip(rest, tensors, strict=True)):
        raise ValueError(f"cat: shapes {', '.join(str(tuple(t.shape)) for t in tensors)} differ outside dim {dim}")
    return _cat(*tensors, dim=d)


def stack(tensors, dim=0):
    """Join equally shaped tensors along a new dim."""
    tensors = _several("stack", tensors)
    if any(t.shape != tensors[0].shape for t in tensors):
        raise ValueError(f"stack: shapes differ: {', '.join(str(tuple(t.shape)) for t in tensors)}")
    d = check_dim("stack", dim, tensors[0].ndim + 1)
    return cat([unsqueeze(t, d) for t in tensors], dim=d)


def split(x, split_size, dim=0):
    """Cut along a dim into views of one size (the last may be smaller), or of listed sizes. Returns a tuple."""
    d = check_dim("split", dim, x.ndim)
    n = x.shape[d]
    if isinstance(split_size, int):
        if split_size < 1:
            raise ValueError(f"split: split_size must be at least 1, got {split_size}")
        sizes = [min(split_size, n - i) for i in range(0, max(n, 1), split_size)]
    else:
        sizes = list(_sizes("split", (split_size,)))
    if sum(sizes) != n or min(sizes) < 0:
        raise ValueError(f"split: sizes {sizes} do not add up to {n}, the size of dim {dim}")
    ends = np.cumsum(sizes).tolist()
    return tuple(_getitem(x, index=(slice(None),) * d + (slice(end - size, end),)) for size, end in zip(sizes, ends, strict=True))


def chunk(x, chunks, dim=0):
    """Cut along a dim into at most `chunks` views of equal size (the last may be smaller). Returns a tuple."""
    if chunks < 1:
        raise ValueError(f"chunk: chunks must be at least 1, got {chunks}")
    return split(x, max(-(-x.shape[check_dim("chunk", dim, x.ndim)] // chunks), 1), dim)


def unbind(x, dim=0):
    """The slices along a dim, without it. Returns a tuple of views."""
    d = check_dim("unbind", dim, x.ndim)
    return tuple(_getitem(x, index=(*(slice(None),) * d, i, ...)) for i in range(x.shape[d]))


@primitive
def _pad(x, *, widths, value):
    return np.pad(x, widths, constant_values=value)


@_pad.vjp(0)
def _(g, x_shape, widths):
    return _getitem(g, index=tuple(slice(before, before + n) for (before, _), n in zip(widths, x_shape, strict=True)))


def pad_constant(x, widths, value=0):
    """Surround with a constant; negative widths crop.

    Args:
        x: tensor.
        widths: a (before, after) pair of ints per dim.
        value: what to fill with.
    """
    crop = tuple(slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(widths, x.shape, strict=True))
    if any(n + min(a, 0) + min(b, 0) < 0 for (a, b), n in zip(widths, x.shape, strict=True)):
        raise ValueError(f"pad: widths {widths} crop more than x of shape {tuple(x.shape)} has")
    check_size("pad", [n + a + b for (a, b), n in zip(widths, x.shape, strict=True)])
    if any(a < 0 or b < 0 for a, b in widths):
        x = _getitem(x, index=crop)
    return _pad(x, widths=tuple((max(a, 0), max(b, 0)) for a, b in widths), value=value)


@primitive
def _tile(x, *, counts):
    return np.tile(x, counts)


@_tile.vjp(0)
def _(g, x_shape, counts):
    shape = (1,) * (len(counts) - len(x_shape)) + x_shape
    parts = reshape(g, [n for pair in zip(counts, shape, strict=True) for n in pair])      # (c1 n1, ...) -> (c1, n1, ...)
    return reshape(sum_to_size(parts, [n for size in shape for n in (1, size)]), x_shape)


def tile(x, *repeats):
    """Repeat the whole tensor along its dims, `numpy.tile`. A new tensor."""
    return _repeat("tile", x, repeats)


def repeat(x, *repeats):
    """Repeat the whole tensor along its dims, of which there must not be more than `repeats`. A new tensor."""
    if len(_sizes("repeat", repeats)) < x.ndim:
        raise ValueError(f"repeat: x of shape {tuple(x.shape)} needs at least {x.ndim} counts, got {repeats}")
    return _repeat("repeat", x, repeats)


def _repeat(function: str, x: Any, repeats: tuple[Any, ...]) -> Any:
    counts = _sizes(function, repeats)
    if any(n < 0 for n in counts):
        raise ValueError(f"{function}: repeats must be 0 or more, got {counts}")
    return _tile(x, counts=(1,) * (x.ndim - len(counts)) + counts)


@primitive
def _row_major(x):
    """A copy in row-major order."""
    return np.array(x, order="C", copy=True)


@_row_major.vjp(0)
def _(g):
    return g


# ---- indexing ------------------------------------------------------------------------------------------------------


def _basic_view(x: np.ndarray, *, index: tuple[Any, ...]) -> np.ndarray:
    if not _is_basic(index):
        raise ValueError("advanced indexing copies")
    return x[index]


@primitive(view=_basic_view)
def _getitem(x, *, index):
    return x[index]


@_getitem.vjp(0)
def _(g, x_shape, index):
    return _scatter_index(g, index=index, shape=x_shape)


def _is_basic(index: tuple[Any, ...]) -> bool:
    """Slices and ints only: every element is taken at most once."""
    return all(i is None or i is Ellipsis or isinstance(i, (slice, int, np.integer)) and not isinstance(i, bool) for i in index)


@primitive
def _scatter_index(x, *, index, shape):
    """Zeros of `shape` with x added at the index: the adjoint of indexing."""
    out = memory.zeros(shape, x.dtype)
    if _is_basic(index):
        out[index] = x
    else:
        np.add.at(out, index, x)               # an element taken twice gets both gradients
    return out


@_scatter_index.vjp(0)
def _(g, index):
    return _getitem(g, index=index)


def getitem(x, index):
    """x[index]: basic, advanced (integer arrays) or boolean indexing, as in NumPy.

    Raises:
        IndexError: an index out of range, of a wrong kind, or too many of them.
    """
    index = check_index(index, x.shape)
    try:
        return _getitem(x, index=index)
    except IndexError as error:
        raise IndexError(f"getitem: {error} (x has shape {tuple(x.shape)})") from None


def check_index(index: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """A tuple index with Tensors and lists as arrays of its own, which the graph may keep; of a single element, too, it takes a view."""
    checked: list[Any] = []
    for i in index if isinstance(index, tuple) else (index,):
        if isinstance(i, slice):
            i = slice(*(None if v is None else int(v) for v in (i.start, i.stop, i.step)))
        elif not (i is None or i is Ellipsis or isinstance(i, (int, np.integer))):
            i = np.array(i._values("getitem") if hasattr(i, "_values") else i)
            if i.dtype.kind not in "iub" and i.size:
                raise IndexError(f"getitem: an index must be made of ints, slices, None, ... or integer or bool tensors, got {i.dtype}")
            i = i.astype(np.int64) if i.dtype.kind != "b" else i
        checked.append(i)
    if all(isinstance(i, (int, np.integer)) and not isinstance(i, bool) for i in checked):     # NumPy would give a number, not a view
        checked.append(Ellipsis)
    return tuple(checked)


def _assign_over(x: np.ndarray, value: Any, *, index: tuple[Any, ...]) -> bool:
    """x[index] = value."""
    try:
        x[index] = value
    except (ValueError, IndexError) as error:
        raise type(error)(f"x[...] = value: {error} (x has shape {x.shape})") from None
    return True


@primitive(over=_assign_over)
def _assign(x, value, *, index):
    """x with the value at the index."""
    out = np.array(x, copy=True, order="K")
    _assign_over(out, value, index=index)
    return out


@_assign.vjp(0)
def _(g, index):
    return _assign(g, 0.0, index=index)


@_assign.vjp(1)
def _(g, index, x_shape, value_shape):
    part = _getitem(g, index=index)
    if not _is_basic(index):
        part = _surviving(part, index=index, shape=x_shape)
    while part.ndim < len(value_shape):        # a value may have more dims than the place, if they are 1
        part = unsqueeze(part, 0)
    return sum_to_size(part, value_shape)


@primitive
def _surviving(x, *, index, shape):
    """x, one element per place of the index, with zeros where a later element is written to the same place."""
    order = np.arange(x.size).reshape(x.shape)
    last = np.empty(shape, np.int64)
    last[index] = order
    return np.where(last[index] == order, x, 0)


@_surviving.vjp(0)
def _(g, index, shape):
    return _surviving(g, index=index, shape=shape)


@primitive
def _gather(x, *, dim, index):
    return x[_along(index, dim)]


@_gather.vjp(0)
def _(g, x_shape, dim, index):
    return _scatter_add(g, dim=dim, index=index, shape=x_shape)


@primitive
def _scatter_add(x, *, dim, index, shape):
    """Zeros of `shape` with x added at the indices along dim: the adjoint of gather."""
    out = memory.zeros(shape, x.dtype)
    np.add.at(out, _along(index, dim), x)
    return out


@_scatter_add.vjp(0)
def _(g, dim, index):
    return _gather(g, dim=dim, index=index)


def _along(index: np.ndarray, dim: int) -> tuple[np.ndarray, ...]:
    """The full advanced index of a gather: outside `dim` it meets the first elements, as many as it has itself."""
    grid = list(np.ogrid[tuple(slice(n) for n in index.shape)])
    grid[dim] = index
    return tuple(grid)


def _index_array(function: str, index: Any, size: int) -> np.ndarray:
    array = np.array(index._values(function) if hasattr(index, "_values") else index)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{function}: index must hold integers, got {array.dtype}")
    if array.size and (array.min() < 0 or array.max() >= size):
        raise IndexError(f"{function}: index must lie in 0 .. {size - 1}, got {array.min()} .. {array.max()}")
    return array.astype(np.int64)


def _check_along(function: str, x: Any, dim: int, index: Any) -> tuple[int, np.ndarray]:
    """The dim and the index of a gather from, or a scatter into, x of at least 1 dim."""
    d = check_dim(function, dim, x.ndim)
    array = _index_array(function, index, x.shape[d])
    if array.size == 0:                        # as in PyTorch of any shape
        array = np.zeros((0,) * x.ndim, np.int64)
    if array.ndim != x.ndim or any(array.shape[i] > x.shape[i] for i in range(x.ndim) if i != d):
        raise ValueError(f"{function}: index of shape {array.shape} must have as many dims as x of shape {tuple(x.shape)}, and outside dim "
                         f"{dim} at most its sizes")
    return d, array


def gather(x, dim, index):
    """Pick along a dim: out[i][j] = x[index[i][j]][j] for dim 0, and so on. A 0-d tensor counts as one of 1 dim.

    Args:
        x: tensor.
        dim: where to pick.
        index: integer tensor with as many dims as x, at most as large outside `dim`; entries in 0 .. size - 1.

    Returns:
        A tensor of index's shape.
    """
    shape = np.shape(index)
    if x.ndim == 0 or not shape:
        line = reshape(x, -1) if x.ndim == 0 else x
        return reshape(gather(line, dim, reshape(_as_index(index), -1)), shape)
    d, array = _check_along("gather", x, dim, index)
    return reshape(_gather(x, dim=d, index=array), shape)


def _as_index(index: Any) -> Any:
    return index if hasattr(index, "reshape") else np.asarray(index)


def scatter_add(x, dim, index, src):
    """x with src added at the indices along a dim; equal indices add up. A 0-d tensor counts as one of 1 dim.

    Args:
        x: tensor.
        dim: where the indices point.
        index: integer tensor with as many dims as x, at most as large outside `dim`; entries in 0 .. size - 1.
        src: tensor of x's dtype with as many dims as index, nowhere smaller; what lies beyond index is left out.
    """
    if src.dtype != x.dtype:
        raise TypeError(f"scatter_add: src must have x's dtype {x.dtype}, got {src.dtype}")
    if x.ndim == 0 or not np.shape(index):
        index, src = (reshape(v, -1) if v.ndim == 0 else v for v in (_as_index(index), src))
        return reshape(scatter_add(reshape(x, -1) if x.ndim == 0 else x, dim, index, src), tuple(x.shape))
    d, array = _check_along("scatter_add", x, dim, index)
    if src.ndim != array.ndim or any(n > m for n, m in zip(array.shape, src.shape, strict=True)):
        raise ValueError(f"scatter_add: index of shape {array.shape} must fit into src of shape {tuple(src.shape)}")
    if array.shape != tuple(src.shape):
        src = _getitem(src, index=tuple(slice(n) for n in array.shape))
    return x + _scatter_add(src, dim=d, index=array, shape=tuple(x.shape))


def index_select(x, dim, index):
    """The slices at the given positions along a dim, with repeats. A 0-d tensor counts as one of 1 dim, and stays 0-d."""
    d = check_dim("index_select", dim, x.ndim)
    array = _index_array("index_select", index, x.shape[d] if x.ndim else 1)
    if array.ndim > 1:
        raise ValueError(f"index_select: index must be 1-d, got shape {array.shape}")
    if x.ndim == 0:
        if array.size != 1:
            raise ValueError(f"index_select: of a 0-d x one slice can be taken, got {array.size} indices")
        return clone(x)
    return _getitem(x, index=(slice(None),) * d + (array.reshape(-1),))


def masked_fill(x, mask, value):
    """x with `value` wherever the bool mask (which broadcasts) is True."""
    if mask.dtype != bool:
        raise TypeError(f"masked_fill: mask must be bool, got {mask.dtype}")
    return where(mask, value, x)


def masked_select(x, mask):
    """The elements where the bool mask is True, as a 1-d tensor; mask and x broadcast."""
    shape = broadcast_shapes("masked_select", x.shape, mask.shape)
    return getitem(broadcast_to(x, shape), broadcast_to(mask, shape))


def _triangle(x: Any, diagonal: int, lower: bool) -> Any:
    if x.ndim < 2:
        raise ValueError(f"{'tril' if lower else 'triu'}: x must have at least 2 dims, got shape {tuple(x.shape)}")
    mask = np.tri(x.shape[-2], x.shape[-1], diagonal if lower else diagonal - 1, dtype=bool)
    mask = mask if lower else ~mask
    mask.flags.writeable = False
    return where(mask, x, 0)


def tril(x, diagonal=0):
    """The lower triangle of the last two dims, zeros above the diagonal."""
    return _triangle(x, diagonal, True)


def triu(x, diagonal=0):
    """The upper triangle of the last two dims, zeros below the diagonal."""
    return _triangle(x, diagonal, False)
