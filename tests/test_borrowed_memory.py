"""Memory that others may write to: what NumPy lends us, and what we lend. A graph never computes with what it did not save."""

import gc
import mmap

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn import nn


def locked(values):
    """A read-only array whose memory can still be written to, and a function that does."""
    base = np.array(values)
    alias = base[:]
    base.flags.writeable = False
    return base, lambda: alias.fill(100)


def from_map(values):
    memory = mmap.mmap(-1, 8 * len(values))
    array = np.frombuffer(memory, np.float64)
    array[:] = values
    array.flags.writeable = False
    return array, lambda: memory.__setitem__(slice(0, 8 * len(values)), np.full(len(values), 100.0).tobytes())


def from_bytes(values):
    memory = bytearray(np.array(values).tobytes())
    array = np.frombuffer(memoryview(memory).toreadonly(), np.float64)
    return array, lambda: memory.__setitem__(slice(None), np.full(len(values), 100.0).tobytes())


def unlocked_later(values):
    array = np.array(values)
    array.flags.writeable = False

    def write():
        array.flags.writeable = True
        array.fill(100)
    return array, write


BORROWED = {"locked": locked, "a map": from_map, "bytes": from_bytes, "unlocked later": unlocked_later}


@pytest.mark.parametrize("make", BORROWED.values(), ids=BORROWED)
@pytest.mark.parametrize("through", [lambda t: t, lambda t: t.detach(), lambda t: t.reshape(3, 1).reshape(3), lambda t: t[:], lambda t: t.expand(1, 3).squeeze(0)],
                         ids=["itself", "detach", "reshape", "slice", "expand"])
def test_what_a_graph_saves_of_borrowed_memory_stays(make, through):
    array, write = make([1.0, 2.0, 3.0])
    x, w = tg.from_numpy(array), tg.ones(3, dtype=tg.float64, requires_grad=True)
    assert np.shares_memory(x._data, array)
    loss = (w * through(x)).sum() + (w * array).sum()
    write()
    assert x.tolist() == [100] * 3             # it is borrowed, not copied
    loss.backward()
    assert w.grad.tolist() == [2, 4, 6]


def test_a_leaf_over_borrowed_memory():
    array, write = locked([1.0, 2.0, 3.0])
    x = tg.from_numpy(array).requires_grad_()
    y = (x * x).sum()
    write()
    y.backward()
    assert x.grad.tolist() == [2, 4, 6]
    with pytest.raises(RuntimeError, match=r"read-only memory; clone\(\)"), tg.no_grad():
        x.add_(1)


# ---- what .numpy() lends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [tg.randn(2, 3), tg.randn(2, 3).T, tg.randn(4)[::-2], tg.tensor(1.5), tg.zeros(0, 2), tg.ones(1).expand(3), tg.tensor([True]),
                               tg.arange(3, dtype=tg.uint8), nn.Conv2d(2, 3, 3).weight, tg.randn(64, 64, 9)], ids=lambda x: f"{x.dtype} {x.shape}")
def test_the_flag_of_what_is_lent_cannot_be_raised(x):
    lent = x.numpy()
    assert lent.tolist() == x.tolist() and lent.dtype == x.dtype and (lent.strides == x._data.strides or not x.numel())
    for array in (lent, lent.view(), lent[...], lent.T, np.asarray(x), lent.reshape(-1, order="A")):
        if array is not lent and not np.shares_memory(array, x._data):
            continue
        for raise_flag in (lambda a=array: a.setflags(write=1), lambda a=array: setattr(a.flags, "writeable", True)):
            with pytest.raises(ValueError, match="WRITEABLE"):
                raise_flag()
    if lent.ndim:
        with pytest.raises(ValueError, match="read-only"):
            lent[...] = 0


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_a_write_through_what_is_lent_does_not_reach_a_graph():
    torch = pytest.importorskip("torch")
    for lend in (lambda t: t.numpy(), np.asarray, lambda t: t.detach().numpy(), lambda t: t[:].numpy(), lambda t: t.reshape(1, 3).numpy()):
        x = tg.ones(3, requires_grad=True)
        y = x * 1
        z = (y * y).sum()
        torch.from_numpy(lend(y)).fill_(100)   # lent after it was saved
        z.backward()
        assert x.grad.tolist() == [2, 2, 2]
        x.grad = None
        y = x * 1
        lent = lend(y)
        z = (y * y).sum()
        torch.from_numpy(lent).fill_(100)      # lent before, and still in use
        z.backward()
        assert x.grad.tolist() == [2, 2, 2]


