"""How drawings look: palette, escaping, wrapping, and the HTML-like tables that Graphviz takes as labels."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .picture import new_drawing

if TYPE_CHECKING:
    import graphviz

FONT = "Helvetica"
INK, MUTED, LINE = "#1f2933", "#52606d", "#7b8794"
WIDTH = 38
"""Characters per line in a node."""
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

Row = tuple[str, str]
"""A line of a label: (text, one of the styles bold, plain, muted, kept)."""


def printable(text: str) -> str:
    """The text with what cannot be printed (newlines, control characters) as Python escapes, cut if very long."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST - 2]} …"


def escape(text: str) -> str:
    r"""Printable text for an HTML-like label, where a blank one is a syntax error and \N means the node's name."""
    return html.escape(text).replace("\\", 2 * "\\") if text.strip() else "&#160;"


def wrap(text: str, width: int = WIDTH) -> str:
    """Any text as left-aligned lines of at most `width` characters, broken at spaces (not in pairs) or else at dots."""
    lines: list[str] = []
    joined = re.sub(r"\([^()]{1,12}\)", lambda pair: pair[0].replace(" ", "\N{NO-BREAK SPACE}"), printable(text))
    for line in textwrap.wrap(joined, width, break_long_words=False, break_on_hyphens=False):
        line = line.replace("\N{NO-BREAK SPACE}", " ")
        while len(line) > width:
            cut = line.rfind(".", 1, width) + 1 or width
            lines.append(line[:cut])
            line = line[cut:]
        lines.append(line)
    if len(lines) < 2:
        return escape("".join(lines))
    return "".join(f'{escape(line)}<BR ALIGN="LEFT"/>' for line in lines)


def new_chart() -> graphviz.Digraph:
    """An empty drawing in the house style: data flows downwards, the heading stands at the top left."""
    picture = new_drawing(rankdir="TB", nodesep="0.25", ranksep="0.35", pad="0.2", labelloc="t", labeljust="l",
                          fontname=FONT, fontcolor=INK)
    picture.attr("node", shape="plain", fontname=FONT, fontsize="12", fontcolor=INK)
    picture.attr("edge", color=LINE, arrowsize="0.7", fontname=FONT, fontsize="10", fontcolor=MUTED)
    return picture


def table(rows: Iterable[Row], kind: str) -> str:
    """A node's label: one left-aligned cell per row, on the kind's colours."""
    fill, border = KINDS[kind]
    cells = []
    for text, style in rows:
        colour = f' BGCOLOR="{KEPT_FILL}"' if style == "kept" else ""
        body = wrap(text)
        if style == "bold":
            body = f"<B>{body}</B>"
        elif style in ("muted", "kept"):
            body = f'<FONT POINT-SIZE="10" COLOR="{MUTED if style == "muted" else INK}">{body}</FONT>'
        cells.append(f'<TR><TD ALIGN="LEFT" BALIGN="LEFT"{colour}>{body}</TD></TR>')
    return (f'<<TABLE BORDER="1" CELLBORDER="0" CELLSPACING="0" CELLPADDING="2" COLOR="{border}" BGCOLOR="{fill}">'
            f'{"".join(cells)}</TABLE>>')


def title(lines: Sequence[str], legend: Sequence[tuple[str, str]]) -> str:
    """The drawing's heading: a bold line, further lines, and a key of (fill, meaning) pairs."""
    rows = [f'<TR><TD ALIGN="LEFT"><FONT POINT-SIZE="14"><B>{wrap(lines[0], 2 * WIDTH)}</B></FONT></TD></TR>']
    rows += [f'<TR><TD ALIGN="LEFT"><FONT POINT-SIZE="11" COLOR="{MUTED}">{wrap(line, 2 * WIDTH)}</FONT></TD></TR>'
             for line in lines[1:]]
    if legend:
        cells = "".join(f'<TD BGCOLOR="{fill}" BORDER="1" COLOR="{LINE}" FIXEDSIZE="TRUE" WIDTH="14" HEIGHT="12"></TD>'
                        f'<TD ALIGN="LEFT"><FONT POINT-SIZE="10">{escape(meaning)}&#160;&#160;</FONT></TD>'
                        for fill, meaning in legend)
        rows.append('<TR><TD ALIGN="LEFT"><TABLE ALIGN="LEFT" BORDER="0" CELLBORDER="0" CELLSPACING="4" '
                    f'CELLPADDING="1"><TR>{cells}</TR></TABLE></TD></TR>')
    return f'<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="2">{"".join(rows)}</TABLE>>'


def box_label(name: str, facts: str) -> str:
    """The heading of a box around layers: two short lines, so that the arrow into the box passes beside them."""
    return (f'<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0"><TR><TD ALIGN="LEFT" BALIGN="LEFT">'
            f'<FONT POINT-SIZE="10"><B>{wrap(name)}</B></FONT></TD></TR>'
            f'<TR><TD ALIGN="LEFT" BALIGN="LEFT"><FONT POINT-SIZE="9" COLOR="{MUTED}">{wrap(facts)}</FONT></TD></TR>'
            '</TABLE>>')


def bytes_text(count: int) -> str:
    """A number of bytes to three digits: 640 B, 25.1 kB, 3.2 MB."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"


def shape_text(shape: Sequence[int]) -> str:
    """(8, 16, 28, 28); a scalar's shape is ()."""
    return str(tuple(int(n) for n in shape))


HIDDEN = ("keepdim", "relu", "shape", "size")
"""Attributes that the result's shape, or an op drawn of its own, shows already."""
NEUTRAL = {"count_include_pad": "True", "dilation": "1", "groups": "1", "padding": "0"}
"""Values that say nothing happens."""


def value_text(value: Any) -> str:
    """An attribute's value: equal pairs and single numbers as one, slices as in Python, arrays by dtype and shape."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} {shape_text(value.shape)}" if value.shape else f"{value.item():.4g}"
    if isinstance(value, (tuple, list)):
        if value and isinstance(value[0], int) and (len(value) == 1 or (len(value) == 2 and value[0] == value[1])):
            return str(value[0])
        return f"({', '.join(map(value_text, value))})"
    if isinstance(value, slice):
        ends = ["" if v is None else str(v) for v in (value.start, value.stop)]
        return ":".join(ends if value.step is None else [*ends, str(value.step)])
    if value is Ellipsis:
        return "..."
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def attributes_text(attributes: dict[str, Any]) -> str:
    """The attributes worth a line: `stride 2, padding 1`."""
    parts = []
    for name, value in attributes.items():
        if name in HIDDEN or (isinstance(value, tuple) and any(hasattr(v, "shape") for v in value) and name != "index"):
            continue
        text = value_text(value)
        if name == "index":
            text = f"[{', '.join(map(value_text, value))}]" if isinstance(value, tuple) else text
        if text not in ("None", "False", NEUTRAL.get(name)):
            parts.append(f"{name} {text}")
    return ", ".join(parts)
