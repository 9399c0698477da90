"""What to look for, f(I): a number per image that says how much of it is there.

An objective says which layers it reads and how their outputs become one number per image. Any function of the model's
output does too: `lambda output: output[:, 3] - output[:, 8]`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..nn import Module
from ..tensor import Tensor
from .layers import Layer, read

Units = int | Sequence[int] | np.ndarray | Tensor
"""One unit for every image, or one per image."""


@dataclass(frozen=True)
class Objective:
    """f(I), read from some layers of a model.

    Attributes:
        label: what pictures and errors call it.
        layers: the names of the layers it reads, or the modules; None is the model's output.
        score: from the outputs by layer to one number per image, (N,).
        images: the number of images it is about, if it says so itself.
        logit: it means a class score before softmax, so an output behind one is not what is wanted.

    Example:
        >>> import tinygrad_cnn as tg
        >>> from tinygrad_cnn import explain
        >>> energy = explain.Objective("energy of conv", ("0",), lambda outputs: outputs["0"].square().mean((1, 2, 3)))
        >>> explain.saliency(tg.nn.Sequential(tg.nn.Conv2d(1, 4, 3)), tg.ones(2, 1, 8, 8), energy).shape
        (2, 1, 8, 8)
    """

    label: str
    layers: tuple[Layer, ...]
    score: Callable[[Mapping[Layer, Tensor]], Tensor]
    images: int | None = None
    logit: bool = False


def _units(function: str, argument: str, units: Units) -> int | np.ndarray:
    """One index, or an array of them; IndexError for negative ones, TypeError for what is no index."""
    index = np.asarray(list(units) if isinstance(units, Sequence) else units)
    if index.dtype.kind not in "iu" or index.ndim > 1 or not index.size:
        raise TypeError(f"{function}: {argument} must be an integer, or one per image, got {units!r}")
    if index.min() < 0:
        raise IndexError(f"{function}: {argument} must be 0 or more, got {index.min()}")
    return index if index.ndim else int(index)


def _pick(label: str, argument: str, output: Tensor, index: int | np.ndarray) -> Tensor:
    """The wanted unit of each image: (N, K, ...) -> (N, ...)."""
    if np.max(index) >= output.shape[1]:
        raise IndexError(f"{label}: {argument} {np.max(index)} is out of range, there are {output.shape[1]} (output {output.shape})")
    if isinstance(index, int):
        return output[:, index]
    if len(index) != len(output):
        raise ValueError(f"{label}: got {len(index)} values of {argument} for {len(output)} images; pass one, or one per image")
    return output[np.arange(len(index)), index]


def _named(units: int | np.ndarray) -> str:
    return str(units if isinstance(units, int) else units.tolist())


def class_logit(k: Units, layer: Layer = None) -> Objective:
    """The score of a class *before* softmax.

    After softmax a score also grows when the others shrink, and near 1 its gradient is nearly zero.

    Args:
        k: the class, 0 or more; or one per image, such as `range(10)` for ten images.
        layer: where the scores come out, (N, classes); the model's output by default.

    Source: Simonyan, Vedaldi and Zisserman 2013, section 2 ("unnormalised class scores").
    """
    index = _units("class_logit", "class", k)
    label = f"class_logit({_named(index)}{'' if layer is None else f', layer={layer!r}'})"

    def score(outputs: Mapping[Layer, Tensor]) -> Tensor:
        scores = outputs[layer]
        if scores.ndim != 2:
            raise ValueError(f"{label}: wanted class scores of shape (N, classes), got {scores.shape}; take neuron() or channel() of a map")
        return _pick(label, "class", scores, index)

    return Objective(label, (layer,), score, None if isinstance(index, int) else len(index), logit=True)


def neuron(layer: Layer, channel: Units, row: int | None = None, col: int | None = None) -> Objective:
    """One neuron of a layer.

    Args:
        layer: its name, or the layer itself; None is the model's output.
        channel: the channel of a map (N, C, H, W), or the feature of an (N, features) output; one, or one per image.
        row, col: the place in the map, 0 or more; the centre by default, where the image reaches it from all sides.
    """
    index = _units("neuron", "channel", channel)
    place = "" if row is None and col is None else f", row={row}, col={col}"
    label = f"neuron({layer!r}, {_named(index)}{place})"

    def score(outputs: Mapping[Layer, Tensor]) -> Tensor:
        picked = _pick(label, "channel", outputs[layer], index)
        if picked.ndim == 1:
            if place:
                raise ValueError(f"{label}: the layer gives {outputs[layer].shape}, which has no rows and columns; leave row and col out")
            return picked
        if picked.ndim != 3:
            raise ValueError(f"{label}: wanted an output (N, C, H, W) or (N, features), got {outputs[layer].shape}")
        spot = [size // 2 if at is None else at for at, size in zip((row, col), picked.shape[1:], strict=True)]
        if not all(0 <= at < size for at, size in zip(spot, picked.shape[1:], strict=True)):
            raise IndexError(f"{label}: the layer's map has {picked.shape[1]} rows and {picked.shape[2]} columns")
        return picked[:, spot[0], spot[1]]

    return Objective(label, (layer,), score, None if isinstance(index, int) else len(index))


def channel(layer: Layer, channel: Units) -> Objective:
    """The mean of one channel of a layer over all places: what its filter looks for, wherever it is.

    Args:
        layer: its name, or the layer itself; None is the model's output.
        channel: the channel of a map (N, C, H, W); one, or one per image.

    Source: Olah, Mordvintsev and Schubert 2017, "Feature Visualization", Optimization Objectives.
    """
    index = _units("channel", "channel", channel)
    label = f"channel({layer!r}, {_named(index)})"

    def score(outputs: Mapping[Layer, Tensor]) -> Tensor:
        picked = _pick(label, "channel", outputs[layer], index)
        if picked.ndim != 3:
            raise ValueError(f"{label}: wanted an output (N, C, H, W), got {outputs[layer].shape}; take neuron() of a layer without a map")
        return picked.mean((1, 2))

    return Objective(label, (layer,), score, None if isinstance(index, int) else len(index))


def as_objective(function: str, target: Any) -> Objective:
    """What a caller may say instead of an Objective: a class, a class per image, or a function of the model's output."""
    if isinstance(target, Objective):
        return target
    if callable(target):
        return Objective(getattr(target, "__name__", repr(target)), (None,), lambda outputs: target(outputs[None]))
    try:
        return class_logit(target)
    except TypeError:
        raise TypeError(f"{function}: wanted a class, a class per image, an Objective such as neuron(layer, channel), or a function of the "
                        f"model's output, got {target!r}") from None


