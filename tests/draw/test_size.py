"""Large drawings: what is shortened, left out, laid out plainly or scaled, that it is said, and how long it takes."""

import json
import re
import time
import warnings

import numpy as np
import pytest

import tinygrad_cnn as tg
from tests.draw.reading import read
from tinygrad_cnn import draw, nn
from tinygrad_cnn.draw import layout, picture


def leaf(*shape):
    return tg.ones(*shape, requires_grad=True)


def chain(ops):
    y = leaf(2)
    for _ in range(ops // 2):
        y = y * 1.5 + 0.5
    return y


def fan(branches):
    x = leaf(2)
    return tg.cat([(x * float(i)).exp() for i in range(branches)])


def stack(branches):
    """Branches that join one after the other."""
    x = leaf(2)
    y = x.exp()
    for i in range(branches):
        y = y + (x * float(i)).tanh()
    return y


def dense(layers):
    """Every layer concatenates what all before it made."""
    made = [leaf(1)]
    for _ in range(layers):
        made.append(tg.cat(made).sum().reshape(1))
    return tg.cat(made)


def far(ops):
    """Every op takes the one before and one from anywhere."""
    made = [leaf(1).exp()]
    for i in range(ops):
        made.append(made[-1] + made[i * 7919 % len(made)])
    return made[-1]


def watched(make):
    """The result of a function, and the warnings it gave."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return make(), [str(w.message) for w in caught]


# ---- what is shortened --------------------------------------------------------------------------------------------


def test_branches_alike_become_one():
    seen = read(draw.graph(fan(400).sum(), max_nodes=100))
    assert seen.arrows() == [("(2,) float32", "400 branches alike"), ("2 ops in a row", "output"), ("400 branches alike", "2 ops in a row")]
    assert "mul, exp" in seen.nodes[seen.find("400 branches alike")]
    assert "keeps 400 values, 3.2 kB" in seen.nodes[seen.find("400 branches alike")]


def test_branches_that_differ_or_are_outputs_stay_apart():
    x = leaf(2)
    alike, other, shown = [x * float(i) for i in range(5)], x.tanh(), x * 9.0
    seen = read(draw.graph([tg.cat([*alike, other, shown]).exp(), shown], max_nodes=7))
    assert sorted(lines[0] for lines in seen.nodes.values()) == [
        "(2,) float32", "2 ops in a row", "5 branches alike", "mul", "output 0", "output 1", "tanh"]


def test_last_parameters_are_written_into_their_ops():
    x, skip = leaf(2, 3), leaf(2, 3)
    layers = [nn.Linear(3, 3) for _ in range(6)]
    y = x
    for layer in layers:
        y = layer(y) + skip                    # the skip keeps it from being a straight run
        skip = y.exp()
    named = {f"{i}.{name}": p for i, layer in enumerate(layers) for name, p in layer.named_parameters()}
    full = len(read(draw.graph(y, named)).nodes)
    short = read(draw.graph(y, named, max_nodes=full - 12))
    assert len(short.nodes) <= full - 12 and "with 2 parameters" in short.text() and "0.weight" not in short.text()
    assert {"(2, 3) float32"} <= {lines[0] for lines in short.nodes.values()}             # inputs are still there


def test_of_too_many_arrows_the_long_ones_are_left_out_and_every_node_keeps_its_own(monkeypatch):
    monkeypatch.setattr(layout, "MAX_ARROWS", 150)
    seen = read(draw.graph(dense(30)))
    heads, tails = {head for _, head in seen.edges}, {tail for tail, _ in seen.edges}
    assert len(seen.edges) < 250
    ends = {key for key, lines in seen.nodes.items() if lines[0] in ("(1,) float32", "output")}
    assert set(seen.nodes) - heads <= ends and set(seen.nodes) - tails <= ends
    left_out = int(re.search("(\\d+) long arrows are left out", "".join(seen.heading))[1])
    monkeypatch.setattr(layout, "MAX_ARROWS", 10**6)
    assert left_out == len(read(draw.graph(dense(30))).edges) - len(seen.edges)


def test_models_too_leave_out_long_arrows(monkeypatch):
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(i + 1, 1) for i in range(20)])

        def forward(self, x):
            made = [x]
            for layer in self.layers:
                made.append(layer(tg.cat(made, 1)))
            return made[-1]

    monkeypatch.setattr(layout, "MAX_ARROWS", 100)
    seen = read(draw.model(Dense(), tg.zeros(1, 1)))
    assert len(seen.edges) < 160 and re.search("long arrows are left out", "".join(seen.heading))


# ---- plain rows ---------------------------------------------------------------------------------------------------


@pytest.fixture
def no_time(monkeypatch):
    monkeypatch.setattr(picture, "MAX_EFFORT", 0)


def boxes(drawing):
    """The engine's rectangles of nodes (left, bottom, right, top), by name, and the arrows."""
    laid, caught = watched(lambda: drawing.pipe("json", encoding="utf-8"))
    graph = json.loads(laid)
    places = {}
    for o in graph["objects"]:
        (x, y), w, h = map(float, o["pos"].split(",")), 36 * float(o["width"]), 36 * float(o["height"])
        places[o["name"]] = x - w, y - h, x + w, y + h
    names = {o["_gvid"]: o["name"] for o in graph["objects"]}
    return places, [(names[e["tail"]], names[e["head"]]) for e in graph["edges"]], caught


@pytest.mark.parametrize("make", [lambda: dense(8), lambda: stack(12), lambda: fan(60), lambda: chain(300)])
def test_without_time_for_a_layout_nodes_stand_in_rows_and_none_covers_another(no_time, make):
    drawing = draw.graph(make())
    places, arrows, (message,) = boxes(drawing)
    assert "plain rows" in message and "max_nodes" in message and "depth=1" in message
    assert len(places) == drawing.source.count("label=<<TABLE BORDER=\"1\"")
    corners = np.array(list(places.values()))
    lower, upper = np.maximum(corners[:, None, :2], corners[:, :2]), np.minimum(corners[:, None, 2:], corners[:, 2:])
    covered = ((lower < upper).all(-1)).sum()
    assert covered == len(places)              # each by itself
    for tail, head in arrows:                  # downwards, unless the drawing goes on at the right
        assert places[head][3] < places[tail][1] or places[head][0] > places[tail][2]


def test_rows_leave_out_boxes_but_no_layer(no_time):
    model = nn.Sequential(nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh(), nn.ReLU())), nn.Linear(2, 2))
    places, arrows, _ = boxes(draw.model(model, tg.zeros(1, 2)))
    assert len(places) == 6 and len(arrows) == 5


