"""What the layout engine leaves to do: titles of boxes beside the arrows, and plain rows for what takes it too long."""

from __future__ import annotations

import math
import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np

GAP = 4.0
"""Points between a title and the arrows beside it."""

LAYOUTS = 4
"""How often at most a drawing is laid out to make room for titles."""

BESIDE, BELOW = 18.0, 30.0
"""Points between neighbours in a row and between rows."""

MAX_ARROWS = 3000
"""Of more arrows, the long ones are left out."""


def extended(source: str, statements: str) -> str:
    """DOT with further statements at its end, where they override what stands before."""
    return f"{source.rstrip().removesuffix('}')}{statements}}}\n"


def short_arrows(tails: np.ndarray, heads: np.ndarray, nodes: int) -> np.ndarray:
    """Of too many arrows, those worth drawing: the short ones, and the shortest into and out of each node.

    Args:
        tails, heads: nodes by number, in order of computation, (arrows,).
        nodes: how many there are.

    Returns:
        Whether to draw each, (arrows,).
    """
    spans = heads - tails
    if len(spans) <= MAX_ARROWS:
        return np.ones(len(spans), bool)
    nearest, first = np.full(nodes, -1), np.full(nodes, nodes)
    np.maximum.at(nearest, heads, tails)
    np.minimum.at(first, tails, heads)
    return (spans < np.partition(spans, MAX_ARROWS)[MAX_ARROWS]) | (tails == nearest[heads]) | (heads == first[tails])


# ---- titles beside arrows ------------------------------------------------------------------------------------------


def clear_titles(source: str, lay_out: Callable[[str], tuple[str, dict[str, Any]]]) -> str:
    """A layout in which no arrow crosses the title of a box.

    An engine sets titles at the left and leads arrows across them. Here a title moves to the first gap between arrows
    that it fits; if there is none, its box is made wider.

    Args:
        source: DOT.
        lay_out: runs the engine and gives the drawing with its positions, as DOT and as JSON; raises
            `subprocess.TimeoutExpired` when time is up.

    Returns:
        DOT with positions.
    """
    titles: dict[str, tuple[str, float]] = {}                          # by box: the label and its width
    wider: dict[str, str] = {}
    places: dict[str, str] = {}
    boxes: list[dict[str, Any]] = []
    laid = ""
    for _ in range(LAYOUTS):
        try:
            laid, drawing = lay_out(extended(source, _in_boxes(wider, boxes)))
        except subprocess.TimeoutExpired:
            if not laid:
                raise
            break
        points, places, lacking = _arrow_points(drawing), {}, False
        boxes = [o for o in drawing.get("objects", []) if "lp" in o and o["label"].startswith("<TABLE")]
        for box in boxes:
            name, (left, _, right, _), (x, y) = box["name"], _numbers(box["bb"]), _numbers(box["lp"])
            label, width = titles.setdefault(name, (box["label"], 72 * float(box["lwidth"])))
            band = np.searchsorted(points[:, 1], y + (36 * float(box["lheight"]) + GAP) * np.array([-1, 1]))
            across = np.sort(points[slice(*band), 0].clip(left, right))
            starts = np.array([x - 36 * float(box["lwidth"]), *across + GAP])
            room = np.array([*across, right]) - GAP - starts
            gap = int((room >= width).argmax() if room.max() >= width else room.argmax())
            if room[gap] < width:
                wide = f'<TABLE WIDTH="{math.ceil(right - left + width - room[gap])}"'
                wider[name] = f"label=<{label.replace('<TABLE', wide, 1)}>"
                lacking = True
                label, width = _shortened(label, room[gap])            # if this was the last try
            places[name] = f'label=<{label}> lp="{starts[gap] + width / 2},{y}"'
        if not lacking:
            break
    return extended(laid, _in_boxes(places, boxes))


def _shortened(label: str, room: float) -> tuple[str, float]:
    """A title without the lines that are too wide, but with the first; and its width."""
    rows = [(int(row[1]), row[0]) for row in re.finditer(r'<TR><TD [^>]*WIDTH="(\d+)".*?</TR>', label)]
    kept = [rows[0], *(row for row in rows[1:] if row[0] <= room)]
    return label.replace("".join(row for _, row in rows), "".join(row for _, row in kept)), max(width for width, _ in kept)


def _in_boxes(attributes: Mapping[str, str], boxes: Sequence[dict[str, Any]]) -> str:
    """Statements that set attributes of boxes, within the boxes around them."""
    outer = {i: box for box in boxes for i in box.get("subgraphs", [])}
    statements: list[str] = []
    for box in boxes:
        text, around = f"graph [{attributes.get(box['name'], '')}]", [box]
        while around[-1]["_gvid"] in outer:
            around.append(outer[around[-1]["_gvid"]])
        for each in around:
            text = f"subgraph {each['name']} {{ {text} }}"
        statements.append(f"{text}\n")
    return "".join(statements)


