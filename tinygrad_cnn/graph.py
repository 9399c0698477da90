"""The recorded graph and the walk back through it. Knows no op and no Tensor class: it calls their rules and methods."""

from __future__ import annotations

import itertools
import math
import operator
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from .grad_mode import set_grad_enabled
from .primitive import Primitive, Rule, silence

_serial = itertools.count(1)


class Storage:
    """What tensors over the same memory share: a version, so that a write to a value the graph needs is noticed.

    Attributes:
        version: grows with every write.
        rebased: grows with every *recorded* write; a tensor made before it no longer tells its own history.
        serial: the time of birth, by which backward knows whether a gradient's memory is its own.
        saved: the version that a graph last saved, or -1.
        foreign: whether somebody else made the memory, who may write to it unseen.
        source: the storage that this memory is a copy of, and its version then, where the layout forbids a view; else None.
        watch: a list that takes note of every `Saved` over this memory, or None.
    """

    __slots__ = ("_leaves", "_lends", "_lent", "foreign", "rebased", "saved", "serial", "source", "version", "watch")

    def __init__(self) -> None:
        self.version = self.rebased = self._lends = 0
        self.saved = -1
        self.foreign = False
        self.source: tuple[Storage, int] | None = None
        self.watch: list[Saved] | None = None
        self._leaves: list[weakref.ref[Leaf]] | tuple[()] = ()
        self._lent: list[weakref.ref[np.ndarray]] | tuple[()] = ()
        self.serial = next(_serial)

    def guard(self, leaf: Leaf) -> None:
        """Note that a leaf lies here."""
        self._leaves = [weakref.ref(leaf), *(reference for reference in self._leaves if reference() not in (None, leaf))]

    def leaf_of(self, tensor: Any) -> Leaf | None:
        """The leaf that stood for this tensor when it last required grad, if a graph still holds it."""
        leaves = (reference() for reference in self._leaves)
        return next((leaf for leaf in leaves if leaf is not None and leaf.tensor() is tensor), None)

    @property
    def guarded(self) -> bool:
        """Whether a leaf that requires grad lies here, so that recorded writes are refused."""
        leaves = (reference() for reference in self._leaves)
        return any(leaf is not None and leaf.required for leaf in leaves)

    def lend(self, array: np.ndarray) -> None:
        """Note that an array over this memory leaves the engine: while it lives, others may write to the memory unseen."""
        self._lends += 1
        self._lent = [weakref.ref(array), *(reference for reference in self._lent if reference() is not None)]

    @property
    def exposed(self) -> bool:
        """Whether others may write to the memory unseen."""
        return self.foreign or bool(self._lent) and any(reference() is not None for reference in self._lent)

    @property
    def stamp(self) -> float:
        """Equal to what it was as long as the memory surely holds the same values; NaN, equal to nothing, while it is exposed."""
        return math.nan if (self.foreign or self._lent) and self.exposed else self.version + self._lends


class Saved:
    """A value kept for backward: the array and the facts to rebuild its Tensor, never the Tensor (no cycles).

    Memory that others may write to unseen is copied.
    """

    __slots__ = ("array", "edge", "storage", "version")

    def __init__(self, array: np.ndarray, storage: Storage, edge: Edge | None):
        if storage.exposed:
            array, storage = array.copy(order="K"), Storage()
        self.array, self.storage, self.version, self.edge = array, storage, storage.version, edge
        storage.saved = storage.version
        if storage.watch is not None:
            storage.watch.append(self)


class Leaf:
    """The end of the graph: a tensor the user made with `requires_grad=True`. Holds it weakly; it holds us."""

    __slots__ = ("__weakref__", "hooks", "retained", "tensor")
    serial = 0
    edges: tuple[None, ...] = ()
    name = "leaf"
    outputs = 1

    def __init__(self, tensor: Any):
        self.tensor = weakref.ref(tensor)
        self.hooks: dict[int, tuple[int, Callable[[Any], Any]]] = {}
        self.retained: tuple[()] = ()

    @property
    def required(self) -> bool:
        """Whether its tensor still asks for a gradient."""
        tensor = self.tensor()
        return tensor is not None and tensor._edge is not None and tensor._edge[0] is self


