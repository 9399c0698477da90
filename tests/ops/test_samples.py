"""Every primitive on every sample: forward against a slow reference, gradients to second order, dtypes, untouched inputs."""

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn.autograd import grad, gradcheck, gradgradcheck
from tinygrad_cnn.primitive import registry

from ..op_samples import ALL, IDS, SAMPLES, Sample

EVERY = pytest.mark.parametrize("sample", ALL, ids=IDS)
NAMES = pytest.mark.parametrize("name", sorted(SAMPLES))
FIRST_ORDER = pytest.mark.parametrize("sample", [s for s in ALL if s.order >= 1], ids=[i for s, i in zip(ALL, IDS, strict=True) if s.order >= 1])
SECOND_ORDER = pytest.mark.parametrize("sample", [s for s in ALL if s.order >= 2], ids=[i for s, i in zip(ALL, IDS, strict=True) if s.order >= 2])
THIRD_ORDER = pytest.mark.parametrize("name", ["_conv2d", "_batch_norm", "_max_pool2d", "mul", "pow", "sigmoid", "_matmul", "_softmax"])


def as_tuple(out):
    return out if isinstance(out, tuple) else (out,)


def test_every_primitive_of_the_package_has_samples():
    ours = {name for name, p in registry.items() if p.__module__.startswith("tinygrad_cnn.")}
    assert len(ours) > 100
    assert ours - set(SAMPLES) == set(), "primitives without a row in tests/op_samples.py"
    assert set(SAMPLES) - ours == set()


@NAMES
def test_a_primitive_has_several_samples_and_its_rules_are_checked(name):
    samples, p = SAMPLES[name], registry[name]
    assert len(samples) >= 2
    if p.rules or p.joint_rule:
        assert max(s.order for s in samples) == 2
    else:
        assert max(s.order for s in samples) == 0


@NAMES
def test_the_samples_of_a_primitive_call_it(name, monkeypatch):
    calls = []
    run = type(registry[name]).run
    monkeypatch.setattr(type(registry[name]), "run", lambda self, *a: calls.append(self.name) or run(self, *a))
    for sample in SAMPLES[name]:
        sample.run(*sample.tensors(requires_grad=False))
    assert calls.count(name) >= 2              # a public function may treat empty tensors another way


@EVERY
def test_forward_is_what_the_slow_reference_says(sample: Sample):
    out = as_tuple(sample.run(*sample.tensors()))
    expected = as_tuple(sample.reference(*sample.inputs, **sample.kwargs))
    assert len(out) == len(expected)
    for o, e in zip(out, expected, strict=True):
        assert o.shape == np.shape(e)
        np.testing.assert_allclose(o.numpy(), e, rtol=1e-9, atol=1e-12)


@NAMES
def test_inputs_are_left_alone_outputs_repeat_and_gradients_fit_their_leaf(name):
    for sample in SAMPLES[name]:
        tensors = sample.tensors()
        before = [np.array(t.numpy()) if isinstance(t, tg.Tensor) else None for t in tensors]
        first, second = as_tuple(sample.run(*tensors)), as_tuple(sample.run(*tensors))
        roots = [o for o in first if o.requires_grad]
        if roots:
            leaves = [t for t in tensors if isinstance(t, tg.Tensor) and t.requires_grad]
            found = grad(roots, leaves, [tg.randn(*o.shape, dtype=o.dtype) for o in roots], allow_unused=True)
            for leaf, g in zip(leaves, found, strict=True):
                assert g is None or (g.shape == leaf.shape and g.dtype == leaf.dtype and not g.requires_grad), sample
        for t, b in zip(tensors, before, strict=True):
            if isinstance(t, tg.Tensor):
                np.testing.assert_array_equal(t.numpy(), b, err_msg=str(sample))
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=str(sample))


@FIRST_ORDER
def test_gradients(sample: Sample):
    assert gradcheck(sample.run, sample.tensors())


@SECOND_ORDER
def test_second_derivatives(sample: Sample):
    assert gradgradcheck(sample.run, sample.tensors())


@THIRD_ORDER
def test_third_derivatives(name):
    sample = SAMPLES[name][0]
    inputs = sample.tensors()
    wanted = [i for i, t in enumerate(inputs) if isinstance(t, tg.Tensor) and t.requires_grad]
    weights = np.random.default_rng(1)

    def slope(*args):
        out = as_tuple(sample.run(*args))[0]
        g = tg.tensor(weights_for(out.shape))
        return [s for s in grad(out, [args[i] for i in wanted], g * out, create_graph=True, allow_unused=True) if s is not None]

    kept = {}

    def weights_for(shape):
        return kept.setdefault(shape, weights.standard_normal(shape))

    assert gradgradcheck(lambda *args: tuple(slope(*args)), inputs)


@NAMES
def test_float32_stays_float32(name):
    for sample in SAMPLES[name]:
        if "dtype" in sample.kwargs:
            continue
        tensors = sample.tensors(np.float32)
        out = as_tuple(sample.run(*tensors))
        for o, e in zip(out, as_tuple(sample.reference(*sample.inputs, **sample.kwargs)), strict=True):
            if o.is_floating_point():
                assert o.dtype == np.float32, sample
                np.testing.assert_allclose(o.numpy(), e, rtol=2e-4, atol=2e-5, err_msg=str(sample))
        roots = [o for o in out if o.requires_grad]
        if roots:
            tg.autograd.backward(roots, [tg.randn(*o.shape) for o in roots])
        for t in tensors:
            if isinstance(t, tg.Tensor) and t.grad is not None:
                assert t.grad.dtype == np.float32 and t.grad.shape == t.shape, sample


@NAMES
def test_called_with_arrays_a_primitive_just_runs(name):
    """The forwards know no Tensor: a call on arrays gives arrays, with the same numbers."""
    sample, seen = SAMPLES[name][1], []
    p = registry[name]
    run = p.run
    try:
        p.run = lambda arrays, attributes: seen.append((arrays, attributes)) or run(arrays, attributes)
        sample.run(*sample.tensors(requires_grad=False))
    finally:
        del p.run
    for arrays, attributes in seen[:1]:
        for out in as_tuple(p(*arrays, **attributes)):
            assert isinstance(out, (np.ndarray, np.generic))
