"""Forward and backward hooks: what they see, what they may replace, and that they go away."""

import gc
import weakref

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn import nn


def test_forward_hooks_see_and_replace():
    layer, calls = nn.Linear(2, 2), []
    layer.register_forward_pre_hook(lambda m, args: calls.append(("pre", m, args)))
    layer.register_forward_pre_hook(lambda m, args: args[0] * 2)
    layer.register_forward_hook(lambda m, args, out: calls.append(("post", m, args[0].tolist())))
    layer.register_forward_hook(lambda m, args, out: out + 100)
    x = tg.tensor([[1.0, 2.0]])
    y = layer(x)
    plain = layer.forward(x * 2)
    assert [c[0] for c in calls] == ["pre", "post"] and calls[0][1] is layer and calls[0][2][0] is x
    assert calls[1][2] == [[2, 4]]
    np.testing.assert_allclose(y.numpy(), plain.numpy() + 100)


def test_handles_remove_exactly_their_own_hook():
    layer, seen = nn.ReLU(), []
    first = layer.register_forward_hook(lambda m, a, o: seen.append(1))
    layer.register_forward_hook(lambda m, a, o: seen.append(2))          # a handle nobody keeps
    layer.register_forward_hook(lambda m, a, o: seen.append(3))
    layer(tg.ones(1))
    first.remove()
    first.remove()
    layer(tg.ones(1))
    assert seen == [1, 2, 3, 2, 3]
    with layer.register_forward_pre_hook(lambda m, a: seen.append(0)):
        layer(tg.ones(1))
    layer(tg.ones(1))
    assert seen[5:] == [0, 2, 3, 2, 3]


class Two(nn.Module):
    """Two inputs, two outputs."""

    def forward(self, a, b):
        return a * b, a + b


def test_backward_hook_sees_only_this_modules_share():
    layer, seen = nn.ReLU(), []
    layer.register_full_backward_hook(lambda m, gi, go: seen.append((m, gi[0].tolist(), go[0].tolist())))
    x = tg.tensor([1.0, -1.0], requires_grad=True)
    y = layer(x)
    (y * 3 + x * 10).sum().backward()
    assert seen == [(layer, [3, 0], [3, 3])]
    assert x.grad.tolist() == [13, 10]


def test_backward_hook_replaces_the_input_gradient():
    layer = nn.ReLU()
    layer.register_full_backward_hook(lambda m, gi, go: (gi[0] * 2,))
    layer.register_full_backward_hook(lambda m, gi, go: (gi[0] + 1,))
    x = tg.tensor([1.0, -1.0], requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.tolist() == [3, 1]


def test_backward_hook_of_a_first_layer_has_no_input_gradient():
    layer, seen = nn.Linear(3, 2), []
    layer.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go[0].shape)))
    layer(tg.ones(4, 3)).sum().backward()
    assert seen == [((None,), (4, 2))]
    assert layer.weight.grad is not None


def test_backward_hook_with_several_inputs_and_outputs():
    module, seen = Two(), []
    handle = module.register_full_backward_hook(
        lambda m, gi, go: seen.append([[g.item() for g in gs] for gs in (gi, go)]))
    a, b = tg.tensor(2.0, requires_grad=True), tg.tensor(5.0, requires_grad=True)
    product, total = module(a, b)
    loss = product * 10 + total
    loss.backward(retain_graph=True)
    loss.backward()
    assert seen == [[[51, 21], [10, 1]]] * 2
    handle.remove()
    module.register_full_backward_hook(lambda m, gi, go: gi)
    with pytest.raises(RuntimeError, match="only a single one can be replaced"):
        sum(module(a, b)).backward()


def test_backward_hooks_fire_in_every_backward_and_with_create_graph():
    layer, seen = nn.Tanh(), []
    layer.register_full_backward_hook(lambda m, gi, go: seen.append(gi[0]))
    x = tg.tensor([0.3], requires_grad=True)
    y = layer(x)
    y.sum().backward(retain_graph=True)
    (slope,) = tg.autograd.grad(y.sum(), x, create_graph=True)
    assert len(seen) == 2 and seen[1].requires_grad
    slope.sum().backward()
    t = np.tanh(0.3)
    assert x.grad.item() == pytest.approx((1 - t * t) - 2 * t * (1 - t * t), rel=1e-5)


def test_hooks_leave_no_garbage():
    gc.collect()
    gc.disable()
    try:
        layer = nn.Linear(3, 3)
        layer.register_full_backward_hook(lambda m, gi, go: None)
        x = tg.ones(2, 3, requires_grad=True)
        y = layer(x)
        y.sum().backward()
        reference = weakref.ref(y)
        del y
        assert reference() is None
    finally:
        gc.enable()


def test_hooks_against_torch():
    torch = pytest.importorskip("torch")
    data, g = np.random.default_rng(0).standard_normal((4, 3)), np.random.default_rng(1).standard_normal((4, 2))

    def run(n, tensor, weights=None):
        model = n.Sequential(n.Linear(3, 5), n.Tanh(), n.Linear(5, 2)).double()
        if weights is not None:
            model.load_state_dict(weights)
        seen = []
        for module in (model, *model):
            module.register_full_backward_hook(
                lambda m, gi, go: seen.append((type(m).__name__, [np.asarray(v) for v in (*gi, *go)])))
        x = tensor(data)
        x.requires_grad = True
        model(x).backward(tensor(g))
        return seen, {k: v.detach().numpy() for k, v in model.state_dict().items()}

    wanted, weights = run(torch.nn, torch.tensor)
    found, _ = run(nn, tg.tensor, weights)
    assert [name for name, _ in found] == [name for name, _ in wanted]
    for (_, ours), (_, theirs) in zip(found, wanted, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10)
