"""Fixtures around every test: seeds before it, and afterwards a failure for whoever leaks state."""

import gc

import hypothesis
import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn.primitive import registry

# The same examples in every run, so that a red one can be repeated; `pytest --hypothesis-profile=default` looks at others.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="let searches that need an hour run, too")


@pytest.fixture
def long(request):
    return request.config.getoption("--long")


@pytest.fixture(autouse=True)
def _seeded():
    tg.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def _no_leaks():
    """Grad mode, NumPy's error state and the garbage collector stay as they were; a rule of the package is put back.

    Primitives that a test defines are taken out of the registry again.
    """
    known = {name: (p, dict(p.rules), p.joint_rule) for name, p in registry.items()}
    errors, collecting = np.geterr(), gc.isenabled()
    yield
    enabled = tg.is_grad_enabled()
    tg.set_grad_enabled(True)
    changed = [name for name, (p, rules, joint) in known.items() if registry.get(name) is not p or p.rules != rules or p.joint_rule is not joint]
    for name in set(registry) - set(known):
        if not registry[name].__module__.startswith("tinygrad_cnn."):
            del registry[name]
    assert enabled, "the test left gradient recording switched off"
    assert not changed, f"the test left changed rules behind: {changed}"
    assert np.geterr() == errors, "the test left NumPy's error state changed"
    assert gc.isenabled() == collecting, "the test left the garbage collector switched"
