"""The recorded tape as a picture: what was computed from what, and what is kept for backward."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..graph import Leaf, Node, Saved, reachable
from ..memory import owner
from ..nn import Parameter
from ..tensor import Tensor
from .descriptions import op_settings, op_title, value_name
from .labels import KEPT_FILL, KINDS, Row, bytes_text, new_chart, shape_text, table, title

if TYPE_CHECKING:
    import graphviz

MAX_NODES = 1000
"""Drawings beyond this are slow to lay out and nobody reads them."""

SPINE = "6"
"""The weight of edges between ops: heavier than a leaf's, so that the data flows straight down."""

RUN_SOURCES = 2
"""A shortened run still shows up to this many parameters and inputs."""


def graph(outputs: Tensor | Sequence[Tensor],
          params: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] | None = None, *,
          show_saved: bool = True, max_nodes: int = MAX_NODES) -> graphviz.Digraph:
    """Draw how tensors were computed: ops with their shapes, leaves by name, and what each op keeps for backward.

    Data flows downwards. Blue nodes are parameters (leaves named in `params`, and every `nn.Parameter`), yellow ones
    inputs and constants. A shaded line names a value kept for backward and its bytes; after a backward that freed them
    it says so. Works before and after backward and changes nothing.

    Args:
        outputs: one tensor or several, usually the loss.
        params: names for tensors, `dict(model.named_parameters())`; inputs and computed tensors may be named too.
        show_saved: whether to show what is kept for backward.
        max_nodes: 1 or more. A larger graph is first shortened, each straight run of ops becoming one node.

    Returns:
        A `graphviz.Digraph`, to show in a notebook, `.render()`, or write with `draw.save`.

    Raises:
        TypeError: outputs or params that are not tensors.
        ValueError: no outputs, or more than max_nodes nodes even after shortening.

    Example:
        >>> import tinygrad_cnn as tg
        >>> from tinygrad_cnn import draw
        >>> w = tg.ones(3, requires_grad=True)
        >>> picture = draw.graph((w * w).sum(), {"w": w})
        >>> "sum" in picture.source
        True
    """
    tensors = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    named = dict(params or {})
    for what, value in [*((f"output {i}", t) for i, t in enumerate(tensors)),
                        *((f"params[{name!r}]", t) for name, t in named.items())]:
        if not isinstance(value, Tensor):
            raise TypeError(f"graph: {what} must be a Tensor, got {type(value).__name__}")
    if not tensors:
        raise ValueError("graph: outputs is empty; pass at least one tensor")
    if max_nodes < 1:
        raise ValueError(f"graph: max_nodes must be at least 1, got {max_nodes}")
    tape = _Tape(tensors, named, show_saved)
    tape.shorten(max_nodes)
    return tape.draw()


def kept_values(node: Node) -> list[tuple[str, np.ndarray]]:
    """What a node keeps for backward, (name, array), NumPy arguments included; empty once freed."""
    names = node.primitive.arguments or [f"{node.primitive.variadic}[{i}]" for i in range(len(node.arguments))]
    plain = [(name, a) for name, a in zip(names, node.arguments, strict=False) if isinstance(a, np.ndarray) and a.ndim]
    return [(name, saved.array) for name, saved in node.saved()] + plain


class _Source(NamedTuple):
    """Something that goes into the graph: a leaf, or an array that no gradient flows to."""

    key: Any                                   # the leaf, or (storage's id, shape), or (node, argument)
    shape: tuple[int, ...]
    dtype: Any


