"""What does this neuron want to see? Gradient ascent on the image: I* = argmax f(I) + R(I).

Four parts, each by itself: what to look for (`objectives`), what the image begins as (`first_image`), what it should look
like (`regularizers`), and how steep f counts (`slope_one`). `maximize` is the loop around them.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..grad_mode import enable_grad
from ..nn import Module
from ..random import manual_seed
from ..tensor import Tensor, from_numpy
from .layers import as_input, untouched
from .objectives import Objective, Units, as_objective, evaluate, warn_of_softmax
from .picture import Picture, grid
from .regularizers import l2, total_variation
from .saliency import pixel_gradient

NOISE = 0.1
"""Standard deviation of the "noise" start, as a share of the range of the pixel values."""
REGULARIZERS = (l2(0.1), total_variation(0.3))
"""Chosen by eye on small digit networks, with and without batch norm: the weakest that leave strokes and no speckle."""


@dataclass(frozen=True)
class Maximized:
    """What `maximize` found.

    Attributes:
        image: the images, (N, C, H, W).
        activation: f of each image, without R, (N,).
        history: f before the first step and after each, (steps + 1, N).
        start: the images it began with, (N, C, H, W).
        unresponsive: the numbers of the images in which f had no gradient at any step, or that did not change: they show
            nothing of the unit.
        recipe: what is needed to do it again, as plain values, and the activation reached.
    """

    image: Tensor
    activation: np.ndarray
    history: np.ndarray
    start: Tensor
    unresponsive: tuple[int, ...]
    recipe: dict[str, Any]

    def picture(self, **options: Any) -> Picture:
        """The images as a grid, black to white over the bounds, with the recipe in the PNG's text chunks; options as in `grid`."""
        return grid(self.image, **{"info": self.recipe, "scale": self.recipe["bounds"], **options})


def first_image(start: str | Tensor | np.ndarray, shape: Sequence[int] | None, images: int | None,
                bounds: tuple[float, float] | None, seed: int, dtype: Any) -> Tensor:
    """The image ascent begins with: zeros, noise, or a copy of a given one, once for each of the wanted images.

    Args:
        start: "zeros", "noise", or images (C, H, W) or (N, C, H, W).
        shape: of one image, (C, H, W), for "zeros" and "noise".
        images: how many are wanted; None: as many as there are.
        bounds: the lowest and highest pixel value; noise is spread around their middle, or 0 without bounds.
        seed: of the noise.
        dtype: of zeros and noise; a given image keeps its own.

    Returns:
        (N, C, H, W).
    """
    if isinstance(start, str):
        if start not in ("zeros", "noise"):
            raise ValueError(f"maximize: start must be 'zeros', 'noise' or an image, got {start!r}")
        if shape is None or len(shape) != 3 or not all(isinstance(size, (int, np.integer)) and size > 0 for size in shape):
            raise ValueError(f"maximize: pass shape=(C, H, W), the shape of one image, with start={start!r}; got shape={shape}")
        sizes, (low, high) = (images or 1, *shape), bounds or (-0.5, 0.5)
        if start == "zeros":
            first = np.zeros(sizes)
        else:
            first = np.random.default_rng(seed).normal((low + high) / 2, NOISE * (high - low), sizes)
            first = first if bounds is None else first.clip(low, high)
        image = from_numpy(first.astype(dtype))
    else:
        if shape is not None:
            raise ValueError(f"maximize: a start image brings its own shape; leave shape={tuple(shape)} out")
        image = as_input("maximize", start)
        image = image.unsqueeze(0) if image.ndim == 3 else image                 # (C, H, W) -> (1, C, H, W)
        if image.ndim != 4 or 0 in image.shape:
            raise ValueError(f"maximize: a start image must have shape (C, H, W) or (N, C, H, W), got {image.shape}")
        if images not in (None, len(image)):
            if len(image) > 1:
                raise ValueError(f"maximize: the objective is about {images} images, start has {len(image)}")
            image = image.tile(images, 1, 1, 1)
    low, high = image.numpy().min(), image.numpy().max()
    if bounds is not None and not (bounds[0] <= low and high <= bounds[1]):
        raise ValueError(f"maximize: the start's pixels, {low:g} to {high:g}, do not lie in bounds={bounds}; pass the range of the pixels "
                         "the model was trained on, or None for no bounds")
    return image