def evaluate(function: str, model: Any, image: Tensor, objective: Objective) -> tuple[Tensor, Mapping[Layer, Tensor]]:
    """f(I) of each image, (N,), and what it was read from: the forward pass, on a copy that the model may write into."""
    outputs = read(function, model, image.clone(), objective.layers)
    f = objective.score(outputs)
    if not isinstance(f, Tensor) or f.shape not in ((len(image),), () if len(image) == 1 else (len(image),)):
        came = f"shape {f.shape}" if isinstance(f, Tensor) else type(f).__name__
        raise ValueError(f"{function}: {objective.label} must give one number per image, shape ({len(image)},), got {came}")
    return f.reshape(len(image)), outputs


def warn_of_softmax(function: str, model: Any, objective: Objective, outputs: Mapping[Layer, Tensor]) -> None:
    """Warn if a class score comes out of a softmax: the recorded graph knows, be it a layer or a function."""
    edge = outputs[objective.layers[0]]._edge if objective.logit else None
    while edge is not None and edge[0].edges and edge[0].primitive.view:         # look through a reshape
        edge = edge[0].edges[0]
    kind = edge[0].primitive.name.strip("_") if edge is not None and edge[0].edges else ""
    if kind in ("softmax", "log_softmax"):
        names = [name for name, module in model.named_modules() if name and not module._modules] if isinstance(model, Module) else []
        warnings.warn(f"{function}: {objective.label} is read behind a {kind}, where a score also grows by making the others small; the "
                      "score before it is wanted. Name the layer it comes out of: class_logit(k, layer=...)"
                      + (f"; the layers: {', '.join(names)}" if names else ""), stacklevel=3)
