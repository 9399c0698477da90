"""Names, order and defaults of parameters are PyTorch's, for what both have."""

import inspect

import pytest

import tinygrad_cnn as tg
from tinygrad_cnn import nn

SPACES = {"nn": nn, "nn.functional": nn.functional, "nn.init": nn.init, "nn.utils": nn.utils, "optim": tg.optim, "optim.lr_scheduler": tg.optim.lr_scheduler}
OTHERWISE = {"ModuleDict", "ModuleList", "ParameterList", "Parameter", "Module", "batch_norm"}
"""() where PyTorch has None, or another kind of class."""


def parameters(function):
    found = inspect.signature(function.__init__ if isinstance(function, type) else function).parameters.values()
    return [p for p in found if p.name != "self" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


@pytest.mark.parametrize("space", SPACES)
def test_defaults(space):
    torch = pytest.importorskip("torch")
    owner, compared = torch, 0
    for name in space.split("."):
        owner = getattr(owner, name)
    for name, ours in vars(SPACES[space]).items():
        theirs = getattr(owner, name, None)
        if name.startswith("_") or not callable(ours) or not callable(theirs) or name in OTHERWISE or name in ("Tensor", "tensor"):
            continue
        try:
            mine, yours = parameters(ours), {p.name: p for p in parameters(theirs)}
        except ValueError:                     # a builtin says nothing of its parameters
            continue
        common = [p for p in mine if p.name in yours and p.name != "dtype"]          # None there, here what that stands for
        compared += len(common)
        for p in common:
            assert p.default == yours[p.name].default, f"{space}.{name}: {p.name}"
        order = [n for n, p in yours.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
        by_position = [p.name for p in common if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert by_position == [n for n in order if n in by_position], f"{space}.{name}"
    assert compared > 5