def _numbers(text: str) -> list[float]:
    return [float(v) for v in text.split(",")]


def _arrow_points(drawing: dict[str, Any]) -> np.ndarray:
    """Points close to each other along all arrows, (x, y) by y."""
    t = np.linspace(0, 1, 65)[:, None]
    points = [np.zeros((0, 2))]
    for edge in drawing.get("edges", []):      # tips "e,x,y" or "s,x,y", then a start and three points per Bezier curve
        pairs = edge.get("pos", "").replace(";", " ").split()
        tips = np.array([_numbers(p[2:]) for p in pairs if p[0] in "es"])
        knots = np.array([_numbers(p) for p in pairs if p[0] not in "es"])
        points += [tips.reshape(-1, 2)] + [(1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t**2 * (1 - t) * c + t**3 * d
                                           for a, b, c, d in zip(knots[:-1:3], knots[1::3], knots[2::3], knots[3::3], strict=False)]
    joined = np.concatenate(points)
    return joined[joined[:, 1].argsort()]


# ---- rows ----------------------------------------------------------------------------------------------------------


def _arrows(source: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """By node of a drawing of ours: the nodes above and below it."""
    above: dict[str, list[str]] = {name: [] for name in re.findall(r"^\s*(n\d+) \[", source, re.M)}
    below: dict[str, list[str]] = {name: [] for name in above}
    for tail, head in re.findall(r"^\s*(n\d+) -> (n\d+)", source, re.M):
        above[head].append(tail)
        below[tail].append(head)
    return above, below


def _rows(above: dict[str, list[str]], below: dict[str, list[str]]) -> dict[str, int]:
    """Which row each node stands in: below all that lead to it, and right above its first use."""
    rows: dict[str, int] = {}
    order = list(TopologicalSorter(above).static_order())
    for name in order:
        rows[name] = 1 + max((rows[a] for a in above[name]), default=-1)
    for name in reversed(order):
        rows[name] = min((rows[b] for b in below[name]), default=rows[name] + 1) - 1
    return rows


def effort(source: str) -> int:
    """How much an engine has to do: a place for each node, which is the most work, and for each row that an arrow passes."""
    above, below = _arrows(source)
    try:
        rows = _rows(above, below)
    except CycleError:                         # the user's own arrow
        return 0
    return 15 * len(rows) + sum(rows[head] - rows[tail] - 1 for head in above for tail in above[head])


def in_rows(source: str) -> str:
    """A drawing of ours with plain positions, in linear time: every node below what it is computed from.

    Rows too long are broken, a long drawing goes on at the right, arrows are straight and run behind the nodes, and boxes
    are left out.
    """
    widths, heights = {}, {}
    for name, label in re.findall(r"^\s*(n\d+) \[label=<(.*)>\]$", source, re.M):
        widths[name] = max(map(int, re.findall(r'WIDTH="(\d+)"', label))) + 4 + BESIDE
        heights[name] = 19 * label.count("<TR>") + 13 * label.count("<BR") + 4 + BELOW
    above, below = _arrows(source)
    ranks: dict[int, list[str]] = defaultdict(list)
    for name, rank in sorted(_rows(above, below).items(), key=lambda item: item[1]):
        ranks[rank].append(name)
    longest = max(1500.0, math.sqrt(sum(widths[name] * heights[name] for name in widths)))
    middles: dict[str, float] = {}
    rows: list[list[str]] = []
    for names in ranks.values():
        wanted = {n: sum(middles[a] for a in above[n]) / len(above[n]) if above[n] else 0.0 for n in names}
        names.sort(key=wanted.__getitem__)
        ends = np.cumsum([widths[name] for name in names])
        for part in np.split(np.array(names), np.flatnonzero(np.diff(ends // longest)) + 1):
            row = part.tolist()
            right = np.cumsum([widths[name] for name in row])
            middles |= {name: x - widths[name] / 2 - right[-1] / 2 for name, x in zip(row, right, strict=True)}
            rows.append(row)
    depths = [max(heights[name] for name in row) for row in rows]
    breadth, depth = max(sum(widths[name] for name in row) for row in rows) + BESIDE, sum(depths)
    columns = max(1, round(math.sqrt(depth / breadth / 2)))
    statements, done = ["graph [splines=line, outputorder=edgesfirst]\n"], 0.0
    for row, height in zip(rows, depths, strict=True):
        column = int(columns * done // depth)
        y = column * depth / columns - done - height / 2
        statements += [f'{name} [pos="{middles[name] + column * breadth:.1f},{y:.1f}"]\n' for name in row]
        done += height
    boxless = re.sub(r"^\s*subgraph .*\n.*\n|^\t+}\n", "", source, flags=re.M)
    return extended(boxless, "".join(statements))
