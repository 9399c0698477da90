"""What the operations mean, as plain Python loops over elements: slow, and independent of the package."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Array = np.ndarray


def each(function: Callable[..., Any], *arrays: Any) -> Array:
    """A function of Python numbers applied to every element; shapes broadcast."""
    arrays = np.broadcast_arrays(*arrays)
    values = [function(*(a[i].item() for a in arrays)) for i in np.ndindex(arrays[0].shape)]
    return np.array(values, dtype=None if values else float).reshape(arrays[0].shape)


def along(function: Callable[[list[Any]], Any], x: Array, dim: Any = None, keepdim: bool = False) -> Array:
    """A function of a list of numbers applied along dims."""
    dims = {d % max(x.ndim, 1) for d in (range(x.ndim) if dim is None else dim if isinstance(dim, tuple) else (dim,))}
    kept = tuple(1 if d in dims else n for d, n in enumerate(x.shape))
    out = []
    for place in np.ndindex(kept):
        ranges = [range(n) if d in dims else (place[d],) for d, n in enumerate(x.shape)]
        out.append(function([x[i].item() for i in itertools.product(*ranges)]))
    shape = kept if keepdim else tuple(n for d, n in enumerate(x.shape) if d not in dims)
    return np.array(out, dtype=None if out else float).reshape(shape)


def normalised(function: Callable[[list[float], int], float], x: Array, dim: int) -> Array:
    """Each element replaced by a function of its line along dim and its place therein."""
    out = np.empty_like(x)
    for i in np.ndindex(x.shape):
        line = [x[(*i[:dim], k, *i[dim + 1 :])].item() for k in range(x.shape[dim])] if x.ndim else [x.item()]
        out[i] = function(line, i[dim] if x.ndim else 0)
    return out


def softmax(line: list[float], k: int) -> float:
    return math.exp(line[k]) / math.fsum(map(math.exp, line))


def log_softmax(line: list[float], k: int) -> float:
    return line[k] - math.log(math.fsum(map(math.exp, line)))


def permute(x: Array, dims: tuple[int, ...]) -> Array:
    out = np.empty([x.shape[d] for d in dims])
    for i in np.ndindex(out.shape):
        source = [0] * x.ndim
        for place, d in zip(i, dims, strict=True):
            source[d] = place
        out[i] = x[tuple(source)]
    return out


def sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    out = np.zeros(shape)
    lead = x.ndim - len(shape)
    for i in np.ndindex(x.shape):
        out[tuple(0 if n == 1 else k for k, n in zip(i[lead:], shape, strict=True))] += x[i]
    return out


def roll(x: Array, shifts: Any, dims: Any = None) -> Array:
    if dims is None:
        line = x.ravel().tolist()
        return np.array([line[(i - shifts) % len(line)] for i in range(len(line))]).reshape(x.shape)
    for shift, dim in zip(*((v if isinstance(v, tuple) else (v,)) for v in (shifts, dims)), strict=True):
        x = normalised(lambda line, k, shift=shift: line[(k - shift) % len(line)], x, dim % x.ndim) if x.ndim else x
    return x


def tile(x: Array, counts: tuple[int, ...]) -> Array:
    x = x.reshape((1,) * (len(counts) - x.ndim) + x.shape)
    counts = (1,) * (x.ndim - len(counts)) + counts
    out = np.empty([n * c for n, c in zip(x.shape, counts, strict=True)])
    for place in np.ndindex(out.shape):
        out[place] = x[tuple(i % n for i, n in zip(place, x.shape, strict=True))]
    return out


def flip(x: Array, dims: tuple[int, ...]) -> Array:
    out = np.empty(x.shape)
    for i in np.ndindex(x.shape):
        out[i] = x[tuple(x.shape[d] - 1 - k if d in dims else k for d, k in enumerate(i))]
    return out


def pad(x: Array, widths: Any, value: float) -> Array:
    out = np.full([n + a + b for n, (a, b) in zip(x.shape, widths, strict=True)], float(value))
    for i in np.ndindex(x.shape):
        out[tuple(k + a for k, (a, _) in zip(i, widths, strict=True))] = x[i]
    return out


def cat(*arrays: Array, dim: int = 0) -> Array:
    parts = [x for x in arrays if x.shape != (0,)]
    shape = list(parts[0].shape)
    shape[dim] = sum(x.shape[dim] for x in parts)
    out, start = np.empty(shape), 0
    for x in parts:
        for i in np.ndindex(x.shape):
            place = list(i)
            place[dim] += start
            out[tuple(place)] = x[i]
        start += x.shape[dim]
    return out


def gather(x: Array, dim: int, index: Array) -> Array:
    out = np.empty(index.shape)
    for i in np.ndindex(index.shape):
        out[i] = x[(*i[:dim], index[i], *i[dim + 1 :])]
    return out


def scatter_add(x: Array, dim: int, index: Array, shape: tuple[int, ...]) -> Array:
    out = np.zeros(shape)
    for i in np.ndindex(index.shape):
        out[(*i[:dim], index[i], *i[dim + 1 :])] += x[i]
    return out


def places(shape: tuple[int, ...], index: Any) -> Array:
    """The flat place in an array of the shape of every element that x[index] takes: NumPy's own, on plain numbers."""
    return np.arange(math.prod(shape)).reshape(shape)[index]


