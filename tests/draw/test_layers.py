"""`draw.model`: layers, boxes and the data flow of models known by hand; and that the model is left as it was."""

import pickle

import numpy as np
import pytest

import tinygrad_cnn as tg
from tests.draw.reading import read
from tinygrad_cnn import draw, nn


class Residual(nn.Module):
    """A convolution with batch norm, one ReLU used twice, and a shortcut that is an identity."""

    def __init__(self, channels):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()
        self.shortcut = nn.Identity()

    def forward(self, x):
        return self.relu(self.relu(self.bn(self.conv(x))) + self.shortcut(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
        self.block = Residual(4)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 10)

    def forward(self, x):
        return self.fc(self.drop(self.block(self.stem(x)).mean((2, 3))))


def names(seen):
    """The edges by the second line of layers (their qualified name) and the first of everything else."""
    def name(key):
        lines = seen.nodes[key]
        return lines[0] if lines[0][0].islower() else lines[1]
    return sorted((name(tail), name(head)) for tail, head in seen.edges)


def test_layers_names_settings_shapes_counts():
    seen = read(draw.model(Net(), tg.zeros(2, 1, 8, 8)))
    assert seen.nodes[seen.find("stem.0")] == [
        "Conv2d", "stem.0", "1, 4, kernel_size=3", "→ (2, 4, 6, 6)", "40 parameters"]
    assert seen.nodes[seen.find("stem.1")] == ["ReLU", "stem.1", "→ (2, 4, 6, 6)"]
    assert "50 parameters" in seen.nodes[seen.find("fc")]
    assert seen.nodes[seen.find("input")] == ["input", "(2, 1, 8, 8) float32"]
    assert seen.nodes[seen.find("output")] == ["output", "(2, 10) float32"]
    assert seen.heading[:2] == ["Net", f"{40 + 148 + 8 + 50} parameters"]


@pytest.mark.parametrize("training", [True, False])
def test_arrows_follow_the_data_through_boxes_additions_and_layers_that_return_their_input(training):
    seen = read(draw.model(Net().train(training), tg.zeros(2, 1, 8, 8)))
    assert names(seen) == sorted([
        ("input", "stem.0"), ("stem.0", "stem.1"), ("stem.1", "block.conv"), ("block.conv", "block.bn"),
        ("block.bn", "block.relu"), ("block.relu", "add"), ("stem.1", "block.shortcut"), ("block.shortcut", "add"),
        ("add", "block.relu   (call 2, same layer)"), ("block.relu   (call 2, same layer)", "sum"), ("sum", "div"),
        ("div", "drop"), ("drop", "fc"), ("fc", "output")])
    inside = {tuple(heading): {seen.nodes[key][1] for key in ids} for heading, ids in seen.boxes}
    assert inside == {
        ("stem", "Sequential", "40 parameters"): {"stem.0", "stem.1"},
        ("block", "Residual", "156 parameters"): {"block.conv", "block.bn", "block.relu", "block.shortcut",
                                               "(2, 4, 6, 6)", "block.relu   (call 2, same layer)"}}


def test_depth_draws_inner_modules_as_one_node():
    seen = read(draw.model(Net(), tg.zeros(2, 1, 8, 8), depth=1))
    assert seen.boxes == []
    assert names(seen) == sorted([("input", "stem"), ("stem", "block"), ("block", "sum"), ("sum", "div"),
                                  ("div", "drop"), ("drop", "fc"), ("fc", "output")])
    assert "156 parameters" in seen.nodes[seen.find("block")]
    whole = read(draw.model(Net(), tg.zeros(2, 1, 8, 8), depth=0))
    assert whole.arrows() == [("Net", "output"), ("input", "Net")]


def test_a_shared_layer_is_drawn_per_call_and_counted_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(self.layer(x))

    seen = read(draw.model(Twice(), tg.zeros(1, 3)))
    assert names(seen) == [("input", "layer"), ("layer", "layer   (call 2, same layer)"),
                           ("layer   (call 2, same layer)", "output")]
    assert seen.heading[1] == "12 parameters"


def test_parameters_used_between_layers_tied_weights_and_frozen_ones():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode, self.scale = nn.Linear(5, 3), nn.Parameter(tg.ones(3))
            self.encode.bias.requires_grad_(False)

        def forward(self, x):
            return nn.functional.linear(self.encode(x) * self.scale, self.encode.weight.transpose(0, 1))

    seen = read(draw.model(Tied(), tg.zeros(2, 5)))
    assert seen.nodes[seen.find("scale")] == ["scale", "(3,)", "3 parameters"]
    arrows = seen.arrows()
    assert {("encode.weight", "permute"), ("scale", "mul"), ("Linear", "mul"), ("permute", "linear")} <= set(arrows)
    assert ("encode.weight", "Linear") not in arrows
    assert seen.heading[1] == "21 parameters, 3 of them frozen"


def test_several_inputs_outputs_and_concatenation():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 3), nn.Linear(4, 3)

        def forward(self, x, y, scale):
            joined = tg.cat([self.a(x), self.b(y)], dim=1)
            return {"joined": joined, "halves": [joined[:, :3] * scale]}

    seen = read(draw.model(Two(), (tg.zeros(1, 2), np.zeros((1, 4), np.float32), 0.5)))
    assert names(seen) == sorted([("input 0", "a"), ("input 1", "b"), ("a", "cat"), ("b", "cat"), ("cat", "output 0"),
                                  ("cat", "getitem"), ("getitem", "mul"), ("mul", "output 1")])


