"""How drawings look: palette, escaping, wrapping, and the HTML-like tables that Graphviz takes as labels."""

from __future__ import annotations

import functools
import html
import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .fonts import is_wide, text_width
from .picture import new_drawing

if TYPE_CHECKING:
    import graphviz

FONT = "Helvetica"
INK, MUTED, LINE = "#1f2933", "#52606d", "#7b8794"
WIDTH = 38
"""Characters per line in a node, of the usual size."""
LONGEST = 4 * WIDTH
"""Longer texts are cut, so that a node's size is bounded."""

KINDS = {                                      # kind: (fill, border)
    "input": ("#fdf3d0", "#a97b12"),
    "parameter": ("#d9e8f8", "#2f6fab"),
    "op": ("#ffffff", LINE),
    "run": ("#eceff3", LINE),
    "layer": ("#ffffff", LINE),
    "layer with parameters": ("#d9e8f8", "#2f6fab"),
    "output": ("#dcf1df", "#3a8a4c"),
    "failed": ("#fbdada", "#b83227"),
}
KEPT_FILL = "#fce6d8"
BOX = ("#f4f6f8", "#b8c2cc")

PADDING = 3
"""Points around the text of a cell."""

SIZE = 12
STYLES = {                                     # style: (size, bold, colour)
    "bold": (SIZE, True, INK), "plain": (SIZE, False, INK), "muted": (10, False, MUTED), "kept": (10, False, INK),
    "heading": (14, True, INK), "subheading": (11, False, MUTED), "legend": (10, False, INK),
    "box": (10, True, INK), "box facts": (9, False, MUTED),
}

Row = tuple[str, str]
"""A line of a label: (text, one of the styles bold, plain, muted, kept)."""


def printable(text: str) -> str:
    """The text with what cannot be printed (newlines, control characters) as Python escapes, cut if very long."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST - 2]} …"


def escape(text: str) -> str:
    r"""Printable text for an HTML-like label, where a blank one is a syntax error and \N means the node's name."""
    return html.escape(text).replace("\\", 2 * "\\") if text.strip() else "&#160;"


def wrap(text: str, width: int = WIDTH) -> list[str]:
    """Any text as lines of at most `width` characters, broken at spaces (not in pairs) or else at dots."""
    if len(text) <= width // 2 and text.isprintable():
        return [text]
    if any(map(is_wide, text)):
        width //= 2
    lines: list[str] = []
    joined = re.sub(r"\([^()]{1,12}\)", lambda pair: pair[0].replace(" ", "\N{NO-BREAK SPACE}"), printable(text))
    for line in textwrap.wrap(joined, width, break_long_words=False, break_on_hyphens=False):
        line = line.replace("\N{NO-BREAK SPACE}", " ")
        while len(line) > width:
            cut = line.rfind(".", 1, width) + 1 or width
            lines.append(line[:cut])
            line = line[cut:]
        lines.append(line)
    return lines or [""]


@functools.lru_cache(4096)
def cell(text: str, style: str, longest: int = WIDTH) -> str:
    """A table's cell with left-aligned lines, as wide as they are in the widest font."""
    size, bold, colour = STYLES[style]
    lines = wrap(text, longest * SIZE // size)
    width = max(text_width(line, size, bold) for line in lines)
    body = escape(lines[0]) if len(lines) < 2 else "".join(f'{escape(line)}<BR ALIGN="LEFT"/>' for line in lines)
    body = f"<B>{body}</B>" if bold else body
    if (size, colour) != (SIZE, INK):
        body = f'<FONT POINT-SIZE="{size}" COLOR="{colour}">{body}</FONT>'
    fill = f' BGCOLOR="{KEPT_FILL}"' if style == "kept" else ""
    padding = 0 if style in ("box", "box facts") else PADDING
    return f'<TD ALIGN="LEFT" BALIGN="LEFT" WIDTH="{math.ceil(width) + 2 * padding}"{fill}>{body}</TD>'


def new_chart() -> graphviz.Digraph:
    """An empty drawing in the house style: data flows downwards, the heading stands at the top left."""
    picture = new_drawing(rankdir="TB", nodesep="0.25", ranksep="0.35", pad="0.2", labelloc="t", labeljust="l",
                          fontname=FONT, fontcolor=INK, newrank="true", nslimit="2", nslimit1="2")
    picture.attr("node", shape="plain", fontname=FONT, fontsize=str(SIZE), fontcolor=INK)
    picture.attr("edge", color=LINE, arrowsize="0.7", fontname=FONT, fontsize="10", fontcolor=MUTED)
    return picture


def table(rows: Iterable[Row], kind: str) -> str:
    """A node's label: one left-aligned cell per row, on the kind's colours."""
    fill, border = KINDS[kind]
    cells = "".join(f"<TR>{cell(text, style)}</TR>" for text, style in rows)
    return (f'<<TABLE BORDER="1" CELLBORDER="0" CELLSPACING="0" CELLPADDING="{PADDING}" COLOR="{border}" BGCOLOR="{fill}">'
            f"{cells}</TABLE>>")


def title(lines: Sequence[str], legend: Sequence[tuple[str, str]]) -> str:
    """The drawing's heading: a bold line, further lines, and a key of (fill, meaning) pairs."""
    styles = ["heading", *["subheading"] * (len(lines) - 1)]
    rows = [f"<TR>{cell(line, style, 2 * WIDTH)}</TR>" for line, style in zip(lines, styles, strict=True)]
    if legend:
        cells = "".join(f'<TD BGCOLOR="{fill}" BORDER="1" COLOR="{LINE}" FIXEDSIZE="TRUE" WIDTH="14" HEIGHT="12"></TD>'
                        f'{cell(meaning, "legend")}<TD WIDTH="10"></TD>' for fill, meaning in legend)
        rows.append('<TR><TD ALIGN="LEFT"><TABLE ALIGN="LEFT" BORDER="0" CELLBORDER="0" CELLSPACING="0" '
                    f'CELLPADDING="{PADDING}"><TR>{cells}</TR></TABLE></TD></TR>')
    rows.append('<TR><TD HEIGHT="6"></TD></TR>')
    return f'<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="{PADDING}">{"".join(rows)}</TABLE>>'


def box_label(name: str, facts: Sequence[str]) -> str:
    """The heading of a box around layers: short lines, so that the arrow into the box has room beside them."""
    rows = "".join(f"<TR>{cell(line, style, WIDTH // 2)}</TR>"
                   for line, style in zip([name, *facts], ["box", *["box facts"] * len(facts)], strict=True))
    return f'<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0">{rows}</TABLE>>'


def bytes_text(count: int) -> str:
    """A number of bytes to three digits: 640 B, 25.1 kB, 3.2 MB."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"


def shape_text(shape: Sequence[int]) -> str:
    """(8, 16, 28, 28); a scalar's shape is ()."""
    return str(tuple(int(n) for n in shape))