def take(x: Array, index: Any) -> Array:
    where = places(x.shape, index)
    flat = x.ravel().tolist()
    return np.array([flat[i] for i in where.ravel()], float).reshape(where.shape)


def scatter_index(x: Array, index: Any, shape: tuple[int, ...]) -> Array:
    out = [0.0] * math.prod(shape)
    for i, value in zip(places(shape, index).ravel(), np.ravel(x), strict=True):
        out[i] += value
    return np.array(out).reshape(shape)


def set_index(x: Array, value: Array, index: Any) -> Array:
    out = x.ravel().tolist()
    where = places(x.shape, index)
    while value.ndim > where.ndim:
        value = value[0]
    for i, v in zip(where.ravel(), np.broadcast_to(value, where.shape).ravel(), strict=True):
        out[i] = v
    return np.array(out).reshape(x.shape)


def matmul(x: Array, y: Array) -> Array:
    batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    x, y = np.broadcast_to(x, (*batch, *x.shape[-2:])), np.broadcast_to(y, (*batch, *y.shape[-2:]))
    out = np.zeros((*batch, x.shape[-2], y.shape[-1]))
    for i in np.ndindex(out.shape):
        out[i] = math.fsum(x[(*i[:-1], k)] * y[(*i[:-2], k, i[-1])] for k in range(x.shape[-1]))
    return out


def einsum(equation: str, *operands: Array) -> Array:
    inputs, output = equation.split("->")
    terms = inputs.split(",")
    sizes = {c: n for term, x in zip(terms, operands, strict=True) for c, n in zip(term, x.shape, strict=True)}
    out = np.zeros([sizes[c] for c in output])
    for place in itertools.product(*(range(n) for n in sizes.values())):
        at = dict(zip(sizes, place, strict=True))
        value = 1.0
        for term, x in zip(terms, operands, strict=True):
            value *= x[tuple(at[c] for c in term)]
        out[tuple(at[c] for c in output)] += value
    return out


# ---- windows over images (N, C, H, W) --------------------------------------------------------------------------------


