"""Writes: either legal with the right gradient, or an error that names the operation and the tensor. Never silently wrong."""

import copy
import math

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn.primitive import primitive


def leaf(*values):
    return tg.tensor(np.array(values), dtype=tg.float64, requires_grad=True)


WRITES = {
    "add_": lambda t: t.add_(1), "sub_": lambda t: t.sub_(1), "mul_": lambda t: t.mul_(2), "div_": lambda t: t.div_(2), "zero_": lambda t: t.zero_(),
    "fill_": lambda t: t.fill_(3), "copy_": lambda t: t.copy_(tg.ones(2)), "clamp_": lambda t: t.clamp_(0, 1), "relu_": lambda t: t.relu_(),
    "normal_": lambda t: t.normal_(), "uniform_": lambda t: t.uniform_(), "+=": lambda t: t.__iadd__(1), "-=": lambda t: t.__isub__(1),
    "*=": lambda t: t.__imul__(2), "/=": lambda t: t.__itruediv__(2), "**=": lambda t: t.__ipow__(2), "x[...] = value": lambda t: t.__setitem__(0, 5.0),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_leaf_that_requires_grad_refuses_while_recording(name):
    x = leaf(1.0, 2.0)
    for target in (x, x[:], x.reshape(2)):
        with pytest.raises(RuntimeError, match=r"leaf tensor that requires grad .*no_grad"):
            WRITES[name](target)
    assert x.tolist() == [1, 2] and x._storage.version == 0
    with tg.no_grad():
        WRITES[name](x)
    assert x.is_leaf and x.requires_grad and x._storage.version == 1


@pytest.mark.parametrize("name", WRITES)
def test_a_write_to_a_saved_value_is_noticed(name):
    x = leaf(0.5, 2.0)
    y = x.exp()                                # exp keeps its result
    z = y.sin()                                # sin keeps its argument
    with tg.no_grad():
        WRITES[name](y)
    with pytest.raises(RuntimeError, match=r"x of sin \(\(2,\),\) -> \(2,\), a tensor of shape \(2,\), was modified.*version 1, expected 0.*clone"):
        z.sum().backward()


@pytest.mark.parametrize("name", WRITES)
def test_a_write_to_a_value_nobody_saved_is_legal(name):
    x = leaf(1.0, 2.0)
    y = x * 2
    z = y.sum()
    with tg.no_grad():
        WRITES[name](y)
    z.backward()
    assert x.grad.tolist() == [2, 2]


def test_recorded_writes_have_the_gradient_of_the_written_value():
    x, w = leaf(1.0, 2.0), leaf(3.0, 5.0)
    y = x * 2
    y += w
    y *= 3
    y -= x
    y /= 2
    (y * w.detach()).sum().backward()          # y = (3 (2x + w) - x) / 2
    assert x.grad.tolist() == [7.5, 12.5] and w.grad.tolist() == [4.5, 7.5]


def test_a_result_saved_by_its_own_in_place_operation_is_followed():
    x = leaf(-1.0, 2.0)
    y = x * 3
    y.relu_()
    y.sum().backward()
    assert x.grad.tolist() == [0, 3]
    y = x * 3
    y.relu_()
    z = y * 2
    y.add_(1)                                  # overwrites the result relu_ saved
    with pytest.raises(RuntimeError, match="the result 'out' of relu"):
        z.sum().backward()


def test_the_old_value_that_the_gradient_needs_outlasts_the_write():
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    y = x * 1
    y *= w                                     # w's gradient needs the old y
    y *= y                                     # and so does this one, twice
    y.sum().backward()                         # (x w)^2
    assert x.grad.tolist() == [18, 64] and w.grad.tolist() == [6, 32]
    buffer, w = tg.tensor([5.0, 6.0], dtype=tg.float64), leaf(3.0, 4.0)
    buffer.mul_(w)
    buffer.sum().backward()
    assert w.grad.tolist() == [5, 6]
    y = x * 1
    z = y.sin()
    y.mul_(w)                                  # what another operation saved of y is gone
    with pytest.raises(RuntimeError, match="x of sin"):
        z.sum().backward()


def test_an_operand_over_the_written_memory_is_not_saved_unnoticed():
    x = leaf(1.0, 2.0)
    y = x * 1
    y.mul_(y[:1].detach())                     # y's gradient needs the factor, which the write changes
    with pytest.raises(RuntimeError, match="y of mul"):
        y.sum().backward()
    y = tg.tensor([1.0, 2.0, 4.0])
    y[1:] += y[:-1]                            # read before it is written, as in NumPy and PyTorch
    assert y.tolist() == [1, 3, 6]


def test_overwriting_cuts_the_history():
    x = leaf(1.0, 2.0)
    y = x * 2
    y[0] = 10.0
    y.sum().backward()
    assert x.grad.tolist() == [0, 2] and y.tolist() == [10, 4]


@pytest.mark.parametrize("write", [lambda y: y.zero_(), lambda y: y.fill_(3), lambda y: y.copy_(tg.ones(2)), lambda y: y.copy_(np.ones(2)), lambda y: y.normal_(),
                                   lambda y: y.uniform_(), lambda y: y.__setitem__(slice(None), 3.0)])
def test_overwriting_everything_with_a_constant_leaves_a_gradient_of_zero(write):
    """PyTorch's y still requires grad, and x gets zeros."""
    x = leaf(1.0, math.inf)
    y = x * 2
    write(y)
    assert y.requires_grad and not y.is_leaf
    (y * 3).sum().backward()
    assert x.grad.tolist() == [0, 0]


def test_overwriting_with_graph_values():
    x, w, s = leaf(1.0, 2.0), leaf(3.0), leaf(5.0).sum()
    y = x * 2
    y.copy_(w)                                 # broadcast
    (y * tg.tensor([10.0, 20.0])).sum().backward()
    assert x.grad.tolist() == [0, 0] and w.grad.tolist() == [30]
    z = tg.zeros(2, dtype=tg.float64)
    z.fill_(s)
    assert z.tolist() == [5, 5] and tg.autograd.grad(z.sum(), s)[0].item() == 2
    with pytest.raises(ValueError, match=r"fill_: .*0-d.*\(2,\)"):
        z.fill_(x)


def test_writing_graph_values_into_a_buffer():
    x, buffer = leaf(1.0, 2.0), tg.zeros(2, 2, dtype=tg.float64)
    buffer[0] = x * 3
    buffer[1, 0] = x[1]
    (buffer * buffer).sum().backward()
    assert x.grad.tolist() == [18, 36 + 4]
    assert buffer.tolist() == [[3, 6], [2, 0]]


def test_repeated_places_pay_only_the_last_writer():
    v = leaf(1.0, 2.0, 3.0)
    target = tg.zeros(3, dtype=tg.float64)
    target[[0, 0, 2]] = v
    (target * tg.tensor([10.0, 20.0, 30.0])).sum().backward()
    assert target.tolist() == [2, 0, 3] and v.grad.tolist() == [0, 10, 30]


# ---- views ----------------------------------------------------------------------------------------------------------

VIEWS = {"index": lambda t: t[0], "slice": lambda t: t[:, 1:], "reshape": lambda t: t.reshape(4), "permute": lambda t: t.permute(1, 0),
         "T": lambda t: t.T, "detach": lambda t: t.detach(), "data": lambda t: t.data, "split": lambda t: t.split(1)[0], "unbind": lambda t: t.unbind()[1],
         "squeeze": lambda t: t.unsqueeze(0).squeeze(0), "einsum-less view chain": lambda t: t.T[0].reshape(2, 1), "iteration": lambda t: next(iter(t))}


@pytest.mark.parametrize("name", VIEWS)
def test_a_write_through_a_view_is_noticed_by_who_saved_the_base(name):
    x = leaf([1.0, 2.0], [3.0, 4.0])
    y = x.exp()
    z = (y**2).sum()
    with tg.no_grad():
        view = VIEWS[name](y)
        assert np.shares_memory(view._data, y._data)
        view.zero_()
    with pytest.raises(RuntimeError, match=r"x of pow .* was modified"):
        z.backward()


@pytest.mark.parametrize("name", VIEWS)
def test_a_write_to_the_base_is_noticed_by_who_saved_the_view(name):
    y = leaf([1.0, 2.0], [3.0, 4.0]) * 2
    view = VIEWS[name](y)
    w = leaf(1.0)
    z = (view * w).sum()
    with tg.no_grad():
        y.zero_()
    with pytest.raises(RuntimeError, match="was modified"):
        z.backward()


@pytest.mark.parametrize("name", [n for n in VIEWS if n not in ("detach", "data")])
def test_recorded_writes_make_the_other_views_refuse(name):
    y = leaf([1.0, 2.0], [3.0, 4.0]) * 2
    view = VIEWS[name](y)
    y.mul_(2)
    with pytest.raises(RuntimeError, match="shares memory with a tensor that an in-place operation changed"):
        view * 2
    y = leaf([1.0, 2.0], [3.0, 4.0]) * 2
    view = VIEWS[name](y)
    view.mul_(2)
    for use in (lambda: y * 2, lambda: y.sum()):
        with pytest.raises(RuntimeError, match="shares memory"):
            use()
    with pytest.raises(RuntimeError, match="shares memory"):
        y.backward(tg.ones(2, 2))


def test_a_buffer_whose_view_was_written_does_not_lose_the_gradient_silently():
    buffer, w = tg.zeros(2, 2), tg.ones(2, requires_grad=True)
    buffer[0].add_(w)
    with pytest.raises(RuntimeError, match=r"sum.*shares memory"):
        buffer.sum()


def test_expanded_views_refuse_writes():
    y = tg.ones(1).expand(3)
    for write in (lambda: y.add_(1), lambda: y.__setitem__(0, 1.0)):
        with pytest.raises(RuntimeError, match=r"expanded view .*clone\(\)"):
            write()


# ---- the doors to NumPy --------------------------------------------------------------------------------------------


def test_numpy_views_are_read_only():
    y = leaf(1.0, 2.0).exp()
    for view in (y.numpy(), np.asarray(y), y.detach().numpy(), y.T.numpy(), y[0].numpy(), y.numpy()[::2], y.numpy().reshape(1, 2)):
        with pytest.raises(ValueError, match="read-only"):
            view[...] = 7
    copied = np.array(y)
    copied[:] = 7
    assert y.tolist() != [7, 7]


@pytest.mark.parametrize("make", [tg.tensor, tg.from_numpy, tg.as_tensor, tg.Tensor])
def test_a_tensor_never_shares_memory_that_an_array_can_write(make):
    array = np.array([1.0, 2.0])
    locked = array.view()
    locked.flags.writeable = False
    for source in (array, locked, np.broadcast_to(array[:1], 2)):
        x = make(source)
        before = x.tolist()
        array += 1
        assert x.tolist() == before


def test_arrays_in_the_graph_are_kept_as_they_were():
    w, array = leaf(1.0, 2.0), np.array([3.0, 4.0])
    locked = array.view()
    locked.flags.writeable = False
    y = w * array + w * locked
    array[:] = 100
    y.sum().backward()
    assert w.grad.tolist() == [6, 8]


def test_a_tensors_numpy_view_used_as_a_constant_is_kept_as_it_was():
    w, y = leaf(1.0, 2.0), tg.tensor([3.0, 4.0], dtype=tg.float64)
    z = (w * y.numpy()).sum()
    y.zero_()
    z.backward()
    assert w.grad.tolist() == [3, 4]


def test_indices_in_the_graph_are_kept_as_they_were():
    x = leaf(1.0, 2.0, 3.0)
    index, tensor_index = np.array([0, 2]), tg.tensor([0, 2])
    y = x[index] * 1 + x[tensor_index] * 2 + x.gather(0, tensor_index) + x.index_select(0, tensor_index)
    index[:] = 1
    tensor_index.fill_(1)
    y.sum().backward()
    assert x.grad.tolist() == [5, 0, 5]


# ---- .data, copy_ and the optimizer's loop ----------------------------------------------------------------------------


def test_the_manual_training_loop():
    w = leaf(1.0, -2.0)
    for _ in range(3):
        (w * w).sum().backward()
        with tg.no_grad():
            w -= 0.25 * w.grad
        w.grad = None
    assert w.tolist() == [0.125, -0.25] and w.is_leaf


def test_assigning_data_between_forward_and_backward_is_noticed():
    w, x = leaf(1.0, 2.0), leaf(3.0, 4.0)
    y = (w * x).sum()
    w.data = w.data * 2
    with pytest.raises(RuntimeError, match="y of mul|x of mul"):
        y.backward()
    assert w.tolist() == [2, 4] and w.is_leaf and w.requires_grad
    with pytest.raises(TypeError, match="data: wanted a Tensor"):
        w.data = np.ones(2)
    with pytest.raises(TypeError, match="data: .*int64"):
        w.data = tg.tensor([1, 2])


def test_sharing_data_does_not_open_the_other_leaf():
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    a.data = b
    a.detach().requires_grad_(False)
    for t in (a, b):
        with pytest.raises(RuntimeError, match="leaf tensor that requires grad"):
            t.add_(1)


def test_writing_data_is_noticed():
    x = leaf(1.0, 2.0)
    y = x.exp()
    z = y.sin().sum()
    y.data.mul_(2)
    with pytest.raises(RuntimeError, match="was modified"):
        z.backward()


def test_shallow_copies_share_the_version():
    w = leaf(1.0, 2.0)
    y = (w * w).sum()
    with tg.no_grad():
        copy.copy(w).zero_()
    with pytest.raises(RuntimeError, match="was modified"):
        y.backward()


def test_shapes_and_dtypes_of_writes_are_checked_before_anything_changes():
    x = tg.zeros(2, 3)
    for write, error, message in (
        (lambda: x.add_(tg.ones(4, 2, 3)), ValueError, r"add_: the result's shape \(4, 2, 3\)"), (lambda: x.copy_(tg.ones(4)), ValueError, "broadcast_to|copy_"),
        (lambda: tg.zeros(2, dtype=tg.int64).add_(0.5), TypeError, "add_: the result is float32"),
        (lambda: tg.zeros(2, dtype=tg.int64).__setitem__(slice(None), tg.ones(2)), TypeError, "float32"),
        (lambda: x.__setitem__(5, 1.0), IndexError, "5"),
    ):
        with pytest.raises(error, match=message):
            write()
    assert x.tolist() == [[0] * 3] * 2 and x._storage.version == 0


def test_a_primitive_that_returns_its_argument_or_a_view_of_it_shares_its_version():
    @primitive
    def same(x):
        return x

    @same.vjp(0)
    def _(g):
        return g

    y = leaf(1.0, 2.0) * 1
    for view in (same(y), tg.einsum("i->i", y)):
        z = (y * y).sum()
        if np.shares_memory(view._data, y._data):
            with tg.no_grad():
                view.zero_()
            with pytest.raises(RuntimeError, match="was modified"):
                z.backward()
        else:
            z.backward()


@pytest.mark.parametrize("view", [lambda x: np.asarray(memoryview(x)), lambda x: np.frombuffer(x, x.dtype), lambda x: np.from_dlpack(x)])
def test_an_output_over_an_arguments_memory_is_known_whatever_lies_between(view):
    @primitive
    def over(x):
        return view(x)

    y = leaf(1.0, 2.0) * 1
    out = over(y)
    assert np.shares_memory(out._data, y._data) and out._storage is y._storage


def test_data_of_tensors_that_are_no_leaves_may_be_assigned():
    x = tg.ones(2)
    x.data = tg.tensor([1, 2])
    assert x.dtype == tg.int64
    with pytest.raises(TypeError, match="data: a tensor that requires grad holds floats, got int64"):
        tg.ones(2, requires_grad=True).data = tg.tensor([1, 2])
    leaf = tg.ones(2, requires_grad=True)
    y = leaf * 2
    y.data = tg.tensor([3.0, 4.0])
    y.mul_(5)                                  # a write that is recorded: no leaf lies there
    y.sum().backward()
    assert y.tolist() == [15, 20] and leaf.grad.tolist() == [10, 10]


def test_memory_of_a_leaf_that_is_gone_may_be_written_to():
    leaf, factor = tg.ones(2, requires_grad=True), tg.full((2,), 3.0, requires_grad=True)
    y, values = leaf * 2, leaf.detach()
    del leaf
    values.mul_(factor)
    values.sum().backward()
    assert values.tolist() == [3, 3] and factor.grad.tolist() == [1, 1]
    y.sum().backward()                         # the product with 2 saved nothing


def test_in_place_sums_take_alpha_and_keep_their_dtype():
    x = tg.ones(2)
    assert x.add_(tg.full((2,), 3.0), alpha=2).tolist() == [7, 7] and x.sub_(tg.ones(2), alpha=0.5).tolist() == [6.5, 6.5]
    wide = tg.full((2,), 2.0, dtype=tg.float64)
    assert x.mul_(wide).tolist() == [13, 13] and x.dtype == tg.float32
    with pytest.raises(TypeError, match="mul_: the result is float64 and cannot be written into a int64 tensor"):
        tg.ones(2, dtype=tg.int64).mul_(wide)
