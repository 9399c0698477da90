"""Functions that take windows, called with huge integers: `python -m tests.ops.huge_sizes FIRST COUNT` runs calls number FIRST on.

Before each call it prints what it calls. A call that takes SECONDS is killed by an alarm; memory is limited. Small results are
compared with loops in Python's integers; where a result would be huge the call must say so.
"""

import contextlib
import math
import random as randoms
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_cnn as tg
from tests.kernels import reference

F, nn = tg.nn.functional, tg.nn
SECONDS, MEMORY = 150, 1 << 30                 # a cold kernel is compiled meanwhile
LARGEST = 1 << 60                              # what is refused, whatever it would mean
SMALL, LARGE = 1 << 13, 1 << 28                # elements of results that are compared, and that no memory is there for
HUGE = (97, 2**20, 2**31 - 1, 2**31, 2**32, 2**33 + 1, 2**53, 2**60, 2**61, 2**62, 2**63 - 1, 2**63, 2**64, 10**30)

Random = randoms.Random
Pair = tuple[int, int]


class Discarded(Exception):
    """Neither small nor too large."""


def _integer(random: Random, low: int, high: int, *others: int) -> int:
    """An ordinary value, a huge one, or one near others that were drawn: together they may cancel."""
    kind = random.random()
    if kind < 0.45:
        return random.randint(low, high)
    if kind < 0.7 and others:
        base = random.choice(others)
        return max(low, base * random.randint(1, 3) // random.choice((1, 1, 2)) + random.randint(-2, 2))
    return random.choice(HUGE)


def _pair(random: Random, low: int, high: int, *others: Pair) -> Pair:
    return _integer(random, low, high, *(o[0] for o in others)), _integer(random, low, high, *(o[1] for o in others))


def _array(random: Random, *shape: int) -> np.ndarray:
    return np.random.default_rng(random.randrange(2**32)).standard_normal(shape)


def _leaf(a: np.ndarray) -> tg.Tensor:
    return tg.tensor(a, requires_grad=True)


def _close(actual: Any, expected: np.ndarray) -> None:
    assert tuple(actual.shape) == expected.shape, f"shape {actual.shape}, wanted {expected.shape}"
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-9, atol=1e-9)


def _last(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1))


def _first(a: np.ndarray) -> np.ndarray:
    return a.transpose(0, 3, 1, 2)


def _allowed(elements: int, *values: Any) -> bool:
    """Whether a result must come, not an error: it is small, and nothing is larger than what is refused.

    Raises:
        Discarded: it is of a size that takes long, but not too much memory.
    """
    if SMALL < elements < LARGE:
        raise Discarded
    return elements <= SMALL and all(v <= LARGEST for v in values)


@contextlib.contextmanager
def _says_so(name: str, must_come: bool) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        assert not must_come, "memory for a small result"
    except (ValueError, TypeError) as error:
        assert not must_come, f"{type(error).__name__}: {error}"
        assert name.lower() in str(error).lower(), f"the error does not name {name}: {error}"
    else:
        assert must_come, "a result that is wrong or too large"


# -- the functions ---------------------------------------------------------------------------------------------------------


def _counts(image: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(image, kernel, stride, padding, dilation, strict=True))


