"""From a drawing to a file: through the system's Graphviz if there is one, else through the wheel `graphviz-pure`."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import graphviz

SOURCE_SUFFIXES = (".dot", ".gv")
WHEEL_FORMATS = ("svg", "png", "jpg", "jpeg", "json", "plain", "dot")
"""What `graphviz-pure` writes; PDF needs the system's Graphviz."""


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


def _lay_out(source: str, format: str, engine: str) -> bytes:
    """Run `graphviz-pure` on DOT source."""
    if format not in WHEEL_FORMATS:
        raise ValueError(f"draw: the wheel graphviz-pure writes {', '.join(WHEEL_FORMATS)}, not {format!r}; "
                         "install Graphviz (https://graphviz.org/download) for other formats")
    program, _ = find_engine()
    done = subprocess.run([program, f"-K{engine}", f"-T{format}"], input=source.encode(), capture_output=True)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise RuntimeError(f"draw: graphviz-pure failed with status {done.returncode}: {said}")
    return done.stdout


@functools.cache
def _drawing_class() -> Any:
    """The class is made at its first use, so that `import tinygrad_cnn` does not load graphviz."""
    import graphviz

    class Drawing(graphviz.Digraph):
        """A `graphviz.Digraph` that also renders where only the wheel `graphviz-pure` is installed."""

        def pipe(self, format: str | None = None, *, engine: str | None = None, encoding: str | None = None,
                 **options: Any) -> Any:
            """The picture as bytes, or as text if an encoding is given; see `graphviz.Digraph.pipe`."""
            if find_engine()[1]:
                return super().pipe(format, engine=engine, encoding=encoding, **options)
            picture = _lay_out(self.source, format or self.format, engine or self.engine)
            return picture if encoding is None else picture.decode(encoding)

        def render(self, filename: Any = None, directory: Any = None, view: bool = False, cleanup: bool = False,
                   format: str | None = None, *, outfile: Any = None, engine: str | None = None,
                   **options: Any) -> str:
            """Write source and picture; returns the picture's path. See `graphviz.Digraph.render`."""
            if find_engine()[1]:
                return super().render(filename, directory=directory, view=view, cleanup=cleanup, format=format,
                                      outfile=outfile, engine=engine, **options)
            if outfile is not None:
                outfile = Path(self.directory if directory is None else "", outfile)
                format = format or outfile.suffix[1:]
                filename = filename or outfile.with_suffix(".gv")
            format = format or self.format
            picture = _lay_out(self.source, format, engine or self.engine)
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
    path.write_bytes(drawing.pipe(format) if find_engine()[1] else _lay_out(drawing.source, format, drawing.engine))
    return path
