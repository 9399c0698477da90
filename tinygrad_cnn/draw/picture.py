"""From a drawing to a file: through the system's Graphviz if there is one, else through the wheel `graphviz-pure`."""

from __future__ import annotations

import functools
import importlib.metadata
import io
import json
import math
import os
import re
import shutil
import subprocess
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .fonts import font_path
from .layout import clear_titles, effort, extended, in_rows

if TYPE_CHECKING:
    import graphviz

SOURCE_SUFFIXES = (".dot", ".gv")
WHEEL_FORMATS = ("svg", "png", "jpg", "jpeg", "json", "plain", "dot")
"""What `graphviz-pure` writes; PDF needs the system's Graphviz."""

DPI = 96

MAX_PIXELS, MAX_SIDE, MAX_STROKES, MAX_TEXTS = 15e6, 32_000, 2e7, 5000
"""What bounds the time that a PNG takes: its pixels, those of its longer side, that times the number of arrows; lines of text."""

PLACED = "-Kneato", "-n2", "-Gnotranslate=true"
"""The engine's arguments for a drawing that has its positions."""

TRIES = ("", 1.5), ("graph [nslimit=1, nslimit1=1, mclimit=0.1, splines=line]\n", 2.5)
"""Settings of a layout, first good, then fast, and how many seconds it may take."""

MAX_EFFORT = 40_000
"""Drawings that ask for more are not worth the try."""


def find_engine() -> tuple[str, bool]:
    """The layout program: (its path, whether it is the system's `dot`).

    Raises:
        RuntimeError: neither is installed.
    """
    system = shutil.which("dot")
    if system is not None:
        return system, True
    try:                                       # a virtual environment's programs need not be on PATH: ask the package
        files = importlib.metadata.files("graphviz-pure") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.stem == "graphviz-pure" and file.suffix in ("", ".exe") and Path(str(file.locate())).is_file():
            return str(file.locate()), False
    wheel = shutil.which("graphviz-pure")
    if wheel is not None:
        return wheel, False
    raise RuntimeError("draw: no layout engine found to make a picture with; run `pip install 'tinygrad_cnn[dot]'` or "
                       "install Graphviz (https://graphviz.org/download); draw.save(drawing, 'graph.dot') needs none")


def run(arguments: Sequence[str], source: str, timeout: float | None = None) -> bytes:
    """Run the layout program on DOT source.

    Raises:
        RuntimeError: it failed.
        subprocess.TimeoutExpired: it took longer than timeout, in seconds.
    """
    program, system = find_engine()
    done = subprocess.run([program, *arguments], input=source.encode(), capture_output=True, timeout=timeout)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise RuntimeError(f"draw: {'dot' if system else 'graphviz-pure'} failed with status {done.returncode}: {said}")
    return done.stdout


def check_format(format: str) -> None:
    """Refuse what the installed engine does not write."""
    if not find_engine()[1] and format not in WHEEL_FORMATS:
        raise ValueError(f"draw: the wheel graphviz-pure writes {', '.join(WHEEL_FORMATS)}, not {format!r}; "
                         "install Graphviz (https://graphviz.org/download) for other formats")


def write(source: str, format: str, engine: str) -> bytes:
    """A picture of one of our drawings."""
    check_format(format)
    source, arguments = _lay_out(source) if engine == "dot" else (source, [f"-K{engine}"])
    if format in ("png", "jpg", "jpeg"):
        return _paint(source, format, arguments)
    picture = run([*arguments, f"-T{format}"], source)
    return re.sub(rb"<title>.*</title>\n", b"", picture) if format == "svg" else picture         # browsers show them: "n1->n2"


def _paint(source: str, format: str, arguments: Sequence[str]) -> bytes:
    """A PNG or JPEG of bounded size, in which any font of the machine may lend a character (`graphviz-pure` has only its own)."""
    svg = run([*arguments, "-Tsvg"], source).decode()
    width, height = (float(v) * DPI / 72 for v in re.findall(r'<svg width="([0-9.]+)pt" height="([0-9.]+)pt"', svg)[0])
    arrows, wordless = svg.count('class="edge"') + 1, svg.count("<text") > MAX_TEXTS
    zoom = min(1.0, math.sqrt(MAX_PIXELS / (width * height)), min(MAX_SIDE, MAX_STROKES / arrows) / max(width, height))
    smooth = zoom == 1 and arrows * max(width, height) < MAX_STROKES / 4
    if zoom < 1 or wordless:
        warnings.warn(f"draw: a picture of {width:,.0f} x {height:,.0f} pixels is too large for {format}, so it is scaled to {zoom:.0%}"
                      f"{', without text' if wordless else ''}; save it as .svg or show less of it", stacklevel=5)
    try:
        import resvg_py
    except ModuleNotFoundError:
        return run([*arguments, f"-Gsize={width * zoom / DPI},{height * zoom / DPI}", f"-T{format}"], source)
    svg = re.sub("<text.*?</text>", "", svg, flags=re.S) if wordless else svg.replace("sans-Serif", "sans-serif")
    png = resvg_py.svg_to_bytes(svg_string=svg, dpi=DPI, zoom=zoom, font_files=[str(font_path(bold)) for bold in (False, True)],
                                font_family="DejaVu Sans", sans_serif_family="DejaVu Sans",
                                shape_rendering="geometric_precision" if smooth else "optimize_speed")
    if format == "png":
        return png
    from PIL import Image

    file = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(file, "JPEG", quality=92)
    return file.getvalue()


