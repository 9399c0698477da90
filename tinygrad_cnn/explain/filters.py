"""What a layer has learned, drawn directly: its filters, and what comes out of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..nn import Module
from ..tensor import Tensor
from .picture import Picture, as_array, grid


def filters(layer: Module | Tensor | np.ndarray, shape: tuple[int, int, int] | None = None, **options: Any) -> Picture:
    """The filters of a convolution, or the weight rows of a linear layer, as images on one shared scale; 0 is mid grey.

    Drawing the weights says something where they meet pixels: in the first layer. Filters over 3 channels are drawn in
    colour, over 1 channel in grey. Of any other number every channel is drawn by itself: a row per filter, a column per
    channel.

    Args:
        layer: a layer with a `weight`, or the weights: (K, C, R, S), or (K, D) with a shape.
        shape: (C, H, W) with C H W = D, what the D inputs of a linear layer stand for; the layer sees a flattened image.
        options: columns, scale, enlarge, pad and info, as in `grid`.

    Returns:
        The picture.

    Raises:
        TypeError: something without weights.
        ValueError: weights that are not (K, C, R, S), and no fitting shape.

    Example:
        >>> import numpy as np
        >>> from tinygrad_cnn import explain
        >>> weight = np.array([[[[0.5, 0.0]]], [[[-2.0, 2.0]]]])       # two filters of 1 x 2; the scale is -2 .. 2
        >>> explain.filters(weight, enlarge=1, pad=0).pixels[0, :, 0]
        array([159, 128,   0, 255], dtype=uint8)

    Source: Krizhevsky, Sutskever and Hinton 2012, figure 3.
    """
    weight = as_array("filters", "layer (or its weight)", getattr(layer, "weight", layer))
    if shape is not None:
        if len(shape) != 3 or weight.ndim != 2 or int(np.prod(shape)) != weight.shape[1]:
            raise ValueError(f"filters: shape must be (C, H, W) with C H W = D of weights (K, D), got {shape} for weights {weight.shape}")
        weight = weight.reshape(-1, *shape)                                      # (K, C H W) -> (K, C, H, W)
    if weight.ndim != 4:
        raise ValueError(f"filters: weights must have shape (K, C, R, S), got {weight.shape}; for a linear layer pass shape=(C, H, W), "
                         "the image it sees")
    if options.get("scale") is None:           # symmetric also if no weight is negative: 0 is mid grey in every picture of filters
        limit = float(np.abs(weight).max()) or 1.0
        options["scale"] = (-limit, limit)
    channels = weight.shape[1]
    if channels not in (1, 3):
        options.setdefault("columns", channels)
        weight = weight.reshape(-1, 1, *weight.shape[2:])                        # (K, C, R, S) -> (K C, 1, R, S)
    return grid(weight, **options)


def activation_grid(activations: Tensor | np.ndarray, **options: Any) -> Picture:
    """The channels of a layer's output as grey images on one shared scale; a row per image where there are several.

    Args:
        activations: (N, C, H, W) or (C, H, W), as from `activations(model, x, layer)`.
        options: columns, scale, enlarge, pad and info, as in `grid`. By default black is 0 after a ReLU; where there are
            negative values 0 is mid grey.

    Returns:
        The picture.

    Raises:
        ValueError: another shape, NaN or infinity.

    Example:
        >>> import numpy as np
        >>> from tinygrad_cnn import explain
        >>> explain.activation_grid(np.ones((1, 8, 14, 14)), enlarge=2)
        Picture(58 x 118 pixels, info: scale)
    """
    array = as_array("activation_grid", "activations", activations)
    if array.ndim not in (3, 4):
        raise ValueError(f"activation_grid: activations must have shape (N, C, H, W) or (C, H, W), got {array.shape}")
    if array.ndim == 4 and len(array) > 1:
        options.setdefault("columns", array.shape[1])
    return grid(array.reshape(-1, *array.shape[-2:]), **options)                 # (N, C, H, W) -> (N C, H, W)
