"""Normalisation layers."""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from ..grad_mode import is_grad_enabled
from ..ops.norm import affine, scale_shift
from ..tensor import Tensor, tensor
from . import functional as F
from . import init
from .linear import check_sizes
from .module import Module
from .state import Moment, Parameter


class _Norm(Module):
    """What the normalisation layers share: eps, and a scale and a shift of one shape."""

    weight: Parameter | None
    bias: Parameter | None

    def __init__(self, shape: tuple[int, ...], eps: float, affine: bool, bias: bool, dtype: Any):
        super().__init__()
        if eps <= 0:
            raise ValueError(f"{type(self).__name__}: eps must be positive, got {eps}")
        self.eps = eps
        self.register_parameter("weight", Parameter(np.ones(shape, dtype)) if affine else None)
        self.register_parameter("bias", Parameter(np.zeros(shape, dtype)) if affine and bias else None)

    def reset_parameters(self) -> None:
        """Back to scale 1 and shift 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)


class Affine(NamedTuple):
    """Batch norm in evaluation mode, x * scale + shift, and what it was computed from."""

    eps: float
    moment: Moment
    scale: np.ndarray
    shift: np.ndarray


_affine: WeakKeyDictionary[Module, Affine] = WeakKeyDictionary()


class _BatchNorm(_Norm):
    dims: tuple[int, ...]
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, *, bias: bool = True, dtype: Any = np.float32):
        check_sizes(type(self).__name__, num_features=num_features)
        super().__init__((num_features,), eps, affine, bias, dtype)
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"{type(self).__name__}: momentum must be None or lie in 0 .. 1, got {momentum}")
        self.num_features, self.momentum, self.affine = num_features, momentum, affine
        self.track_running_stats = tracked = track_running_stats
        self.register_buffer("running_mean", tensor(np.zeros(num_features, dtype)) if tracked else None)
        self.register_buffer("running_var", tensor(np.ones(num_features, dtype)) if tracked else None)
        self.register_buffer("num_batches_tracked", tensor(np.zeros((), np.int64)) if tracked else None)

    def reset_running_stats(self) -> None:
        """Forget what was tracked."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            init.zeros_(self.num_batches_tracked)

    def reset_parameters(self) -> None:
        """Back to scale 1 and shift 0, and nothing tracked."""
        super().reset_parameters()
        self.reset_running_stats()

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        return self.normalized(input)

    def normalized(self, input: Tensor, relu: bool = False) -> Tensor:
        """What `forward` returns, or with `relu` its ReLU, in one pass over memory: for containers that have both."""
        if input.ndim not in self.dims:
            raise ValueError(f"{type(self).__name__}: expected {' or '.join(f'{d}D' for d in self.dims)} input, got "
                             f"shape {input.shape}")
        counter = self.num_batches_tracked
        known = self.known()
        if known is not None and isinstance(input, Tensor) and input.shape[1] == known.scale.size and input.dtype == known.scale.dtype:
            return affine(input, known.scale, known.shift, relu)
        if not self.training and self.running_mean is None and input.numel() == input.shape[1] == self.num_features:
            raise ValueError(f"{type(self).__name__}: without running statistics (track_running_stats=False) evaluation too normalises by "
                             f"the batch's own, for which 1 value per channel is too few; got input of shape {input.shape}")
        if not self.training or counter is None:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias,
                                self.training or self.running_mean is None, 0.0, self.eps, relu)
        momentum = 1 / (counter.item() + 1) if self.momentum is None else self.momentum
        out = F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, True, momentum, self.eps, relu)
        counter.add_(1)
        return out

    def known(self) -> Affine | None:
        """What evaluation does to each channel, kept until one of the layer's tensors is written to; None if that depends on the
        input, or gradients of scale and shift may be asked for."""
        if self.training:
            return None
        weight, bias, mean, var = self.weight, self.bias, self.running_mean, self.running_var
        if mean is None or var is None:
            return None
        if is_grad_enabled() and (weight is not None and weight.requires_grad or bias is not None and bias.requires_grad):
            return None
        kept = _affine.get(self)
        if kept is None or kept.eps != self.eps or not kept.moment.lasts(weight, bias, mean, var):
            if self.eps <= 0 or any(t is not None and t.shape != mean.shape for t in (weight, bias, var)):
                return None                    # batch_norm says what is wrong
            ones, zeros = np.ones(mean.shape, mean.dtype), np.zeros(mean.shape, mean.dtype)
            scale, shift = scale_shift(ones if weight is None else weight._data, zeros if bias is None else bias._data, mean._data,
                                       var._data, self.eps)
            kept = _affine[self] = Affine(self.eps, Moment(weight, bias, mean, var), scale, shift)
        return kept

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
                f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}")


