"""Which pixels does this score hang on? The gradient of f with respect to the image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..autograd import grad
from ..grad_mode import enable_grad
from ..nn import Module
from ..tensor import Tensor, ones_like
from .layers import as_input, untouched
from .objectives import Objective, Units, as_objective, evaluate, warn_of_softmax


def saliency(model: Module | Callable[[Tensor], Tensor], x: Tensor | np.ndarray,
             target: Units | Objective | Callable[[Tensor], Tensor]) -> Tensor:
    """The vanilla gradient of a class score, or of any neuron, with respect to every pixel.

    Where it is large, a small change of the pixel changes the score much. The model runs in eval mode and stays as it was;
    the gradient of its weights is not computed.

    Args:
        model: the model, or any function of the image that is made of Tensor operations.
        x: the images, (N, C, H, W), float32 or float64. The model gets a copy, and may write into it.
        target: f. A class, 0 or more, or one per image, such as the labels: its score before softmax. Or an objective:
            `neuron("conv2", 5, row=3, col=4)`, `channel("conv2", 5)`. Or a function of the model's output to (N,).

    Returns:
        d f / d x, of x's shape and dtype. Each image's own, unless the model mixes the images of a batch.

    Raises:
        IndexError: no such class or neuron.
        ValueError: no such layer; lists the names there are.
        RuntimeError: f does not depend on the image.

    Example:
        >>> import tinygrad_cnn as tg
        >>> from tinygrad_cnn import explain
        >>> model = tg.nn.Sequential(tg.nn.Flatten(), tg.nn.Linear(4, 10))
        >>> image_gradient = explain.saliency(model, tg.rand(2, 1, 2, 2), [3, 7])
        >>> np.allclose(image_gradient[1].flatten(), model[1].weight[7].detach())     # of a linear model: the row of the class
        True

    Source: Simonyan, Vedaldi and Zisserman 2013, section 3.
    """
    image, objective = as_input("saliency", x, requires_grad=True), as_objective("saliency", target)
    with untouched(model), enable_grad():
        f, outputs = evaluate("saliency", model, image, objective)
        warn_of_softmax("saliency", model, objective, outputs)
        return pixel_gradient("saliency", objective.label, f, image)


def pixel_gradient(function: str, label: str, f: Tensor, image: Tensor) -> Tensor:
    """Set the gradient of f to one and go back to the pixels; the rules of the weights do not run."""
    gradient = grad(f, image, grad_outputs=ones_like(f), allow_unused=True)[0] if f.requires_grad else None
    if gradient is None:
        raise RuntimeError(f"{function}: {label} does not depend on the image; is there a detach(), numpy() or no_grad() on the way?")
    return gradient


def saliency_map(gradient: Tensor | np.ndarray) -> Tensor:
    """One number per pixel from the gradient of a saliency: the greatest absolute value over the channels.

    Args:
        gradient: (N, C, H, W), as `saliency` returns it.

    Returns:
        (N, H, W), 0 or more.

    Source: Simonyan, Vedaldi and Zisserman 2013, section 3.1.
    """
    gradient = as_input("saliency_map", gradient)
    if gradient.ndim != 4:
        raise ValueError(f"saliency_map: wanted a gradient of shape (N, C, H, W), got {gradient.shape}")
    return gradient.abs().amax(1)