def _lay_out(source: str) -> tuple[str, Sequence[str]]:
    """A layout of one of our drawings, in limited time.

    Returns:
        DOT with positions, and the engine's arguments to draw it with.
    """
    for settings, limit in TRIES if effort(source) <= MAX_EFFORT else ():
        try:
            return clear_titles(extended(source, settings), functools.partial(_positions, time.monotonic() + limit)), PLACED
        except subprocess.TimeoutExpired:
            pass
    warnings.warn("draw: a drawing of this size takes too long to lay out, so it is drawn in plain rows; show less of it: "
                  "draw.model(..., depth=1), draw.graph of an earlier tensor, or a smaller max_nodes", stacklevel=5)
    return in_rows(source), ("-Kneato", "-n")


def _positions(ends: float, source: str) -> tuple[str, dict[str, Any]]:
    """Lay out before a point in time: DOT with positions, and the same as JSON if there are boxes."""
    laid = run(["-Kdot", "-Tdot"], source, max(ends - time.monotonic(), 0.01)).decode()
    return laid, json.loads(run([*PLACED, "-Tjson0"], laid)) if "subgraph" in source else {}


@functools.cache
def _drawing_class() -> Any:
    """The class is made at its first use, so that `import tinygrad_cnn` does not load graphviz."""
    import graphviz

    class Drawing(graphviz.Digraph):
        """A `graphviz.Digraph` that renders also where only the wheel `graphviz-pure` is installed, and in limited time."""

        def pipe(self, format: str | None = None, *, engine: str | None = None, encoding: str | None = None,
                 **options: Any) -> Any:
            """The picture as bytes, or as text if an encoding is given; see `graphviz.Digraph.pipe`."""
            if options and find_engine()[1]:
                return super().pipe(format, engine=engine, encoding=encoding, **options)
            picture = write(self.source, (format or self.format).lower(), engine or self.engine)
            return picture if encoding is None else picture.decode(encoding)

        def render(self, filename: Any = None, directory: Any = None, view: bool = False, cleanup: bool = False,
                   format: str | None = None, *, outfile: Any = None, engine: str | None = None,
                   **options: Any) -> str:
            """Write source and picture; returns the picture's path. See `graphviz.Digraph.render`."""
            if options and find_engine()[1]:
                return super().render(filename, directory=directory, view=view, cleanup=cleanup, format=format,
                                      outfile=outfile, engine=engine, **options)
            if outfile is not None:
                outfile = Path(self.directory if directory is None else "", outfile)
                format = format or outfile.suffix[1:]
                filename = filename or outfile.with_suffix(".gv")
            format = format or self.format
            picture = self.pipe(format, engine=engine)
            source = self.save(filename, directory=directory)
            path = str(outfile or f"{source}.{format}")
            Path(path).write_bytes(picture)
            if cleanup:
                os.remove(source)
            if view:
                graphviz.view(path)
            return path

        def _repr_svg_(self) -> str:
            """What a notebook shows."""
            return self.pipe("svg", encoding="utf-8")

    return Drawing


def new_drawing(**attributes: Any) -> graphviz.Digraph:
    """An empty drawing with the given graph attributes."""
    return _drawing_class()(format="svg", graph_attr=attributes)


def save(drawing: graphviz.Digraph, path: str | os.PathLike[str]) -> Path:
    """Write a drawing to one file, in the format its suffix names.

    Args:
        drawing: what `graph` or `model` returned, or any `graphviz.Digraph`.
        path: ends in .svg, .png, .jpg or, with the system's Graphviz, .pdf and whatever else that writes; .dot or .gv
            writes the source, which needs no layout engine.

    Returns:
        The path.

    Raises:
        ValueError: no suffix, or a format the installed engine does not write.
        RuntimeError: no layout engine is installed, or it failed.

    Example:
        >>> import tempfile
        >>> import tinygrad_cnn as tg
        >>> from tinygrad_cnn import draw
        >>> y = tg.ones(2, requires_grad=True).exp()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     draw.save(draw.graph(y), f"{folder}/exp.dot").name
        'exp.dot'
    """
    path = Path(path)
    if not path.suffix:
        raise ValueError(f"save: the path {str(path)!r} must end in .svg, .png, .pdf, .dot or .gv")
    if path.suffix.lower() in SOURCE_SUFFIXES:
        path.write_text(drawing.source, encoding="utf-8")
        return path
    format = path.suffix[1:].lower()
    check_format(format)
    if isinstance(drawing, _drawing_class()) or find_engine()[1]:
        path.write_bytes(drawing.pipe(format))
    else:                                      # another's drawing, which would look for a system's `dot`
        path.write_bytes(run([f"-K{drawing.engine}", f"-T{format}"], drawing.source))
    return path