class BatchNorm2d(_BatchNorm):
    """Normalises each channel of images (N, C, H, W) to mean 0 and variance 1, then scales and shifts it.

    In training mode with the batch's own statistics, which also move the running ones; in evaluation mode with those.

    Args:
        num_features: channels C.
        eps: added to the variance.
        momentum: share of each batch in the running statistics; None weighs all batches alike.
        affine: learn a scale and a shift per channel.
        track_running_stats: keep running statistics; without, evaluation uses the batch's too.
        bias: with affine=True, whether to learn the shift.
        dtype: float32 or float64.

    Attributes:
        weight, bias: (C,) or None.
        running_mean, running_var: (C,) buffers or None; the variance is unbiased.
        num_batches_tracked: int64 buffer or None.

    Raises:
        ValueError: (when called) one value per channel in training, or without running statistics.

    Source: Ioffe & Szegedy 2015, "Batch Normalization", algorithm 1.

    Example:
        >>> import tinygrad_cnn as tg
        >>> y = tg.nn.BatchNorm2d(3)(10 + tg.randn(8, 3, 4, 4))
        >>> bool((y.mean((0, 2, 3)).abs() < 1e-5).all())
        True
    """

    dims = (4,)


class BatchNorm1d(_BatchNorm):
    """`BatchNorm2d` for (N, C) or (N, C, L)."""

    dims = (2, 3)


class LayerNorm(_Norm):
    """Normalises each sample over its last dims; see `functional.layer_norm`.

    Args:
        normalized_shape: size of the last dim, or sizes of the last dims.
        eps: added to the variance.
        elementwise_affine: learn a scale and a shift per element.
        bias: with elementwise_affine=True, whether to learn the shift.
        dtype: float32 or float64.
    """

    def __init__(self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True,
                 dtype: Any = np.float32):
        shape = tuple(normalized_shape) if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
        super().__init__(shape, eps, elementwise_affine, bias, dtype)
        self.normalized_shape, self.elementwise_affine = shape, elementwise_affine

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        return (f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
                f"bias={self.bias is not None}")


class GroupNorm(_Norm):
    """Normalises each sample over groups of neighbouring channels; see `functional.group_norm`.

    Args:
        num_groups: must divide num_channels.
        num_channels: C.
        eps: added to the variance.
        affine: learn a scale and a shift per channel.
        bias: with affine=True, whether to learn the shift.
        dtype: float32 or float64.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, *, bias: bool = True,
                 dtype: Any = np.float32):
        check_sizes("GroupNorm", num_groups=num_groups, num_channels=num_channels)
        if num_channels % num_groups:
            raise ValueError(f"GroupNorm: num_groups={num_groups} must divide num_channels={num_channels}")
        super().__init__((num_channels,), eps, affine, bias, dtype)
        self.num_groups, self.num_channels, self.affine = num_groups, num_channels, affine

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of the input's shape."""
        if input.ndim < 2 or input.shape[1] != self.num_channels:
            raise ValueError(f"GroupNorm: input of shape {input.shape} must be (N, {self.num_channels}, ...)")
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The layer's hyper-parameters."""
        return (f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
                f"bias={self.bias is not None}")
