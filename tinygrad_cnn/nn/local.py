"""The locally connected layer: a convolution without shared filters."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ops.conv import windows
from ..ops.geometry import check_size, pair
from ..tensor import Tensor
from . import functional as F
from .linear import check_sizes, fan_in_uniform
from .module import Module
from .state import Parameter


class LocallyConnected2d(Module):
    """A convolution whose filters are not shared: every output position has K filters of its own. Not in PyTorch.

    F x F filters on D channels have OH * OW * ((F * F * D) * K + K) parameters: a convolution's (F * F * D) * K + K at
    each of the OH * OW positions.

    Args:
        in_channels: channels D of the input.
        out_channels: the number K of filters per position.
        input_size: H, or (H, W): the filters belong to positions, so the size is fixed.
        kernel_size: F, or (rows, columns).
        stride, padding, dilation: as in `Conv2d`.
        bias: whether to add one number per filter and position.
        dtype: float32 or float64.

    Attributes:
        weight: (K, D, F, F, OH, OW).
        bias: (K, OH, OW) or None.
        output_size: (OH, OW).

    Source: LeCun 1989, "Generalization and Network Design Strategies".

    Example:
        >>> import tinygrad_cnn as tg
        >>> layer = tg.nn.LocallyConnected2d(3, 10, input_size=32, kernel_size=5, padding=2)
        >>> layer.output_size, sum(p.numel() for p in layer.parameters()) == 32 * 32 * ((5 * 5 * 3) * 10 + 10)
        ((32, 32), True)
    """

    def __init__(self, in_channels: int, out_channels: int, input_size: Any, kernel_size: Any, stride: Any = 1,
                 padding: Any = 0, dilation: Any = 1, bias: bool = True, dtype: Any = np.float32):
        super().__init__()
        name = "LocallyConnected2d"
        check_sizes(name, in_channels=in_channels, out_channels=out_channels)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.input_size = pair(name, "input_size", input_size, minimum=1)
        self.kernel_size = pair(name, "kernel_size", kernel_size, minimum=1)
        self.stride = pair(name, "stride", stride, minimum=1)
        self.dilation = pair(name, "dilation", dilation, minimum=1)
        self.padding = padding if isinstance(padding, str) else pair(name, "padding", padding, minimum=0)
        self.output_size = windows(name, self.input_size, self.kernel_size, self.stride, self.padding, self.dilation)["size"]
        check_size(name, (*self.output_size, in_channels, *self.kernel_size, out_channels))
        by_position = np.zeros((*self.output_size, in_channels, *self.kernel_size, out_channels), dtype)
        # (OH, OW, D, F, F, K) -> (K, D, F, F, OH, OW): a view, so that no matrix product need copy it
        self.weight = Parameter(by_position.transpose(5, 2, 3, 4, 0, 1))
        self.register_parameter("bias", Parameter(np.empty((out_channels, *self.output_size), dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values: each position's as a convolution's."""
        fan_in_uniform(self.in_channels * self.kernel_size[0] * self.kernel_size[1], self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """(N, D, H, W) -> (N, K, OH, OW)."""
        return F.local_conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation)

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        shown = (f"{self.in_channels}, {self.out_channels}, input_size={self.input_size}, "
                 f"kernel_size={self.kernel_size}, stride={self.stride}")
        shown += f", padding={self.padding}" if self.padding != (0, 0) else ""
        shown += f", dilation={self.dilation}" if self.dilation != (1, 1) else ""
        return shown + ("" if self.bias is not None else ", bias=False")