def test_lending_shares_memory_unless_a_graph_holds_the_values():
    x, w = tg.ones(3), tg.ones(3, requires_grad=True)
    assert np.shares_memory(x.numpy(), x._data)
    loss = (w * x).sum()
    assert not np.shares_memory(x.numpy(), x._data) and not np.shares_memory(np.asarray(x[:2]), x._data)
    with pytest.raises(ValueError, match="a graph holds these values"):
        np.asarray(x, copy=False)
    with pytest.raises(BufferError, match="a graph holds these values"):
        np.from_dlpack(x, copy=False)
    loss.backward()
    x.add_(1)                                  # no graph holds the new values
    assert np.shares_memory(x.numpy(), x._data) and np.shares_memory(np.asarray(x, copy=False), x._data)


def test_a_graph_shares_memory_again_when_what_was_lent_is_gone():
    x, w = tg.ones(3), tg.ones(3, requires_grad=True)
    lent = x.numpy()
    part = lent[1:]
    del lent
    (saved,) = [value.array for name, value in (w * x).grad_fn.saved()]
    assert not np.shares_memory(saved, x._data)
    del part
    gc.collect()
    (saved,) = [value.array for name, value in (w * x).grad_fn.saved()]
    assert saved is x._data


# ---- what is kept in evaluation ------------------------------------------------------------------------------------------


def layers():
    conv, norm = nn.Conv2d(2, 4, 3, dtype=tg.float64), nn.BatchNorm2d(4, dtype=tg.float64)
    norm.running_mean.uniform_(), norm.running_var.uniform_(0.5, 2.0)
    return {"weight": (nn.Sequential(conv).eval(), conv.weight), "folded weight": (nn.Sequential(conv, norm).eval(), conv.weight),
            "running mean": (nn.Sequential(conv, norm).eval(), norm.running_mean)}


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("name", ["weight", "folded weight", "running mean"])
@pytest.mark.parametrize("held", [False, True])
def test_what_is_kept_in_evaluation_notices_writes_through_what_was_lent(name, held):
    torch = pytest.importorskip("torch")
    model, values = layers()[name]
    x = tg.randn(1, 2, 6, 6, dtype=tg.float64)
    with tg.no_grad():
        for _ in range(3):
            model(x)
        lent = torch.from_numpy(values.numpy())
        for step in range(3):
            lent.fill_(float(step))
            if not held:
                del lent
            twin = layers()["folded weight" if len(model) == 2 else "weight"][0]
            twin.load_state_dict({key: np.array(value._data) for key, value in model.state_dict().items()})
            np.testing.assert_allclose(model(x).numpy(), twin(x).numpy(), rtol=1e-12, atol=1e-12)
            if not held:
                lent = torch.from_numpy(values.numpy())


def test_kept_weights_of_layers_over_one_array():
    """Two layers' weights may be parts of one array: each computes with its own."""
    for dtype in (tg.float32, tg.float64):
        parts = tg.randn(2, 3, 3, 4, 8, dtype=dtype)           # (2, R, S, C, K)
        x = tg.randn(2, 4, 9, 9, dtype=dtype)
        convs = [nn.Conv2d(4, 8, 3, bias=False, dtype=dtype).eval() for _ in range(2)]
        for conv, part in zip(convs, parts, strict=True):
            conv.weight = nn.Parameter(part.permute(3, 2, 0, 1))
        transposed = [nn.ConvTranspose2d(8, 4, 3, bias=False, dtype=dtype).eval() for _ in range(2)]
        for layer, part in zip(transposed, parts, strict=True):
            layer.weight = nn.Parameter(part.permute(3, 2, 0, 1))
        with tg.no_grad():
            expected = [nn.functional.conv2d(x, conv.weight.clone()) for conv in convs]
            back = [nn.functional.conv_transpose2d(expected[0], layer.weight.clone()) for layer in transposed]
            assert abs(expected[0] - expected[1]).max().item() > 1
            for _ in range(4):
                for conv, right in zip(convs, expected, strict=True):
                    assert abs(conv(x) - right).max().item() < 1e-4
                for layer, right in zip(transposed, back, strict=True):
                    assert abs(layer(expected[0]) - right).max().item() < 1e-3


def test_weights_over_borrowed_memory_are_not_kept():
    array, write = locked(np.random.default_rng(0).standard_normal((4, 2, 1, 1)))
    conv, x = nn.Conv2d(2, 4, 1, bias=False, dtype=tg.float64).eval(), tg.ones(1, 2, 1, 1, dtype=tg.float64)
    conv.weight.data = tg.from_numpy(array)
    with tg.no_grad():
        for _ in range(3):
            np.testing.assert_allclose(conv(x).flatten().tolist(), array.sum((1, 2, 3)))
        write()
        assert conv(x).flatten().tolist() == [200] * 4
