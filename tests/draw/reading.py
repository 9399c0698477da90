"""Reads a drawing back through the layout engine, so that tests see what a reader of the picture sees."""

import json
import re
from dataclasses import dataclass
from xml.etree import ElementTree

from tinygrad_cnn.draw.picture import run


@dataclass
class Reading:
    nodes: dict[str, list[str]]                # id: the lines of text in the node
    edges: list[tuple[str, str]]               # (tail id, head id)
    boxes: list[tuple[list[str], set[str]]]    # (heading, ids inside)
    heading: list[str]

    def find(self, *lines):
        """The id of the only node that has all these lines."""
        found = [key for key, text in self.nodes.items() if all(line in text for line in lines)]
        assert len(found) == 1, (lines, found, self.nodes)
        return found[0]

    def arrows(self):
        """The edges by the first line of their nodes, sorted."""
        return sorted((self.nodes[tail][0], self.nodes[head][0]) for tail, head in self.edges)

    def text(self):
        return "\n".join(line for lines in self.nodes.values() for line in lines)


def _lines(text):
    """The cells of an HTML-like label, wrapped lines joined."""
    text = text[text.index("<TABLE"):]
    text = re.sub(r"&#160;", " ", text).replace("<BR ALIGN=\"LEFT\"/>", " ")
    return [line for cell in ElementTree.fromstring(text).iter("TD") if (line := "".join(cell.itertext()).strip())]


def read(drawing):
    graph = json.loads(run(["-Kosage", "-Tjson0"], drawing.source))
    objects = graph.get("objects", [])
    names = {o["_gvid"]: o["name"] for o in objects}
    nodes = {o["name"]: _lines(o["label"]) for o in objects if not o["name"].startswith("cluster")}
    boxes = [(_lines(o["label"]), {names[i] for i in o["nodes"]})
             for o in objects if o["name"].startswith("cluster")]
    edges = [(names[e["tail"]], names[e["head"]]) for e in graph.get("edges", [])]
    return Reading(nodes, edges, boxes, _lines(graph["label"]))


def svg_text(drawing):
    """All text of the SVG, line by line."""
    root = ElementTree.fromstring(run(["-Kdot", "-Tsvg"], drawing.source))
    return "\n".join(e.text or "" for e in root.iter("{http://www.w3.org/2000/svg}text"))
