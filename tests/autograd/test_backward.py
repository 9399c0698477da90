"""The walk back: leaves and accumulation, cotangents, freed graphs, deep and wide graphs, hooks, `grad`, modes and threads."""

import copy
import sys
import threading
import time

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn.autograd import grad


def leaf(*values, dtype=tg.float64):
    return tg.tensor(np.array(values if len(values) != 1 else values[0], float), dtype=dtype, requires_grad=True)


# ---- leaves and accumulation -----------------------------------------------------------------------------------------


def test_leaf_semantics():
    x = tg.ones(2, requires_grad=True)
    y = x * 2
    assert x.is_leaf and x.requires_grad and x.grad_fn is None
    assert not y.is_leaf and y.requires_grad and y.grad_fn.name == "MulBackward"
    constant = tg.ones(2) * 2
    assert constant.is_leaf and not constant.requires_grad and constant.grad_fn is None
    with tg.no_grad():
        assert (x * 2).is_leaf
    with pytest.raises(RuntimeError, match=r"requires_grad_: .*computed.*detach\(\)"):
        y.requires_grad_(False)
    y.backward(tg.ones(2))
    assert y.grad is None and x.grad.tolist() == [2, 2] and not x.grad.requires_grad


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "bool"])
def test_only_floats_require_grad(dtype):
    with pytest.raises(RuntimeError, match=f"requires_grad_: .*this one is {dtype}"):
        tg.zeros(2, dtype=dtype, requires_grad=True)
    with pytest.raises(RuntimeError, match=dtype):
        tg.zeros(2, dtype=dtype).requires_grad = True
    assert not (tg.ones(2, requires_grad=True) > 0).requires_grad
    assert not tg.ones(2, requires_grad=True).to(dtype).requires_grad


def test_gradients_accumulate_until_set_to_none():
    x = leaf(3.0)
    for times in (1, 2, 3):
        (x * x).backward()
        assert x.grad.item() == 6 * times
    x.grad = None
    (x * x).backward()
    assert x.grad.item() == 6
    with pytest.raises(TypeError, match="grad"):
        x.grad = 1.0
    with pytest.raises(ValueError, match=r"grad: wanted shape \(\)"):
        x.grad = tg.ones(2, dtype=tg.float64)


def test_a_read_only_grad_set_by_the_user_is_added_to():
    x = leaf(1.0, 2.0)
    x.grad = tg.ones(1, dtype=tg.float64).expand(2)
    (x * x).sum().backward()
    assert x.grad.tolist() == [3, 5]


def test_gradients_of_siblings_share_no_memory():
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    c = a + b
    (c + a).sum().backward()
    assert a.grad.tolist() == [2, 2] and b.grad.tolist() == [1, 1]
    assert not np.shares_memory(a.grad._data, b.grad._data)
    a.grad.zero_()
    assert b.grad.tolist() == [1, 1]


def test_the_users_cotangent_is_neither_kept_nor_changed():
    x, g = leaf(1.0, 2.0), tg.ones(2, dtype=tg.float64)
    y = x + 0
    y.backward(g, retain_graph=True)
    y.backward(g)
    assert g.tolist() == [1, 1] and x.grad.tolist() == [2, 2]
    (found,) = grad(x + 0, x, g)
    found.mul_(7)
    assert g.tolist() == [1, 1]


def test_results_of_grad_do_not_alias_each_other():
    a, b = leaf(1.0), leaf(1.0)
    ga, gb = grad(a + b, (a, b))
    ga.mul_(5)
    assert (ga.item(), gb.item()) == (5, 1)


def test_read_only_cotangents_are_accumulated():
    x = leaf(1.0, 2.0)
    (x.sum() + x.sum() + x.mean()).backward()
    assert x.grad.tolist() == [2.5, 2.5]
    x.grad.add_(1)


