"""The one source of randomness: initial weights, dropout masks, shuffles, noise."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np

_generator = np.random.default_rng()


def manual_seed(seed: int) -> None:
    """Make everything random in the package repeatable from here on.

    Args:
        seed: an integer, 0 or more.

    Example:
        >>> import tinygrad_cnn as tg
        >>> tg.manual_seed(0)
        >>> a = tg.rand(3)
        >>> tg.manual_seed(0)
        >>> bool((a == tg.rand(3)).all())
        True
    """
    global _generator
    if not isinstance(seed, Integral) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"manual_seed: seed must be an integer of 0 or more, got {seed!r}")
    _generator = np.random.default_rng(int(seed))


def generator() -> np.random.Generator:
    """The generator in use; do not keep it, `manual_seed` replaces it."""
    return _generator


def get_rng_state() -> dict[str, Any]:
    """The generator's state, for `set_rng_state`."""
    return dict(_generator.bit_generator.state)


def set_rng_state(state: dict[str, Any]) -> None:
    """Go on from a state that `get_rng_state` returned."""
    _generator.bit_generator.state = state
