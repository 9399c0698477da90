"""What does this neuron want to see? Gradient ascent on the image: I* = argmax f(I) + R(I).

Four parts, each by itself: what to look for (`objectives`), what the image is made of (here: its pixels, `first_image`),
what it should look like (`regularizers`), and the step uphill (`ascend`). `maximize` is the loop.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import grad
from ..graph import enable_grad
from ..nn import Module
from ..random import manual_seed
from ..tensor import Tensor, from_numpy, ones_like
from .layers import as_input, untouched
from .objectives import Objective, Units, as_objective, evaluate, warn_of_softmax
from .picture import Picture, grid
from .regularizers import l2, total_variation
from .saliency import pixel_gradient

NOISE = 0.1
"""Standard deviation of the "noise" start, in units of pixel value."""


@dataclass(frozen=True)
class Maximized:
    """What `maximize` found.

    Attributes:
        image: the images, (N, C, H, W).
        activation: f of each image, without R, (N,).
        history: f before the first step and after each, (steps + 1, N).
        start: the images it began with, (N, C, H, W).
        unresponsive: the numbers of the images whose f had no gradient at any step; no more than a start and R show in them.
        recipe: everything needed to do it again, as plain values: objective, start, seed, steps, lr, regularizers, bounds, and
            the activation reached.
    """

    image: Tensor
    activation: np.ndarray
    history: np.ndarray
    start: Tensor
    unresponsive: tuple[int, ...]
    recipe: dict[str, Any]

    def picture(self, **options: Any) -> Picture:
        """The images as a grid, with the recipe in the PNG's text chunks; options as in `grid`."""
        return grid(self.image, **{"info": self.recipe, **options})