def test_the_gradient_of_a_0d_leaf_that_broadcast_is_0d():
    s, x = leaf(2.0), leaf([[1.0, 2.0], [3.0, 4.0]])
    (s * x).sum().backward()
    assert s.grad.shape == () and s.grad.item() == 10


# ---- roots and cotangents ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "gradient", "message"), [
    (lambda x: x * 2, None, r"backward: the output has shape \(2,\)"),
    (lambda x: x * 2, tg.ones(3), r"backward: the gradient has shape \(3,\), the output \(2,\)"),
    (lambda x: x * 2, tg.ones(2, 1), r"gradient has shape \(2, 1\)"),
    (lambda x: x.detach().sum(), None, r"backward: .* does not require grad"),
    (lambda x: (x > 0).any(), None, "does not require grad"),
])
def test_a_wrong_start_is_refused(make, gradient, message):
    with pytest.raises(RuntimeError, match=message):
        make(tg.ones(2, requires_grad=True)).backward(gradient)


def test_a_cotangent_is_converted_to_the_outputs_dtype():
    x = tg.ones(2, requires_grad=True)
    (x * 2).backward(np.array([1.0, 3.0]))
    assert x.grad.dtype == tg.float32 and x.grad.tolist() == [2, 6]


def test_backward_of_one_element_of_any_shape():
    x = leaf([[[4.0]]])
    (x * x).backward()
    assert x.grad.tolist() == [[[8.0]]]
    x.backward()
    assert x.grad.tolist() == [[[9.0]]]


def test_backward_twice_speaks_and_retain_graph_allows_it():
    x = leaf(1.0, 2.0)
    y = (x.exp() * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()
    h = x.exp()
    h.sum().backward()
    with pytest.raises(RuntimeError, match=r"backward: the graph of exp \(\(2,\),\) -> \(2,\) was already freed"):
        (h * 2).sum().backward()


def test_several_outputs_in_one_walk():
    x = leaf(2.0)
    tg.autograd.backward([x * x, x * 3], [tg.tensor(1.0), tg.tensor(10.0)])
    assert x.grad.item() == 34
    with pytest.raises(ValueError, match="2 gradients for 1 outputs"):
        tg.autograd.backward([x * x], [None, None])


def test_backward_into_some_inputs_only():
    a, b = leaf(2.0), leaf(3.0)
    c = a * b
    (c * c).backward(inputs=[a, c])
    assert a.grad.item() == 36 and b.grad is None and c.grad.item() == 12
    with pytest.raises(RuntimeError, match="inputs"):
        (a * b).backward(inputs=[tg.ones(1)])


# ---- shapes of graphs -------------------------------------------------------------------------------------------------


def test_diamonds():
    a = leaf(1.0)
    b = a + a
    (b + b).backward()
    assert a.grad.item() == 4
    x = leaf(0.5)
    y = x * 2
    z = y.exp()
    (z * y + z * x).backward()                 # d/dx (2x + x) e^2x = 3 e^2x + 6x e^2x
    assert x.grad.item() == pytest.approx(6 * np.exp(1.0))


def test_a_chain_of_100_000_operations_under_the_default_recursion_limit():
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)                # Python's default, whatever the test runner has set
    try:
        x = leaf(1.0)
        y = x
        for _ in range(100_000):
            y = y + 0
        y.backward()
        assert x.grad.item() == 1
        del y
    finally:
        sys.setrecursionlimit(limit)


def test_a_long_chain_that_is_never_walked_is_freed_without_recursion():
    y = leaf(1.0)
    for _ in range(100_000):
        y = y.exp().log()
    del y


def test_one_tensor_used_very_often():
    x = leaf(1.0)
    tg.stack([x * 1 for _ in range(20_000)]).sum().backward()
    assert x.grad.item() == 20_000


def test_doubling_60_times_visits_each_node_once():
    x = leaf(1.0)
    y = x
    for _ in range(60):
        y = y + y
    started = time.process_time()
    y.backward()
    assert x.grad.item() == 2.0**60
    assert time.process_time() - started < 60  # visiting every path would take thousands of years