# ---- scaled -------------------------------------------------------------------------------------------------------


def test_a_png_too_large_is_scaled_and_says_so(monkeypatch):
    from PIL import Image

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(picture, "MAX_PIXELS", 100_000)
    drawing = draw.graph(chain(20))
    whole, _ = watched(lambda: drawing.pipe("svg", encoding="utf-8"))
    width, height = (float(v) * 96 / 72 for v in re.search(r'<svg width="([\d.]+)pt" height="([\d.]+)pt"', whole).groups())
    png, (message,) = watched(lambda: drawing.pipe("png"))
    size = np.frombuffer(png[16:24], ">u4")
    assert 80_000 < size.prod() <= 105_000 and size[0] / size[1] == pytest.approx(width / height, rel=0.02)
    assert "too large for png" in message and ".svg" in message


# ---- time ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "options"), [
    (lambda: chain(10_000), {}), (lambda: fan(5_000), {}), (lambda: stack(100), {}), (lambda: stack(200), {}), (lambda: stack(330), {}),
    (lambda: dense(40), {}), (lambda: dense(140), {}), (lambda: far(400), {}), (lambda: far(990), {}),
    (lambda: chain(4_000), {"max_nodes": 10_000}), (lambda: dense(500), {"max_nodes": 10_000}),
], ids=["chain", "fan", "stack100", "stack200", "stack330", "dense40", "dense140", "far400", "far990", "chain4000", "dense500"])
def test_no_drawing_takes_ten_seconds(make, options):
    y = make()
    start = time.perf_counter()
    svg, _ = watched(lambda: draw.graph(y, **options).pipe("svg"))
    assert time.perf_counter() - start < 10 and b"<svg" in svg


@pytest.mark.parametrize("make", [lambda: stack(3_333), lambda: far(10_000)], ids=["stack", "far"])
def test_what_is_refused_is_refused_at_once(make):
    y = make()
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"nodes .* are more than max_nodes=1000; draw an earlier tensor or draw.model\(model, x, depth=1\)"):
        draw.graph(y)
    assert time.perf_counter() - start < 5
