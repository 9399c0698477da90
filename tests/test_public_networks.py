"""Networks as people publish them run, in processes of their own, and agree with PyTorch to nine digits."""

import pytest

from . import child, public_networks


@pytest.fixture
def runs(long):
    """How many fresh processes: what reads beside its memory need not crash in each."""
    return 20 if long else 1


@pytest.mark.parametrize("name", public_networks.NAMES)
def test_it_runs_and_gives_the_same_again(name, runs):
    assert len({child.run("tests.public_networks", name, "1", seconds=300) for _ in range(runs + 1)}) == 1


@pytest.mark.parametrize("name", public_networks.NAMES)
def test_it_agrees_with_pytorch(name, runs):
    pytest.importorskip("torch")
    for seed in range(runs):
        child.run("tests.public_networks", name, str(seed), "torch", seconds=300)
