"""Convolution against PyTorch: `python -m tests.bench.conv [threads]`.

Each engine runs in a process of its own, in turn, several rounds; the fastest call of all rounds counts. PyTorch gets
channels_last tensors; both compute forward, input gradient and weight gradient alone, with bias where there is one.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

# (N, C, H, W, K, kernel, stride, padding, groups)
SHAPES = [
    (8, 64, 56, 56, 64, 3, 1, 1, 1),
    (32, 32, 28, 28, 64, 3, 1, 1, 1),
    (64, 1, 28, 28, 16, 3, 1, 1, 1),
    (64, 16, 14, 14, 32, 3, 1, 1, 1),
    (8, 3, 112, 112, 64, 7, 2, 3, 1),
    (8, 128, 28, 28, 128, 3, 1, 1, 1),
    (8, 256, 14, 14, 256, 3, 1, 1, 1),
    (8, 512, 7, 7, 512, 3, 1, 1, 1),
    (8, 64, 56, 56, 128, 3, 2, 1, 1),
    (8, 256, 28, 28, 64, 1, 1, 0, 1),
    (8, 64, 56, 56, 64, 3, 1, 1, 64),
    (64, 6, 14, 14, 16, 5, 1, 0, 1),
    (64, 128, 16, 16, 128, 3, 1, 1, 1),
    (64, 256, 8, 8, 256, 3, 1, 1, 1),
    (32, 512, 4, 4, 512, 3, 1, 1, 1),
    (32, 3, 32, 32, 64, 3, 1, 1, 1),
    (8, 64, 28, 28, 256, 1, 1, 0, 1),
    (8, 64, 28, 28, 64, 3, 1, 1, 4),
    (1, 64, 56, 56, 64, 3, 1, 1, 1),
]
ROUNDS = 3
SECONDS = 0.3  # of repeated calls per measurement


def fastest(run: Callable[[], object]) -> float:
    """Milliseconds of the fastest call."""
    run()
    run()
    times, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def measure_ours(N: int, C: int, H: int, W: int, K: int, f: int, s: int, p: int, groups: int) -> list[float]:
    """Milliseconds of forward, input gradient and weight gradient."""
    from tinygrad_cnn.kernels import conv

    x = np.random.standard_normal((N, H, W, C)).astype("f4")
    w = np.random.standard_normal((f, f, C // groups, K)).astype("f4")
    b = np.random.standard_normal(K).astype("f4")
    y = np.empty((N, (H + 2 * p - f) // s + 1, (W + 2 * p - f) // s + 1, K), "f4")
    g, gx, gw = np.random.standard_normal(y.shape).astype("f4"), np.empty_like(x), np.empty_like(w)
    how = ((s, s), (p, p), (1, 1), groups)
    return [fastest(lambda: conv.conv2d(x, w, b, *how, y)),
            fastest(lambda: conv.conv2d_input_grad(g, w, *how, gx)),
            fastest(lambda: conv.conv2d_weight_grad(g, x, *how, gw))]


def measure_torch(N: int, C: int, H: int, W: int, K: int, f: int, s: int, p: int, groups: int) -> list[float]:
    """The same with PyTorch."""
    import torch
    import torch.nn.functional as F

    x = torch.randn(N, C, H, W).contiguous(memory_format=torch.channels_last)
    w = torch.randn(K, C // groups, f, f).contiguous(memory_format=torch.channels_last)
    b = torch.randn(K)
    g = torch.randn_like(F.conv2d(x, w, b, s, p, 1, groups)).contiguous(memory_format=torch.channels_last)

    def gradient(mask: tuple[bool, bool, bool]) -> object:
        return torch.ops.aten.convolution_backward(g, x, w, None, (s, s), (p, p), (1, 1), False, (0, 0), groups, mask)

    with torch.no_grad():
        return [fastest(lambda: F.conv2d(x, w, b, s, p, 1, groups)),
                fastest(lambda: gradient((True, False, False))),
                fastest(lambda: gradient((False, True, False)))]


def main(threads: int) -> None:
    """Prints the table."""
    best: dict[str, np.ndarray] = {}
    environment = {**os.environ, "NUMBA_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    for _ in range(ROUNDS):
        for engine in ("ours", "torch"):
            command = [sys.executable, "-m", "tests.bench.conv", "--engine", engine]
            output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            times = np.array(json.loads(output))
            best[engine] = np.minimum(best.get(engine, times), times)
    names = ("forward", "input gradient", "weight gradient")
    print("ms ours / torch (torch / ours: above 1, ours is faster)")
    print(f"{'N, C, H, W, K, f, s, p, groups':36s}" + "".join(f"{name:>28s}" for name in names))
    for shape, a, b in zip(SHAPES, best["ours"], best["torch"], strict=True):
        cells = (f"{i:10.3f} /{j:8.3f} ({j / i:5.2f})" for i, j in zip(a, b, strict=True))
        print(f"{str(shape)[1:-1]:36s}" + "".join(cells))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--engine"]:
        measure = measure_ours if sys.argv[2] == "ours" else measure_torch
        print(json.dumps([measure(*shape) for shape in SHAPES]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else os.cpu_count() or 1)