def test_outputs_of_one_node_used_and_unused():
    x = leaf([[3.0, 1.0, 2.0]])
    values, indices = x.max(1)
    values.sum().backward()
    assert x.grad.tolist() == [[1, 0, 0]] and not indices.requires_grad


# ---- grad ---------------------------------------------------------------------------------------------------------------


def test_grad_leaves_dot_grad_alone():
    x = leaf(3.0)
    (g,) = grad(x * x, x)
    assert g.item() == 6 and x.grad is None and not g.requires_grad


def test_grad_of_computed_inputs_and_of_the_same_input_twice():
    x = leaf(3.0)
    y = x * x
    z = y * x
    gy, gx, again = grad(z, [y, x, x], retain_graph=True)
    assert (gy.item(), gx.item(), again.item()) == (3, 27, 27)
    (itself,) = grad(y, y)
    assert itself.item() == 1


def test_grad_of_several_outputs_weighted():
    x = leaf(1.0, 2.0)
    (g,) = grad([x * x, x.sum()], x, [tg.tensor([1.0, 10.0]), None])
    assert g.tolist() == [3, 41]


def test_unused_and_ungraded_inputs():
    x, unused = leaf(1.0), leaf(2.0, 3.0)
    with pytest.raises(RuntimeError, match=r"grad: input 1 of shape \(2,\) was not used.*allow_unused=True"):
        grad(x * 2, [x, unused])
    assert grad(x * 2, [x, unused], allow_unused=True)[1] is None
    with pytest.raises(RuntimeError, match="grad: input 0 .* does not require grad"):
        grad(x * 2, tg.ones(1))
    with pytest.raises(TypeError, match="grad: "):
        grad(x * 2, [3.0])
    with pytest.raises(TypeError, match="grad: "):
        grad(2.0, x)


def test_grad_frees_unless_told():
    x = leaf(2.0)
    y = x.exp()
    grad(y, x, retain_graph=True)
    grad(y, x)
    with pytest.raises(RuntimeError, match="already freed"):
        grad(y, x)


def test_derivatives_of_every_order():
    x = leaf(2.0)
    y = x**5
    for expected in (80, 160, 240, 240, 120, 0):
        (y,) = grad(y, x, create_graph=True)
        assert y.item() == pytest.approx(expected)


def test_backward_with_create_graph_differentiates_dot_grad():
    x = leaf(3.0)
    (x**3).backward(create_graph=True)
    assert x.grad.requires_grad and x.grad.item() == 27
    g, x.grad = x.grad, None
    g.backward()
    assert x.grad.item() == 18
    x.grad = None


def test_hessian_vector_product_is_the_closed_form():
    a = np.random.default_rng(0).standard_normal((4, 4))
    x, v = leaf(np.arange(4.0)), tg.tensor(np.arange(1.0, 5.0))
    (g,) = grad((x @ tg.tensor(a) @ x), x, create_graph=True)
    (hv,) = grad((g * v).sum(), x)
    np.testing.assert_allclose(hv.numpy(), (a + a.T) @ v.numpy())


# ---- hooks --------------------------------------------------------------------------------------------------------------


def test_hooks_run_in_order_replace_and_can_be_removed():
    x, seen = leaf(1.0, 2.0), []
    y = x * 3
    first = y.register_hook(lambda g: seen.append(("first", g.tolist())))
    y.register_hook(lambda g: g * 10)          # nobody keeps its handle
    last = y.register_hook(lambda g: seen.append(("last", g.tolist())))
    x.register_hook(lambda g: g + 1)
    y.sum().backward(retain_graph=True)
    assert seen == [("first", [1, 1]), ("last", [10, 10])] and x.grad.tolist() == [31, 31]
    first.remove()
    first.remove()
    with last:
        pass
    seen.clear()
    y.sum().backward()
    assert seen == []


