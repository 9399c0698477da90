"""The one source of randomness: initial weights, dropout masks, shuffles, noise.

Unlike PyTorch's, a forked child's numbers are not its parent's: they follow from the parent's state at the fork and the
number of forks since `manual_seed`. So children differ from each other and from their parent, whose own numbers are as
without the fork, and all of it can be repeated.
"""

from __future__ import annotations

import os
import threading
from numbers import Integral
from typing import Any

import numpy as np

_generator = np.random.default_rng()
_forks = 0                                     # since manual_seed
_forking = threading.Lock()                    # one at a time, or two children could be given the same numbers
_seed_of_child = np.random.SeedSequence()


def _before_fork() -> None:
    global _forks, _seed_of_child
    _forking.acquire()
    _forks += 1
    state = _generator.bit_generator.state["state"]        # not in the child: another thread may be drawing, and is not there
    _seed_of_child = np.random.SeedSequence([state["state"], state["inc"]], spawn_key=(_forks,))


def _after_fork_in_child() -> None:
    global _generator, _forks
    _generator, _forks = np.random.default_rng(_seed_of_child), 0
    _forking.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_forking.release, after_in_child=_after_fork_in_child)


def manual_seed(seed: int) -> None:
    """Make everything random in the package repeatable from here on, in this process and in children forked from it.

    A forked child draws other numbers than its parent and its siblings, but the same ones in every run that forks as
    often before it and draws as much.

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
    global _generator, _forks
    if not isinstance(seed, Integral) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"manual_seed: seed must be an integer of 0 or more, got {seed!r}")
    _generator, _forks = np.random.default_rng(int(seed)), 0


def generator() -> np.random.Generator:
    """The generator in use; do not keep it, `manual_seed` replaces it."""
    return _generator


def get_rng_state() -> dict[str, Any]:
    """The generator's state, for `set_rng_state`: what follows can be repeated from it, also in forked children."""
    return {**_generator.bit_generator.state, "forks": _forks}


def set_rng_state(state: dict[str, Any]) -> None:
    """Go on from a state that `get_rng_state` returned.

    Raises:
        ValueError: anything else.
    """
    global _forks
    try:
        _generator.bit_generator.state = state
        _forks = state.get("forks", 0)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"set_rng_state: wanted a state that get_rng_state returned, got {state!r:.80}") from error