def slope_one(gradient: np.ndarray) -> np.ndarray:
    """Each image's gradient divided by its root mean square; a zero gradient stays zero. (N, C, H, W) -> (N, C, H, W).

    So lr is a change of pixel values, and the weights of R mean the same, however steep f is: a logit or a neuron, this
    network or that. Where the steps come to rest, I is a stationary point of f + s R, with s the steepness of f there.

    Source: the normalised step of Mordvintsev, Olah and Tyka 2015, "Inceptionism" (there by the mean absolute value).
    """
    rms = np.sqrt(np.square(gradient, dtype=np.float64).mean((1, 2, 3), keepdims=True))
    return (gradient / np.where(rms > 0, rms, 1)).astype(gradient.dtype)


def _slope(regularizer: Callable[[Tensor], Tensor], image: Tensor) -> np.ndarray:
    """The gradient of R with respect to the pixels."""
    penalty = regularizer(image.clone())       # a copy, which may be written into
    if not isinstance(penalty, Tensor) or penalty.shape != (len(image),):
        raise ValueError(f"maximize: regularizer {_label(regularizer)} must give one number per image, a Tensor of shape ({len(image)},), "
                         f"got {penalty.shape if isinstance(penalty, Tensor) else type(penalty).__name__}")
    return pixel_gradient("maximize", f"regularizer {_label(regularizer)}", penalty, image).numpy()


def _label(function: Callable[..., Any]) -> str:
    return str(getattr(function, "label", None) or getattr(function, "__name__", repr(function)))


def _check_finite(objective: Objective, step: int, *arrays: np.ndarray) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise FloatingPointError(f"maximize: {objective.label} or a gradient is NaN or infinite at step {step}; take a smaller lr, "
                                 "or bounds")