def taps(image: Any, size: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Iterator[tuple[int, ...]]:
    """(i, j, r, s, h, w): window, tap, and the pixel inside the image that they meet."""
    for i, j, r, s in np.ndindex(*size, *kernel):
        h, w = i * stride[0] - padding[0] + r * dilation[0], j * stride[1] - padding[1] + s * dilation[1]
        if 0 <= h < image[0] and 0 <= w < image[1]:
            yield i, j, r, s, h, w


def _conv(x: Array, weight: Array, out: Array, into: str, stride: Any, padding: Any, dilation: Any, groups: int) -> None:
    """out[n, k, i, j] = sum x[n, c, h, w] weight[k, c, r, s], or one of its two adjoints, with `into` overwritten."""
    c_group, k_group = weight.shape[1], weight.shape[0] // groups
    for i, j, r, s, h, w in taps(x.shape[2:], out.shape[2:], weight.shape[2:], stride, padding, dilation):
        for n, k, c in np.ndindex(x.shape[0], weight.shape[0], c_group):
            channel = k // k_group * c_group + c
            if into == "out":
                out[n, k, i, j] += x[n, channel, h, w] * weight[k, c, r, s]
            elif into == "x":
                x[n, channel, h, w] += out[n, k, i, j] * weight[k, c, r, s]
            else:
                weight[k, c, r, s] += out[n, k, i, j] * x[n, channel, h, w]


def conv2d(x: Array, weight: Array, bias: Any = None, *, stride: Any, padding: Any, dilation: Any, groups: int, size: Any) -> Array:
    out = np.zeros((x.shape[0], weight.shape[0], *size))
    _conv(x, weight, out, "out", stride, padding, dilation, groups)
    return out if bias is None else out + bias.reshape(1, -1, 1, 1)


def conv2d_input_grad(g: Array, weight: Array, *, size: Any, groups: int, **how: Any) -> Array:
    x = np.zeros((g.shape[0], weight.shape[1] * groups, *size))
    _conv(x, weight, g, "x", groups=groups, **how)
    return x


def conv2d_weight_grad(g: Array, x: Array, *, size: Any, groups: int, **how: Any) -> Array:
    weight = np.zeros((g.shape[1], x.shape[1] // groups, *size))
    _conv(x, weight, g, "weight", groups=groups, **how)
    return weight


def unfold(x: Array, *, kernel: Any, stride: Any, padding: Any, dilation: Any, size: Any) -> Array:
    out = np.zeros((*x.shape[:2], *kernel, *size))
    for i, j, r, s, h, w in taps(x.shape[2:], size, kernel, stride, padding, dilation):
        out[:, :, r, s, i, j] = x[:, :, h, w]
    return out.reshape(x.shape[0], x.shape[1] * math.prod(kernel), math.prod(size))


def fold(columns: Array, *, kernel: Any, stride: Any, padding: Any, dilation: Any, size: Any, shape: Any) -> Array:
    out = np.zeros(shape)
    blocks = columns.reshape(*shape[:2], *kernel, *size)
    for i, j, r, s, h, w in taps(shape[2:], size, kernel, stride, padding, dilation):
        out[:, :, h, w] += blocks[:, :, r, s, i, j]
    return out


def numbered(image: Any, size: Any, windows: Any) -> dict[tuple[int, ...], tuple[int, int]]:
    """The pixel (h, w) behind element (i, j, number) of each window; windows as in `ops.pool`.

    Numbers count those inside the image, row by row, as if all windows had as many columns inside as the widest.
    """
    if windows is None:
        rows, columns = (adaptive_windows(n, o) for n, o in zip(image, size, strict=True))
    else:
        rows, columns = ([[h for r in range(k) if 0 <= (h := i * s - p + r * d) < n] for i in range(o)]
                         for n, o, k, s, p, d in zip(image, size, *windows, strict=True))
    widest = max(map(len, columns))
    return {(i, j, r * widest + s): (h, w) for i, j in np.ndindex(*size) for r, h in enumerate(rows[i]) for s, w in enumerate(columns[j])}


def max_pool2d(x: Array, *, windows: Any = None, size: Any) -> tuple[Array, Array]:
    """Maxima, and the number of each in its window."""
    out, chosen = np.full((*x.shape[:2], *size), -np.inf), np.zeros((*x.shape[:2], *size), np.int64)
    for (i, j, number), (h, w) in numbered(x.shape[2:], size, windows).items():
        for n, c in np.ndindex(x.shape[:2]):
            if x[n, c, h, w] > out[n, c, i, j]:
                out[n, c, i, j], chosen[n, c, i, j] = x[n, c, h, w], number
    return out, chosen


def tap_places(chosen: Array, windows: Any, image: Any) -> Array:
    """(row, column) of each window's chosen element, (N, C, OH, OW, 2)."""
    where = numbered(image, chosen.shape[2:], windows)
    places = np.zeros((*chosen.shape, 2), np.int64)
    for n, c, i, j in np.ndindex(chosen.shape):
        places[n, c, i, j] = where[i, j, int(chosen[n, c, i, j])]
    return places


def gather_taps(x: Array, chosen: Array, windows: Any) -> Array:
    places = tap_places(chosen, windows, x.shape[2:])
    return np.array([x[n, c, h, w] for n, c, i, j in np.ndindex(chosen.shape) for h, w in [places[n, c, i, j]]]).reshape(chosen.shape)


def scatter_taps(g: Array, chosen: Array, windows: Any, size: Any) -> Array:
    out, places = np.zeros((*g.shape[:2], *size)), tap_places(chosen, windows, size)
    for n, c, i, j in np.ndindex(g.shape):
        out[n, c, *places[n, c, i, j]] += g[n, c, i, j]
    return out


def pool_matrix(image: Any, kernel: Any, stride: Any, padding: Any, size: Any, count_include_pad: bool, divisor: int) -> Array:
    """Average pooling as weights (OH, OW, H, W)."""
    weights = np.zeros((*size, *image))
    for i, j in np.ndindex(*size):
        starts = [k * s - p for k, s, p in zip((i, j), stride, padding, strict=True)]
        stops = [min(a + k, n + p) for a, k, n, p in zip(starts, kernel, image, padding, strict=True)]
        rows, columns = (range(max(a, 0), min(b, n)) for a, b, n in zip(starts, stops, image, strict=True))
        padded = math.prod(b - a for a, b in zip(starts, stops, strict=True))
        count = divisor or (padded if count_include_pad else len(rows) * len(columns))
        for h, w in itertools.product(rows, columns):
            weights[i, j, h, w] = 1 / count
    return weights


def adaptive_windows(n: int, out: int) -> list[range]:
    return [range(i * n // out, -(-(i + 1) * n // out)) for i in range(out)]


def adaptive_matrix(image: Any, size: Any) -> Array:
    """Adaptive average pooling as weights (OH, OW, H, W)."""
    weights = np.zeros((*size, *image))
    for (i, rows), (j, columns) in itertools.product(*(enumerate(adaptive_windows(n, o)) for n, o in zip(image, size, strict=True))):
        for h, w in itertools.product(rows, columns):
            weights[i, j, h, w] = 1 / (len(rows) * len(columns))
    return weights


def resize_matrix(image: Any, size: Any, mode: str, align_corners: bool = False) -> Array:
    """PyTorch's resizing as weights (OH, OW, H, W)."""
    axes = []
    for n, o in zip(image, size, strict=True):
        weights = np.zeros((o, n))
        for i in range(o):
            if mode == "nearest":
                weights[i, min(i * n // o, n - 1)] = 1
            elif mode == "nearest-exact":
                weights[i, min(int((i + 0.5) * n / o), n - 1)] = 1
            else:
                at = (i * (n - 1) / (o - 1) if o > 1 else 0.0) if align_corners else max((i + 0.5) * n / o - 0.5, 0.0)
                low = min(int(at), n - 1)
                weights[i, low] += 1 - (at - low)
                weights[i, min(low + 1, n - 1)] += at - low
        axes.append(weights)
    return axes[0][:, None, :, None] * axes[1][None, :, None, :]


def apply(weights: Array, x: Array) -> Array:
    """(OH, OW, H, W) weights on (N, C, H, W) images."""
    return np.array([[[[(weights[i, j] * x[n, c]).sum() for j in range(weights.shape[1])] for i in range(weights.shape[0])]
                      for c in range(x.shape[1])] for n in range(x.shape[0])]).reshape(*x.shape[:2], *weights.shape[:2])


def adjoint(weights: Array, g: Array) -> Array:
    return apply(weights.transpose(2, 3, 0, 1), g)


def batch_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    out = np.empty_like(x)
    for c in range(x.shape[1]):
        values = x[:, c]
        mean = math.fsum(values.ravel()) / values.size
        var = math.fsum((v - mean) ** 2 for v in values.ravel()) / values.size
        out[:, c] = (values - mean) / math.sqrt(var + eps) * weight[c] + bias[c]
    return out
