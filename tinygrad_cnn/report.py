"""One self-contained HTML page: headings, text, tables and pictures, all inlined, readable offline and in print."""

from __future__ import annotations

import base64
import html
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

_STYLE = """
:root { --ink: #1d2433; --soft: #5b6475; --line: #d9dee8; --page: #ffffff; --tint: #f4f6fa; --accent: #24558f; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--tint); color: var(--ink); font: 16px/1.6 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 2.5rem 2rem 4rem; background: var(--page); }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 .6rem; padding-top: 1.2rem; border-top: 1px solid var(--line); }
p { margin: .6rem 0; max-width: 72ch; }
.lead { color: var(--soft); }
nav { columns: 2; font-size: .92rem; margin: 1.2rem 0; }
nav a { display: block; color: var(--accent); text-decoration: none; padding: .1rem 0; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .92rem; display: block; overflow-x: auto; }
th, td { text-align: left; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
code, pre { font: .88em/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, monospace; background: var(--tint); }
code { padding: .1em .3em; border-radius: 3px; }
pre { padding: .8rem 1rem; overflow-x: auto; border-radius: 6px; }
figure { margin: 1.2rem 0; }
figure img { max-width: 100%; height: auto; display: block; }
figure .wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; padding: .6rem; }
figure .wide svg { max-width: 100%; height: auto; display: block; margin: 0 auto; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .4rem; max-width: 80ch; }
@media (max-width: 640px) { main { padding: 1.2rem 1rem; } nav { columns: 1; } }
@media print { body { background: none; } main { padding: 0; max-width: none; } figure { break-inside: avoid; } }
"""

_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}


class Page:
    """A page put together from top to bottom.

    Args:
        title: the heading and the window's title.
        lead: one paragraph of HTML below it.

    Example:
        >>> page = Page("Filters", "What the first layer learned.")
        >>> page.section("Sizes")
        >>> page.table(["layer", "parameters"], [["conv1", 160]])
        >>> "<h2" in page.html()
        True
    """

    def __init__(self, title: str, lead: str = ""):
        self.title, self.lead = title, lead
        self._sections: list[str] = []
        self._parts: list[str] = []

    def section(self, title: str) -> None:
        """Start a section; it appears in the table of contents."""
        self._sections.append(title)
        self._parts.append(f'<h2 id="s{len(self._sections)}">{len(self._sections)}. {html.escape(title)}</h2>')

    def text(self, *paragraphs: str) -> None:
        """Add paragraphs of HTML."""
        self._parts += [f"<p>{p}</p>" for p in paragraphs]

    def code(self, text: str) -> None:
        """Add preformatted text."""
        self._parts.append(f"<pre>{html.escape(text)}</pre>")

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Add a table; numbers are set right-aligned with thousands separators, text may hold HTML."""
        rows = [list(row) for row in rows]
        right = [any(isinstance(row[i], int) for row in rows) for i in range(len(header))]
        kinds = [' class="number"' if r else "" for r in right]

        def text(value: object) -> str:
            return f"{value:,}" if isinstance(value, int) else str(value)
        head = "".join(f"<th{kind}>{html.escape(h)}</th>" for kind, h in zip(kinds, header, strict=True))
        body = "".join("<tr>" + "".join(f"<td{kind}>{text(v)}</td>" for kind, v in zip(kinds, row, strict=True)) + "</tr>" for row in rows)
        self._parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def figure(self, path: str | os.PathLike[str], caption: str, *, alt: str = "", width: int | None = None) -> None:
        """Inline a picture file.

        Args:
            path: a .png, .jpg or .svg file.
            caption: HTML below the picture.
            alt: what the picture shows, for those who cannot see it; the caption without it.
            width: CSS pixels; the picture's own, at most the page's, if None.

        Raises:
            ValueError: another kind of file.
        """
        file = Path(path)
        if file.suffix not in _TYPES:
            raise ValueError(f"figure: {file.name} must end in one of {', '.join(_TYPES)}")
        if file.suffix == ".svg":
            text = file.read_text(encoding="utf-8")
            label = html.escape(alt or caption, quote=True)
            picture = f'<div class="wide" role="img" aria-label="{label}">{text[text.index("<svg"):]}</div>'
        else:
            data = base64.b64encode(file.read_bytes()).decode()
            size = f' style="width:{width}px"' if width else ""
            picture = f'<img alt="{html.escape(alt or caption, quote=True)}" src="data:{_TYPES[file.suffix]};base64,{data}"{size}>'
        self._parts.append(f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")

    def html(self) -> str:
        """The whole page."""
        links = "".join(f'<a href="#s{i}">{i}. {html.escape(s)}</a>' for i, s in enumerate(self._sections, 1))
        lead = f'<p class="lead">{self.lead}</p>' if self.lead else ""
        nav = f"<nav>{links}</nav>" if links else ""
        return ('<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
                '<meta name="viewport" content="width=device-width, initial-scale=1">'
                f"<title>{html.escape(self.title)}</title><style>{_STYLE}</style></head>\n<body><main><h1>{html.escape(self.title)}</h1>"
                f"{lead}{nav}\n" + "\n".join(self._parts) + "\n</main></body></html>\n")

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page: whole or not at all.

        Returns:
            The absolute path.
        """
        target = Path(path).resolve()
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=target.parent, suffix=".tmp", delete=False) as file:
            file.write(self.html())
        os.chmod(file.name, 0o644)
        os.replace(file.name, target)
        return target