def _drawn_conv(random: Random) -> reference.Conv:
    groups = random.choice((1, 1, 2, 4, 20))
    C, K = groups * random.choice((1, 1, 3) if groups > 2 else (1, 3, 20)), groups * random.choice((1, 1, 2, 5))
    image, kernel = (random.randint(1, 8), random.randint(1, 8)), (random.randint(1, 3), random.randint(1, 3))
    stride = _pair(random, 1, 3)
    dilation = _pair(random, 1, 3, stride)
    reach = tuple(d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
    padding = _pair(random, 0, 4, stride, reach)
    size = _counts(image, kernel, stride, padding, dilation)
    return reference.Conv(random.randint(1, 2), *image, C, K, *kernel, *size, stride, padding, dilation, groups, np.float64, random.randrange(2**31))


def _padded(*axes: tuple[int, int]) -> int:
    return math.prod(n + 2 * p for n, p in axes)


def conv2d(random: Random) -> tuple[str, Callable[[], None]]:
    c = _drawn_conv(random)
    same = random.random() < 0.2
    padding: Any = c.padding
    if same:
        padding, c.OH, c.OW = "same", -(-c.H // c.stride[0]), -(-c.W // c.stride[1])
        c.padding = tuple(max((o - 1) * s + d * (k - 1) + 1 - n, 0) // 2 for o, s, d, k, n in zip(
            (c.OH, c.OW), c.stride, c.dilation, (c.R, c.S), (c.H, c.W), strict=True))
    must = min(c.OH, c.OW) > 0 and _allowed(c.N * c.OH * c.OW * c.K, *c.stride, *c.dilation, *(c.padding if not same else ()),
                                            _padded((c.H, c.padding[0] + same), (c.W, c.padding[1] + same)))
    relu = random.random() < 0.5

    def call() -> None:
        x, w, b = _array(random, c.N, c.H, c.W, c.C), _array(random, c.R, c.S, c.C // c.groups, c.K), _array(random, c.K)
        leaves = [_leaf(_first(x)), _leaf(w.transpose(3, 2, 0, 1)), _leaf(b)]
        with _says_so("conv2d", must):
            y = F.conv2d(*leaves, c.stride, padding, c.dilation, c.groups, relu=relu)
        if must:
            expected = reference.conv2d(c, x, w, b)
            _close(y, _first(np.maximum(expected, 0) if relu else expected))
            g = _array(random, *expected.shape)
            y.backward(tg.tensor(_first(g)))
            g = g * (expected > 0) if relu else g
            _close(leaves[0].grad, _first(reference.conv2d_input_grad(c, g, w)))
            _close(leaves[1].grad, reference.conv2d_weight_grad(c, g, x).transpose(3, 2, 0, 1))
            _close(leaves[2].grad, g.sum(axis=(0, 1, 2)))

    return f"conv2d {c} {padding=}", call


def conv_transpose2d(random: Random) -> tuple[str, Callable[[], None]]:
    c = _drawn_conv(random)
    inputs = random.randint(1, 3), random.randint(1, 3)
    extra = tuple(random.randint(0, 1) if max(s, d) > 1 else 0 for s, d in zip(c.stride, c.dilation, strict=True))
    whole = [(n - 1) * s + d * (k - 1) + e + 1 for n, s, d, k, e in zip(inputs, c.stride, c.dilation, (c.R, c.S), extra, strict=True)]
    if random.random() < 0.6:                  # all but a few pixels
        c.padding = tuple(max(0, (n - random.randint(1, 6)) // 2) for n in whole)
    size = tuple(n - 2 * p for n, p in zip(whole, c.padding, strict=True))
    must = min(size) > 0 and _allowed(c.N * size[0] * size[1] * c.C, *c.stride, *c.dilation, *c.padding,
                                      _padded((size[0], c.padding[0]), (size[1], c.padding[1])))

    def call() -> None:
        g, w = _array(random, c.N, *inputs, c.K), _array(random, c.R, c.S, c.C // c.groups, c.K)
        leaves = [_leaf(_first(g)), _leaf(w.transpose(3, 2, 0, 1))]
        with _says_so("conv_transpose2d", must):
            y = F.conv_transpose2d(*leaves, None, c.stride, c.padding, extra, c.groups, c.dilation)
        if must:
            (c.OH, c.OW), (c.H, c.W) = inputs, size
            _close(y, _first(reference.conv2d_input_grad(c, g, w)))
            x = _array(random, c.N, *size, c.C)
            y.backward(tg.tensor(_first(x)))
            _close(leaves[0].grad, _first(reference.conv2d(c, x, w, np.zeros(c.K))))
            _close(leaves[1].grad, reference.conv2d_weight_grad(c, g, x).transpose(3, 2, 0, 1))

    return f"conv_transpose2d {c} {inputs=} {extra=} {size=}", call


def _columns(c: reference.Conv, x: np.ndarray) -> np.ndarray:
    """x (N, C, H, W) -> (N, C, R, S, OH, OW)."""
    out = np.zeros((c.N, c.C, c.R, c.S, c.OH, c.OW))
    for r, s, rows, columns in c.meetings():
        for (i, h), (j, v) in ((a, b) for a in rows for b in columns):
            out[:, :, r, s, i, j] = x[:, :, h, v]
    return out


def unfold(random: Random) -> tuple[str, Callable[[], None]]:
    c = _drawn_conv(random)
    if random.random() < 0.3:
        c.R, c.S = _pair(random, 1, 3, c.padding, c.stride)
        c.OH, c.OW = _counts((c.H, c.W), (c.R, c.S), c.stride, c.padding, c.dilation)
    must = min(c.OH, c.OW) > 0 and _allowed(c.N * c.OH * c.OW * c.R * c.S * c.C, *c.stride, *c.dilation, *c.padding, c.R, c.S,
                                            _padded((c.H, c.padding[0]), (c.W, c.padding[1])))

    def call() -> None:
        x = _array(random, c.N, c.C, c.H, c.W)
        leaf = _leaf(x)
        with _says_so("unfold", must):
            y = F.unfold(leaf, (c.R, c.S), c.dilation, c.padding, c.stride)
        if must:
            expected = _columns(c, x)
            _close(y, expected.reshape(c.N, c.C * c.R * c.S, -1))
            g = _array(random, *y.shape)
            back = F.fold(tg.tensor(g), (c.H, c.W), (c.R, c.S), c.dilation, c.padding, c.stride)
            y.backward(tg.tensor(g))
            _close(back, leaf.grad.numpy())
            np.testing.assert_allclose((back.numpy() * x).sum(), (g * y.numpy()).sum(), rtol=1e-9, atol=1e-9)      # the adjoint

    return f"unfold {c}", call


def local_conv2d(random: Random) -> tuple[str, Callable[[], None]]:
    c = _drawn_conv(random)
    must = min(c.OH, c.OW) > 0 and _allowed(c.OH * c.OW * c.R * c.S * c.C * c.K, *c.stride, *c.dilation, *c.padding,
                                            _padded((c.H, c.padding[0]), (c.W, c.padding[1])))

    def call() -> None:
        x = _array(random, c.N, c.C, c.H, c.W)
        w = _array(random, c.K, c.C, c.R, c.S, *((c.OH, c.OW) if must else (1, 1)))
        with _says_so("local_conv2d", must):
            y = F.local_conv2d(tg.tensor(x), tg.tensor(w), None, c.stride, c.padding, c.dilation)
        if must:
            _close(y, np.einsum("ncrsij,kcrsij->nkij", _columns(c, x), w))
        with _says_so("LocallyConnected2d", must):
            nn.LocallyConnected2d(c.C, c.K, (c.H, c.W), (c.R, c.S), c.stride, c.padding, c.dilation)

    if must is False and (c.OH, c.OW) == (1, 1):
        raise Discarded
    return f"local_conv2d {c}", call


def pool(random: Random) -> tuple[str, Callable[[], None]]:
    maxima, ceil = random.random() < 0.5, random.random() < 0.5
    image = random.randint(1, 8), random.randint(1, 8)
    kernel = _pair(random, 1, 4, image)
    padding = tuple(random.choice((0, k // 2, k // 2, min(k // 2, _integer(random, 0, 2, k)))) for k in kernel)
    stride = _pair(random, 1, 3, kernel, padding)
    dilation = _pair(random, 1, 2, kernel) if maxima else (1, 1)
    size: list[int] = []
    for n, k, s, p, d in zip(image, kernel, stride, padding, dilation, strict=True):
        room = n + 2 * p - d * (k - 1) - 1
        count = (-(-room // s) if ceil else room // s) + 1
        size.append(count - 1 if ceil and (count - 1) * s >= n + p else count)
    must = min(size) > 0 and _allowed(math.prod(size) * 3, *stride, *dilation, *kernel)
    count_pad = random.random() < 0.5
    name = "max_pool2d" if maxima else "avg_pool2d"

    def call() -> None:
        x = _array(random, 1, 3, *image)
        leaf = _leaf(x)
        with _says_so(name, must):
            y = (F.max_pool2d(leaf, kernel, stride, padding, dilation, ceil) if maxima else
                 F.avg_pool2d(leaf, kernel, stride, padding, ceil, count_pad))
        if not must:
            return
        expected, back, g = np.zeros((1, 3, *size)), np.zeros(x.shape), _array(random, 1, 3, *size)
        for i, j in np.ndindex(*size):
            start = [at * s - p for at, s, p in zip((i, j), stride, padding, strict=True)]
            rows, columns = ([h for h in range(n) if (h - a) % d == 0 and 0 <= (h - a) // d < k]
                             for n, a, d, k in zip(image, start, dilation, kernel, strict=True))
            window = x[0][:, rows][:, :, columns].reshape(3, -1)
            if maxima:
                expected[0, :, i, j] = window.max(axis=1, initial=-np.inf)
                for c in range(3) if window.size else ():
                    r, s = divmod(int(window[c].argmax()), len(columns))
                    back[0, c, rows[r], columns[s]] += g[0, c, i, j]
            else:
                ends = [min(a + k, n + p) for a, k, n, p in zip(start, kernel, image, padding, strict=True)]
                divisor = math.prod(e - a for e, a in zip(ends, start, strict=True)) if count_pad else window.shape[1]
                expected[0, :, i, j] = window.sum(axis=1) / divisor
                for h, v in ((h, v) for h in rows for v in columns):
                    back[0, :, h, v] += g[0, :, i, j] / divisor
        _close(y, expected)
        y.backward(tg.tensor(g))
        _close(leaf.grad, back)

    return f"{name} {image=} {kernel=} {stride=} {padding=} {dilation=} {ceil=} {count_pad=}", call


def adaptive_pool(random: Random) -> tuple[str, Callable[[], None]]:
    name, size = random.choice(("adaptive_avg_pool2d", "adaptive_max_pool2d")), _pair(random, 1, 9)
    must = _allowed(3 * math.prod(size), *size)

    def call() -> None:
        with _says_so(name, must):
            assert getattr(F, name)(tg.ones(1, 3, 5, 4), size).shape == (1, 3, *size)

    return f"{name} {size=}", call


def interpolate(random: Random) -> tuple[str, Callable[[], None]]:
    size, mode = _pair(random, 1, 9), random.choice(("nearest", "nearest-exact", "bilinear"))
    must = _allowed(3 * math.prod(size), *size)

    def call() -> None:
        with _says_so("interpolate", must):
            assert F.interpolate(tg.ones(1, 3, 5, 4), size, mode=mode).shape == (1, 3, *size)
        with _says_so("interpolate", False):
            F.interpolate(tg.ones(1, 3, 5, 4), scale_factor=random.choice((1e9, 1e18, 1e30, 1e300)), mode=mode)

    return f"interpolate {size=} {mode=}", call


def pad(random: Random) -> tuple[str, Callable[[], None]]:
    mode = random.choice(("constant", "constant", "reflect", "replicate", "circular"))
    widths = [random.choice((1, 1, -1)) * (_integer(random, 0, 3) if random.random() < 0.4 else random.randint(0, 3)) for _ in range(4)]
    size = 5 + widths[2] + widths[3], 4 + widths[0] + widths[1]
    fits = all(0 <= w <= {"reflect": n - 1, "circular": n}.get(mode, w) for w, n in zip(widths, (4, 4, 5, 5), strict=True))
    crops = [n + min(a, 0) + min(b, 0) for n, a, b in ((4, *widths[:2]), (5, *widths[2:]))]
    must = min(crops) >= 0 and (mode == "constant" or fits) and _allowed(3 * math.prod(size), *widths)
    if mode == "constant" and min(size) < 1 <= max(size) and max(map(abs, widths)) > 10:
        raise Discarded                        # nothing, of a huge size: NumPy may have it or not

    def call() -> None:
        with _says_so("pad", must):
            y = F.pad(tg.ones(1, 3, 5, 4), widths, mode)
            assert y.shape == (1, 3, *size)

    return f"pad {widths=} {mode=}", call


def others(random: Random) -> tuple[str, Callable[[], None]]:
    n = random.choice([h for h in HUGE if h > 2**30])
    x = tg.ones(1, 4, 5, 5)
    name, call = random.choice((
        ("pixel_shuffle", lambda: F.pixel_shuffle(x, n)), ("random_shift", lambda: tg.data.random_shift(x, n)),
        ("Conv2d", lambda: nn.Conv2d(4, 4, (n, 1))(x)), ("Conv2d", lambda: nn.Conv2d(n, 1, 3)(x)), ("Conv2d", lambda: nn.Conv2d(4, n, 1)(x)),
        ("ConvTranspose2d", lambda: nn.ConvTranspose2d(4, 4, n)(x)), ("LocallyConnected2d", lambda: nn.LocallyConnected2d(4, 4, n, 3)),
        ("fold", lambda: F.fold(tg.ones(1, 4, 1), n, 2, stride=n)), ("fold", lambda: F.fold(tg.ones(1, 4, 1), n, 2)),
        ("fold", lambda: nn.Fold((n, 4), n, 1, n // 2, n)(tg.ones(1, 4, 1)))))

    def run() -> None:
        with _says_so(name, False):
            call()

    return f"{name} {n}", run


FUNCTIONS = (conv2d, conv2d, conv2d, conv2d, conv_transpose2d, conv_transpose2d, unfold, local_conv2d, pool, pool, pool, adaptive_pool,
             interpolate, pad, others)


def main(first: int, count: int) -> None:
    import resource  # Windows has none

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    called = 0
    for seed in range(first, first + count):
        random = Random(seed)
        try:
            description, call = random.choice(FUNCTIONS)(random)
        except Discarded:
            continue
        print(seed, description, flush=True)
        signal.alarm(SECONDS)
        call()
        called += 1
    print(called)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
