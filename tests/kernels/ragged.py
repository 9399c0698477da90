"""Random ragged arguments for every entry of every kernel, and a loop that runs them against unreadable memory.

    python -m tests.kernels.ragged FIRST COUNT VARIANTS DTYPES FAMILIES

runs cases number FIRST to FIRST + COUNT, each with its arrays before, then behind, unreadable memory, in the variants ("serial",
"parallel"), dtypes ("float32", "float64") and families (functions of FAMILIES, or "all") named, joined by commas. It says what it is
about to run, one case a line, so that the last line before a crash tells which one died; the very last line is a summary in JSON: how
often each entry was called, which kernels there are, and which ones ran. Results must be the same on both sides, hold no scratch
(NaN), and, of convolutions, equal the slow loops in `reference`.
"""

import contextlib
import functools
import importlib
import json
import math
import os
import pkgutil
import sys
import unittest.mock
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numba  # noqa: F401 - it must see the real machine
import numpy as np

if os.environ.get("TINYGRAD_CNN_SIMD") == "neon":      # vectors and registers as ARM has them, on any machine
    with unittest.mock.patch("platform.machine", return_value="aarch64"):
        import tinygrad_cnn.kernels.simd  # noqa: F401

from tinygrad_cnn import kernels, memory
from tinygrad_cnn.kernels import constants, conv, depthwise, dropout, elementwise, jit, norm, optim, options, pool, resize, unfold, winograd

from . import guard, reference
from .reference import Conv

MODULES = [importlib.import_module(f"{kernels.__name__}.{module.name}") for module in pkgutil.iter_modules(kernels.__path__)]
KERNELS = {f"{module.__name__.rpartition('.')[2]}.{name}": k for module in MODULES for name, k in vars(module).items()
           if isinstance(k, jit.Kernel) and k.__module__ == module.__name__}
CACHES = {c for module in MODULES for c in vars(module).values() if hasattr(c, "cache_clear")}
CONSTANTS = [(module, name) for module in MODULES for name, value in vars(module).items() if isinstance(value, np.ndarray)]


class Written(NamedTuple):
    """An array that an entry overwrites."""

    shape: tuple[int, ...]
    dtype: Any


class Call(NamedTuple):
    """An entry and its arguments: arrays, which are copied for each run, `Written` ones, and others."""

    entry: Callable[..., Any]
    arguments: tuple[Any, ...]
    changed: tuple[int, ...] = ()      # arguments that are read and written
    expected: Callable[..., list[tuple[np.ndarray, np.ndarray]]] | None = None   # of each written argument, with the error allowed


class Case(NamedTuple):
    """What is run, in words, the calls, and settings: (module, name, value)."""

    description: str
    calls: list[Call]
    settings: list[tuple[Any, str, Any]]

    def __str__(self) -> str:
        return ", ".join([self.description, *(f"{name} {getattr(value, '__name__', value)}" for _, name, value in self.settings)])


def _normal(random: np.random.Generator, *shape: int, dtype: Any) -> np.ndarray:
    return random.standard_normal(shape).astype(dtype)


def _integer(random: np.random.Generator, low: int, high: int) -> int:
    """From low to high, small ones more often."""
    return low + int((high - low + 1) * random.random() ** 2)


def _width(random: np.random.Generator, high: int) -> int:
    """Channels, 1 to high: whole vectors more often than by chance."""
    return _any(random, 8, 16, 32, 48, 64) if high >= 64 and random.random() < 0.3 else _integer(random, 1, high)


def _pair(random: np.random.Generator, low: int, high: int) -> tuple[int, int]:
    return _integer(random, low, high), _integer(random, low, high)


def _any(random: np.random.Generator, *values: Any) -> Any:
    return values[random.integers(len(values))]


# -- convolutions ----------------------------------------------------------------------------------------------------------

MOST, RARELY = 2_000_000, 60_000_000  # multiplications of a case, which the slow loops repeat, and of one in twenty, which they do not

KINDS = ("dense", "dense", "pointwise", "first layer", "first layer", "deep", "many pixels", "grouped", "grouped", "small groups", "depthwise",
         "winograd", "winograd")
# Constants of the cost models that make `conv` take one way of reading windows wherever that can be.
WAYS = [{}, {}, {"COPY_CYCLES": 1e6, "MIN_TASKS": 1}, {"BAND_BYTES": 0}, {"BAND_BYTES": 0, "DEPTH": 32}]


