"""`draw.graph`: the nodes and arrows of small expressions whose tape is known by hand."""

import gc
import re
import subprocess
import sys

import numpy as np
import pytest

import tinygrad_cnn as tg
from tests.draw.reading import read, svg_text
from tinygrad_cnn import draw, nn


def leaf(*shape, dtype=None):
    return tg.ones(*shape, dtype=dtype, requires_grad=True)


def test_nodes_and_arrows_of_a_small_expression():
    w, b, x = leaf(3, 2), leaf(3), tg.randn(4, 2)
    loss = (nn.functional.linear(x, w, b).exp() + 1.5).sum()
    seen = read(draw.graph(loss, {"w": w, "b": b, "x": x}))
    assert seen.arrows() == [("add", "sum"), ("b", "linear"), ("exp", "add"), ("linear", "exp"), ("sum", "output"),
                             ("w", "linear"), ("x", "linear")]
    assert seen.nodes[seen.find("w")] == ["w", "(3, 2) float32"]
    assert "(4, 3)" in seen.nodes[seen.find("linear")]
    assert seen.nodes[seen.find("output")] == ["output", "() float32"]


def test_says_what_each_op_keeps_and_its_bytes_and_the_total_without_counting_memory_twice():
    w, x = leaf(5), tg.randn(5)
    y = (w * x).exp()                          # mul keeps x for w's gradient; exp keeps its result
    z = y * y                                  # and mul keeps y, twice, which is exp's result
    seen = read(draw.graph(z.sum(), {"w": w}))
    assert "keeps result (5,), 20 B" in seen.nodes[seen.find("exp")]
    assert sum("keeps x (5,), 20 B" in lines or "keeps y (5,), 20 B" in lines for lines in seen.nodes.values()) == 2
    assert seen.heading[1] == "40 B kept for backward"
    hidden = read(draw.graph(z.sum(), {"w": w}, show_saved=False))
    assert "keeps" not in hidden.text() and "kept" not in "".join(hidden.heading)


def test_bytes_that_are_the_leaves_themselves_are_told_apart():
    w, v = leaf(10), leaf(10)
    assert read(draw.graph((w * v).sum())).heading[1] == "80 B kept for backward, 80 B of it the leaves themselves"


def test_a_view_counts_as_the_memory_it_keeps_alive():
    w, big = leaf(3), tg.randn(1000, dtype=tg.float64)
    assert read(draw.graph((w * big[:3]).sum())).heading[1].startswith("8 kB")


def test_after_backward_it_is_freed_and_the_shapes_are_still_there():
    w, x = leaf(2, 3), tg.randn(4, 3)
    loss = nn.functional.linear(x, w).tanh().sum()
    before = read(draw.graph(loss, {"w": w}))
    loss.backward()
    after = read(draw.graph(loss, {"w": w}))
    assert after.arrows() == before.arrows()
    freed = {lines[0] for lines in after.nodes.values() if "freed by backward" in lines}
    assert freed == {"tanh", "linear"}                                           # sum had kept nothing
    assert "keeps" not in after.text() and after.heading[1] == "what was kept for backward is freed"


def test_retained_graph_is_not_called_freed():
    w = leaf(2)
    loss = w.exp().sum()
    loss.backward(retain_graph=True)
    assert "freed" not in read(draw.graph(loss)).text()


def test_attributes_that_matter_and_no_others():
    x, w = tg.randn(1, 4, 8, 8), leaf(6, 2, 3, 3)
    out = nn.functional.conv2d(x, w, stride=(2, 1), padding=1, groups=2)
    lines = read(draw.graph(out)).nodes
    conv = next(text for text in lines.values() if text[0] == "conv2d")
    assert conv[:3] == ["conv2d", "kernel 3, stride (2, 1), padding 1, groups 2", "(1, 6, 4, 8)"]
    indexed = read(draw.graph(leaf(5, 4, 3)[1:4, ..., -1]))
    assert "x[1:4, ..., -1]" in indexed.nodes[indexed.find("getitem")]
    gathered = read(draw.graph(leaf(5)[tg.tensor([1, 1, 2])]))
    assert "x[i], i of shape (3,)" in gathered.nodes[gathered.find("getitem")]
    divided = read(draw.graph(leaf(5) / 8))
    assert "x / 8" in divided.nodes[divided.find("div")]


def test_parameters_and_inputs_look_different():
    weight, x = nn.Parameter(tg.ones(3)), leaf(3)
    source = draw.graph(weight * x).source
    assert source.count('BGCOLOR="#d9e8f8"><TR>') == 1 and source.count('BGCOLOR="#fdf3d0"><TR>') == 1
    frozen = nn.Parameter(tg.ones(3), requires_grad=False)
    named = draw.graph(frozen * x, {"frozen": frozen})
    assert re.search('BGCOLOR="#d9e8f8"><TR><TD [^>]*><B>frozen', named.source)


def test_a_shared_leaf_is_one_node_and_two_names_for_one_tensor_are_shown_together():
    w = leaf(3)
    seen = read(draw.graph((w.exp() + w.tanh()).sum(), {"encoder.w": w, "decoder.w": w}))
    shared = seen.find("encoder.w = decoder.w")
    assert sorted(seen.nodes[head][0] for tail, head in seen.edges if tail == shared) == ["exp", "tanh"]


def test_a_constant_used_twice_is_one_node():
    w, mask = leaf(3), tg.tensor([1.0, 0, 1])
    seen = read(draw.graph(((w * mask).exp() * mask).sum(), {"w": w, "mask": mask}))
    assert [seen.nodes[head][0] for tail, head in seen.edges if tail == seen.find("mask")] == ["mul", "mul"]


