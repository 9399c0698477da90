"""What is measured, and the targets: each workload is written once and runs on either engine through its public names."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from .networks import IMAGES, Network, lenet, mobilenet, resnet18, small, vgg

OURS, NCHW, CHANNELS_LAST = "ours", "torch NCHW", "torch channels_last"
ENGINES = (OURS, NCHW, CHANNELS_LAST)

Calls = list[Callable[[], object]]  # one for each part of a workload


class Engine:
    """One of `ENGINES`, its threads set, and how its images and models lie in memory."""

    def __init__(self, name: str, threads: int) -> None:
        self.ours, self.channels_last = name == OURS, name != NCHW
        self.tg: Any = importlib.import_module("tinygrad_cnn" if self.ours else "torch")
        if hasattr(self.tg, "set_num_threads"):
            self.tg.set_num_threads(threads)
        self.tg.manual_seed(0)

    def normal(self, n: int, c: int, h: int, w: int) -> Any:
        """Standard normal images (N, C, H, W) in the engine's layout."""
        return self.tg.randn(n, h, w, c).permute(0, 3, 1, 2) if self.channels_last else self.tg.randn(n, c, h, w)

    def place(self, model: Any) -> Any:
        """The model with its weights in the engine's layout; our layers lay theirs themselves."""
        return model if self.ours or not self.channels_last else model.to(memory_format=self.tg.channels_last)