def first_image(start: str | Tensor | np.ndarray, shape: Sequence[int] | None, images: int | None, seed: int, dtype: Any) -> Tensor:
    """The image ascent begins with: zeros, noise, or a copy of a given one, once for each of the wanted images.

    Args:
        start: "zeros", "noise" (normal, standard deviation 0.1), or images (C, H, W) or (N, C, H, W).
        shape: of one image, (C, H, W), for "zeros" and "noise".
        images: how many are wanted; None: as many as there are.
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
        sizes = (images or 1, *shape)
        noise = np.random.default_rng(seed).normal(0, NOISE, sizes) if start == "noise" else np.zeros(sizes)
        return from_numpy(noise.astype(dtype))
    if shape is not None:
        raise ValueError(f"maximize: a start image brings its own shape; leave shape={shape} out")
    image = as_input("maximize", start)
    if image.ndim == 3:
        image = image.unsqueeze(0)                                               # (C, H, W) -> (1, C, H, W)
    if image.ndim != 4 or 0 in image.shape:
        raise ValueError(f"maximize: a start image must have shape (C, H, W) or (N, C, H, W), got {image.shape}")
    if images not in (None, len(image)):
        if len(image) > 1:
            raise ValueError(f"maximize: the objective is about {images} images, start has {len(image)}")
        image = image.tile(images, 1, 1, 1)
    return image


def ascend(image: np.ndarray, gradient: np.ndarray, lr: float) -> np.ndarray:
    """One step uphill: image + lr * gradient / rms(gradient), so lr is the mean change of a pixel however steep f is.

    Args:
        image, gradient: (N, C, H, W).
        lr: root mean square of the change of an image's pixels, in units of pixel value.

    Source: the normalised gradient of Mordvintsev, Olah and Tyka 2015, "Inceptionism" (there by the mean absolute value).
    """
    rms = np.sqrt(np.square(gradient, dtype=np.float64).mean((1, 2, 3), keepdims=True))
    return image + (lr * gradient / np.where(rms > 0, rms, 1)).astype(image.dtype)


def _finite(objective: Objective, step: int, *arrays: np.ndarray) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise FloatingPointError(f"maximize: {objective.label} or its gradient is NaN or infinite at step {step}; take a smaller lr, or "
                                 "set bounds")


def maximize(model: Module | Callable[[Tensor], Tensor], objective: Objective | Units | Callable[[Tensor], Tensor],
             start: str | Tensor | np.ndarray = "zeros", shape: Sequence[int] | None = None, steps: int = 200, lr: float = 0.05,
             regularizers: Sequence[Callable[[Tensor], Tensor]] = (l2(1.0), total_variation(1.0)),
             bounds: tuple[float, float] | None = None, seed: int = 0, progress: bool = True) -> Maximized:
    """Gradient ascent on the image, I* = argmax f(I) + R(I), with the weights held fixed.

    1. Start from a zero image, or from an existing one. 2. Forward: compute f(I), a class score before softmax or a neuron.
    3. Set the gradient of f to one and go backward to the pixels. 4. Change the image a little uphill, by
    lr * gradient / rms(gradient). 5. Go back to 2.

    Args:
        model: the model. It runs in eval mode and stays as it was; the gradient of its weights is not computed.
        objective: f. A class or one per image (`range(10)` makes ten images at once), an objective such as
            `neuron("conv2", 5)` or `channel("conv2", [0, 1, 2])`, or a function of the model's output to (N,).
        start: "zeros", "noise", or images (C, H, W) or (N, C, H, W), which are copied.
        shape: (C, H, W), the shape of one image, with "zeros" or "noise".
        steps: how often, 1 or more.
        lr: root mean square of the change of a pixel in one step, in units of pixel value; falls linearly to 0.
        regularizers: R, functions from (N, C, H, W) to (N,) that are added to f: `l2`, `total_variation`, or your own.
        bounds: (lowest, highest) pixel value; cut to it after each step.
        seed: of the "noise" start and whatever random a model does. The same call gives the same image, bit for bit.
        progress: show a bar on stderr with the mean activation.

    Returns:
        The images, the activations reached, and the recipe.

    Raises:
        ValueError: an argument out of its range; no such layer.
        RuntimeError: f does not depend on the image.
        FloatingPointError: f or its gradient is NaN or infinite.

    Warns:
        UserWarning: a class score behind softmax; a unit that had no gradient at any step, so that its image shows nothing.

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
    if bounds is not None and not bounds[0] < bounds[1]:
        raise ValueError(f"maximize: bounds must be (lowest, higher highest pixel value), got {bounds}")
    parameter = next(model.parameters(), None) if isinstance(model, Module) else None
    begin = first_image(start, shape, objective.images, seed, np.float32 if parameter is None else parameter.dtype)
    from tqdm import tqdm                      # slow to import

    history = np.empty((steps + 1, len(begin)))
    responded = np.zeros(len(begin), bool)
    pixels = begin.numpy()
    with untouched(model), enable_grad(), tqdm(total=steps, desc=objective.label, file=sys.stderr, disable=not progress) as bar:
        manual_seed(seed)
        for step in range(steps + 1):
            image = as_input("maximize", pixels, requires_grad=step < steps)
            f, outputs = evaluate("maximize", model, image, objective)
            history[step] = f.numpy()
            _finite(objective, step, history[step])
            if step == steps:
                break
            if step == 0:
                warn_of_softmax("maximize", model, objective, outputs)
            uphill = pixel_gradient("maximize", objective.label, f, image).numpy()
            responded |= uphill.any((1, 2, 3))
            for regularizer in regularizers:
                uphill = uphill + _slope(regularizer, image)
            _finite(objective, step, uphill)
            pixels = ascend(pixels, uphill, lr * (1 - step / steps))
            if bounds is not None:
                pixels = pixels.clip(*bounds)
            bar.set_postfix(activation=f"{history[step].mean():.3g}", refresh=False)
            bar.update()
    unresponsive = tuple(np.flatnonzero(~responded).tolist())
    if unresponsive:
        warnings.warn(f"maximize: {objective.label} did not respond in {steps} steps: its gradient is zero at every pixel of image "
                      f"{', '.join(map(str, unresponsive))} from start {start if isinstance(start, str) else 'image'!r} on; "
                      "try start='noise' or a real image", stacklevel=2)
    recipe = {"objective": objective.label, "start": start if isinstance(start, str) else "image", "shape": list(begin.shape),
              "seed": seed, "steps": steps, "lr": lr, "step": "lr * (1 - step / steps) * gradient / rms(gradient)",
              "regularizers": [getattr(r, "label", getattr(r, "__name__", repr(r))) for r in regularizers],
              "bounds": bounds, "activation": history[-1].tolist()}
    return Maximized(from_numpy(pixels), history[-1], history, begin, unresponsive, recipe)


def _slope(regularizer: Callable[[Tensor], Tensor], image: Tensor) -> np.ndarray:
    """The gradient of R with respect to the pixels."""
    penalty = regularizer(image)
    if penalty.shape != (len(image),):
        raise ValueError(f"maximize: a regularizer must give one number per image, shape ({len(image)},), got {penalty.shape}")
    (gradient,) = grad(penalty, image, grad_outputs=ones_like(penalty))
    return gradient.numpy()