def test_layers_without_gradients_are_still_connected():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)

        def forward(self, x):
            with tg.no_grad():
                h = self.b(self.a(x))
            return self.c(h.detach())

    assert names(read(draw.model(Cut(), tg.zeros(1, 2)))) == [("a", "b"), ("b", "c"), ("c", "output"), ("input", "a")]


def test_in_place_layers_and_no_grad_around_the_call():
    class InPlace(nn.Module):
        def forward(self, x):
            return x.relu_()

    x = tg.tensor([[-1.0, 2.0]])
    with tg.no_grad():
        seen = read(draw.model(nn.Sequential(InPlace(), nn.Linear(2, 2)), x))
        assert not tg.is_grad_enabled()
    assert names(seen) == [("0", "1"), ("1", "output"), ("input", "0")]
    np.testing.assert_array_equal(x.numpy(), [[-1, 2]])
    assert not x.requires_grad


def test_integer_inputs():
    class Embed(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(tg.ones(7, 3))

        def forward(self, x):
            return self.table[x]

    seen = read(draw.model(nn.Sequential(Embed(), nn.ReLU()), tg.tensor([1, 2])))
    assert names(seen) == [("0", "1"), ("1", "output"), ("input", "0")]


def everything(model):
    """All state of a model that a drawing could touch."""
    return pickle.dumps([
        [(k, v.numpy().tobytes(), v._storage.version) for k, v in model.state_dict().items()],
        [(k, None if p.grad is None else p.grad.numpy().tobytes(), p.requires_grad)
         for k, p in model.named_parameters()],
        [(name, m.training, len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks), sorted(vars(m)))
         for name, m in model.named_modules()],
        tg.get_rng_state(), tg.is_grad_enabled()])


@pytest.mark.parametrize("size", [8, 2])
def test_the_model_is_left_as_it_was_also_when_forward_raises(size):
    tg.manual_seed(3)
    model = Net()
    model.block.eval()
    model(tg.randn(2, 1, 8, 8)).sum().backward()
    model.stem[0].bias.requires_grad_(False)
    seen = []
    model.fc.register_forward_hook(lambda *_: seen.append("forward"))
    model.fc.register_full_backward_hook(lambda *_: seen.append("backward"))
    buffers = [id(b) for b in model.buffers()]
    before = everything(model)
    x = tg.randn(2, 1, size, size, requires_grad=True)
    model.train()
    model.block.eval()
    tg.set_rng_state(pickle.loads(before)[3])
    if size == 8:
        draw.model(model, x)
    else:
        with pytest.raises(ValueError, match="kernel"):
            draw.model(model, x)
    assert everything(model) == before
    assert [id(b) for b in model.buffers()] == buffers and x.grad is None and x.is_leaf
    model(x if size == 8 else tg.randn(2, 1, 8, 8)).sum().backward()
    assert seen[-1] == "backward"