def _channels(random: np.random.Generator, kind: str) -> tuple[int, int, int]:
    """(groups, C, K)."""
    if kind == "first layer":
        return 1, _integer(random, 1, 7), _width(random, 80)
    if kind == "deep":
        return 1, _integer(random, 60, 400), _width(random, 80)
    if kind == "many pixels":
        return 1, _integer(random, 1, 40), _integer(random, 1, 40)
    if kind == "grouped":
        groups = _any(random, 2, 3, 4, 5, 8, 16, 32)
        return groups, *(groups * _integer(random, 1, 40 if groups < 5 else 24) for _ in range(2))
    if kind == "small groups":             # some fill vectors together
        size = _any(random, 2, 2, 4, 4, 3, 8)
        C = size * _any(random, 2, 4, 8, 16, _integer(random, 2, 12))
        return C // size, C, C
    if kind == "depthwise":
        C = max(2, _width(random, 160))
        return C, C, C * _any(random, 1, 1, 1, 2, 3)
    return 1, _width(random, 90), _width(random, 90)


# N, H, W, C, K, R, S of convolutions that fill scratch to its end, which others seldom do: blocks of windows in the weight gradient,
# and columns of the input gradient.
CORNERS = ((1, 14, 14, 456, 56, 3, 3), (1, 14, 14, 470, 50, 3, 3), (1, 24, 17, 3, 5, 5, 5), (2, 14, 18, 2, 9, 5, 3))


