"""What float32 costs in the gradients of whole networks, beside PyTorch.

    python -m tests.bench.gradient_errors            prints a table
    python -m tests.bench.gradient_errors --write    puts it into docs/benchmarks.md, too

Errors are norms of differences from PyTorch's float64 gradient of the same weights, images and labels, relative to its norm, of all
parameters together, in training mode. Seeds differ in weights, images and labels.
"""

import argparse
import statistics
from collections.abc import Iterator

import numpy as np
import torch
from tqdm import tqdm

import tinygrad_cnn as tg

from .networks import IMAGES, Network, densenet, mobilenet, resnet18
from .tables import replace_section, table
from .versus_torch import DOCUMENT, machine

SECTION = "gradient_errors"
NETWORKS: dict[str, Network] = {"ResNet-18": resnet18, "DenseNet-like": densenet, "MobileNet-like": mobilenet}
BATCHES = (2, 32)
ALGORITHMS = ("direct", "auto")
FLIP = 1e-4  # errors above it come from decisions, such as a ReLU's, that rounding turned; those of rounding alone are far below


def _sample(network: Network, batch: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Weights as PyTorch draws them, images and labels."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    state = {name: value.numpy().copy() for name, value in network(torch).state_dict().items()}
    return state, random.standard_normal((batch, *IMAGES[network]), np.float32), random.integers(0, 10, batch)


def torch_gradient(network: Network, state: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """PyTorch's gradient of the cross-entropy in all parameters, one behind the other."""
    model = network(torch)
    model.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    model.to(dtype)
    torch.nn.functional.cross_entropy(model(torch.tensor(images).to(dtype)), torch.tensor(labels)).backward()
    return np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])


def our_gradient(network: Network, state: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The same of this package, in float32."""
    model = network(tg)
    model.load_state_dict({name: tg.tensor(value) for name, value in state.items()})
    tg.nn.functional.cross_entropy(model(tg.tensor(images)), tg.tensor(labels)).backward()
    return np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])


def errors(network: Network, batch: int, seed: int) -> list[float]:
    """Relative errors of PyTorch's float32 gradient and of ours by each of `ALGORITHMS`."""
    sample = _sample(network, batch, seed)
    exact = torch_gradient(network, *sample, torch.float64)
    gradients, before = [torch_gradient(network, *sample, torch.float32)], tg.backends.conv.algorithm
    try:
        for algorithm in ALGORITHMS:
            tg.backends.conv.algorithm = algorithm
            gradients.append(our_gradient(network, *sample))
    finally:
        tg.backends.conv.algorithm = before
    return [float(np.linalg.norm(gradient - exact) / np.linalg.norm(exact)) for gradient in gradients]


def rows(seeds: int, progress: tqdm) -> Iterator[list[str]]:
    """Of each network and batch: medians, their ratios to PyTorch's, the worst, and how many seeds turned a decision."""
    for name, network in NETWORKS.items():
        for batch in BATCHES:
            progress.set_description(f"{name}, batch {batch}")
            found = []
            for seed in range(seeds):
                found.append(errors(network, batch, seed))
                progress.update()
            medians = [statistics.median(engine) for engine in zip(*found, strict=True)]
            yield [f"{name}, batch {batch}",
                   *(f"{m:.1e}" + f" ({m / medians[0]:.1f})" * (i > 0) for i, m in enumerate(medians)),
                   *(f"{max(engine):.1e}" for engine in zip(*found, strict=True)),
                   " / ".join(str(sum(error > FLIP for error in engine)) for engine in zip(*found, strict=True))]


def main() -> None:
    """Measures, prints the table, and writes it to the document if asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gradient_errors", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--write", action="store_true", help=f"replace the section {SECTION} of {DOCUMENT.name}")
    options = parser.parse_args()
    engines = ["PyTorch", *ALGORITHMS]
    with tqdm(total=options.seeds * len(NETWORKS) * len(BATCHES), leave=False) as progress:
        body = table(["gradient", *(f"median, {e}" for e in engines), *(f"worst, {e}" for e in engines), f"above {FLIP:.0e}"],
                     rows(options.seeds, progress))
    report = (f"{machine()}. {options.seeds} seeds, float32; in brackets the ratio to PyTorch's median. The last column counts the seeds "
              f"with an error above {FLIP:.0e}: {', '.join(engines)}.\n\n{body}")
    print(report)
    if options.write:
        DOCUMENT.write_text(replace_section(DOCUMENT.read_text(encoding="utf-8"), SECTION, report), encoding="utf-8")


if __name__ == "__main__":
    main()
