"""Random changes to training images that leave their class as it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..grad_mode import is_grad_enabled
from ..ops.geometry import check_size
from ..tensor import Tensor
from .dataset import as_generator, is_count


def random_shift(images: Any, limit: int, generator: np.random.Generator | int | None = None) -> Any:
    """Shift every image by its own random number of pixels, up, down, left or right; zeros come in from outside.

    Args:
        images: (N, ..., H, W), a Tensor or an array; (N, C, H, W) as a rule. All channels of an image shift together.
        limit: the largest shift in pixels, 0 or more; all of -limit .. limit are equally likely.
        generator: a NumPy generator or a seed; what `tg.manual_seed` seeds by default.

    Returns:
        New images of the same kind, shape and dtype.

    Raises:
        ValueError: fewer than 3 dims, limit below 0.
        RuntimeError: images that require grad; a shift is not recorded.

    Example:
        >>> import tinygrad_cnn as tg
        >>> digits = tg.rand(8, 1, 28, 28)
        >>> tg.data.random_shift(digits, 2).shape
        (8, 1, 28, 28)
    """
    if not isinstance(images, (Tensor, np.ndarray)):
        raise TypeError(f"random_shift: images must be a Tensor or an array, got {type(images).__name__}")
    if images.ndim < 3:
        raise ValueError(f"random_shift: images must be (N, ..., H, W), got shape {tuple(images.shape)}")
    if not is_count(limit, 0):
        raise ValueError(f"random_shift: limit must be an int of 0 or more, got {limit!r}")
    if isinstance(images, Tensor) and images.requires_grad and is_grad_enabled():
        raise RuntimeError("random_shift: images require grad, but a shift is not recorded; pass images.detach()")
    check_size("random_shift", (*images.shape[:-2], *(n + 2 * limit for n in images.shape[-2:])))
    x = images.numpy() if isinstance(images, Tensor) else images
    n, (height, width) = x.shape[0], x.shape[-2:]
    down, right = as_generator("random_shift", generator).integers(-limit, limit, (2, n), endpoint=True)
    padded = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(limit, limit)] * 2)
    # (N, ..., H, W) -> (N, ..., 2 limit + 1, 2 limit + 1, H, W): the image seen through every window, without a copy
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(-2, -1))
    # -> (N, ..., H, W): a window further up shows the image further down
    shifted = np.empty_like(x)                 # in memory as the images are: channels-last stays channels-last
    shifted[...] = np.moveaxis(windows, (-4, -3), (1, 2))[np.arange(n), limit - down, limit - right]
    return Tensor._wrap(shifted) if isinstance(images, Tensor) else shifted