class Node:
    """One recorded call of a primitive.

    Attributes:
        primitive, attributes: what was called.
        edges: per argument the (node, output index) its gradient goes to, or None.
        arguments: per argument what was saved of it: a `Saved`, a plain value, or None.
        results: per output a `Saved` or None; without its edge, which would be a cycle.
        shapes, dtypes: per argument, kept always; they cost nothing.
        outputs: how many there are.
        serial: nodes are numbered as they are made, so descending order is a topological order.
    """

    __slots__ = ("__weakref__", "arguments", "attributes", "dtypes", "edges", "freed", "hooks", "outputs", "primitive", "result_shape",
                 "results", "retained", "serial", "shapes")

    def __init__(self, primitive: Primitive, attributes: dict[str, Any], edges: tuple[Edge | None, ...],
                 arguments: list[Any], shapes: tuple[Any, ...], dtypes: tuple[Any, ...], result_shape: tuple[int, ...]):
        self.primitive, self.attributes, self.edges, self.arguments = primitive, attributes, edges, arguments
        self.shapes, self.dtypes, self.result_shape = shapes, dtypes, result_shape
        self.outputs = len(primitive.returns)
        self.results: list[Saved | None] = [None] * self.outputs
        self.hooks: dict[int, tuple[int, Callable[[Any], Any]]] = {}
        self.retained: list[tuple[int, weakref.ref[Any]]] = []
        self.freed = False
        self.serial = next(_serial)

    @property
    def name(self) -> str:
        """The primitive's name in PyTorch's style: `MulBackward`."""
        return "".join(part.capitalize() for part in self.primitive.name.split("_")) + "Backward"

    @property
    def next_functions(self) -> tuple[Edge, ...]:
        """The (node, output index) pairs that gradients go to, for those who walk the graph by hand."""
        return tuple(edge for edge in self.edges if edge is not None)

    def saved(self) -> Iterator[tuple[str, Saved]]:
        """The values kept for backward, by name; empty once backward has freed them."""
        names = self.primitive.arguments or [f"{self.primitive.variadic}[{i}]" for i in range(len(self.arguments))]
        values = itertools.chain(zip(names, self.arguments, strict=False), zip(self.primitive.returns, self.results, strict=False))
        for name, value in values:
            if isinstance(value, Saved):
                yield name, value

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def describe(self) -> str:
        """For errors: the op and the shapes that went in and came out."""
        return f"{self.primitive.name} {tuple(map(tuple, self.shapes))} -> {self.result_shape}"

    def _unpack(self, value: Any, wrap: Callable[..., Any], name: str, edge: Edge | None = None) -> Any:
        if not isinstance(value, Saved):
            return value
        if value.storage.version != value.version:
            raise RuntimeError(
                f"backward: {name} of {self.describe()}, a tensor of shape {value.array.shape}, was modified by an in-place "
                f"operation after it was saved (version {value.storage.version}, expected {value.version}); "
                "write to a clone() instead")
        return wrap(value.array, value.storage, edge or value.edge)

    def _read(self, rule: Rule, g: Any, needs: tuple[bool, ...], spare: bool, wrap: Callable[..., Any]) -> list[Any]:
        primitive, values = self.primitive, []
        for kind, key in rule.reads:
            if kind == "g":
                values.append(g)
            elif kind == "argument":
                values.append(self._unpack(self.arguments[key], wrap, primitive.arguments[key])
                              if key < len(self.arguments) else None)
            elif kind == "output":
                values.append(self._unpack(self.results[key], wrap, f"the result {primitive.returns[key]!r}", (self, key)))
            elif kind == "attribute":
                values.append(self.attributes.get(key, primitive.defaults.get(key)))
            elif kind == "shape":
                values.append(self.shapes[key] if key < len(self.shapes) else None)
            elif kind == "dtype":
                values.append(self.dtypes[key] if key < len(self.dtypes) else None)
            elif kind == "needs":
                values.append(needs)
            elif kind == "spare":
                values.append(spare)
            elif kind == "arguments":
                values.append([self._unpack(a, wrap, f"argument {i}") for i, a in enumerate(self.arguments)])
            else:
                values.append(self.shapes if kind == "shapes" else self.dtypes)
        return values

    def pull_back(self, g: Any, needs: tuple[bool, ...], spare: bool, wrap: Callable[..., Any]) -> list[tuple[int, Any]]:
        """Run the rules: from the cotangent of the output(s), whose memory may be `spare`, to (argument, gradient) pairs."""
        primitive, gradients = self.primitive, []
        joint = None
        if primitive.joint_rule is not None:
            joint = primitive.joint_rule.function(*self._read(primitive.joint_rule, g, needs, spare, wrap))
            if len(joint) != len(needs):
                raise RuntimeError(f"backward: the joint rule of {self.describe()} returned {len(joint)} gradients, wanted one for each of "
                                   f"the {len(needs)} arguments (None where not needed)")
        for i, need in enumerate(needs):
            if not need:
                continue
            if joint is not None:
                gradient = joint[i]
            else:
                rule = primitive.rules[i]
                gradient = rule.function(*self._read(rule, g, needs, spare, wrap))
            if gradient is None:
                continue
            if not hasattr(gradient, "_storage"):
                raise TypeError(f"backward: the rule of {self.describe()} for argument {i} returned "
                                f"{type(gradient).__name__}, wanted a Tensor")
            gradient._storage.source = None    # a reshape that had to copy is a gradient of its own
            if gradient.shape != self.shapes[i]:
                if not primitive.broadcasts:
                    raise RuntimeError(f"backward: the rule of {self.describe()} for argument {i} returned shape "
                                       f"{tuple(gradient.shape)}, wanted {self.shapes[i]}")
                gradient = gradient.sum_to_size(self.shapes[i])
            gradients.append((i, gradient if gradient.dtype == self.dtypes[i] else gradient.to(self.dtypes[i])))
        return gradients

    def free(self) -> None:
        """Drop what was saved; a second backward then speaks instead of computing with nothing."""
        self.arguments, self.results, self.freed = [], [None] * self.outputs, True


