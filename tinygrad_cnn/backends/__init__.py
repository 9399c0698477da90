"""Choices about how results are computed, never about what they mean.

Example:
    >>> import tinygrad_cnn.backends
    >>> tinygrad_cnn.backends.conv.algorithm
    'auto'
"""

from __future__ import annotations

from ..kernels import options

__all__ = ["conv"]

ALGORITHMS = ("auto", "direct", "winograd")


class _Conv:
    """Convolution.

    `algorithm` names what computes 3x3 convolutions of stride 1 and dilation 1 with one group in float32, and their
    gradients; all others, and all in float64, are always sums over taps ("direct").

        "auto": whichever is likely faster for the shape.
        "direct": sums over taps; error against float64 below 1e-6 of the largest output.
        "winograd": Winograd's F(4x4, 3x3), with a quarter of the multiplications; error against float64 below 2e-5 of
            the largest output, or gradient, for up to 512 channels. NaN and Inf spread over 4 x 4 pixels of the output.
    """

    @property
    def algorithm(self) -> str:
        """The algorithm in use."""
        return options.conv_algorithm

    @algorithm.setter
    def algorithm(self, name: str) -> None:
        if name not in ALGORITHMS:
            raise ValueError(f"backends.conv.algorithm: expected one of {', '.join(ALGORITHMS)}, got {name!r}")
        options.conv_algorithm = name


conv = _Conv()