def test_several_outputs_intermediate_names_and_several_results_of_one_op():
    w = leaf(4, 4)
    hidden = w.exp()
    seen = read(draw.graph([hidden.sum(), hidden], {"w": w, "hidden": hidden}))
    assert seen.arrows() == [("exp", "output 1"), ("exp", "sum"), ("sum", "output 0"), ("w", "exp")]
    assert "= hidden" in seen.nodes[seen.find("exp")]


def test_second_order_graph():
    x = leaf(3)
    (slope,) = tg.autograd.grad((x**3).sum(), x, create_graph=True)
    seen = read(draw.graph(slope.sum(), {"x": x}))
    assert len([lines for lines in seen.nodes.values() if lines[0] == "x"]) == 1
    assert seen.find("output")


def test_tensors_without_graph_and_bare_leaves_are_single_nodes():
    plain = read(draw.graph(tg.ones(2, 3)))
    assert list(plain.nodes.values()) == [["tensor", "(2, 3) float32", "no graph: nothing it comes from requires grad"]]
    bare = read(draw.graph(leaf(2)))
    assert list(bare.nodes.values()) == [["(2,) float32"]] and bare.edges == []


def test_a_leaf_that_was_deleted_is_still_drawn():
    y = leaf(2).exp()
    gc.collect()
    assert read(draw.graph(y)).arrows() == [("(2,) float32", "exp"), ("exp", "output")]


NAMES = ['say "hi"', "a<b>&c;", "<b>bold</b>", "<>", "back\\slash\\", "two\\\\", "\\N\\G\\l", "{a|b}", "new\nline",
         "tab\there", "größe π 層 🙂", "&amp;", "", " ", "'quoted'", "%s %d", "null\0byte", "half\ud800",
         "]]>", "n0:port", "--", "graph"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_special_names_are_shown_as_they_are(name):
    w = leaf(2)
    escaped = {"new\nline": r"new\nline", "tab\there": r"tab\there", "null\0byte": r"null\x00byte",
               "half\ud800": r"half\ud800"}
    drawing = draw.graph(w.exp(), {name: w})
    assert escaped.get(name, name) in svg_text(drawing).splitlines() or not name.strip()
    assert len(read(drawing).nodes) == 3


def test_long_names_are_wrapped_and_bounded():
    w = leaf(2)
    name = ".".join(["encoder_block"] * 40)
    lines = svg_text(draw.graph(w.exp(), {name: w})).splitlines()
    assert max(map(len, lines)) <= 38
    assert lines.count("encoder_block.encoder_block.") >= 3 and any(line.endswith("…") for line in lines)


def test_a_long_chain_needs_no_recursion_and_is_shortened():
    x = leaf(2)
    y = x
    for _ in range(2500):
        y = y * 1.001 + 0.5
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(150)
    try:
        drawing = draw.graph(y, {"x": x})
    finally:
        sys.setrecursionlimit(limit)
    seen = read(drawing)
    assert seen.arrows() == [("5,000 ops in a row", "output"), ("x", "5,000 ops in a row")]
    assert "mul ×2,500, add ×2,500" in seen.text() and seen.heading[0] == "Computation graph, 5,000 ops"


def test_shortening_keeps_forks_and_joins():
    x = leaf(2)
    a = x.exp().tanh().exp()
    left, right = a.tanh().tanh().tanh(), a.exp().exp().exp()
    seen = read(draw.graph((left + right).sum(), {"x": x}, max_nodes=8))
    assert sorted(lines[0] for lines in seen.nodes.values()) == [
        "2 ops in a row", "3 ops in a row", "3 ops in a row", "3 ops in a row", "output", "x"]
    assert len(seen.edges) == 6
    full = read(draw.graph((left + right).sum(), {"x": x}, max_nodes=13))
    assert len(full.nodes) == 13


def test_shortening_stops_at_an_output():
    x = leaf(2)
    middle = x.exp().exp().exp()
    seen = read(draw.graph([middle, middle.tanh().tanh().tanh()], {"x": x}, max_nodes=5))
    assert seen.arrows() == [("3 ops in a row", "3 ops in a row"), ("3 ops in a row", "output 0"),
                             ("3 ops in a row", "output 1"), ("x", "3 ops in a row")]


def test_what_cannot_be_shortened_raises_and_names_the_argument():
    x = leaf(2)
    y = x
    for _ in range(20):
        y = y.exp() + y
    with pytest.raises(ValueError, match=r"graph: 41 nodes .* max_nodes=10"):
        draw.graph(y, max_nodes=10)
    assert len(read(draw.graph(y, max_nodes=42)).nodes) == 42            # 40 ops, the leaf, the output


def test_the_same_graph_gives_the_same_source():
    def make():
        layers = [nn.Parameter(tg.ones(3, 3)) for _ in range(6)]
        y = tg.ones(2, 3)
        for w in layers:
            y = nn.functional.linear(y, w).relu()
        return draw.graph(y, {f"w{i}": w for i, w in enumerate(layers)}).source
    assert make() == make()


def test_drawing_changes_nothing():
    w = leaf(3)
    loss = (w * w).sum()
    draw.graph(loss, {"w": w})
    loss.backward()
    np.testing.assert_array_equal(w.grad.numpy(), [2, 2, 2])


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ((3.0,), TypeError, "not iterable"),
    (([1.0],), TypeError, "graph: output 0 must be a Tensor, got float"),
    (([],), ValueError, "graph: outputs is empty"),
    ((tg.ones(1), {"w": 3}), TypeError, r"graph: params\['w'\] must be a Tensor, got int"),
])
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        draw.graph(*arguments)


def test_importing_the_package_does_not_load_graphviz():
    code = "import sys, tinygrad_cnn, tinygrad_cnn.draw; print('graphviz' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