def test_a_graph_recorded_before_still_goes_backward():
    model = Net().eval()                       # in eval mode batch norm's rule needs the running statistics
    loss = model(tg.randn(2, 1, 8, 8)).sum()
    draw.model(model.train(), tg.randn(2, 1, 8, 8))
    loss.backward()
    assert model.fc.weight.grad is not None


def test_a_shape_error_names_the_layer_and_keeps_the_picture_up_to_it():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(99, 10), nn.ReLU())
    with pytest.raises(ValueError, match="linear: x of shape") as caught:
        draw.model(model, tg.zeros(2, 1, 8, 8))
    (note,) = caught.value.__notes__
    assert "layer '2' = Linear(in_features=99, out_features=10, bias=True), which got (2, 144)" in note
    seen = read(caught.value.drawing)
    assert names(seen) == [("0", "1"), ("1", "2"), ("input", "0")]
    assert any(line.startswith("ValueError: linear") for line in seen.nodes[seen.find("2")])


def test_an_error_between_layers_is_placed_in_the_module_that_raised():
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 3)

        def forward(self, x):
            return self.layer(x) + tg.zeros(4)

    with pytest.raises(ValueError) as caught:
        draw.model(nn.Sequential(Bad(), nn.ReLU()), tg.zeros(2, 2))
    assert "layer '0' = Bad(), which got (2, 2)" in caught.value.__notes__[0]
    seen = read(caught.value.drawing)
    assert seen.find("failed here") in seen.boxes[0][1]


def test_a_layer_that_fails_and_is_caught_does_not_hide_the_rest():
    class Tries(nn.Module):
        def __init__(self):
            super().__init__()
            self.bad, self.good = nn.Linear(9, 9), nn.Linear(2, 3)

        def forward(self, x):
            try:
                return self.bad(x)
            except ValueError:
                return self.good(x)

    assert ("good", "output") in names(read(draw.model(Tries(), tg.zeros(1, 2))))


def test_large_models_ask_for_depth():
    model = nn.Sequential(*[nn.Sequential(nn.ReLU(), nn.ReLU()) for _ in range(20)])
    with pytest.raises(ValueError, match="model: 42 nodes are more than max_nodes=30; pass depth="):
        draw.model(model, tg.zeros(1), max_nodes=30)
    assert len(read(draw.model(model, tg.zeros(1), max_nodes=30, depth=1)).nodes) == 22


def test_module_names_and_settings_with_markup():
    class Odd(nn.Module):
        def extra_repr(self):
            return 'mode="<b>", {a|b}\nsecond & last'

        def forward(self, x):
            return x * 1

    model = nn.ModuleDict({"a<b>|{c}": Odd()})
    model.forward = lambda x: model["a<b>|{c}"](x)
    seen = read(draw.model(model, tg.zeros(1)))
    assert seen.nodes[seen.find("Odd")] == ["Odd", "a<b>|{c}", 'mode="<b>", {a|b}', "second & last", "→ (1,)"]


@pytest.mark.parametrize(("arguments", "options", "error", "message"), [
    ((3, 4), {}, TypeError, "model: wanted an nn.Module, got int"),
    ((nn.ReLU(), tg.zeros(1)), {"depth": -1}, ValueError, "model: depth must be None or an int of 0 or more, got -1"),
    ((nn.ReLU(), tg.zeros(1)), {"max_nodes": 0}, ValueError, "model: max_nodes must be at least 1"),
])
def test_wrong_arguments(arguments, options, error, message):
    with pytest.raises(error, match=message):
        draw.model(*arguments, **options)
