"""What drawings say of ops and layers: every primitive in plain words, every layer as its repr without the defaults."""

import re

import numpy as np
import pytest

import tinygrad_cnn as tg
from tests.draw.reading import read
from tests.op_samples import SAMPLES
from tinygrad_cnn import draw, nn
from tinygrad_cnn.draw.descriptions import layer_settings, op_settings, op_title
from tinygrad_cnn.graph import Node, reachable
from tinygrad_cnn.primitive import primitive, registry

F = nn.functional

INTERNAL = re.compile(r"""(?x)
    (?<![\w.]) _\w                         # a private name
  | array\( | dtype | numpy | \bnp\. | <.*object | \bat\ 0x | \bSaved\b | slice\( | Ellipsis
  | (?<!keeps\ )\b(windows|index|wanted|taps|invstd|keepdim|widths|rows|columns|in_place|divisor|scale|grad_output|probs|relu)\ [\w(\[]
  | \bkeeps\ (out|g|keep|taps|probs|grad_output)\b
  | \b(float|int|uint|bool)\d*\ \(         # an array by dtype and shape
  | (?<!count_include_pad)\ (None|False)$""")
"""What no label says. A leaf's dtype stands behind its shape and passes."""


def recorded(sample):
    outputs = sample.run(*sample.tensors())
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return [t for t in outputs if isinstance(t, tg.Tensor) and t.requires_grad]


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_no_label_of_any_primitive_shows_internals(name):
    for sample in SAMPLES[name]:
        outputs = recorded(sample)
        for line in (line for lines in read(draw.graph(outputs)).nodes.values() for line in lines) if outputs else ():
            assert not INTERNAL.search(line), line


def test_every_primitive_has_samples_that_are_drawn():
    drawn = {node.primitive.name for samples in SAMPLES.values() for sample in samples for t in recorded(sample)
             for node in reachable([t._edge[0]]) if isinstance(node, Node)}
    ours = {name for name, p in registry.items() if p.__module__.startswith("tinygrad_cnn.") and (p.rules or p.joint_rule)}
    assert ours - drawn <= {"_share", "_plane_indices"}


def leaf(*shape):
    return tg.ones(*shape, requires_grad=True)