class _Tape:
    """One drawing in the making. `groups` are what becomes an op node: lists of nodes, one unless shortened."""

    def __init__(self, outputs: list[Tensor], named: dict[str, Tensor], show_saved: bool):
        self.outputs, self.show_saved = outputs, show_saved
        self.names: dict[Any, list[str]] = {}              # by edge, or by storage for tensors outside the graph
        for name, t in named.items():
            self.names.setdefault(t._edge or id(t._storage), []).append(name)
        self.frozen = {id(t._storage) for t in named.values() if isinstance(t, Parameter) and t._edge is None}
        found = reachable(t._edge[0] for t in outputs if t._edge is not None)
        self.nodes = [node for node in reversed(found) if isinstance(node, Node)]          # in order of computation
        self.groups = [[node] for node in self.nodes]
        self.ids: dict[Any, str] = {}                      # of a group: where edges leave it
        self.numbers = itertools.count()
        self.heads: dict[int, str] = {}                    # of a group, by id: where edges enter it
        self.kinds: set[str] = set()
        leaves = [leaf.tensor() for leaf in found if isinstance(leaf, Leaf)]
        memory = {id(owner(t._data)) for t in leaves if t is not None}
        kept = {id(a): a for node in self.nodes for _, value in kept_values(node) for a in [owner(value)]}
        self.leaf_bytes = sum(a.nbytes for key, a in kept.items() if key in memory)
        self.kept_bytes = sum(a.nbytes for a in kept.values())

    # ---- shortening -------------------------------------------------------------------------------------------------

    def shorten(self, max_nodes: int) -> None:
        """If there are too many nodes, join each straight run: ops with one op above and one below."""
        if self._count() <= max_nodes:
            return
        above = {node: {e[0] for e in node.edges if e is not None and isinstance(e[0], Node)} for node in self.nodes}
        below = Counter(parent for parents in above.values() for parent in parents)
        ends = {t._edge[0] for t in self.outputs if t._edge is not None}
        runs: dict[Node, list[Node]] = {}
        self.groups = []
        for node in self.nodes:
            parent = next(iter(above[node])) if len(above[node]) == 1 else None
            if parent is not None and below[parent] == 1 and parent not in ends:
                runs[node] = runs[parent]
                runs[node].append(node)
            else:
                runs[node] = [node]
                self.groups.append(runs[node])
        if self._count() > max_nodes:
            raise ValueError(f"graph: {self._count():,} nodes ({len(self.nodes):,} ops, straight runs as one) are more "
                             f"than max_nodes={max_nodes}; draw an earlier tensor or draw.model(model, x, depth=1), "
                             "or raise max_nodes")

    def _count(self) -> int:
        above = {source.key for group in self.groups for source in self._sources(group)}
        return len(self.groups) + len(above) + len(self.outputs)

    def _sources(self, group: list[Node]) -> list[_Source]:
        """What goes into a group from outside the graph, if it is drawn: all for a single op, a few for a run."""
        sources = self._all_sources(group)
        return sources if len(group) == 1 or len(sources) <= RUN_SOURCES else []

    def _all_sources(self, group: list[Node]) -> list[_Source]:
        return list({source.key: source for node in group for source in self._node_sources(node)}.values())

    # ---- drawing ----------------------------------------------------------------------------------------------------

    def draw(self) -> graphviz.Digraph:
        """Nodes in order of computation, so that the same graph always gives the same picture."""
        self.picture = new_chart()
        group_of = {node: group for group in self.groups for node in group}
        for group in self.groups:
            self._op(group)
        for group in self.groups:
            drawn = set()
            for node in group:
                for parent, index in (e for e in node.edges if e is not None and isinstance(e[0], Node)):
                    tail = group_of[parent]
                    if tail is not group and (id(tail), index) not in drawn:
                        drawn.add((id(tail), index))
                        label = {"label": f" {value_name(parent, parent.primitive.returns[index])}"} if index else {}
                        self.picture.edge(self.ids[id(tail)], self.heads[id(group)], weight=SPINE, **label)
        for i, t in enumerate(self.outputs):
            self._output(t, str(i) if len(self.outputs) > 1 else "", group_of)
        self.picture.attr(label=title(self._heading(), self._legend()))
        return self.picture

    def _new(self, key: Any, rows: list[Row], kind: str) -> str:
        self.ids[key] = f"n{next(self.numbers)}"
        self.kinds.add(kind)
        self.picture.node(self.ids[key], label=table(rows, kind))
        return self.ids[key]

    def _op(self, group: list[Node]) -> None:
        last, sources = group[-1], self._sources(group)
        if len(group) == 1:
            rows: list[Row] = [(op_title(last), "bold")]
            if op_settings(last):
                rows.append((op_settings(last), "muted"))
        else:
            counts = Counter(map(op_title, group))
            rows = [(f"{len(group):,} ops in a row", "bold"),
                    (", ".join(f"{name} ×{n:,}" if n > 1 else name for name, n in counts.items()), "plain")]
            if not sources and self._all_sources(group):
                rows.append((f"with {len(self._all_sources(group)):,} parameters, inputs or constants", "muted"))
        relu = len(group) == 1 and last.attributes.get("relu")         # computed in one pass, drawn as the two ops it is
        names = [(f"= {name}", "plain") for index in range(last.outputs) for name in self.names.get((last, index), ())]
        rows += [*([] if relu else names), (shape_text(last.result_shape), "plain"), *self._kept(group)]
        tails = [self.ids.get(source.key) or self._new(source.key, *self._describe(source)) for source in sources]
        head = self.heads[id(group)] = self._new(id(group), rows, "op" if len(group) == 1 else "run")
        for tail in tails:
            self.picture.edge(tail, head)
        if relu:
            after = self._new(id(group), [("relu", "bold"), *names, (shape_text(last.result_shape), "plain")], "op")
            self.picture.edge(head, after, weight=SPINE)

    def _kept(self, group: list[Node]) -> list[Row]:
        if not self.show_saved:
            return []
        values = [value for node in group for value in kept_values(node)]
        if len(group) > 1 and values:
            return [(f"keeps {len(values):,} values, {bytes_text(sum(a.nbytes for _, a in values))}", "kept")]
        if values:
            return [(f"keeps {value_name(group[0], name)} {shape_text(a.shape)}, {bytes_text(a.nbytes)}", "kept") for name, a in values]
        was_kept = any(node.freed and any(node.primitive.plan(tuple(e is not None for e in node.edges)))
                       for node in group)
        return [("freed by backward", "muted")] if was_kept else []

    def _node_sources(self, node: Node) -> list[_Source]:
        """The leaves and constant arrays among a node's arguments; a constant is told by its memory, where known."""
        sources = []
        for i, (edge, shape, dtype) in enumerate(zip(node.edges, node.shapes, node.dtypes, strict=True)):
            saved = node.arguments[i] if node.arguments else None
            if edge is not None and isinstance(edge[0], Leaf):
                sources.append(_Source(edge[0], shape, dtype))
            elif edge is None and shape:
                storage = id(saved.storage) if isinstance(saved, Saved) else None
                sources.append(_Source((node, i) if storage is None else (storage, shape), shape, dtype))
        return sources

    def _describe(self, source: _Source) -> tuple[list[Row], str]:
        if isinstance(source.key, Leaf):
            names = self.names.get((source.key, 0), [])
            parameter = bool(names) or isinstance(source.key.tensor(), Parameter)
        else:
            names, parameter = self.names.get(source.key[0], []), source.key[0] in self.frozen
        rows: list[Row] = [(" = ".join(names), "bold")] if names else []
        return [*rows, (f"{shape_text(source.shape)} {source.dtype}", "plain")], "parameter" if parameter else "input"

    def _output(self, t: Tensor, number: str, group_of: dict[Node, list[Node]]) -> None:
        if t._edge is None:
            name = " = ".join(self.names.get(id(t._storage), [f"tensor {number}".strip()]))
            self._new(("output", number), [(name, "bold"), (f"{shape_text(t.shape)} {t.dtype}", "plain"),
                                           ("no graph: nothing it comes from requires grad", "muted")], "input")
        elif isinstance(t._edge[0], Leaf):
            source = _Source(t._edge[0], t.shape, t.dtype)
            if source.key not in self.ids:
                self._new(source.key, *self._describe(source))
        else:
            rows: list[Row] = [(f"output {number}".strip(), "bold"), (f"{shape_text(t.shape)} {t.dtype}", "plain")]
            head = self._new(("output", number), rows, "output")
            self.picture.edge(self.ids[id(group_of[t._edge[0]])], head, weight=SPINE)

    def _heading(self) -> list[str]:
        count = len(self.nodes) + sum(bool(node.attributes.get("relu")) for node in self.nodes)
        ops = f"{count:,} op{'s' if count != 1 else ''}"
        freed = any(node.freed for node in self.nodes)
        kept = f"{bytes_text(self.kept_bytes) if self.kept_bytes else 'nothing'} kept for backward"
        if self.leaf_bytes:
            kept += f", {bytes_text(self.leaf_bytes)} of it the leaves themselves"
        if freed:
            kept = f"{kept}; the rest is freed" if self.kept_bytes else "what was kept for backward is freed"
        return [f"Computation graph, {ops}", *([kept] if self.show_saved and self.nodes else [])]

    def _legend(self) -> list[tuple[str, str]]:
        meanings = (("parameter", "parameter"), ("input", "input or constant"), ("output", "output"))
        entries = [(KINDS[kind][0], meaning) for kind, meaning in meanings if kind in self.kinds]
        return entries + ([(KEPT_FILL, "kept for backward")] if self.kept_bytes and self.show_saved else [])
