"""Pooling, resizing and padding layers: no parameters, only sizes."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from . import functional as F
from .module import Module


class MaxPool2d(Module):
    """The largest value of each window: (N, C, H, W) -> (N, C, OH, OW). See `functional.max_pool2d`.

    Args:
        kernel_size: int or (rows, columns).
        stride: step between windows; kernel_size if None.
        padding: at most half the kernel; never the largest.
        dilation: distance between the pixels of a window.
        return_indices: also return each maximum's place, row * W + column.
        ceil_mode: let the last window hang over the edge.
    """

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
                 return_indices: bool = False, ceil_mode: bool = False):
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, input: Tensor) -> Any:
        """(N, C, H, W) -> (N, C, OH, OW)."""
        return F.max_pool2d(input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode,
                            self.return_indices)

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        return (f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
                f"dilation={self.dilation}, ceil_mode={self.ceil_mode}")


class AvgPool2d(Module):
    """The mean of each window: (N, C, H, W) -> (N, C, OH, OW).

    Args:
        kernel_size, stride, padding, ceil_mode: as in `MaxPool2d`.
        count_include_pad: padding counts as zeros.
        divisor_override: divide by this instead of the number of pixels.
    """

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True, divisor_override: int | None = None):
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding
        self.ceil_mode, self.count_include_pad, self.divisor_override = ceil_mode, count_include_pad, divisor_override

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, OH, OW)."""
        return F.avg_pool2d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad,
                            self.divisor_override)

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(Module):
    """Means over windows chosen so that the output has a given size.

    Args:
        output_size: int or (rows, columns); None keeps the input's.
    """

    def __init__(self, output_size: Any):
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, *output_size)."""
        return F.adaptive_avg_pool2d(input, self.output_size)

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        return f"output_size={self.output_size}"


class AdaptiveMaxPool2d(Module):
    """Largest values over windows chosen so that the output has a given size.

    Args:
        output_size: int or (rows, columns); None keeps the input's.
        return_indices: also return each maximum's place, row * W + column.
    """

    def __init__(self, output_size: Any, return_indices: bool = False):
        super().__init__()
        self.output_size, self.return_indices = output_size, return_indices

    def forward(self, input: Tensor) -> Any:
        """(N, C, H, W) -> (N, C, *output_size)."""
        return F.adaptive_max_pool2d(input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        return f"output_size={self.output_size}"


class Upsample(Module):
    """Resizes images to a size or by a factor.

    Args:
        size: int or (rows, columns); or
        scale_factor: a positive number or (rows, columns).
        mode: "nearest", "nearest-exact" or "bilinear".
        align_corners: bilinear only: the corner pixels' centres coincide.
    """

    def __init__(self, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
                 align_corners: bool | None = None):
        super().__init__()
        self.size = size
        self.scale_factor = (tuple(map(float, scale_factor)) if isinstance(scale_factor, (tuple, list))
                             else None if scale_factor is None else float(scale_factor))
        self.mode, self.align_corners = mode, align_corners

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, OH, OW)."""
        return F.interpolate(input, self.size, self.scale_factor, self.mode, self.align_corners)

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        size = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor}"
        return f"{size}, mode={self.mode!r}"


class ZeroPad2d(Module):
    """Surrounds images with zeros.

    Args:
        padding: int, or (left, right, top, bottom); negative numbers crop.
    """

    def __init__(self, padding: int | tuple[int, int, int, int]):
        super().__init__()
        self.padding = (padding,) * 4 if isinstance(padding, int) else tuple(padding)
        if len(self.padding) != 4:
            raise ValueError(f"ZeroPad2d: padding must be an int or (left, right, top, bottom), got {padding!r}")

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H + top + bottom, W + left + right)."""
        return F.pad(input, self.padding)

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        return f"{self.padding}"


class PixelShuffle(Module):
    """Turns channels into pixels: (N, C r^2, H, W) -> (N, C, H r, W r).

    Args:
        upscale_factor: r.
    """

    def __init__(self, upscale_factor: int):
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        """(N, C r^2, H, W) -> (N, C, H r, W r)."""
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        return f"upscale_factor={self.upscale_factor}"
