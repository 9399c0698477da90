"""Files and notebook pictures, with the wheel's engine, with a system `dot`, and with neither."""

import importlib.metadata
import sys

import graphviz
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn import draw
from tinygrad_cnn.draw.picture import find_engine

MAGIC = {"svg": b"<svg", "png": b"\x89PNG\r\n", "jpg": b"\xff\xd8\xff", "dot": b"digraph", "gv": b"digraph"}


@pytest.fixture
def drawing():
    return draw.graph(tg.ones(2, requires_grad=True).exp())


@pytest.fixture(params=["wheel", "system"])
def engine(request, monkeypatch, tmp_path):
    """PATH without `dot`, or with one: the wheel's program under that name, which also notes that it was called."""
    program, is_system = find_engine()
    if is_system:
        monkeypatch.setenv("PATH", "")
        program, _ = find_engine()
    folder = tmp_path / "bin"
    folder.mkdir()
    if request.param == "system":
        if sys.platform == "win32":
            pytest.skip("makes a shell script")
        (folder / "dot").write_text(f'#!/bin/sh\necho called >> "{tmp_path}/calls"\nexec "{program}" "$@"\n')
        (folder / "dot").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    else:
        monkeypatch.setenv("PATH", str(folder))
    yield request.param
    assert (tmp_path / "calls").exists() == (request.param == "system")


@pytest.mark.parametrize("suffix", ["svg", "png", "jpg"])
def test_save_pipe_and_render(engine, drawing, tmp_path, suffix):
    path = draw.save(drawing, tmp_path / f"a.{suffix}")
    assert MAGIC[suffix] in path.read_bytes()[:600]
    assert MAGIC[suffix] in drawing.pipe(suffix)[:600]
    rendered, named = tmp_path / f"b.gv.{suffix}", tmp_path / f"c.{suffix}"
    assert drawing.render(tmp_path / "b.gv", format=suffix, cleanup=True) == str(rendered)
    assert MAGIC[suffix] in rendered.read_bytes()[:600] and not (tmp_path / "b.gv").exists()
    assert drawing.render(outfile=named) == str(named)
    assert MAGIC[suffix] in named.read_bytes()[:600]
    assert (tmp_path / "c.gv").read_text() == drawing.source


def test_notebooks_show_svg(engine, drawing):
    assert "<svg" in drawing._repr_svg_() and ">exp</text>" in drawing._repr_svg_()
    assert "<svg" in drawing._repr_mimebundle_()["image/svg+xml"]


def test_a_drawing_is_a_digraph_and_plain_ones_can_be_saved(engine, drawing, tmp_path):
    assert isinstance(drawing, graphviz.Digraph)
    plain = graphviz.Digraph()
    plain.edge("a", "b")
    assert b"<svg" in draw.save(plain, tmp_path / "plain.svg").read_bytes()


@pytest.fixture
def no_engine(monkeypatch, tmp_path):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "files", missing)


@pytest.mark.parametrize("use", [lambda d, p: d.pipe("svg"), lambda d, p: d.render(p / "x.gv"),
                                 lambda d, p: d._repr_svg_(), lambda d, p: draw.save(d, p / "x.png")])
def test_without_an_engine_the_error_says_what_to_install(no_engine, drawing, tmp_path, use):
    with pytest.raises(RuntimeError, match=r"pip install 'tinygrad_cnn\[dot\]'.* or install Graphviz"):
        use(drawing, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["dot", "gv"])
def test_source_needs_no_engine(no_engine, drawing, tmp_path, suffix):
    assert draw.save(drawing, str(tmp_path / f"a.{suffix}")).read_text(encoding="utf-8") == drawing.source


def test_formats_that_cannot_be_written(monkeypatch, drawing, tmp_path):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match=r"graphviz-pure writes svg, png.*not 'pdf'; install Graphviz"):
        draw.save(drawing, tmp_path / "a.pdf")
    with pytest.raises(ValueError, match=r"must end in \.svg"):
        draw.save(drawing, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_broken_source_is_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    broken = graphviz.Digraph(body=["a -> [\n"])
    with pytest.raises(RuntimeError, match="graphviz-pure failed with status"):
        draw.save(broken, tmp_path / "a.svg")
