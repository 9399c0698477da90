"""The tour: from three kinds of layer to what a trained CNN sees, on real digits, as one HTML report.

Every number in the report is computed where it is printed.
"""

from __future__ import annotations

import copy
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from . import data, draw, explain, nn, optim
from .autograd import gradcheck
from .grad_mode import no_grad
from .nn import functional as F
from .random import manual_seed
from .report import Page
from .tensor import Tensor, randn

BATCH = 40
SHIFT = 2                    # pixels each training digit may be moved by, along each axis
PEAK_RATE = 5e-3             # of the one-cycle schedule (Smith and Topin 2018), reached after 30 % of the steps
COMPARED_EPOCHS = 5          # enough for the three single layers to settle


def tour(out: str | os.PathLike[str] = "tour", *, epochs: int = 20, seed: int = 0) -> Path:
    """Run the whole tour and write the report.

    Args:
        out: folder for `report.html` and its pictures; made if it is not there.
        epochs: passes over the 4,000 training digits, at least 1.
        seed: for initial weights, shuffles, shifts and gradient ascent.

    Returns:
        The report's path.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    manual_seed(seed)
    train, test = data.mnist5k(train=True), data.mnist5k(train=False)
    page = Page("What a convolutional network sees",
                f"One tour through tinygrad_cnn on {len(train):,} real handwritten digits to learn from and {len(test):,} others to be "
                f"tested on: {epochs} epochs, seed {seed}.")
    compare_layers(page, folder, train, test)
    model, wrong = train_network(page, folder, train, test, epochs, seed)
    check_gradients(page, model, test)
    draw_graphs(page, folder, model, test)
    show_filters(page, folder, model, test)
    show_saliency(page, folder, model, test, wrong)
    show_ascent(page, folder, model, test, seed)
    page.section("How it was made")
    page.text(f"This page took {time.perf_counter() - started:.0f} seconds on {platform.machine()} with {os.cpu_count()} cores, Python "
              f"{platform.python_version()}; the time includes compiling the kernels if they were not cached. The same command with the "
              "same seed gives the same numbers on the same machine:")
    page.code(f"tinygrad-cnn tour --epochs {epochs} --seed {seed}")
    return page.save(folder / "report.html")


def network() -> nn.Sequential:
    """Three convolutions of 16, 32 and 64 filters with batch normalisation, and a linear layer on top."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(64 * 7 * 7, 10),
    )