def test_handles_that_were_dropped_do_not_displace_each_other():
    x, seen = leaf(1.0), []
    for k in range(50):
        x.register_hook(lambda g, k=k: seen.append(k))
    (x * 2).backward()
    assert seen == list(range(50))


def test_a_leafs_hook_sees_the_complete_gradient_once():
    x, seen = leaf(1.0), []
    x.register_hook(lambda g: seen.append(g.item()))
    (x * 2 + x * 3 + x.exp()).backward()
    assert seen == [pytest.approx(5 + np.e)]


def test_hooks_cannot_corrupt_a_sibling():
    a, b = leaf(1.0), leaf(1.0)
    a.register_hook(lambda g: g.mul_(5))
    with pytest.raises(RuntimeError, match="hook wrote in place"):
        (a + b).backward()


@pytest.mark.parametrize(("hook", "error", "message"), [
    (lambda g: 3.0, TypeError, "hook must return a Tensor or None, got float"),
    (lambda g: g.sum(), ValueError, r"hook returned a gradient of shape \(\), wanted \(2,\)"),
])
def test_what_a_hook_returns_is_checked(hook, error, message):
    x = leaf(1.0, 2.0)
    x.register_hook(hook)
    with pytest.raises(error, match=message):
        (x * 2).sum().backward()


def test_hooks_need_a_gradient():
    for method in (lambda t: t.register_hook(print), lambda t: t.retain_grad()):
        with pytest.raises(RuntimeError, match="does not require grad"):
            method(tg.ones(1))


def test_retain_grad():
    x = leaf(1.0, 2.0)
    y = x * 3
    y.retain_grad()
    y.retain_grad()
    (y * y).sum().backward()
    assert y.grad.tolist() == [6, 12] and x.grad.tolist() == [18, 36]
    x.retain_grad()                            # harmless on a leaf


def test_retain_grad_follows_an_in_place_operation():
    x = leaf(1.0, 2.0)
    y = x * 3
    y.retain_grad()
    y.add_(1)
    (y * y).sum().backward()
    assert y.grad.tolist() == [8, 14]


# ---- modes --------------------------------------------------------------------------------------------------------------


def test_modes_nest_and_are_restored_after_exceptions():
    x = leaf(1.0)
    for context in (tg.no_grad, lambda: tg.set_grad_enabled(False)):
        with pytest.raises(ZeroDivisionError), context():
            assert not tg.is_grad_enabled() and not (x * 2).requires_grad
            with tg.enable_grad():
                assert (x * 2).requires_grad
            assert not tg.is_grad_enabled()
            _ = 1 / 0
        assert tg.is_grad_enabled()