def convolution(engine: Engine, n: int, c: int, size: int, k: int, kernel: int, stride: int, groups: int) -> Calls:
    """Forward with bias; then both gradients together, and each alone."""
    grad, conv2d = engine.tg.autograd.grad, engine.tg.nn.functional.conv2d
    layer = engine.place(engine.tg.nn.Conv2d(c, k, kernel, groups=groups))
    layer.bias.requires_grad_(False)
    x, w = engine.normal(n, c, size, size).requires_grad_(True), layer.weight
    y = conv2d(x, w, layer.bias, stride, kernel // 2, 1, groups)
    g = engine.normal(*y.shape)
    return [lambda: conv2d(x, w, layer.bias, stride, kernel // 2, 1, groups), lambda: grad(y, (x, w), g, retain_graph=True),
            lambda: grad(y, x, g, retain_graph=True), lambda: grad(y, w, g, retain_graph=True)]


def training_step(engine: Engine, network: Network, batch: int) -> Calls:
    """Gradients cleared, forward, cross-entropy, backward, SGD with momentum."""
    tg = engine.tg
    model = engine.place(network(tg))
    x, labels = engine.normal(batch, *IMAGES[network]), tg.arange(batch) % 10
    optimizer = tg.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        tg.nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return [step]


def inference(engine: Engine, network: Network, batch: int) -> Calls:
    """Evaluation mode, nothing recorded."""
    model, x = engine.place(network(engine.tg)).eval(), engine.normal(batch, *IMAGES[network])

    def step() -> None:
        with engine.tg.no_grad():
            model(x)

    return [step]


def ascent(engine: Engine, network: Network) -> Calls:
    """One logit's gradient with respect to one image, added to the image; parameters frozen."""
    tg = engine.tg
    model = engine.place(network(tg)).eval()
    for p in model.parameters():
        p.requires_grad_(False)
    image = engine.normal(1, *IMAGES[network]).requires_grad_(True)

    def step() -> None:
        nonlocal image
        (gradient,) = tg.autograd.grad(model(image)[0, 3], image)
        with tg.no_grad():
            image += 0.1 * gradient

    return [step]


def first_gradient(engine: Engine) -> None:
    """A small CNN's gradient, nothing warm."""
    x = engine.normal(8, *IMAGES[small])
    engine.tg.nn.functional.cross_entropy(small(engine.tg)(x), engine.tg.arange(8)).backward()


@dataclass(frozen=True)
class Workload:
    """`prepare` builds it on an engine and returns the call of each of its `parts`."""

    name: str
    kind: str
    parts: tuple[str, ...]
    prepare: Callable[[Engine], Calls]


DENSE, FIRST = "3x3 of stride 1, 32 or more channels", "first layers, 1 or 3 channels"
LIGHT, OTHER = "1x1, stride 2, grouped, depthwise", "other sizes"
LENET_STEP, DEEP_STEP, MOBILE_STEP = "training step, LeNet-size", "training step, VGG-like and ResNet-18", "training step, MobileNet-like"
INFERENCE, ASCENT, MEMORY, START = "inference", "ascent step on one image", "peak memory of a training step", "new process"

# of each kind (N, C, H = W, K, kernel, stride, groups); padded by half the kernel
CONVOLUTIONS = {
    DENSE: [(32, 32, 28, 64, 3, 1, 1), (1, 64, 56, 64, 3, 1, 1), (8, 64, 56, 64, 3, 1, 1), (8, 128, 28, 128, 3, 1, 1), (64, 128, 16, 128, 3, 1, 1),
            (8, 256, 14, 256, 3, 1, 1), (64, 256, 8, 256, 3, 1, 1), (8, 512, 7, 512, 3, 1, 1), (32, 512, 4, 512, 3, 1, 1)],
    FIRST: [(64, 1, 28, 6, 5, 1, 1), (64, 1, 28, 16, 3, 1, 1), (32, 3, 32, 64, 3, 1, 1), (16, 3, 96, 32, 3, 2, 1), (8, 3, 112, 64, 7, 2, 1)],
    LIGHT: [(8, 64, 28, 256, 1, 1, 1), (8, 256, 28, 64, 1, 1, 1), (16, 512, 6, 512, 1, 1, 1), (32, 64, 32, 128, 1, 2, 1),
            (8, 64, 56, 128, 3, 2, 1), (32, 128, 16, 256, 3, 2, 1), (8, 64, 28, 64, 3, 1, 4), (8, 128, 28, 128, 3, 1, 32),
            (8, 64, 56, 64, 3, 1, 64), (8, 64, 28, 64, 5, 1, 64), (16, 256, 12, 256, 3, 2, 256)],
    OTHER: [(64, 6, 14, 16, 5, 1, 1), (64, 16, 14, 32, 3, 1, 1), (8, 32, 28, 64, 5, 1, 1), (8, 32, 28, 32, 7, 1, 1)],
}
GRADIENTS = ("forward", "backward", "input gradient", "weight gradient")
STEPS = {"LeNet-size": (lenet, (8, 64), LENET_STEP), "VGG-like": (vgg, (64,), DEEP_STEP),
         "ResNet-18": (resnet18, (32,), DEEP_STEP), "MobileNet-like": (mobilenet, (16,), MOBILE_STEP)}


def _convolution(kind: str, n: int, c: int, size: int, k: int, kernel: int, stride: int, groups: int) -> Workload:
    name = f"conv {n}x{c}x{size}x{size}, {k} of {kernel}x{kernel}" + f", stride {stride}" * (stride > 1)
    name += ", depthwise" if groups == c > 1 else f", {groups} groups" * (groups > 1)
    return Workload(name, kind, GRADIENTS, partial(convolution, n=n, c=c, size=size, k=k, kernel=kernel, stride=stride, groups=groups))


WORKLOADS = {w.name: w for w in [
    *(_convolution(kind, *shape) for kind, shapes in CONVOLUTIONS.items() for shape in shapes),
    *(Workload(f"training step, {name}, batch {batch}", kind, ("time",), partial(training_step, network=network, batch=batch))
      for name, (network, batches, kind) in STEPS.items() for batch in batches),
    *(Workload(f"inference, {name}, batch {batch}", INFERENCE, ("time",), partial(inference, network=network, batch=batch))
      for name, (network, _, _) in STEPS.items() for batch in (1, 8)),
    *(Workload(f"ascent step, {name}", ASCENT, ("time",), partial(ascent, network=STEPS[name][0])) for name in ("VGG-like", "ResNet-18")),
]}


@dataclass(frozen=True)
class Target:
    """Least ratio torch / ours of a kind's part: by geometric `mean`, and of the `lowest`; or the most `seconds` of ours."""

    kind: str
    part: str
    mean: float | None = None
    lowest: float | None = None
    seconds: float | None = None


IMPORT, COLD, WARM = "import", "first gradient, empty cache", "first gradient, warm cache"
GROWTH, TOTAL = "growth", "whole process"
TARGETS = [
    Target(DENSE, "forward", 1.6, 1.0), Target(DENSE, "backward", 1.4, 1.0),
    Target(FIRST, "forward", lowest=1.2), Target(FIRST, "backward", lowest=2.5),
    Target(LIGHT, "forward", 1.2, 1.0), Target(LIGHT, "backward", 1.2, 1.0),
    Target(LENET_STEP, "time", lowest=2.0), Target(DEEP_STEP, "time", lowest=1.6), Target(MOBILE_STEP, "time", lowest=1.3),
    Target(INFERENCE, "time", mean=1.5), Target(ASCENT, "time", lowest=1.6), Target(MEMORY, GROWTH, lowest=1.0), Target(MEMORY, TOTAL, lowest=1.0),
    Target(START, IMPORT, seconds=0.3), Target(START, COLD, seconds=20.0), Target(START, WARM, seconds=1.0),
]
