"""What PyTorch calls a view shares memory or refuses what would tell it from one; what PyTorch copies shares nothing.

Images and convolution weights lie in memory in another order here, so each method is tried on them, too.
"""

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn import nn

SHAPE = (2, 4, 3, 3)

# Where a tensor comes from, in either library, given values in row-major order.
SOURCES = {
    "plain": lambda lib, x: x,
    "computed": lambda lib, x: x * 1,
    "image": lambda lib, x: image(lib, x),
    "weight": lambda lib, x: weight(lib, x),
    "image + 1": lambda lib, x: image(lib, x) + 1,
    "image in float64": lambda lib, x: image(lib, x).double(),
    "clone of an image": lambda lib, x: image(lib, x).clone(),
    "image permuted to NHWC": lambda lib, x: image(lib, x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1),
    "permuted image + 1": lambda lib, x: image(lib, x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) + 1,
    "permuted image + image": lambda lib, x: image(lib, x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) + image(lib, x),
    "clone of a permuted image": lambda lib, x: image(lib, x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).clone(),
    "half of an image": lambda lib, x: image(lib, lib.cat([x, x], 1))[:, :4],
    "every second row": lambda lib, x: image(lib, lib.cat([x, x], 2))[:, :, ::2],
    "transposed": lambda lib, x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "transposed + 1": lambda lib, x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0) + 1,
    "expanded": lambda lib, x: x[:1, :1].expand(SHAPE),
    "expanded image": lambda lib, x: image(lib, x)[:1].expand(SHAPE),
    "expanded + 1": lambda lib, x: x[:1, :1].expand(SHAPE) + 1,
    "expanded image + 1": lambda lib, x: image(lib, x)[:1].expand(SHAPE) + 1,
    "cat of images": lambda lib, x: lib.cat([image(lib, x[:1]), image(lib, x[1:])]),
    "one channel": lambda lib, x: image(lib, x.reshape(2 * 4, 1, 3, 3)).reshape(SHAPE),
    "one pixel": lambda lib, x: image(lib, x.reshape(2, 4 * 9, 1, 1)).reshape(SHAPE),
    "view of an image": lambda lib, x: image(lib, x).view(2, 4, 9).view(SHAPE),
    "squeezed and unsqueezed image": lambda lib, x: image(lib, x).unsqueeze(1).squeeze(1),
}

# What is called. `view` may refuse in PyTorch.
CALLS = {
    "view": lambda lib, x: x.view(-1), "view to rows": lambda lib, x: x.view(x.shape[0], -1), "view that splits": lambda lib, x: x.view(2, 2, 2, 3, 3),
    "view of the same shape": lambda lib, x: x.view(*x.shape), "reshape": lambda lib, x: x.reshape(-1), "reshape to columns": lambda lib, x: x.reshape(-1, 3),
    "reshape of the same shape": lambda lib, x: x.reshape(x.shape), "flatten": lambda lib, x: x.flatten(), "flatten(1)": lambda lib, x: x.flatten(1),
    "flatten(0, 1)": lambda lib, x: x.flatten(0, 1), "flatten(2)": lambda lib, x: x.flatten(2), "unflatten": lambda lib, x: x.unflatten(1, (2, 2)),
    "contiguous": lambda lib, x: x.contiguous(), "NHWC contiguous": lambda lib, x: x.permute(0, 2, 3, 1).contiguous(),
    "NHWC reshape": lambda lib, x: x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]), "NHWC view": lambda lib, x: x.permute(0, 2, 3, 1).view(x.shape[0], -1),
    "NHWC flatten of two": lambda lib, x: x.permute(0, 2, 3, 1).flatten(1, 2), "channel shuffle": lambda lib, x: shuffle(x),
    "permute": lambda lib, x: x.permute(1, 0, 3, 2), "transpose": lambda lib, x: x.transpose(1, 2), "movedim": lambda lib, x: x.movedim(1, 3),
    "unsqueeze": lambda lib, x: x.unsqueeze(2), "squeeze": lambda lib, x: x[:1].squeeze(0), "slice": lambda lib, x: x[:, 1:, ::2], "index": lambda lib, x: x[1],
    "element": lambda lib, x: x[1, 2, 0, 1], "unbind": lambda lib, x: x.unbind(1)[2], "split": lambda lib, x: x.split(2, 1)[1], "chunk": lambda lib, x: x.chunk(2, 1)[0],
    "iteration": lambda lib, x: list(x)[1], "last axis": lambda lib, x: x[..., 0], "None": lambda lib, x: x[:, None], "detach": lambda lib, x: x.detach(),
    "data": lambda lib, x: x.data, "expand": lambda lib, x: x[:, :1].expand(2, 4, 3, 3), "flip": lambda lib, x: x.flip(2), "repeat": lambda lib, x: x.repeat(1, 1, 1, 1),
    "repeat of one": lambda lib, x: x[0, 0, 0].repeat(2, 1), "tile": lambda lib, x: x.tile(1, 2, 1, 1), "roll": lambda lib, x: x.roll(0, 1), "clone": lambda lib, x: x.clone(),
    "advanced index": lambda lib, x: x[[1, 0]], "index_select": lambda lib, x: x.index_select(0, lib.tensor([0, 1])), "mask": lambda lib, x: x[x == x],
    "cat of one": lambda lib, x: lib.cat([x]), "stack of one": lambda lib, x: lib.stack([x]), "sum over nothing": lambda lib, x: x[:1].sum(0, keepdim=True),
    "relu": lambda lib, x: x.relu(), "abs": lambda lib, x: x.abs(), "clamp": lambda lib, x: x.clamp(-100, 100), "to its dtype": lambda lib, x: x.to(x.dtype),
    "slice of a flatten": lambda lib, x: x.flatten(1)[:, 3:], "flatten of a slice": lambda lib, x: x[:, 1:3].flatten(1), "view of a view": lambda lib, x: x.view(2, -1).view(-1),
    "transpose of a flatten": lambda lib, x: x.flatten(2).transpose(1, 2), "flatten of a transpose": lambda lib, x: x.transpose(0, 1).flatten(),
}


