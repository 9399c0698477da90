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
from .layout import short_arrows

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
        max_nodes: 1 or more. A larger graph is first shortened: each straight run of ops becomes one node, then so do
            branches alike, then parameters are counted in their ops' nodes.

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
    names, arguments = node.primitive.arguments, [(i, a) for i, a in enumerate(node.arguments) if a is not None]
    kept = [(names[i] if names else f"{node.primitive.variadic}[{i}]", a.array if isinstance(a, Saved) else a)
            for i, a in arguments if isinstance(a, Saved) or (isinstance(a, np.ndarray) and a.ndim)]
    return kept + [(name, r.array) for name, r in zip(node.primitive.returns, node.results, strict=True) if r is not None]


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
        self.ends = {t._edge[0] for t in outputs if t._edge is not None}
        self.edges = {node: list(dict.fromkeys(e for e in node.edges if e is not None and isinstance(e[0], Node)))
                      for node in self.nodes}              # those that lead to ops
        self.sources = {node: self._node_sources(node) for node in self.nodes}
        self.groups = [[node] for node in self.nodes]
        self.branches: dict[int, int] = {}                 # how many branches a group stands for, if more than one
        self.parameters_hidden = False
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
        """While there are too many nodes: join straight runs, then branches alike, then leave out parameters."""
        for step in (self._join_runs, self._join_branches, self._hide_parameters):
            if self._count() <= max_nodes:
                return
            step()
        if self._count() > max_nodes:
            raise ValueError(f"graph: {self._count():,} nodes ({len(self.nodes):,} ops, straight runs and branches alike as one) are "
                             f"more than max_nodes={max_nodes}; draw an earlier tensor or draw.model(model, x, depth=1), "
                             "or raise max_nodes")

    def _join_runs(self) -> None:
        """Ops with one op above and one below become one group."""
        self.above: dict[Node, Node | None] = {}           # the only op above a node, None if there is none
        self.below: dict[Node, Node | None] = {}           # the only op below
        users: Counter[Node] = Counter()
        for node in self.nodes:
            parents = {parent for parent, _ in self.edges[node]}
            users.update(parents)
            if len(parents) < 2:
                self.above[node] = next(iter(parents), None)
            self.below.update(dict.fromkeys(parents, node))
        self.below = {node: child for node, child in self.below.items() if users[node] == 1 and node not in self.ends}
        runs: dict[Node, list[Node]] = {}
        self.groups = []
        for node in self.nodes:
            parent = self.above.get(node)
            if parent is not None and parent in self.below:
                runs[node] = runs[parent]
                runs[node].append(node)
            else:
                runs[node] = [node]
                self.groups.append(runs[node])

    def _join_branches(self) -> None:
        """Groups of the same ops between the same two ops become one."""
        alike: dict[Any, list[list[Node]]] = {}
        for group in self.groups:
            straight = group[0] in self.above and group[-1] in self.below
            place = (self.above[group[0]], self.below[group[-1]], *map(op_title, group)) if straight else id(group)
            alike.setdefault(place, []).append(group)
        self.groups = [[node for branch in branches for node in branch] for branches in alike.values()]
        self.branches = {id(group): len(branches) for group, branches in zip(self.groups, alike.values(), strict=True)}

    def _hide_parameters(self) -> None:
        self.parameters_hidden = True

    def _count(self) -> int:
        above = {source.key for group in self.groups for source in self._sources(group)}
        return len(self.groups) + len(above) + len(self.outputs)

    def _sources(self, group: list[Node]) -> list[_Source]:
        """What goes into a group from outside the graph, if it is drawn: all for a single op, a few for a run."""
        sources = self._all_sources(group)
        if self.parameters_hidden:
            sources = [source for source in sources if not self._is_parameter(source)]
        return sources if len(group) == 1 or len(sources) <= RUN_SOURCES else []

    def _all_sources(self, group: list[Node]) -> list[_Source]:
        return list({source.key: source for node in group for source in self.sources[node]}.values())

    # ---- drawing ----------------------------------------------------------------------------------------------------

    def draw(self) -> graphviz.Digraph:
        """Nodes in order of computation, so that the same graph always gives the same picture."""
        self.picture = new_chart()
        for group in self.groups:
            self._op(group)
        self.places = {node: i for i, group in enumerate(self.groups) for node in group}
        left_out = self._arrows()
        for i, t in enumerate(self.outputs):
            self._output(t, str(i) if len(self.outputs) > 1 else "")
        self.picture.attr(label=title(self._heading(left_out), self._legend()))
        return self.picture

    def _arrows(self) -> int:
        """Draw the arrows between groups; of too many the long ones are left out, and their number returned."""
        into = [np.array(sorted({self.places[parent] for node in group for parent, _ in self.edges[node]} - {i}), int)
                for i, group in enumerate(self.groups)]
        ends = np.cumsum([len(tails) for tails in into], dtype=int)
        drawn = short_arrows(np.concatenate([*into, ends[:0]]), np.repeat(np.arange(len(into)), np.diff(ends, prepend=0)), len(into))
        for i, group in enumerate(self.groups):
            names: dict[int, set[str]] = {}    # what is taken of ops with several results, but for the first, by place
            for parent, index in (edge for node in group for edge in self.edges[node] if edge[0].outputs > 1):
                names.setdefault(self.places[parent], set()).add(
                    f" {value_name(parent, parent.primitive.returns[index])}" if index else "")
            for tail in into[i][drawn[ends[i] - len(into[i]):ends[i]]].tolist():
                for name in sorted(names.get(tail, [""])):
                    self.picture.edge(self.ids[id(self.groups[tail])], self.heads[id(group)], weight=SPINE,
                                      **({"label": name} if name else {}))
        return len(drawn) - int(drawn.sum())

    def _new(self, key: Any, rows: list[Row], kind: str) -> str:
        self.ids[key] = f"n{next(self.numbers)}"
        self.kinds.add(kind)
        self.picture.node(self.ids[key], label=table(rows, kind))
        return self.ids[key]

    def _op(self, group: list[Node]) -> None:
        last, sources = group[-1], self._sources(group)
        if len(group) == 1:
            rows: list[Row] = [(op_title(last), "bold")]
            if settings := op_settings(last):
                rows.append((settings, "muted"))
        else:
            branches = self.branches.get(id(group), 1)
            counts = Counter(map(op_title, group[:len(group) // branches]))
            rows = [(f"{branches:,} branches alike" if branches > 1 else f"{len(group):,} ops in a row", "bold"),
                    (", ".join(f"{name} ×{n:,}" if n > 1 else name for name, n in counts.items()), "plain")]
        shown = {source.key for source in sources}
        hidden = [source for source in self._all_sources(group) if source.key not in shown]
        if hidden:
            what = "parameters" if all(map(self._is_parameter, hidden)) else "parameters, inputs or constants"
            rows.append((f"with {len(hidden):,} {what if len(hidden) > 1 else 'parameter'}", "muted"))
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
        sources: list[_Source] = []
        if len(self.edges[node]) == len(node.edges):
            return sources
        for i in [i for i, edge in enumerate(node.edges) if edge is None or isinstance(edge[0], Leaf)]:
            edge, shape, dtype = node.edges[i], node.shapes[i], node.dtypes[i]
            saved = node.arguments[i] if node.arguments else None
            if edge is not None:
                sources.append(_Source(edge[0], shape, dtype))
            elif shape:
                storage = id(saved.storage) if isinstance(saved, Saved) else None
                sources.append(_Source((node, i) if storage is None else (storage, shape), shape, dtype))
        return sources

    def _source_names(self, source: _Source) -> list[str]:
        return self.names.get((source.key, 0) if isinstance(source.key, Leaf) else source.key[0], [])

    def _is_parameter(self, source: _Source) -> bool:
        if not isinstance(source.key, Leaf):
            return source.key[0] in self.frozen
        return bool(self._source_names(source)) or isinstance(source.key.tensor(), Parameter)

    def _describe(self, source: _Source) -> tuple[list[Row], str]:
        names = self._source_names(source)
        rows: list[Row] = [(" = ".join(names), "bold")] if names else []
        kind = "parameter" if self._is_parameter(source) else "input"
        return [*rows, (f"{shape_text(source.shape)} {source.dtype}", "plain")], kind

    def _output(self, t: Tensor, number: str) -> None:
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
            self.picture.edge(self.ids[id(self.groups[self.places[t._edge[0]]])], head, weight=SPINE)

    def _heading(self, left_out: int) -> list[str]:
        count = len(self.nodes) + sum(bool(node.attributes.get("relu")) for node in self.nodes)
        ops = f"{count:,} op{'s' if count != 1 else ''}"
        freed = any(node.freed for node in self.nodes)
        kept = f"{bytes_text(self.kept_bytes) if self.kept_bytes else 'nothing'} kept for backward"
        if self.leaf_bytes:
            kept += f", {bytes_text(self.leaf_bytes)} of it the leaves themselves"
        if freed:
            kept = f"{kept}; the rest is freed" if self.kept_bytes else "what was kept for backward is freed"
        return [f"Computation graph, {ops}", *([kept] if self.show_saved and self.nodes else []),
                *([f"{left_out:,} long arrows are left out"] if left_out else [])]

    def _legend(self) -> list[tuple[str, str]]:
        meanings = (("parameter", "parameter"), ("input", "input or constant"), ("output", "output"))
        entries = [(KINDS[kind][0], meaning) for kind, meaning in meanings if kind in self.kinds]
        return entries + ([(KEPT_FILL, "kept for backward")] if self.kept_bytes and self.show_saved else [])