def test_the_mode_survives_an_error_in_backward():
    x = leaf(1.0)
    x.register_hook(lambda g: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        (x * 2).backward()
    assert tg.is_grad_enabled()


def test_modes_as_decorators():
    x = leaf(1.0)

    @tg.no_grad()
    def without():
        return x * 2

    @tg.no_grad
    def bare():
        """Kept."""
        return x * 2

    @tg.set_grad_enabled(False)
    def switched():
        return x * 2

    assert tg.is_grad_enabled()
    assert not any(f().requires_grad for f in (without, bare, switched))
    assert bare.__name__ == "bare" and bare.__doc__ == "Kept." and tg.is_grad_enabled()
    tg.set_grad_enabled(False)
    assert not tg.is_grad_enabled()
    tg.set_grad_enabled(True)


def test_each_thread_has_its_own_mode():
    seen, inside, leave = [], threading.Event(), threading.Event()

    def other():
        seen.append(tg.is_grad_enabled())
        with tg.no_grad():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with tg.no_grad():
        thread.start()
        assert inside.wait(10)
    assert tg.is_grad_enabled()
    leave.set()
    thread.join()
    assert seen == [True] and tg.is_grad_enabled()


def test_threads_record_and_walk_at_the_same_time():
    results = {}

    def work(k):
        x = leaf(float(k))
        for _ in range(200):
            x.grad = None
            (x.exp() * x).sum().backward()
        results[k] = x.grad.item()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {k: pytest.approx(np.exp(k) * (k + 1)) for k in range(4)}


def test_copies_of_leaves():
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    deep, shallow = copy.deepcopy(x), copy.copy(x)
    assert deep.requires_grad and deep.grad.tolist() == [2, 4] and not np.shares_memory(deep._data, x._data)
    assert shallow.requires_grad and np.shares_memory(shallow._data, x._data)
    y = x.exp()
    for what in (copy.copy, copy.deepcopy):
        with pytest.raises(RuntimeError, match=r"detach\(\)"):
            what(y)


def test_a_gradient_with_history_is_added_to_one_without():
    x = tg.tensor([2.0, 3.0], dtype=tg.float64, requires_grad=True)
    (x**2).sum().backward()
    (x**3).sum().backward(create_graph=True)
    assert x.grad.tolist() == [2 * 2 + 3 * 4, 2 * 3 + 3 * 9]
    (second,) = tg.autograd.grad(x.grad.sum(), x)
    assert second.tolist() == [6 * 2, 6 * 3]


def test_a_second_walk_from_the_same_root_is_refused_even_if_nothing_was_saved():
    x = tg.ones(2, requires_grad=True)
    y = (x + 1).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="retain_graph"):
        y.backward()
    assert x.grad.tolist() == [1, 1]


@pytest.mark.parametrize("parts", [lambda h: (h, h), lambda h: (h, h.view(2, 2)), lambda h: (h[:], h.reshape(2, 2))])
@pytest.mark.parametrize("after", [lambda x: x, tg.relu])
def test_gradients_that_share_memory_belong_to_nobody(parts, after):
    """One array for two arguments: neither may keep it as its own, nor a rule, such as ReLU's, write over it."""
    @tg.primitive
    def total(x, y):
        return x + y

    @total.joint_vjp
    def _(g, needs):
        return tuple(part.reshape(2, 2) for part in parts(g * 2))

    x, y = tg.tensor([[1.0, -1.0], [1.0, -1.0]], requires_grad=True), tg.ones(2, 2, requires_grad=True)
    total(after(x), y).sum().backward()
    expected = [[2, 2], [2, 2]] if after is not tg.relu else [[2, 0], [2, 0]]
    assert x.grad.tolist() == expected and y.grad.tolist() == [[2, 2], [2, 2]]
    x.grad.zero_()
    assert y.grad.tolist() == [[2, 2], [2, 2]]


@tg.primitive
def average(x):
    return np.asarray(np.mean(x))


@average.vjp(0)
def _(g, x_shape):
    return (g / 12).expand(x_shape)


@pytest.mark.parametrize("f", [average, lambda x: x.mean(), lambda x: (x.sum(0) * 2).sum(), lambda x: x.max(), lambda x: x.std()])
def test_gradients_can_be_written_to(f):
    """Also those that a rule made by expanding a smaller one."""
    x = tg.randn(3, 4, requires_grad=True)
    f(x).backward()
    x.grad.zero_()
    x.grad[1, 2] = 5
    assert x.grad.sum() == 5


def test_gradients_add_up_in_place_as_in_pytorch():
    x = tg.ones(3, requires_grad=True)
    (x * 2).sum().backward()
    first = x.grad
    (x * 3).sum().backward()
    assert x.grad is first and first.tolist() == [5, 5, 5]


def test_cotangents_of_the_same_root_add_up():
    x = tg.ones(2, requires_grad=True)
    y = x * 3
    tg.autograd.backward([y, y], [tg.tensor([1.0, 2.0]), tg.tensor([10.0, 20.0])])
    assert x.grad.tolist() == [33, 66]