def image(lib, x):
    """The values as a convolution returns them."""
    if lib is not tg:
        return x.contiguous().clone()
    c = x.shape[1]
    return nn.functional.conv2d(x, tg.eye(c, dtype=x.dtype).reshape(c, c, 1, 1))


def weight(lib, x):
    """The values as the weight of a convolution."""
    if lib is not tg:
        return x.contiguous().clone()
    layer = nn.Conv2d(4, 2, 3, dtype=x.dtype)
    with tg.no_grad():
        layer.weight.copy_(x)
    return layer.weight.data


def shuffle(x):
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def values():
    return np.arange(1.0, 73.0, dtype=np.float32).reshape(SHAPE)


def raised(function):
    try:
        return function(), None
    except RuntimeError as error:
        return None, error


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("call", CALLS)
def test_views_share_or_refuse_and_copies_do_not_share(source, call):
    torch = pytest.importorskip("torch")

    def both():
        for lib, start in ((torch, torch.from_numpy(values())), (tg, tg.tensor(values()))):
            x = SOURCES[source](lib, start)
            yield x, raised(lambda x=x, lib=lib: CALLS[call](lib, x))

    def listed(x):
        return x.tolist()

    (theirs, (their_view, their_error)), (ours, (view, error)) = both()
    assert error is None
    if their_error is not None:                # PyTorch's view is impossible; ours is a copy that refuses writes
        with pytest.raises(RuntimeError, match=r"copy where PyTorch has a view.*clone\(\)"):
            view.fill_(-1)
        return
    assert listed(view) == listed(their_view)
    with pytest.raises(RuntimeError) if is_expanded(their_view) else contextless():
        their_view.mul_(2)
        _, error = raised(lambda: view.mul_(2))
        if error is None:                      # the write reached, or did not reach, what it reached in PyTorch
            assert listed(view) == listed(their_view) and listed(ours) == listed(theirs)
        else:
            assert "expanded view" in str(error) or "copy where PyTorch has a view" in str(error) and listed(theirs) != listed(ours)

    (theirs, (their_view, _)), (ours, (view, _)) = both()
    if is_expanded(theirs):
        return
    theirs.mul_(2)
    ours.mul_(2)
    assert listed(ours) == listed(theirs)
    for use in (lambda v: v.tolist(), lambda v: (v + 0).tolist(), lambda v: v.numpy().tolist(), lambda v: v.reshape(-1)[0].item(), lambda v: repr(v) and v.tolist()):
        seen, error = raised(lambda use=use: use(view))
        if error is None:
            assert seen == use(their_view)
        else:
            assert "the original was written to since" in str(error) and listed(their_view) != view._data.tolist()


def is_expanded(x):
    """Whether several elements are one in memory, so that no write is allowed."""
    return any(stride == 0 and n > 1 for stride, n in zip(x.stride(), x.shape, strict=True))


class contextless:
    def __enter__(self):
        pass

    def __exit__(self, *exc):
        pass


# ---- the same by stated expectations, where PyTorch is not at hand --------------------------------------------------------


