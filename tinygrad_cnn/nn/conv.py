"""Convolution layers, and windows as columns. Weights have PyTorch's shape and lie in memory as kernels read them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels import constants
from ..ops.geometry import check_size, pair
from ..tensor import Tensor
from . import functional as F
from .linear import check_sizes, fan_in_uniform
from .module import Module
from .state import Parameter

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def _weight(shape: tuple[int, ...], dtype: Any) -> Parameter:
    """A (K, C, R, S) parameter that lies in memory as (R, S, C, K), so that convolution need not copy it."""
    k, c, r, s = shape
    return Parameter(np.zeros((r, s, c, k), dtype).transpose(3, 2, 0, 1))


class _Conv(Module):
    """What Conv2d and ConvTranspose2d share: hyper-parameters, their checks, initial values, repr."""

    padding: Any

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
                 groups: int, padding_mode: str):
        super().__init__()
        name = type(self).__name__
        check_sizes(name, in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{name}: groups={groups} must divide in_channels={in_channels} and "
                             f"out_channels={out_channels}")
        if padding_mode not in PADDING_MODES:
            raise ValueError(f"{name}: padding_mode must be one of {PADDING_MODES}, got {padding_mode!r}")
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise ValueError(f"{name}: padding must be 'same', 'valid', an int or a pair, got {padding!r}")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = pair(name, "kernel_size", kernel_size, minimum=1)
        check_size(name, (in_channels // groups, out_channels, *self.kernel_size))
        self.stride = pair(name, "stride", stride, minimum=1)
        self.padding = padding if isinstance(padding, str) else pair(name, "padding", padding, minimum=0)
        self.dilation = pair(name, "dilation", dilation, minimum=1)
        self.output_padding = (0, 0)
        self.padding_mode = padding_mode

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        fan_in_uniform(self.weight.shape[1] * self.kernel_size[0] * self.kernel_size[1], self.weight, self.bias)

    def steady_weight(self) -> Tensor:
        """The weight; in evaluation, kernels then keep it in the order they read it until it is written to."""
        weight = self.weight
        if self.training:
            constants.forget(weight._data)
        else:
            constants.declare(weight._data, weight._storage)
        return weight

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        shown = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        for name, default in (("padding", (0, 0)), ("dilation", (1, 1)), ("output_padding", (0, 0)), ("groups", 1)):
            if getattr(self, name) != default:
                shown.append(f"{name}={getattr(self, name)}")
        if self.bias is None:
            shown.append("bias=False")
        if self.padding_mode != "zeros":
            shown.append(f"padding_mode={self.padding_mode}")
        return ", ".join(shown)


class Conv2d(_Conv):
    """Convolution of images with K learned filters as deep as their input.

    F x F filters on D channels have (F * F * D) * K + K parameters.
    Differs from PyTorch only in that `padding="same"` also works with strides.

    Args:
        in_channels: channels D of the input.
        out_channels: the number K of filters.
        kernel_size: F, or (rows, columns).
        stride: step S between windows, int or pair.
        padding: P pixels on each side, int or pair, or "same" or "valid".
        dilation: distance between taps, int or pair.
        groups: split the channels into this many independent convolutions.
        bias: whether to add one number per filter.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        dtype: float32 or float64.

    Attributes:
        weight: (K, D / groups, F, F).
        bias: (K,) or None.

    Raises:
        ValueError: sizes below 1, groups that do not divide the channels, an unknown padding.

    Source: LeCun et al. 1989, "Backpropagation Applied to Handwritten Zip Code Recognition".

    Example:
        >>> import tinygrad_cnn as tg
        >>> layer = tg.nn.Conv2d(3, 10, kernel_size=5, padding=2)
        >>> layer(tg.zeros(1, 3, 32, 32)).shape, sum(p.numel() for p in layer.parameters())
        ((1, 10, 32, 32), 760)
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
                 dilation: Any = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
                 dtype: Any = np.float32):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode)
        if padding == "same" and padding_mode != "zeros" and self.stride != (1, 1):
            raise ValueError(f"Conv2d: padding='same' with padding_mode={padding_mode!r} needs stride 1, got "
                             f"{self.stride}")
        self.weight = _weight((out_channels, in_channels // groups, *self.kernel_size), dtype)
        self.register_parameter("bias", Parameter(np.empty(out_channels, dtype)) if bias else None)
        self.reset_parameters()

    def _border(self) -> list[int]:
        """(left, right, top, bottom), as `functional.pad` takes it."""
        if self.padding == "same":             # an odd pixel goes to the right and the bottom
            total = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            sides = [(t // 2, t - t // 2) for t in total]
        else:
            sides = [(p, p) for p in ((0, 0) if self.padding == "valid" else self.padding)]
        return [*sides[1], *sides[0]]

    def forward(self, input: Tensor) -> Tensor:
        """(N, D, H, W) -> (N, K, (H - F + 2P) / S + 1, (W - F + 2P) / S + 1)."""
        return self.convolved(input, self.steady_weight(), self.bias)

    def convolved(self, input: Tensor, weight: Tensor, bias: Tensor | None, relu: bool = False) -> Tensor:
        """What `forward` returns, with other weights or a ReLU at the end: for those who compute the next layers, too."""
        if self.padding_mode == "zeros":
            return F.conv2d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups, relu=relu)
        padded = F.pad(input, self._border(), mode=self.padding_mode)
        return F.conv2d(padded, weight, bias, self.stride, 0, self.dilation, self.groups, relu=relu)


class ConvTranspose2d(_Conv):
    """The input gradient of a convolution as a layer: it spreads each pixel over a window of a larger output.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size, stride, padding, dilation, groups: those of the convolution it is the gradient of.
        output_padding: rows and columns added at the bottom and right.
        bias: whether to add one number per output channel.
        padding_mode: "zeros", the only one.
        dtype: float32 or float64.

    Attributes:
        weight: (in_channels, out_channels / groups, rows, columns).
        bias: (out_channels,) or None.

    Source: Zeiler et al. 2010, "Deconvolutional Networks".
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
                 output_padding: Any = 0, groups: int = 1, bias: bool = True, dilation: Any = 1,
                 padding_mode: str = "zeros", dtype: Any = np.float32):
        if padding_mode != "zeros":
            raise ValueError(f"ConvTranspose2d: padding_mode must be 'zeros', got {padding_mode!r}")
        if isinstance(padding, str):
            raise ValueError(f"ConvTranspose2d: padding must be an int or a pair, got {padding!r}")
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode)
        self.output_padding = pair("ConvTranspose2d", "output_padding", output_padding, minimum=0)
        self.weight = _weight((in_channels, out_channels // groups, *self.kernel_size), dtype)
        self.register_parameter("bias", Parameter(np.empty(out_channels, dtype)) if bias else None)
        self.reset_parameters()

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """(N, C, H, W) -> (N, K, OH, OW); output_size picks among the sizes that a convolution maps to (H, W)."""
        extra = self.output_padding if output_size is None else self._extra(input, output_size)
        return F.conv_transpose2d(input, self.steady_weight(), self.bias, self.stride, self.padding, extra, self.groups,
                                  self.dilation)

    def _extra(self, input: Tensor, output_size: Any) -> tuple[int, ...]:
        last = tuple(output_size)[-2:] if isinstance(output_size, (tuple, list)) else output_size
        wanted = pair("ConvTranspose2d", "output_size", last, minimum=1)
        least = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, s, p, d, k in zip(
            input.shape[-2:], self.stride, self.padding, self.dilation, self.kernel_size, strict=True)]
        if any(not a <= w < a + s for a, w, s in zip(least, wanted, self.stride, strict=True)):
            most = [a + s - 1 for a, s in zip(least, self.stride, strict=True)]
            raise ValueError(f"ConvTranspose2d: output_size {wanted} is out of reach for input of size "
                             f"{input.shape[-2:]}; wanted {tuple(least)} .. {tuple(most)}")
        return tuple(w - a for a, w in zip(least, wanted, strict=True))


class Unfold(Module):
    """Every window of an image as a column: (N, C, H, W) -> (N, C R S, L).

    Args:
        kernel_size, dilation, padding, stride: ints or (rows, columns).
    """

    def __init__(self, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1):
        super().__init__()
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C R S, L)."""
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        return f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, stride={self.stride}"


class Fold(Module):
    """Adds columns of windows up to an image, the adjoint of `Unfold`: (N, C R S, L) -> (N, C, H, W).

    Args:
        output_size: (H, W).
        kernel_size, dilation, padding, stride: as in `Unfold`.
    """

    def __init__(self, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1):
        super().__init__()
        self.output_size = output_size
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, input: Tensor) -> Tensor:
        """(N, C R S, L) -> (N, C, H, W)."""
        return F.fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        return (f"output_size={self.output_size}, kernel_size={self.kernel_size}, dilation={self.dilation}, "
                f"padding={self.padding}, stride={self.stride}")
