"""Compile the common kernels ahead of time, so that no first call makes anyone wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tqdm import tqdm

from . import nn, optim
from .kernels import jit
from .tensor import Tensor, randn, zeros

# Name, images (N, C, H, W), layers: together they meet every algorithm that float32 images usually need.
NETWORKS: list[tuple[str, tuple[int, int, int, int], Callable[[Any], list[nn.Module]]]] = [
    ("first layer and pooling", (2, 3, 12, 12), lambda t: [
        nn.Conv2d(3, 32, 3, padding=1, dtype=t), nn.BatchNorm2d(32, dtype=t), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 16, 3, stride=2, padding=1, dtype=t), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4, dtype=t)]),
    ("digits", (2, 1, 12, 12), lambda t: [
        nn.Conv2d(1, 6, 5, padding=2, dtype=t), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5, dtype=t), nn.ReLU(), nn.Flatten(),
        nn.Dropout(), nn.Linear(64, 4, dtype=t)]),
    ("3x3 convolutions of many pixels", (8, 32, 32, 32), lambda t: [
        nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1, dtype=t), nn.Conv2d(32, 32, 3, padding=1, dtype=t), nn.AvgPool2d(32), nn.Flatten()]),
    ("3x3 convolutions of few pixels", (4, 256, 8, 8), lambda t: [
        nn.Conv2d(256, 256, 3, padding=1, dtype=t), nn.Conv2d(256, 256, 3, padding=1, dtype=t), nn.AdaptiveAvgPool2d(1), nn.Flatten()]),
    ("depthwise and 1x1 convolutions", (2, 16, 12, 12), lambda t: [
        nn.Conv2d(16, 16, 3, padding=1, groups=16, dtype=t), nn.BatchNorm2d(16, dtype=t), nn.ReLU(), nn.Conv2d(16, 32, 1, dtype=t),
        nn.Conv2d(32, 32, 3, stride=2, padding=1, groups=8, dtype=t), nn.AdaptiveAvgPool2d(1), nn.Flatten()]),
]


def _step(layers: nn.Sequential, images: Tensor) -> None:
    """All that training, evaluating and looking at the input's gradient compute, once."""
    optimizers: list[Any] = [kind(layers.parameters(), lr=0.0) for kind in (optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop)]
    layers.train()
    loss = nn.CrossEntropyLoss()(layers(images.requires_grad_()), zeros(images.shape[0], dtype=np.int64))
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    layers.eval()(images)


def warmup(*, double: bool = False) -> int:
    """Compile the kernels that common networks use, for one thread and for several, into the cache on disk.

    Args:
        double: float64 too, as gradient checks use it.

    Returns:
        How many networks were run.
    """
    runs = [(name, shape, layers, dtype, parallel) for dtype in ((np.float32, np.float64) if double else (np.float32,))
            for name, shape, layers in NETWORKS for parallel in (False, True)]
    with tqdm(runs, desc="compiling", unit="network") as bar:
        for name, shape, layers, dtype, parallel in bar:
            bar.set_postfix_str(f"{name}, {np.dtype(dtype).name}, {'all threads' if parallel else 'one thread'}")
            with jit.forced(parallel):
                _step(nn.Sequential(*layers(dtype)), randn(*shape, dtype=dtype))
    return len(runs)