def maximize(model: Module | Callable[[Tensor], Tensor], objective: Objective | Units | Callable[[Tensor], Tensor],
             start: str | Tensor | np.ndarray = "zeros", shape: Sequence[int] | None = None, steps: int = 100, lr: float = 0.05,
             regularizers: Sequence[Callable[[Tensor], Tensor]] = REGULARIZERS, bounds: tuple[float, float] | None = (0.0, 1.0),
             normalize: bool = True, seed: int = 0, progress: bool = True) -> Maximized:
    """Gradient ascent on the image, I* = argmax f(I) + R(I), with the weights held fixed.

    1. Start from a zero image, or from an existing one. 2. Forward: compute f(I), a neuron, or a class score before softmax.
    3. Set the gradient of f to one, and go backward to the pixels. 4. Change the image a little uphill. 5. Repeat from 2.

    Args:
        model: the model. It runs in eval mode on a copy of the image, and stays as it was; the gradient of its weights is not
            computed.
        objective: f. A class or one per image (`range(10)` makes ten images in one batch), an objective such as
            `neuron("conv2", 5)` or `channel("conv2", [0, 1, 2])`, or a function of the model's output to (N,).
        start: "zeros", "noise", or images (C, H, W) or (N, C, H, W), which are copied.
        shape: (C, H, W), the shape of one image, with "zeros" or "noise".
        steps: how often, 1 or more.
        lr: size of the first step; the others shrink linearly towards 0, so that the image comes to rest. With normalize
            the change of a pixel, root mean square, in units of pixel value.
        regularizers: R, functions from (N, C, H, W) to (N,) that are added to f: `l2`, `total_variation`, or your own.
        bounds: (lowest, highest) pixel value, the range the model was trained on; the image is cut to it after each step.
            Left open, pixels grow far beyond what the model ever saw.
        normalize: give the slope of f a root mean square of 1 before R's is added, so that lr and R's weights suit every
            network and layer; False climbs f + R as they are.
        seed: of the "noise" start and of whatever random the model does. The same call gives the same image, bit for bit.
        progress: show a bar on stderr with the mean activation.

    Returns:
        The images, the activations reached, and the recipe.

    Raises:
        ValueError: an argument out of its range; no such layer.
        RuntimeError: f does not depend on the image.
        FloatingPointError: f or a gradient is NaN or infinite.

    Warns:
        UserWarning: a class score behind softmax; an image that shows nothing, because its f had no gradient at any step, or
            R and the bounds left it no way.

    Example:
        >>> import tinygrad_cnn as tg
        >>> from tinygrad_cnn import explain
        >>> tg.manual_seed(0)
        >>> model = tg.nn.Sequential(tg.nn.Conv2d(1, 4, 3), tg.nn.Tanh(), tg.nn.Flatten(), tg.nn.Linear(144, 10))
        >>> found = explain.maximize(model, range(10), shape=(1, 8, 8), steps=20, progress=False)
        >>> found.image.shape
        (10, 1, 8, 8)
        >>> bool((found.activation > found.history[0]).all())
        True

    Source: Erhan, Bengio, Courville and Vincent 2009; Simonyan, Vedaldi and Zisserman 2013, equation 1.
    """
    objective = as_objective("maximize", objective)
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"maximize: steps must be an integer of 1 or more, got {steps!r}")
    if not (lr > 0 and math.isfinite(lr)):
        raise ValueError(f"maximize: lr must be greater than 0, got {lr}")
    if bounds is not None and not (len(bounds) == 2 and bounds[0] < bounds[1]):
        raise ValueError(f"maximize: bounds must be (lowest, highest) pixel value or None, got {bounds}")
    bounds = None if bounds is None else (float(bounds[0]), float(bounds[1]))   # a NumPy scalar would turn float32 into float64
    parameter = next(model.parameters(), None) if isinstance(model, Module) else None
    begin = first_image(start, shape, objective.images, bounds, seed, np.float32 if parameter is None else parameter.dtype)
    from tqdm import tqdm  # slow to import

    history = np.empty((steps + 1, len(begin)))
    responded = np.zeros(len(begin), bool)
    pixels = begin.numpy()
    with untouched(model), enable_grad(), tqdm(total=steps, desc=objective.label, file=sys.stderr, disable=not progress) as bar:
        manual_seed(seed)
        for step in range(steps + 1):
            image = as_input("maximize", pixels, requires_grad=True)
            f, outputs = evaluate("maximize", model, image, objective)
            history[step] = f.numpy()
            _check_finite(objective, step, history[step])
            bar.set_postfix(activation=f"{history[step].mean():.3g}", refresh=False)
            if step == 0:
                warn_of_softmax("maximize", model, objective, outputs)
            if step == steps:
                break
            uphill = pixel_gradient("maximize", objective.label, f, image).numpy()
            responded |= uphill.any((1, 2, 3))
            uphill = slope_one(uphill) if normalize else uphill
            for regularizer in regularizers:
                uphill = uphill + _slope(regularizer, image)
            _check_finite(objective, step, uphill)
            pixels = pixels + (lr * (1 - step / steps) * uphill).astype(pixels.dtype)
            if bounds is not None:
                pixels = pixels.clip(*bounds)
            bar.update()
    moved = (pixels != begin.numpy()).any((1, 2, 3))
    unresponsive = tuple(np.flatnonzero(~(responded & moved)).tolist())
    began = start if isinstance(start, str) else "image"
    if unresponsive:
        warnings.warn(f"maximize: {objective.label} did not respond in {steps} steps from start {began!r}: its gradient is zero at every "
                      f"pixel, or R and bounds={bounds} leave it no way. Nothing of it shows in image "
                      f"{', '.join(map(str, unresponsive))}; try start='noise' or a real image", stacklevel=2)
    recipe = {"objective": objective.label, "start": began, "shape": list(begin.shape), "steps": steps, "lr": float(lr), "seed": int(seed),
              "regularizers": [_label(regularizer) for regularizer in regularizers], "bounds": bounds and list(bounds),
              "normalize": normalize, "activation": history[-1].tolist()}
    return Maximized(from_numpy(pixels), history[-1], history, begin, unresponsive, recipe)
