"""The parts of the benchmark that are no timings: means, cells, the document's section, verdicts; the networks of both engines."""

import pytest

import tinygrad_cnn as tg

from .bench.child import medians
from .bench.networks import IMAGES
from .bench.tables import cell, digits, geometric_mean, replace_section, table
from .bench.versus_torch import DOCUMENT, SECTION, TABLES, Measurements, detailed, summary
from .bench.workloads import ASCENT, CHANNELS_LAST, DENSE, IMPORT, NCHW, OURS, START, TARGETS, WORKLOADS, Engine


def test_geometric_mean():
    assert geometric_mean([2.0, 0.5]) == pytest.approx(1.0)
    assert geometric_mean(iter([1.0, 2.0, 32.0])) == pytest.approx(4.0)


@pytest.mark.parametrize("value, text", [(0.01234, "0.0123"), (0.5, "0.500"), (2.456, "2.46"), (35.14, "35.1"), (123.4, "123"), (12345.6, "12346"), (0.0, "0")])
def test_digits(value, text):
    assert digits(value) == text


def test_cell_takes_the_better_of_the_others():
    assert cell(2.0, [5.0, 3.0]) == "2.00 / 3.00 (1.50)"
    assert cell(2.0, []) == "2.00"


def test_table():
    assert table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"


def test_replacing_a_section_leaves_the_rest():
    once = replace_section("before\n<!-- s: begin -->\nold\n<!-- s: end -->\nafter\n", "s", "new\n")
    assert once == "before\n<!-- s: begin -->\n\nnew\n\n<!-- s: end -->\nafter\n"
    assert replace_section(once, "s", "new") == once


@pytest.mark.parametrize("text", ["", "<!-- s: begin -->", "<!-- s: end --><!-- s: begin -->", "<!-- s: begin --><!-- s: end --><!-- s: end -->"])
def test_a_section_without_its_comments_is_refused(text):
    with pytest.raises(ValueError, match="<!-- s: begin -->"):
        replace_section(text, "s", "new")


def test_the_document_has_the_section():
    assert "figures" in replace_section(DOCUMENT.read_text(encoding="utf-8"), SECTION, "figures")


def verdicts(results):
    return [row.strip("| ").split(" | ") for row in summary(results).splitlines()[2:]]


def test_verdicts():
    # forward by torch's better layout: 2 and 1 of a mean of 1.41; backward 2 and 0.9 (one below 1)
    results = {(DENSE, "a", "forward"): (1.0, [3.0, 2.0]), (DENSE, "b", "forward"): (1.0, [1.0, 9.0]),
               (DENSE, "a", "backward"): (1.0, [4.0]), (DENSE, "b", "backward"): (1.0, [0.9])}
    assert verdicts(results) == [[DENSE, "forward", "1.41", "1.00", "", "1.6 by mean, 1.0 each", "**no**"],
                                 [DENSE, "backward", "1.90", "0.90", "", "1.4 by mean, 1.0 each", "**no**"]]
    results[DENSE, "a", "forward"], results[DENSE, "b", "backward"] = (1.0, [3.0]), (1.0, [1.0])
    assert [row[-1] for row in verdicts(results)] == ["yes", "yes"]
    assert [row[-1] for row in verdicts({(ASCENT, "a", "time"): (1.0, [1.59]), (START, START, IMPORT): (0.31, [1.0])})] == ["**no**", "**no**"]
    assert summary({(ASCENT, "a", "time"): (1.0, [])}) == ""


def test_every_part_has_a_table_and_every_target_a_workload():
    parts = {(w.kind, part) for w in WORKLOADS.values() for part in w.parts}
    assert {part for _, part in parts} <= {part for parts in TABLES.values() for part in parts}
    assert {(t.kind, t.part) for t in TARGETS if t.part in ("forward", "backward", "time")} <= parts


def test_results_are_medians_over_rounds():
    measured = Measurements((OURS, NCHW, CHANNELS_LAST), 1, progress=type("Silent", (), {"update": lambda self: None})())
    for ours, nchw, last in [(1.0, 5.0, 4.0), (9.0, 6.0, 3.0), (2.0, 7.0, 50.0)]:
        for engine, value in zip(measured.engines, (ours, nchw, last), strict=True):
            measured.add(ASCENT, "a", engine, {"time": value})
    assert measured.results() == {(ASCENT, "a", "time"): (2.0, [6.0, 4.0])}
    assert "| a | 2.00 / 4.00 (2.00) |" in detailed(measured.results())


def test_warm_calls_do_not_count(monkeypatch):
    clock = iter(range(10**6))  # a second between any two looks
    calls = []
    monkeypatch.setattr("tests.bench.child.perf_counter", lambda: next(clock))
    monkeypatch.setattr("tests.bench.child.SECONDS", 0)

    def slow_at_first():
        calls.append(1)
        for _ in range(100 if len(calls) < 3 else 2):
            next(clock)

    assert medians([slow_at_first, lambda: None]) == [3000.0, 1000.0]


@pytest.mark.parametrize("network", IMAGES, ids=lambda network: network.__name__)
def test_networks_are_the_same_for_both_engines(network):
    torch = pytest.importorskip("torch")
    ours, theirs = network(tg), network(torch)
    assert [(k, tuple(v.shape)) for k, v in ours.state_dict().items()] == [(k, tuple(v.shape)) for k, v in theirs.state_dict().items()]


@pytest.mark.parametrize("name", ["conv 64x6x14x14, 16 of 5x5", "training step, LeNet-size, batch 8", "inference, LeNet-size, batch 1", "ascent step, VGG-like"])
def test_workloads_run_on_this_engine(name):
    workload = WORKLOADS[name]
    calls = workload.prepare(Engine(OURS, 2))
    assert len(calls) == len(workload.parts)
    for call in calls:
        call()
