"""Module: registration, the tree, modes, conversion, state, copies, errors."""

import copy
import hashlib
import pickle

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn import nn


class Net(nn.Module):
    """A parameter of its own, a buffer that is saved and one that is not, and children, one of them twice."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(tg.ones(1))
        self.register_buffer("mean", tg.zeros(3))
        self.register_buffer("cache", tg.zeros(3), persistent=False)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2, bias=False)
        self.again = self.conv

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).mean((2, 3))) * self.scale


def digest(module):
    """What load_state_dict must not change on an error: every value, and which objects hold them."""
    return [(k, id(p), hashlib.sha256(p.numpy().tobytes()).hexdigest())
            for k, p in (*module.named_parameters(), *module.named_buffers())]


# ---- parameters -----------------------------------------------------------------------------------------------------


def test_a_parameter_shares_its_tensors_memory_and_results_are_plain_tensors():
    source = tg.zeros(3)
    p = nn.Parameter(source)
    with tg.no_grad():
        p += 1
    assert source.tolist() == [1, 1, 1]
    assert p.requires_grad and p.is_leaf and not source.requires_grad
    assert type(p * 2) is tg.Tensor
    assert not nn.Parameter(tg.zeros(2), requires_grad=False).requires_grad


def test_a_parameter_of_read_only_or_plain_data_can_be_written():
    array = np.zeros(3)
    array.flags.writeable = False
    for data in (tg.from_numpy(array), array, [0.0, 0.0, 0.0], tg.zeros(1).expand(3)):
        p = nn.Parameter(data)
        with tg.no_grad():
            p += 1
        assert p.tolist() == [1, 1, 1]


def test_integers_do_not_become_trainable():
    with pytest.raises(RuntimeError, match="float"):
        nn.Parameter(tg.arange(3))


# ---- attributes -----------------------------------------------------------------------------------------------------


def test_registration():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == [
        "scale", "conv.weight", "conv.bias", "norm.weight", "norm.bias", "head.weight"]
    assert [name for name, _ in net.named_parameters(recurse=False)] == ["scale"]
    assert [name for name, _ in net.named_buffers()] == [
        "mean", "cache", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked"]
    assert [name for name, _ in net.named_children()] == ["conv", "norm", "head"]
    assert [name for name, _ in net.named_modules()] == ["", "conv", "norm", "head"]
    assert [name for name, _ in net.named_modules(remove_duplicate=False)] == ["", "conv", "norm", "head", "again"]
    assert [name for name, _ in net.named_parameters(remove_duplicate=False)][-2:] == ["again.weight", "again.bias"]
    assert list(net.state_dict()) == [
        "scale", "mean", "conv.weight", "conv.bias", "norm.weight", "norm.bias", "norm.running_mean",
        "norm.running_var", "norm.num_batches_tracked", "head.weight", "again.weight", "again.bias"]
    assert {"scale", "mean", "conv", "forward"} <= set(dir(net))


def test_replacing_and_deleting_attributes():
    net = Net()
    order = list(net.state_dict())
    net.conv, net.norm.weight, net.head = nn.Conv2d(3, 4, 3), nn.Parameter(tg.zeros(4)), nn.Linear(4, 5, bias=False)
    assert list(net.state_dict()) == order      # a replacement keeps its place
    net.mean = tg.ones(3)
    net.scale = None
    del net.again
    assert net.head.out_features == 5
    assert "scale" not in net.state_dict() and net.scale is None
    assert net.state_dict()["mean"].tolist() == [1, 1, 1]
    assert not hasattr(net, "again")
    net.mean = nn.Parameter(tg.zeros(2))       # another kind moves to its own table
    assert "mean" in dict(net.named_parameters()) and "mean" not in dict(net.named_buffers())


@pytest.mark.parametrize(("act", "error", "message"), [
    (lambda n: setattr(n, "conv", 3), TypeError, "cannot assign 'int' as child module 'conv'"),
    (lambda n: setattr(n, "scale", tg.ones(1)), TypeError, "cannot assign 'Tensor' as parameter 'scale'"),
    (lambda n: setattr(n, "mean", 0.5), TypeError, "cannot assign 'float' as buffer 'mean'"),
    (lambda n: n.register_buffer("mean.x", tg.ones(1)), KeyError, "must not be empty or contain a dot"),
    (lambda n: n.register_parameter("", nn.Parameter(tg.ones(1))), KeyError, "must not be empty"),
    (lambda n: n.register_parameter("conv", nn.Parameter(tg.ones(1))), KeyError, "already has an attribute 'conv'"),
    (lambda n: n.register_parameter("w", tg.ones(1)), TypeError, "must be a Parameter or None, got Tensor"),
    (lambda n: n.register_buffer("forward", tg.ones(1)), KeyError, "already has"),
    (lambda n: n.register_buffer("b", np.ones(1)), TypeError, "must be a Tensor or None, got ndarray"),
    (lambda n: n.add_module("m", nn.ReLU), TypeError, "must be a Module or None, got type"),
    (lambda n: n.add_module(3, nn.ReLU()), TypeError, "must be a string"),
    (lambda n: n.nothing, AttributeError, "'Net' object has no attribute 'nothing'"),
    (lambda n: delattr(n, "nothing"), AttributeError, "nothing"),
    (lambda n: n.get_submodule("conv.x"), AttributeError, "Conv2d has no module 'x'"),
    (lambda n: n.get_parameter("conv.weigth"), AttributeError, "Conv2d has no parameter 'weigth'.*weight, bias"),
    (lambda n: n.get_parameter("head.bias"), AttributeError, "has no parameter 'bias'"),
    (lambda n: n.get_buffer("norm.mean"), AttributeError, "BatchNorm2d has no buffer 'mean'"),
    (lambda n: n.train("yes"), ValueError, "mode must be a bool"),
    (lambda n: n.to(tg.int64), TypeError, "float32 or float64"),
    (lambda n: n.to("cuda"), ValueError, "cuda"),
    (lambda n: nn.Module()(1), NotImplementedError, "Module: define a method forward"),
])
def test_wrong_use_speaks_and_changes_nothing(act, error, message):
    net = Net()
    before = digest(net), repr(net), list(net.state_dict())
    with pytest.raises(error, match=message):
        act(net)
    assert (digest(net), repr(net), list(net.state_dict())) == before


def test_assigning_before_init_says_so():
    class Early(nn.Module):
        def __init__(self, value):
            self.early = value
            super().__init__()

    for value in (nn.Parameter(tg.ones(1)), nn.ReLU()):
        with pytest.raises(AttributeError, match=r"Early: call super\(\).__init__\(\) before assigning 'early'"):
            Early(value)


def test_paths():
    net = Net()
    assert net.get_submodule("") is net
    assert net.get_submodule("conv") is net.conv
    assert net.get_parameter("conv.weight") is net.conv.weight
    assert net.get_buffer("norm.running_mean") is net.norm.running_mean


# ---- modes and conversion -------------------------------------------------------------------------------------------


def test_modes_apply_and_freezing():
    net = Net()
    assert net.eval() is net
    assert [m.training for m in net.modules()] == [False] * 4
    assert net.train().norm.training
    order = []
    assert net.apply(lambda m: order.append(type(m).__name__)) is net
    assert order == ["Conv2d", "BatchNorm2d", "Linear", "Net"]
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())
    net(tg.randn(2, 3, 5, 5))
    net.requires_grad_()
    net(tg.randn(2, 3, 5, 5)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_zero_grad():
    net = Net()
    net(tg.randn(2, 3, 5, 5)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert all((p.grad == 0).all() for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_conversion_keeps_the_parameters_and_their_layout():
    net = Net()
    net(tg.randn(2, 3, 5, 5)).sum().backward()
    parameters, gradient = list(net.parameters()), net.conv.weight.grad.numpy().copy()
    assert net.double() is net
    assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
    assert net.conv.weight.dtype == net.norm.running_var.dtype == net.conv.weight.grad.dtype == tg.float64
    assert net.norm.num_batches_tracked.dtype == tg.int64
    np.testing.assert_array_equal(net.conv.weight.grad.numpy(), gradient)
    net(tg.randn(2, 3, 5, 5, dtype=tg.float64)).sum().backward()
    assert net.conv.weight.numpy().transpose(2, 3, 1, 0).flags.c_contiguous      # as the kernels read it
    assert net.to(tg.float32).scale.dtype == tg.float32
    assert net.to("cpu") is net
    assert net.to("cpu", tg.float64).scale.dtype == tg.float64


def test_converting_between_forward_and_backward_is_noticed():
    net = Net()
    loss = net(tg.randn(2, 3, 5, 5)).sum()
    net.double()
    with pytest.raises(RuntimeError):
        loss.backward()


# ---- state ----------------------------------------------------------------------------------------------------------


def test_state_dict_shares_memory_and_is_detached():
    net = Net()
    state = net.state_dict()
    with tg.no_grad():
        net.conv.bias.fill_(7)
    assert (state["conv.bias"] == 7).all()
    assert not any(v.requires_grad for v in state.values())
    assert net.state_dict(keep_vars=True)["conv.bias"] is net.conv.bias
    assert list(net.head.state_dict(prefix="a.")) == ["a.weight"]


@pytest.mark.parametrize("convert", [lambda v: v, lambda v: v.numpy(),
                                     lambda v: v.numpy().astype(np.float64) if v.ndim else v])
def test_load_state_dict_round_trip(convert):
    a, b = Net(), Net()
    a(tg.randn(4, 3, 5, 5))
    parameters = list(b.parameters())
    result = b.load_state_dict({k: convert(v) for k, v in a.state_dict().items()})
    assert result == ([], []) and repr(result) == "<All keys matched successfully>"
    for (key, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        np.testing.assert_array_equal(x.numpy(), y.numpy(), err_msg=key)
        assert x.dtype == y.dtype
    assert all(p is q and p.requires_grad for p, q in zip(b.parameters(), parameters, strict=True))
    with tg.no_grad():
        a.conv.weight.fill_(0)
    assert not (b.conv.weight == 0).all()      # it copied


@pytest.mark.parametrize("strict", [True, False])
def test_load_state_dict_lists_every_error_and_changes_nothing(strict):
    net = Net()
    before = digest(net)
    state = dict(Net().state_dict())
    del state["conv.bias"], state["scale"]
    state.update({"extra": tg.ones(1), "conv.weight": tg.ones(4, 3, 2, 2), "head.weight": "text",
                  "mean": np.array([1j] * 3), "norm.num_batches_tracked": tg.tensor(1.5), "norm.weight": tg.ones(1)})
    with pytest.raises(RuntimeError, match=r"Error\(s\) in loading state_dict for Net:") as caught:
        net.load_state_dict(state, strict=strict)
    message = str(caught.value)
    for part in ("size mismatch for conv.weight: the state_dict has shape (4, 3, 2, 2), the model (4, 3, 3, 3)",
                 "wrong type for head.weight: wanted a Tensor or a NumPy array of numbers, got str",
                 "wrong type for mean",
                 "wrong type for norm.num_batches_tracked: the state_dict has float32, the model int64",
                 "size mismatch for norm.weight"):
        assert part in message
    assert ("Missing key(s) in state_dict: 'scale', 'conv.bias'." in message) == strict
    assert ("Unexpected key(s) in state_dict: 'extra'." in message) == strict
    assert digest(net) == before


def test_load_state_dict_not_strict_reports_what_it_left_out():
    net = Net()
    bias = net.conv.bias.numpy().copy()
    result = net.load_state_dict({"scale": tg.full((1,), 5.0), "other": tg.ones(1)}, strict=False)
    assert net.scale.item() == 5
    assert result.unexpected_keys == ["other"]
    assert "conv.bias" in result.missing_keys and "scale" not in result.missing_keys
    np.testing.assert_array_equal(net.conv.bias.numpy(), bias)


def test_load_state_dict_wants_a_mapping():
    with pytest.raises(TypeError, match="wanted a mapping"):
        Net().load_state_dict([tg.ones(1)])


def test_loading_over_a_value_that_a_graph_saved_is_noticed():
    net = nn.Linear(3, 2)
    x = tg.randn(4, 3, requires_grad=True)
    loss = net(x).sum()
    net.load_state_dict(nn.Linear(3, 2).state_dict())
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        loss.backward()


def test_loading_pytorch_weights_by_key():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    ours = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()}) == ([], [])


# ---- copies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))],
                         ids=["deepcopy", "pickle"])
def test_copies_are_independent(duplicate):
    net = Net().eval()
    net.conv.bias.requires_grad_(False)
    twin = duplicate(net)
    x = tg.randn(2, 3, 5, 5)
    np.testing.assert_array_equal(twin(x).numpy(), net(x).numpy())
    assert twin.again is twin.conv and twin.conv is not net.conv
    assert [(k, type(p), p.requires_grad) for k, p in twin.named_parameters()] == [
        (k, type(p), p.requires_grad) for k, p in net.named_parameters()]
    assert repr(twin) == repr(net) and not twin.norm.training
    before = digest(net)
    twin(x).sum().backward()
    with tg.no_grad():
        for p in twin.parameters():
            p.fill_(0)
    assert digest(net) == before
    assert all(p.grad is None for p in net.parameters())


def test_a_shared_parameter_is_copied_once_and_counted_once():
    a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    b.weight = a.weight
    pair = copy.deepcopy(nn.ModuleList([a, b]))
    assert pair[0].weight is pair[1].weight
    assert [name for name, _ in pair.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert "1.weight" in pair.state_dict()


def test_repr_of_custom_modules():
    assert repr(Net()) == """Net(
  (conv): Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1))
  (norm): BatchNorm2d(4, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
  (head): Linear(in_features=4, out_features=2, bias=False)
  (again): Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1))
)"""
    assert repr(nn.LocallyConnected2d(1, 2, 8, 3, padding=1)) == (
        "LocallyConnected2d(1, 2, input_size=(8, 8), kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))")