def test_writes_through_views_of_a_convolution_weight_are_not_lost():
    conv = nn.Conv2d(3, 4, 3)
    for write in (lambda w: w.view(-1).fill_(0), lambda w: w.flatten()[0].add_(1), lambda w: w.reshape(4, -1).mul_(0), lambda w: w.contiguous().zero_(),
                  lambda w: w.view(-1).__setitem__(0, 5.0), lambda w: nn.init.zeros_(w.view(-1))):
        before = conv.weight.tolist()
        with pytest.raises(RuntimeError, match=r"write to it would not reach the original.*clone\(\)"):
            write(conv.weight.data)
        assert conv.weight.tolist() == before
    conv.weight.data[1].fill_(7)
    conv.weight.data.permute(2, 3, 1, 0).unsqueeze(0)[0, 0, 0, 0, 0] = 5
    assert conv.weight[1].flatten().tolist() == [7] * 27 and conv.weight[0, 0, 0, 0].item() == 5


def test_a_flattened_convolution_output_is_used_as_ever():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True))
    x, layer = tg.randn(2, 1, 6, 6), nn.Linear(64, 3)
    h = model(x)
    rows = h.view(h.size(0), -1)
    layer(rows).sum().backward()
    assert rows.tolist() == np.array(h.detach()).reshape(2, -1).tolist() and layer.weight.grad is not None
    doubled = rows.clone().mul_(2)
    assert doubled.tolist() == (rows * 2).tolist()
    with tg.no_grad():
        h.add_(1)
    for use in (lambda: rows + 1, lambda: rows.tolist(), lambda: rows.numpy(), lambda: layer(rows), lambda: rows[0], lambda: f"{rows[0, 0]}"):
        with pytest.raises(RuntimeError, match=r"the original was written to since; take the view again"):
            use()


def test_gradients_of_views_that_are_copies_are_ordinary_tensors():
    conv = nn.Conv2d(2, 3, 3)
    (conv.weight.view(-1) ** 2).sum().backward()
    conv.weight.grad.zero_()
    conv.weight.view(-1).sum().backward()
    assert conv.weight.grad.flatten().tolist() == [1] * 54
    tg.optim.SGD([conv.weight], lr=0.5).step()
    x = tg.ones(2, 18, requires_grad=True)
    conv(x.view(2, 2, 3, 3)).sum().backward()  # whose gradient is a reshape of an image's
    x.grad.zero_()
    (gradient,) = tg.autograd.grad(conv(x.view(2, 2, 3, 3)).sum(), x)
    gradient.zero_()
    assert not x.grad.any() and not gradient.any()


def test_a_parameter_over_a_view_that_is_a_copy_is_not_trained_apart_from_the_original():
    conv = nn.Conv2d(2, 3, 3)
    part = nn.Parameter(conv.weight.view(-1))
    part.sum().backward()
    before = part.tolist()
    with pytest.raises(RuntimeError, match=r"SGD.step: .*clone\(\)"):
        tg.optim.SGD([part], lr=0.5).step()
    assert part.tolist() == before


def test_contiguous_memory_is_row_major():
    y = nn.Conv2d(3, 4, 3)(tg.ones(2, 3, 8, 8)).detach()
    assert not y.is_contiguous() and y.contiguous().is_contiguous() and y.contiguous().numpy().flags.c_contiguous
    assert y.contiguous().tolist() == y.tolist()
    x = tg.ones(2, 3)
    assert x.contiguous() is x and x.T.contiguous().is_contiguous() and not x.T.is_contiguous()


def test_elements_and_slices_are_views():
    x = tg.zeros(3)
    x[0].add_(1)
    x.unbind()[1].add_(2)
    for e in x:
        e.mul_(10)
    assert x.tolist() == [10, 20, 0]
    y = tg.zeros(2, 2)
    y[0, 1].fill_(5)
    y[(1, 0)].copy_(tg.tensor(7.0))
    y[np.int64(1), tg.tensor(1)] = 9
    y[1, 1][...] += 1
    assert y.tolist() == [[0, 5], [7, 10]]
    w = tg.ones(2, requires_grad=True)
    z = w * 2
    z[0].mul_(3)
    with pytest.raises(RuntimeError, match="shares memory with a tensor that an in-place operation changed"):
        z.sum()


def test_what_pytorch_copies_is_not_a_view():
    x = tg.tensor([1.0, 2.0, 3.0])
    for copied in (x.repeat(2, 1), x.tile(1), x.flip(0), x.roll(0), x.roll(3), x[[0, 1, 2]], x.clone(), tg.cat([x]), x.T.flip(0)):
        before = copied.tolist()
        x.add_(1)
        assert copied.tolist() == before
        copied.div_(2)
        assert x.tolist() != copied.tolist()
    with pytest.raises(ValueError, match="repeat: .* at least 2 counts"):
        tg.ones(2, 2).repeat(2)
