"""Networks as people publish them run, in processes of their own, and agree with PyTorch to nine digits."""

import os

import pytest

from . import child, public_networks

RUNS = 20 if os.environ.get("TINYGRAD_CNN_THOROUGH") else 1
"""Fresh processes: what reads beside its memory may not crash in each."""


@pytest.mark.parametrize("name", public_networks.NAMES)
def test_it_runs_and_gives_the_same_again(name):
    assert len({child.run("tests.public_networks", name, "1", seconds=300) for _ in range(RUNS + 1)}) == 1


@pytest.mark.parametrize("name", public_networks.NAMES)
def test_it_agrees_with_pytorch(name):
    pytest.importorskip("torch")
    for seed in range(RUNS):
        child.run("tests.public_networks", name, str(seed), "torch", seconds=300)