def _convolution(random: np.random.Generator, dtype: Any) -> tuple[str, Conv]:
    if random.random() < 0.02:
        N, H, W, C, K, R, S = _any(random, *CORNERS)
        return "corner", Conv(N, H, W, C, K, R, S, H, W, (1, 1), (R // 2, S // 2), (1, 1), 1, dtype, int(random.integers(2**31)))
    while True:
        kind, most = _any(random, *KINDS), RARELY if random.random() < 0.05 else MOST
        groups, C, K = _channels(random, kind)
        far = random.random() < 0.15           # windows that reach far over the image, or miss it
        H, W = _pair(random, 1, 16)
        if kind in ("many pixels", "winograd", "first layer") or random.random() < 0.2:
            H, W = (int(n) for n in random.integers(1, 41, 2))
        R, S = _pair(random, 1, 7 if random.random() < 0.3 else 4)
        stride, dilation, padding = (_pair(random, low, high) for low, high in ((1, 40 if far else 3), (1, 20 if far else 3),
                                                                                (0, 40 if far else 5)))
        if kind == "pointwise":
            R = S = 1
            padding = _any(random, (0, 0), (0, 0), padding)
        if kind in ("winograd", "first layer", "depthwise") and random.random() < 0.5 or kind == "winograd":
            R = S = 3
            dilation, padding = (1, 1), _any(random, (1, 1), padding)
        if kind == "winograd":
            stride = 1, 1
        if random.random() < 0.3:              # lines, or columns, of one pixel
            H, W, R, S = _any(random, (1, W, 1, S), (H, 1, R, 1), (H, W, R, 1), (1, W, R, S))
        OH, OW = _pair(random, 1, 17)
        if random.random() < 0.7:              # as many as fit
            fit = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1
                        for n, p, d, k, s in zip((H, W), padding, dilation, (R, S), stride, strict=True))
            OH, OW = fit if min(fit) > 0 else (OH, OW)
        N = _integer(random, 1, 40 if kind == "many pixels" else 4)
        found = Conv(N, H, W, C, K, R, S, OH, OW, stride, padding, dilation, groups, dtype, int(random.integers(2**31)))
        if N * OH * OW * R * S * C * K // groups <= most and N * OH * OW * K <= MOST and N * H * W * C <= MOST:
            return kind, found


def _few(*_: Any) -> bool:
    return True


def _many(*_: Any) -> bool:
    return False


def _declared(entry: Callable[..., Any], weight: int) -> Callable[..., Any]:
    """The entry, called on weights that were said to stay: what it makes of them is kept and used again."""
    @functools.wraps(entry)
    def run(*arguments: Any) -> None:
        constants.declare(arguments[weight])
        entry(*arguments)
        entry(*arguments)
    return run


def convolutions(random: np.random.Generator, dtype: Any) -> Case:
    kind, c = _convolution(random, dtype)
    x, w, bias, g = c.arrays()
    algorithm = "winograd" if kind == "winograd" else _any(random, "auto", "direct")
    inexact = dtype == np.float32 and (c.R, c.S, c.stride, c.dilation, c.groups) == (3, 3, (1, 1), (1, 1), 1) and algorithm != "direct"

    def near(terms: int, loop: Callable[..., np.ndarray], *arrays: np.ndarray) -> Callable[[], list[tuple[np.ndarray, np.ndarray]]]:
        def expected() -> list[tuple[np.ndarray, np.ndarray]]:
            bound = (terms + 3) * np.finfo(dtype).eps * loop(c, *map(abs, arrays)) + np.finfo(dtype).tiny
            if inexact:                        # Winograd's algorithm, maybe
                a, b = arrays[:2]
                axes = {"conv2d": (0, 1, 2), "conv2d_input_grad": (0, 1, 3), "conv2d_weight_grad": (0, 1, 2)}[loop.__name__]
                image, other = (b, a) if loop is reference.conv2d_weight_grad else (a, b)
                bound += 4e-6 * (np.abs(image).max() * np.sqrt((other.astype(float) ** 2).sum(axis=axes).max()) + 1)
            return [(loop(c, *arrays), bound)]
        return expected

    C, K, taps = c.C // c.groups, c.K // c.groups, c.R * c.S
    small = c.N * c.OH * c.OW * taps * C * c.K <= MOST
    relu, kept = bool(random.integers(2)), random.random() < 0.3
    forward, backward = (_declared(f, 1) if kept else f for f in (conv.conv2d, conv.conv2d_input_grad))

    def clamped() -> list[tuple[np.ndarray, np.ndarray]]:
        [(value, bound)] = near(taps * C + 1, reference.conv2d, x, w, bias)()
        return [(np.maximum(value, 0) if relu else value, bound)]

    calls = [Call(forward, (x, w, bias, *c.how, Written(g.shape, dtype), relu), expected=clamped),
             Call(backward, (g, w, *c.how, Written(x.shape, dtype)), expected=near(taps * K, reference.conv2d_input_grad, g, w)),
             Call(conv.conv2d_weight_grad, (g, x, *c.how, Written(w.shape, dtype)),
                  expected=near(c.N * c.OH * c.OW, reference.conv2d_weight_grad, g, x)),
             Call(conv.bias_grad, (g, Written((c.K,), dtype)))]
    if not small:
        calls = [call._replace(expected=None) for call in calls]
    settings: list[tuple[Any, str, Any]] = [(options, "conv_algorithm", algorithm)]
    if random.random() < 0.5:
        settings.append((winograd, "few_tiles", _any(random, _few, _many)))
    settings += [(conv, name, value) for name, value in _any(random, *WAYS).items()]
    return Case(f"{kind} {c}, relu {relu}, kept {kept}", calls, settings)


def windows_as_columns(random: np.random.Generator, dtype: Any) -> Case:
    _, c = _convolution(random, dtype)
    x, _, _, _ = c.arrays()
    how = ((c.R, c.S), c.stride, c.padding, c.dilation, (c.OH, c.OW))
    g = _normal(random, c.N, c.OH * c.OW, c.R, c.S, c.C, dtype=dtype)
    return Case(f"unfold {c}", [Call(unfold.unfold, (x, *how, Written(g.shape, dtype))), Call(unfold.fold, (g, *how, Written(x.shape, dtype)))], [])


# -- pooling -----------------------------------------------------------------------------------------------------------


def pools(random: np.random.Generator, dtype: Any) -> Case:
    N, C = _integer(random, 1, 12), _width(random, 70)
    how: Any = None
    while True:
        size = _pair(random, 1, 20)
        if random.random() < 0.3:
            outputs, dilated, how = _pair(random, 1, 20), None, None
            break
        kernel, stride, dilation = _pair(random, 1, 20 if random.random() < 0.2 else 4), _pair(random, 1, 5), _pair(random, 1, 3)
        padding = tuple(int(random.integers(k // 2 + 1)) for k in kernel)
        ceil = bool(random.integers(2))
        outputs = ()
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True):
            room = n + 2 * p - d * (k - 1) - 1
            count = (-(-room // s) if ceil else room // s) + 1
            outputs += (count - 1 if ceil and (count - 1) * s >= n + p else count,)
        dilated, how = (kernel, stride, padding, dilation), (kernel, stride, padding)
        if min(outputs) > 0 and math.prod(kernel) * math.prod(outputs) < 20000:
            break
    x, g = (np.round(_normal(random, N, *s, C, dtype=dtype), 1) for s in (size, outputs))
    tap_type = pool.tap_dtype(size, outputs, dilated)
    largest, taps = np.empty(g.shape, dtype), np.empty(g.shape, tap_type)
    pool.max_pool2d(x, dilated, largest, taps)
    count_pad, divisor = bool(random.integers(2)), _any(random, 0, 0, 3)
    calls = [Call(pool.max_pool2d, (x, dilated, Written(g.shape, dtype), Written(g.shape, tap_type))),
             Call(pool.plane_indices, (taps, size, dilated)),
             Call(pool.gather_taps, (x, taps, dilated, Written(g.shape, dtype))),
             Call(pool.scatter_taps, (g, taps, dilated, Written(x.shape, dtype)))]
    if dilated is None or dilated[3] == (1, 1):
        calls += [Call(pool.avg_pool2d, (x, how, count_pad, divisor, Written(g.shape, dtype))),
                  Call(pool.avg_pool2d_adjoint, (g, how, count_pad, divisor, Written(x.shape, dtype)))]
    settings = [(pool, "WASTE", _any(random, -2, pool.WASTE, 1000))]
    return Case(f"pool {np.dtype(dtype).name} {x.shape} to {outputs}, windows {dilated}", calls, settings)


def resizings(random: np.random.Generator, dtype: Any) -> Case:
    N, C, size, outputs = _integer(random, 1, 4), _integer(random, 1, 40), _pair(random, 1, 20), _pair(random, 1, 20)
    tables: list[np.ndarray] = []
    for n, m in zip(size, outputs, strict=True):
        lo = random.integers(0, n, m)
        tables += [lo, np.minimum(lo + random.integers(0, 2, m), n - 1), random.choice([0.0, 0.25, 0.7, 1.0], m)]
    x, g = (_normal(random, N, *s, C, dtype=dtype) for s in (size, outputs))
    return Case(f"resize {np.dtype(dtype).name} {x.shape} to {outputs}", [Call(resize.resize, (x, *tables, Written(g.shape, dtype))),
                                                                         Call(resize.resize_adjoint, (g, *tables, Written(x.shape, dtype)))], [])


# -- rows of channels, and elements ----------------------------------------------------------------------------------------


def norms(random: np.random.Generator, dtype: Any) -> Case:
    C = _width(random, 300)
    M = _integer(random, 1, max(1, 60_000 // C))
    x, g, y = (_normal(random, M, C, dtype=dtype) for _ in range(3))
    mean, invstd, scale, shift, weight, sum_g, sum_gx = (_normal(random, C, dtype=dtype) for _ in range(7))
    relu, wide = bool(random.integers(2)), _any(random, dtype, np.float64)
    channels = Written((C,), wide)
    return Case(f"norm {np.dtype(dtype).name} {x.shape}, relu {relu}", [
        Call(norm.channel_sum, (x, channels)), Call(norm.relu_grad_sum, (g, y, channels), (0,)),
        Call(norm.channel_mean_var, (x, channels, channels)),
        Call(norm.channel_sums, (g, x, mean, invstd, scale, shift, relu, channels, channels)),
        Call(norm.normalize, (x, scale, shift, relu, Written(x.shape, dtype))),
        Call(norm.batch_norm_input_grad, (x, mean, invstd, weight, scale, shift, relu, sum_g, sum_gx, g), (9,))], [])


def elements(random: np.random.Generator, dtype: Any) -> Case:
    shape = tuple(_integer(random, 1, 30) for _ in range(random.integers(1, 5)))
    while math.prod(shape) > 50_000:
        shape = shape[1:]
    x, y, g = (_normal(random, *shape, dtype=dtype) for _ in range(3))
    out = Written(shape, dtype)
    return Case(f"elements {np.dtype(dtype).name} {shape}", [
        Call(elementwise.erf, (x, out)), Call(elementwise.add, (x, y, out)), Call(elementwise.relu, (x, out)),
        Call(elementwise.relu_over, (x,), (0,)),
        Call(elementwise.relu_grad, (y, g), (1,)), Call(dropout.keep, (x, random.random(shape) < 0.5, 2.0, out))], [])


def steps(random: np.random.Generator, dtype: Any) -> Case:
    shape = tuple(_integer(random, 1, 30) for _ in range(random.integers(1, 4)))
    order = random.permutation(len(shape))
    w, g, *state = (abs(_normal(random, *shape, dtype=dtype)).transpose(order) for _ in range(5))
    a, b, c = (_any(random, None, s) for s in state)
    flag = bool(random.integers(2))
    return Case(f"optim {np.dtype(dtype).name} {shape} {order}, {[s is not None for s in (a, b, c)]}, {flag}", [
        Call(optim.sgd, (w, g, a, 0.1, 0.9, 0.1, 0.01 * flag, flag, not flag), (0, 2)),
        Call(optim.adam, (w, g, *state[:2], a, 0.1, 0.9, 0.99, 1e-8, 0.01 * flag, 0.1, 3), (0, 2, 3, 4)),
        Call(optim.rmsprop, (w, g, state[0], None if a is None else 0 * a, c, 0.01, 0.9, 1e-8, 0.0, 0.9), (0, 2, 3, 4))], [])


FAMILIES = (convolutions, convolutions, convolutions, convolutions, pools, windows_as_columns, resizings, norms, elements, steps)


# -- running them ----------------------------------------------------------------------------------------------------------


def _run(call: Call, side: int) -> list[np.ndarray]:
    """The arrays that the entry wrote or returned, its arguments against unreadable memory."""
    for cached in CACHES:                      # tables of plans, too, are to lie on that side
        cached.cache_clear()
    with guard.guarded(side):
        for module, name in CONSTANTS:
            setattr(module, name, getattr(module, name).copy())
        arguments = [reference.poisoned(*a) if isinstance(a, Written) else a.copy(order="K") if isinstance(a, np.ndarray) else a
                     for a in call.arguments]
        returned = call.entry(*arguments)
    for i, (a, given) in enumerate(zip(arguments, call.arguments, strict=True)):
        if isinstance(given, np.ndarray) and i not in call.changed:
            np.testing.assert_array_equal(a, given, f"argument {i} was written to")
    written = [a for i, a in enumerate(arguments) if a is not None and (i in call.changed or isinstance(call.arguments[i], Written))]
    return written if returned is None else [returned]


def _check(call: Call, variants: list[str], random: np.random.Generator) -> None:
    expected = call.expected() if call.expected else None
    for variant in variants:
        options.threads = int(random.integers(1, jit.MAX_THREADS + 1))
        with reference.variant(variant):
            before, behind = (_run(call, side) for side in (guard.BEFORE, guard.BEHIND))
        for i, (a, b) in enumerate(zip(before, behind, strict=True)):
            assert a.dtype.kind != "f" or not np.isnan(a).any(), f"{call.entry.__name__}: scratch memory in result {i}"
            np.testing.assert_array_equal(a, b, f"{call.entry.__name__}: result {i} depends on where arrays lie")
            if expected:
                value, bound = expected[i]
                assert (np.abs(a - value) <= bound).all(), f"{call.entry.__name__}: error {np.abs(a - value).max()}"


def _listen(met: set[str]) -> None:
    """Let kernels note that they ran, and in which variant."""
    names = {id(k): name for name, k in KERNELS.items()}
    call = jit.Kernel.__call__

    def noted(self: jit.Kernel, *arguments: Any, work: float) -> None:
        met.add(f"{names[id(self)]} {'parallel' if jit.is_parallel(work) else 'serial'}")
        call(self, *arguments, work=work)

    jit.Kernel.__call__ = noted


def main(first: int, count: int, variants: list[str], dtypes: list[str], families: list[str]) -> None:
    guard.install()
    memory.SMALLEST = 1 << 62                  # no array comes from the pool
    depthwise._aligned = np.empty              # which would leave space on both sides
    met: set[str] = set()
    _listen(met)
    ran: Counter[str] = Counter()
    chosen = FAMILIES if families == ["all"] else [f for f in FAMILIES if f.__name__ in families]
    for seed in range(first, first + count):
        random = np.random.default_rng(seed)
        dtype = np.dtype(_any(random, *dtypes)).type
        case = _any(random, *chosen)(random, dtype)
        print(seed, case, flush=True)
        with contextlib.ExitStack() as settings:
            for module, name, value in case.settings:
                settings.enter_context(unittest.mock.patch.object(module, name, value))
            for call in case.calls:
                _check(call, variants, random)
                ran[call.entry.__name__] += 1
    print(json.dumps({"calls": ran, "kernels": sorted(KERNELS), "met": sorted(met)}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *(names.split(",") for names in sys.argv[3:]))