def fit(model: nn.Module, train: Any, test: Any, epochs: int, *, label: str, shift: int = 0) -> tuple[list[float], list[float]]:
    """Train with Adam on a one-cycle schedule, each digit shifted at random; a progress bar tells loss and accuracy.

    Returns:
        The mean training loss and the test accuracy after each epoch.
    """
    from tqdm import tqdm
    batches = data.DataLoader(train, batch_size=BATCH, shuffle=True)
    optimizer = optim.Adam(model.parameters(), lr=PEAK_RATE)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=PEAK_RATE, total_steps=epochs * len(batches))
    losses, accuracies = [], []
    with tqdm(total=epochs * len(batches), desc=label, unit="batch", file=sys.stderr, mininterval=0.5) as bar:
        for _ in range(epochs):
            model.train()
            total = 0.0
            for images, labels in batches:
                scores = model(data.random_shift(images, shift) if shift else images)
                loss = F.cross_entropy(scores, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item() * len(labels)
                bar.update()
            losses.append(total / len(train))
            accuracies.append(float((predict(model, test).argmax(1) == test[:][1].numpy()).mean()))
            bar.set_postfix(loss=f"{losses[-1]:.3f}", accuracy=f"{accuracies[-1]:.1%}")
    return losses, accuracies


def predict(model: nn.Module, digits: Any) -> np.ndarray:
    """Class scores (n, 10) in eval mode, without a graph."""
    model.eval()
    with no_grad():
        return np.concatenate([model(images).numpy() for images, _ in data.DataLoader(digits, batch_size=250)])


def count(model: nn.Module) -> int:
    """The number of free parameters."""
    return sum(p.numel() for p in model.parameters())


def compare_layers(page: Page, folder: Path, train: Any, test: Any) -> None:
    """The same layer with fewer and fewer free numbers."""
    page.section("Fully connected, locally connected, convolutional")
    page.text(
        "A unit of a <b>fully connected</b> layer sees every pixel. But image statistics are <i>local</i>: what matters for a pixel is "
        "near it, so a <b>locally connected</b> unit sees only its window. And they are <i>stationary</i>: an edge here looks like an "
        "edge there, so in a <b>convolutional</b> layer all windows share their weights. Three layers, each giving the same "
        "14 × 14 × 8 numbers from a 28 × 28 digit, followed by a ReLU and one linear layer, trained alike:")
    width, extent, stride, padding, filters = 28, 4, 2, 1, 8
    size = (width - extent + 2 * padding) // stride + 1
    dense, local, shared = size * size * filters, size * size, extent * extent
    layers: list[tuple[str, nn.Module, str]] = [
        ("fully connected", nn.Sequential(nn.Flatten(), nn.Linear(width * width, dense)),
         f"(28·28)·(14·14·8) + 14·14·8 = {width**2 * dense + dense:,}"),
        ("locally connected", nn.LocallyConnected2d(1, filters, width, extent, stride=stride, padding=padding),
         f"14·14·((4·4·1)·8 + 8) = {local * (shared * filters + filters):,}"),
        ("convolutional", nn.Conv2d(1, filters, extent, stride=stride, padding=padding),
         f"(4·4·1)·8 + 8 = {shared * filters + filters:,}"),
    ]
    rows, curves = [], {}
    for name, layer, formula in layers:
        model = nn.Sequential(layer, nn.ReLU(), nn.Flatten(), nn.Linear(dense, 10))
        losses, accuracies = fit(model, train, test, COMPARED_EPOCHS, label=f"{name:<18}")
        curves[name] = accuracies
        correct = round(accuracies[-1] * len(test))
        rows.append([name, formula, count(layer), count(model), f"{losses[-1]:.3f}", f"{correct} of {len(test):,} ({accuracies[-1]:.1%})"])
    page.table(["layer", "its parameters, by the formula", "counted", "whole network", "training loss", "test digits right"], rows)
    page.text("Filter extent F = 4, stride S = 2, zero padding P = 1: the output is (W − F + 2P)/S + 1 = (28 − 4 + 2·1)/2 + 1 = "
              f"{size} wide, and K = 8 filters make it 8 deep.")
    plot(folder / "layers.png", curves, "epoch", "share of test digits right")
    page.figure(folder / "layers.png", "Test accuracy after each epoch.", width=560)
    gap = curves["fully connected"][-1] - curves["convolutional"][-1]
    place = "behind" if gap > 0 else "ahead of"
    page.text(f"The convolution's {count(layers[2][1])} numbers are {abs(gap) * 100:.1f} percentage points {place} the fully connected "
              f"layer's {count(layers[0][1]):,}. A layer that cheap can be stacked, and that is where it wins:")


def train_network(page: Page, folder: Path, train: Any, test: Any, epochs: int, seed: int) -> tuple[nn.Sequential, int | None]:
    """Train the network; returns it and the index of a test digit it gets wrong with most conviction."""
    page.section("A small convolutional network")
    manual_seed(seed)
    model = network()
    losses, accuracies = fit(model, train, test, epochs, label="CNN               ", shift=SHIFT)
    scores, labels = predict(model, test), test[:][1].numpy()
    correct = int((scores.argmax(1) == labels).sum())
    print(f"test accuracy: {correct / len(test):.1%} ({correct} of {len(test):,})")
    page.text(f"Each training digit is shifted by up to {SHIFT} pixels, anew every time. After {epochs} epochs of Adam the network gets "
              f"<b>{correct} of {len(test):,}</b> test digits right, <b>{correct / len(test):.1%}</b>, with {count(model):,} parameters.")
    page.table(["layer", "output size, (W − F + 2P)/S + 1", "output", "parameters, (F·F·D)·K + K", "counted"], derive(model, test[:1][0]))
    plot(folder / "training.png", {"training loss": losses, "test error": [1 - a for a in accuracies]}, "epoch", "", log=True)
    page.figure(folder / "training.png", "Training loss (on shifted digits, with dropout) and share of "
                "test digits wrong, after each epoch.", width=560)
    table = [[int(((labels == t) & (scores.argmax(1) == p)).sum()) or "" for p in range(10)] for t in range(10)]
    page.table(["true \\ answer", *map(str, range(10))], [[str(t), *row] for t, row in enumerate(table)])
    margin = scores.max(1) - scores[np.arange(len(labels)), labels]
    return model, int(margin.argmax()) if margin.max() > 0 else None


def derive(model: nn.Sequential, image: Tensor) -> list[list[object]]:
    """The lecture's formulas with this network's numbers in them, a row per layer."""
    rows: list[list[object]] = []
    x = image
    with no_grad():
        for name, layer in model.named_children():
            width, depth = x.shape[-1], x.shape[1]
            x = layer(x)
            size = parameters = ""
            if isinstance(layer, nn.Conv2d):
                f, s, p, k = layer.kernel_size[0], layer.stride[0], layer.padding[0], layer.out_channels
                size = f"({width} − {f} + 2·{p})/{s} + 1 = {(width - f + 2 * p) // s + 1}"
                parameters = f"({f}·{f}·{depth})·{k} + {k} = {f * f * depth * k + k:,}"
            elif isinstance(layer, nn.MaxPool2d):
                f = int(layer.kernel_size)
                size = f"({width} − {f} + 2·0)/{f} + 1 = {(width - f) // f + 1}"
            elif isinstance(layer, nn.Linear):
                d, k = layer.in_features, layer.out_features
                parameters = f"{d:,}·{k} + {k} = {d * k + k:,}"
            elif isinstance(layer, nn.BatchNorm2d):
                parameters = f"2·{depth} = {2 * depth}"
            rows.append([f"{name} {type(layer).__name__}", size, " × ".join(map(str, x.shape[1:])), parameters, count(layer)])
    rows.append(["all", "", "", "", count(model)])
    return rows


def check_gradients(page: Page, model: nn.Sequential, test: Any) -> None:
    """Compare the trained network's gradients with differences, element by element, in float64."""
    page.section("Are the gradients right?")
    double = network().double()
    double.load_state_dict(model.state_dict())
    double.eval()
    image = (test[:2][0].double() + 0.1 * randn(2, 1, 28, 28, dtype=np.float64)).requires_grad_()
    chosen = [p for p in double.parameters() if p.numel() < 1000]        # two forward passes per element: leave out the large ones
    cotangent = randn(2, 10, dtype=np.float64)
    started = time.perf_counter()
    gradcheck(lambda image, *_: (double(image) * cotangent).sum(), (image, *chosen))
    elements = sum(t.numel() for t in (image, *chosen))
    page.text("On a flat background all pixels of a pooling window tie, and a maximum has no derivative there; so a little noise is "
              "added to two test digits. "
              f"The gradient of a random mixture of their ten scores with respect to each of their {image.numel():,} pixels, "
              f"and to {elements - image.numel():,} of the parameters, was compared with central differences, one element at a time, in "
              f"float64: all {elements:,} agree within 10<sup>−5</sup> + 10<sup>−3</sup> of the value "
              f"({time.perf_counter() - started:.0f} s). A wrong one would have stopped the tour.")
    page.code("tg.autograd.gradcheck(\n    lambda image, *parameters: (model(image) * cotangent).sum(), (image, *parameters))")


def draw_graphs(page: Page, folder: Path, model: nn.Sequential, test: Any) -> None:
    """The layers, and the recorded computation."""
    page.section("The graph")
    images, labels = test[:8]
    picture = draw.model(model, images[:1])
    for suffix in ("svg", "png"):
        draw.save(picture, folder / f"model.{suffix}")
    page.text("The layers, their output shapes and parameters:")
    page.figure(folder / "model.svg", "The network, drawn from one run of it.", alt="graph of the layers")
    learner = copy.deepcopy(model).train()     # a copy: a run in training mode moves the running statistics
    loss = F.cross_entropy(learner(images), labels)
    tape = draw.graph(loss, params=dict(learner.named_parameters()))
    for suffix in ("svg", "png"):
        draw.save(tape, folder / f"graph.{suffix}")
    page.text("And the same network in training, as the engine records it for a loss on eight digits: every operation, and what it "
              "keeps until backward has passed it.")
    page.figure(folder / "graph.svg", "The recorded operations of one loss.", alt="graph of the recorded operations")


def show_filters(page: Page, folder: Path, model: nn.Sequential, test: Any) -> None:
    """First-layer filters as images, and what comes out of both convolutions."""
    page.section("A hierarchy of filters")
    explain.filters(model[0], columns=8).save(folder / "filters.png")
    page.text("First-layer filters live in the space of images, so they can be drawn as they are: 5 × 5 pixels, all on one scale, "
              "grey is 0, white positive, black negative. Look for edges of one direction.")
    page.figure(folder / "filters.png", "The 16 filters of the first convolution.", width=480)
    image = test[:1][0]
    explain.grid(image, enlarge=4).save(folder / "digit.png")
    page.text("What each layer responds to in one test digit, after the ReLU; black is no response. Deeper responses are "
              "coarser, and of more kinds:")
    page.figure(folder / "digit.png", "The digit.")
    for layer, index in (("2", 1), ("6", 2), ("10", 3)):
        activations = explain.activations(model, image, layer)
        explain.activation_grid(activations, columns=8 * index).save(folder / f"activations_{index}.png")
        shape = " × ".join(map(str, activations.shape[2:]))
        page.figure(folder / f"activations_{index}.png", f"Convolution {index}: {activations.shape[1]} responses of {shape}, "
                    f"{float((activations == 0).double().mean()):.0%} of them zero.", width=640)


def show_saliency(page: Page, folder: Path, model: nn.Sequential, test: Any, wrong: int | None) -> None:
    """Which pixels a right and a wrong answer depend on."""
    page.section("Which part of the image does a neuron respond to?")
    page.text("Fix the parameters, run the digit forward, set the gradient of one class score, <i>before softmax</i>, to one, and run "
              "backward to the pixels. Bright: changing this pixel changes the score most.")
    scores, labels = predict(model, test), test[:][1].numpy()
    right = int(np.flatnonzero(scores.argmax(1) == labels)[0])
    cases: list[tuple[str, int, str]] = [("right", right, "answered rightly")]
    if wrong is not None:
        cases.append(("wrong", wrong, "answered wrongly"))
    for name, index, verdict in cases:
        image, answer, truth = test[index : index + 1][0], int(scores[index].argmax()), int(labels[index])
        classes = [answer] if answer == truth else [answer, truth]
        rows = [explain.saliency_map(explain.saliency(model, image, k)) for k in classes]
        panels = [as_grey(image), *map(as_grey, rows)]
        explain.grid(np.concatenate(panels), columns=len(panels), enlarge=7).save(folder / f"saliency_{name}.png")
        what = f"for its answer, {answer} (score {scores[index, answer]:.1f})"
        if answer != truth:
            what += f", and for the truth, {truth} (score {scores[index, truth]:.1f})"
        page.figure(folder / f"saliency_{name}.png", f"A digit {verdict}, and its saliency {what}.")
    if wrong is None:
        page.text("No test digit was answered wrongly, so there is no wrong answer to look into.")


def as_grey(values: Any) -> np.ndarray:
    """A digit or a map as (1, 1, H, W), its largest value 1."""
    array = np.asarray(values, np.float64).reshape(1, 1, *np.shape(values)[-2:])
    return array / max(array.max(), 1e-12)


def show_ascent(page: Page, folder: Path, model: nn.Sequential, test: Any, seed: int) -> None:
    """The images the ten classes like best."""
    page.section("Which image does a neuron like best?")
    page.text("I* = argmax f(I) + R(I): f is a class score before softmax, R takes off for large pixels (L2) and for differences "
              "between neighbours (total variation). Five steps: (1) start from zeros, (2) run the image forward, (3) set the gradient of "
              "the chosen score to one and run backward to the pixels, (4) take a small step uphill, (5) repeat.")
    recipe: dict[str, Any] = {"regularizers": (explain.l2(0.1), explain.total_variation(0.5)), "lr": 0.1, "seed": seed}
    result = explain.maximize(model, explain.class_logit(range(10)), start="zeros", shape=(1, 28, 28), steps=150, **recipe)
    result.picture(columns=5, enlarge=4).save(folder / "ascent.png")
    page.figure(folder / "ascent.png", f"{len(result.history) - 1} steps from zeros for the classes 0 to 4 (top) and 5 to 9 (bottom).",
                width=600)
    reached = [f"{float(v):.1f}" for v in np.ravel(result.activation)]
    typical = [f"{float(np.median(s)):.1f}" for s in own_scores(model, test)]
    page.table(["class", *map(str, range(10))], [["score reached", *reached],
                                                 ["median score of real digits of the class", *typical]])
    labels = test[:][1].numpy()
    source, target = int(np.flatnonzero(labels == 4)[0]), 9
    image = test[source : source + 1][0]
    moved = explain.maximize(model, explain.class_logit(target), start=image, steps=50, **recipe)
    change = moved.image.numpy() - image.numpy()
    explain.grid(np.concatenate([image.numpy(), moved.image.numpy(), change]), columns=3, enlarge=7).save(folder / "ascent_from_image.png")
    page.text("From an existing image the same steps show what the network would change:")
    page.figure(folder / "ascent_from_image.png", f"A {labels[source]}, the same after ascent on the score of {target} "
                f"(from {predict_one(model, image, target):.1f} to {predict_one(model, moved.image, target):.1f}), and the difference.")


def own_scores(model: nn.Module, test: Any) -> list[np.ndarray]:
    """For each class, the scores its own test digits get for it."""
    scores, labels = predict(model, test), test[:][1].numpy()
    return [scores[labels == k, k] for k in range(10)]


def predict_one(model: nn.Module, image: Tensor, k: int) -> float:
    """The score of one class for one image."""
    with no_grad():
        return float(model(image)[0, k])


def plot(path: Path, curves: dict[str, list[float]], xlabel: str, ylabel: str, *, log: bool = False) -> None:
    """A small line plot, a curve per name."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, ScalarFormatter
    figure = Figure(figsize=(5.6, 3.2), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, values in curves.items():
        axes.plot(range(1, len(values) + 1), values, marker="o", markersize=3.5, linewidth=1.6, label=name)
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)