Edge = tuple[Any, int]
_by_serial = operator.attrgetter("serial")


def reachable(roots: Iterable[Any]) -> list[Any]:
    """Every node and leaf under the roots, each before what it was computed from. Iterative: depth costs no stack."""
    seen, stack = set(), list(roots)
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(edge[0] for edge in node.edges if edge is not None)
    return sorted(seen, key=_by_serial, reverse=True)


def backward(roots: list[tuple[Edge, Any]], wrap: Callable[..., Any], *, retain_graph: bool, create_graph: bool,
             targets: list[Edge] | None = None) -> dict[Edge, Any]:
    """Walk from the roots to the leaves, running each node's rules once, and free what was passed.

    Args:
        roots: ((node, output index), cotangent) pairs.
        wrap: makes a Tensor of (array, storage, edge).
        retain_graph: keep what was saved, for another backward.
        create_graph: record the rules themselves, for derivatives of the gradients.
        targets: where gradients are wanted (`autograd.grad`); None accumulates into the leaves' `.grad`.

    Returns:
        The targets' gradients; empty without targets.
    """
    order = reachable(edge[0] for edge, _ in roots)
    found: dict[Edge, Any] = {}
    ends = {node for node, _ in targets or ()}
    useful = set(ends) if targets is not None else set(order)
    if targets is not None:
        for node in reversed(order):           # parents first: what leads to a target is worth visiting
            if any(edge is not None and edge[0] in useful for edge in node.edges):
                useful.add(node)
    cotangents: dict[Any, list[Any]] = {}
    owned: set[Edge] = set()                   # cotangents whose memory belongs to this walk alone
    for (node, index), g in roots:
        slot = cotangents.setdefault(node, [None] * node.outputs)
        slot[index] = g if slot[index] is None else slot[index] + g
    for node, _ in (edge for edge, _ in roots):
        if isinstance(node, Node) and node.freed and node in useful:
            raise _freed(node)
    with set_grad_enabled(create_graph), silence():
        for node in order:
            if node not in cotangents or node not in useful:
                continue
            slot = cotangents.pop(node)
            if node.hooks:
                for index, hook in list(node.hooks.values()):
                    if slot[index] is not None:
                        owned.discard((node, index))
                        slot[index] = _hooked(hook, slot[index])
            for index, reference in node.retained:
                tensor = reference()
                if tensor is not None and tensor._edge == (node, index) and slot[index] is not None:
                    tensor._own_edge("backward: retain_grad")      # raises if a write through another view made it old
                    tensor._accumulate(slot[index], False)
            if ends and node in ends:
                for edge in targets or ():
                    if edge[0] is node and slot[edge[1]] is not None:      # other walkers may hold this memory: give a copy
                        found[edge] = slot[edge[1]] if create_graph or edge in owned else slot[edge[1]].clone()
            if isinstance(node, Leaf):
                tensor = node.tensor()
                if targets is None and tensor is not None and node.required:       # it may have been switched off since
                    tensor._accumulate(slot[0], (node, 0) in owned)
                continue
            needs = tuple([edge is not None and edge[0] in useful for edge in node.edges])
            if True not in needs:
                continue
            if node.freed and (any(node.primitive.plan(needs))):
                raise _freed(node)
            cotangent: Any = slot[0] if node.outputs == 1 else tuple(slot)
            alone = node.primitive.joint_rule is not None or needs.count(True) == 1      # no other rule reads it
            spare = (node.primitive.overwrites and alone and node.outputs == 1 and (node, 0) in owned and node not in ends
                     and not create_graph)
            before = next(_serial)
            gradients = node.pull_back(cotangent, needs, spare, wrap)
            storages = [gradient._storage for _, gradient in gradients]
            for i, gradient in gradients:
                edge = parent, index = node.edges[i]
                into = cotangents.get(parent)
                if into is None:
                    into = cotangents[parent] = [None] * parent.outputs
                if into[index] is None:
                    into[index], storage = gradient, gradient._storage
                    new = storage.serial > before or spare and storage is cotangent._storage
                    if new and not create_graph and storages.count(storage) == 1:
                        owned.add(edge)
                else:
                    into[index] = into[index] + gradient
                    owned.add(edge)
            if not retain_graph:
                node.free()
    return found


def _hooked(hook: Callable[[Any], Any], g: Any) -> Any:
    """The gradient after one hook, which may replace it but not write into it: others may share its memory."""
    version = g._storage.version
    replaced = hook(g)
    if g._storage.version != version:
        raise RuntimeError(f"backward: a hook wrote in place into its gradient of shape {g.shape}; return a new tensor instead")
    if replaced is None:
        return g
    if not isinstance(replaced, type(g)):
        raise TypeError(f"backward: a hook must return a Tensor or None, got {type(replaced).__name__}")
    if replaced.shape != g.shape:
        raise ValueError(f"backward: a hook returned a gradient of shape {replaced.shape}, wanted {g.shape}")
    return replaced.to(g.dtype)


def _freed(node: Node) -> RuntimeError:
    return RuntimeError(f"backward: the graph of {node.describe()} was already freed by an earlier backward; "
                        "pass retain_graph=True to that one to go through it again")