def conv(**how):
    return F.conv2d(leaf(1, 4, 9, 9), leaf(4, 4 // how.get("groups", 1), 3, how.pop("across", 3)), **how)


def image():
    return leaf(1, 2, 8, 8)


@pytest.mark.parametrize(("make", "title", "settings"), [
    (conv, "conv2d", "kernel 3"),
    (lambda: conv(across=1, stride=(2, 1), padding=(1, 0), dilation=2, groups=2), "conv2d", "kernel (3, 1), stride (2, 1), padding (1, 0), dilation 2, groups 2"),
    (lambda: F.conv_transpose2d(image(), leaf(2, 3, 2, 2), stride=2), "conv_transpose2d", "kernel 2, stride 2"),
    (lambda: F.max_pool2d(image(), 2), "max_pool2d", "kernel 2, stride 2"),
    (lambda: F.max_pool2d(image(), (3, 2), stride=1, padding=1, dilation=(1, 2)), "max_pool2d", "kernel (3, 2), stride 1, padding 1, dilation (1, 2)"),
    (lambda: F.avg_pool2d(image(), 3, 2, 1), "avg_pool2d", "kernel 3, stride 2, padding 1"),
    (lambda: F.avg_pool2d(image(), 3, 2, 1, count_include_pad=False), "avg_pool2d", "kernel 3, stride 2, padding 1, count_include_pad False"),
    (lambda: F.avg_pool2d(image(), 2, divisor_override=3), "avg_pool2d", "kernel 2, stride 2, divisor_override 3"),
    (lambda: F.adaptive_avg_pool2d(image(), 1), "adaptive_avg_pool2d", ""),
    (lambda: F.unfold(image(), 3, padding=1), "unfold", "kernel 3, padding 1"),
    (lambda: F.interpolate(image(), scale_factor=2), "interpolate", ""),
    (lambda: F.dropout(leaf(8), 0.25, training=True), "dropout", "p 0.25"),
    (lambda: F.batch_norm(image(), None, None, leaf(2), leaf(2), training=True), "batch_norm", ""),
    (lambda: F.cross_entropy(leaf(2, 3), tg.tensor([0, 1])), "cross_entropy", ""),
    (lambda: leaf(3) * 2, "mul", "x * 2"),
    (lambda: 2.5 * leaf(3), "mul", "2.5 * y"),
    (lambda: leaf(3) / 8, "div", "x / 8"),
    (lambda: 1 / leaf(3), "div", "1 / y"),
    (lambda: leaf(3) ** 2, "pow", "x ** 2"),
    (lambda: tg.maximum(leaf(3), 0.5), "maximum", "maximum(x, 0.5)"),
    (lambda: leaf(3).clip(0, 6), "clamp", "min 0, max 6"),
    (lambda: leaf(2, 3).sum(1), "sum", "dim 1"),
    (lambda: leaf(2, 3).sum(), "sum", "dim (0, 1)"),
    (lambda: leaf(2, 3).cumsum(1), "cumsum", "dim 1"),
    (lambda: leaf(2, 3, 4)[:, 0, ...], "getitem", "x[:, 0, ...]"),
    (lambda: leaf(6, 3)[1::2, None, -1], "getitem", "x[1::2, None, -1]"),
    (lambda: leaf(6, 3)[tg.tensor([1, 2]), tg.tensor([0, 0])], "getitem", "x[i, j], i of shape (2,), j of shape (2,)"),
    (lambda: leaf(3)[tg.tensor([True, False, True])], "getitem", "x[mask], mask of shape (3,)"),
    (lambda: leaf(2, 3).permute(1, 0), "permute", "dims (1, 0)"),
    (lambda: F.pad(image(), (1, 1, 0, 2), value=0.5), "pad", "dim 2 by (0, 2), dim 3 by 1, value 0.5"),
    (lambda: tg.einsum("ij,jk->ik", leaf(2, 3), leaf(3, 2)), "einsum", "ij,jk->ik"),
    (lambda: leaf(2).to(tg.float64), "to", "float64"),
    (lambda: tg.cat([leaf(2), leaf(2)]), "cat", "dim 0"),
])
def test_what_an_op_was_asked_to_do(make, title, settings):
    nodes = [node for node in reachable([make()._edge[0]]) if isinstance(node, Node)]
    assert (title, settings) in [(op_title(node), op_settings(node)) for node in nodes]


def test_a_primitive_of_the_users_own_shows_its_plain_attributes_only():
    @primitive
    def shifted(x, *, scale, table, mode, steps, flag, other):
        return x * scale

    @shifted.vjp(0)
    def _(g, scale):
        return g * scale

    try:
        y = shifted(leaf(3), scale=np.float32(0.5), table=np.ones(3), mode="edge", steps=[1, 2], flag=True, other=object())
        (node,) = (n for n in reachable([y._edge[0]]) if isinstance(n, Node))
        assert op_settings(node) == "scale 0.5, mode edge, steps (1, 2), flag"
    finally:
        del registry["shifted"]


@pytest.mark.parametrize(("layer", "lines"), [
    (nn.Conv2d(3, 8, 3), ["3, 8, kernel_size=3"]),
    (nn.Conv2d(3, 9, (3, 5), stride=(2, 1), padding=1, dilation=2, groups=3, bias=False), ["3, 9, kernel_size=(3, 5), stride=(2, 1), padding=1, dilation=2, groups=3, bias=False"]),
    (nn.BatchNorm2d(8), ["8"]),
    (nn.BatchNorm2d(8, eps=1e-3, affine=False), ["8, eps=0.001, affine=False, bias=False"]),
    (nn.Linear(5, 3), ["in_features=5, out_features=3"]),
    (nn.MaxPool2d(2), ["kernel_size=2, stride=2"]),
    (nn.Dropout(0.5), ["p=0.5"]),
    (nn.LeakyReLU(0.2), ["negative_slope=0.2"]),
    (nn.Flatten(), []),
    (nn.ReLU(), []),
])
def test_layers_show_what_differs_from_their_defaults(layer, lines):
    assert layer_settings(layer) == lines


def test_a_repr_of_the_users_own_is_shown_as_it_is():
    class Own(nn.Module):
        def __init__(self, gain=1.0):
            super().__init__()

        def extra_repr(self):
            return "gain=1.0, table={'a': (1, 2), 'b': [3, gain=1.0]}, free text, gain=2.0\n\nsecond=1"

    assert layer_settings(Own()) == ["table={'a': (1, 2), 'b': [3, gain=1.0]}, free text, gain=2.0", "second=1"]
