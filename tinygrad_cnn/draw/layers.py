"""A model's layers as a picture: one forward pass is watched, and its tape tells what feeds what."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import random
from ..grad_mode import enable_grad, no_grad
from ..graph import Leaf, Node, Storage, reachable
from ..nn import Module
from ..tensor import Tensor, as_tensor
from .descriptions import layer_settings, op_settings, op_title
from .labels import BOX, KINDS, Row, box_label, new_chart, shape_text, table, title
from .layout import short_arrows
from .tape import MAX_NODES

if TYPE_CHECKING:
    import graphviz

LEGEND = (("layer with parameters", "has parameters"), ("parameter", "parameter"), ("input", "input"),
          ("output", "output"), ("failed", "error"))


def model(model: Module, x: Any, *, depth: int | None = None, max_nodes: int = MAX_NODES) -> graphviz.Digraph:
    """Draw a model's layers as one forward pass calls them: class, name, settings, output shape, parameter count.

    Arrows follow the data, also through what happens between layers: an addition, a concatenation or a reshape in a
    `forward` is a small node of its own. Modules that call other modules are boxes around them. The model runs once, in
    the mode it is in; its parameters, gradients, buffers, mode, hooks and the random state are left as they were.

    Args:
        model: any `nn.Module`.
        x: its input, a Tensor or array; a tuple for several arguments.
        depth: draw modules this many levels below the model as one node, 0 or more; all levels if None.
        max_nodes: the largest number of nodes to draw, 1 or more.

    Returns:
        A `graphviz.Digraph`, to show in a notebook, `.render()`, or write with `draw.save`.

    Raises:
        TypeError: model is not a Module.
        ValueError: a negative depth, or more than max_nodes nodes.
        Exception: what the forward raises, with a note that names the layer; its attribute `drawing` holds the picture
            of the layers up to there.

    Example:
        >>> import tinygrad_cnn as tg
        >>> from tinygrad_cnn import draw
        >>> net = tg.nn.Sequential(tg.nn.Linear(4, 8), tg.nn.ReLU(), tg.nn.Linear(8, 2))
        >>> "58 parameters" in draw.model(net, tg.zeros(1, 4)).source
        True
    """
    if not isinstance(model, Module):
        raise TypeError(f"model: wanted an nn.Module, got {type(model).__name__}")
    if depth is not None and (not isinstance(depth, int) or depth < 0):
        raise ValueError(f"model: depth must be None or an int of 0 or more, got {depth!r}")
    if max_nodes < 1:
        raise ValueError(f"model: max_nodes must be at least 1, got {max_nodes}")
    watch, number = _Watch(model, depth), itertools.count()
    arguments = [as_tensor(v) if isinstance(v, np.ndarray) else v for v in (x if isinstance(x, tuple) else (x,))]
    arguments = [_replace(v, lambda t: watch.source(t, ("input", next(number)))) for v in arguments]
    inputs = list(tensors_in(arguments))
    try:
        with _Untouched(model), enable_grad():
            outputs = watch.run(arguments)
    except Exception as error:
        if watch.failed is not None:
            failed = watch.failed[1]
            got = ", ".join(shape_text(t.shape) for t in failed.received) or "no tensor"
            error.add_note(f"draw.model: raised in {failed.where()}, which got {got}. The exception's attribute "
                           "`drawing` shows the layers up to there: draw.save(error.drawing, 'failed.svg')")
            error.__dict__["drawing"] = _Chart(watch, inputs, [], failed, error).draw()
        raise
    return _Chart(watch, inputs, list(tensors_in(outputs))).draw(max_nodes)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(entry)


def _replace(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same nested structure with every tensor put through a function."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        changed = copy.copy(value)
        changed.update((k, _replace(v, function)) for k, v in value.items())
        return changed
    if isinstance(value, (tuple, list)):
        entries = [_replace(v, function) for v in value]
        return type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries)
    return value


class _Untouched:
    """Inside, a model computes with copies of its buffers and without backward hooks; after, all is as before."""

    def __init__(self, model: Module):
        self.modules = list(model.modules())

    def __enter__(self) -> None:
        swapped = ("_buffers", "_backward_hooks", "training")
        self.saved = [{name: m.__dict__[name] for name in swapped} for m in self.modules]
        self.random_state = random.get_rng_state()
        copies: dict[int, Tensor] = {}
        with no_grad():
            for m in self.modules:
                buffers = {name: b if b is None else copies.setdefault(id(b), b.clone())
                           for name, b in m._buffers.items()}
                m.__dict__.update(_buffers=buffers, _backward_hooks={})

    def __exit__(self, *exc: object) -> None:
        for m, saved in zip(self.modules, self.saved, strict=True):
            m.__dict__.update(saved)
        random.set_rng_state(self.random_state)


@dataclass(eq=False)
class _Call:
    """One call of a module. The tape's nodes are numbered in time, so those made between start and end are its own."""

    module: Module
    name: str
    parent: _Call | None
    whole: bool                                # drawn as one node; else a box
    number: int                                # 1 for the module's first call
    received: list[Tensor]
    start: int
    end: float = math.inf
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def where(self) -> str:
        """For errors: layer 'conv1' = Conv2d(3, 16, ...)."""
        described = f"{type(self.module).__name__}({self.module.extra_repr()})"
        return f"layer {self.name!r} = {described}" if self.name else f"the model's own forward ({described})"


class _Watch:
    """Watches the calls of modules during one forward pass, and keeps track of which tensor came from where."""

    def __init__(self, model: Module, depth: int | None):
        self.model = model
        self.names = {m: name for name, m in model.named_modules()}
        levels = {m: name.count(".") + 1 if name else 0 for m, name in self.names.items()}
        self.whole = {m for m in self.names
                      if next(m.children(), None) is None or (depth is not None and levels[m] >= depth)}
        self.calls: list[_Call] = []           # in order of start
        self.times: Counter[Module] = Counter()                        # how often each was called
        self.stack: list[_Call] = []           # those that have not returned
        self.failed: tuple[Exception, _Call] | None = None
        self.places: dict[Any, Any] = {}       # by storage or, for sources, by node of the tape
        self.alive: list[Tensor] = []          # the ids of storages stay unique while their tensors live

    def run(self, arguments: list[Any]) -> Any:
        """The model's forward, every module's own being watched meanwhile."""
        own = [(module, module.__dict__.get("forward")) for module in self.names]
        try:
            for module in self.names:
                module.__dict__["forward"] = functools.partial(self._watched, module, module.forward)
            return self.model(*arguments)
        finally:
            for module, forward in own:
                module.__dict__.pop("forward", None)
                if forward is not None:
                    module.__dict__["forward"] = forward

    def source(self, value: Tensor, place: Any) -> Tensor:
        """A copy whose history starts here, at a place of the drawing; no leaf, so that it may be written in place."""
        with no_grad():
            start = value.clone()
        if start.is_floating_point():
            with enable_grad():
                start = start.requires_grad_().clone()
            self.places[start.grad_fn] = place
        self._came_from(start, place)
        return start

    def _came_from(self, value: Tensor, place: Any) -> None:
        self.places[id(value._storage)] = place
        self.alive.append(value)

    def _watched(self, module: Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A module's forward, noted down as a call unless it happens inside a module that is drawn as one node."""
        parent = self.stack[-1] if self.stack else None
        if parent is not None and parent.whole:
            return forward(*args, **kwargs)
        self.times[module] += 1
        call = _Call(module, self.names[module], parent, module in self.whole, self.times[module],
                     list(tensors_in((args, kwargs))), Storage().serial)
        self.calls.append(call)
        self.stack.append(call)
        try:
            output = forward(*args, **kwargs)
            call.shapes = [t.shape for t in tensors_in(output)]
            return _replace(output, lambda t: self._made_by(call, t)) if call.whole else output
        except Exception as error:
            if self.failed is None or self.failed[0] is not error:      # else it came from a module further in
                self.failed = error, call
            raise
        finally:
            self.stack.pop()
            call.end = Storage().serial

    def _made_by(self, call: _Call, t: Tensor) -> Tensor:
        """The output itself if the call's own ops recorded it, else a copy, to tell it from what the layer got."""
        if t._edge is None:
            return self.source(t, call)
        if t._edge[0].serial < call.start:
            with enable_grad():
                t = t.clone()
        self._came_from(t, call)
        return t


class _Chart:
    """The drawing. What becomes a node is a place: a call, an op between calls, a parameter's leaf, or ("input", i)."""

    def __init__(self, watch: _Watch, inputs: list[Tensor], outputs: list[Tensor], failed: _Call | None = None,
                 error: Exception | None = None):
        self.watch, self.inputs, self.outputs, self.failed, self.error = watch, inputs, outputs, failed, error
        self.starts = [call.start for call in watch.calls]
        self.leaves = {p._edge[0]: (name, p.shape) for name, p in watch.model.named_parameters() if p._edge is not None}
        self.rows: dict[Any, tuple[list[Row], str]] = {}                # by place
        self.inside: dict[_Call | None, list[Any]] = {None: []}         # what each box contains, boxes too
        self.edges: dict[tuple[Any, Any], None] = {}

    def draw(self, max_nodes: float = math.inf) -> graphviz.Digraph:
        """Collect the places and the flow between them, then write them down box by box."""
        self._collect()
        if len(self.rows) > max_nodes:
            raise ValueError(f"model: {len(self.rows):,} nodes are more than max_nodes={max_nodes}; pass depth= to "
                             "draw inner modules as one node, or raise max_nodes")
        self.ids = {place: f"n{i}" for i, place in enumerate(self.rows)}
        self.boxes = 0
        picture = new_chart()
        self._write(picture, None)
        places = {place: i for i, place in enumerate(self.rows)}
        tails, heads = (np.array([places[edge[end]] for edge in self.edges], int) for end in (0, 1))
        drawn = short_arrows(tails, heads, len(places))
        for tail, head in itertools.compress(self.edges, drawn):
            picture.edge(self.ids[tail], self.ids[head])
        total, frozen = self._count(self.watch.model), self._count(self.watch.model, frozen=True)
        line = f"{total:,} parameters" + (f", {frozen:,} of them frozen" if frozen else "")
        if self.failed is not None:
            line += f"; stopped at {self.failed.where()}"
        if not drawn.all():
            line += f"; {len(drawn) - drawn.sum():,} long arrows are left out"
        kinds = {kind for _, kind in self.rows.values()}
        legend = [(KINDS[kind][0], meaning) for kind, meaning in LEGEND if kind in kinds]
        picture.attr(label=title([type(self.watch.model).__name__, line], legend))
        return picture

    # ---- what is there ----------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        for i, t in enumerate(self.inputs):
            self._add_end("input", i, len(self.inputs), t)
        known = [*self.outputs, *self.watch.alive, *(t for call in self.watch.calls for t in call.received)]
        found = reachable(t._edge[0] for t in known if t._edge is not None)
        nodes = [node for node in reversed(found) if isinstance(node, Node)]
        events = [*((call.start, call) for call in self.watch.calls), *((node.serial, node) for node in nodes)]
        for when, item in sorted(events, key=lambda event: event[0]):
            if isinstance(item, _Call):
                self._call(item)
            elif self._place(item) is item:
                rows: list[Row] = [(op_title(item), "bold"), (shape_text(item.result_shape), "plain")]
                if settings := op_settings(item):
                    rows.insert(1, (settings, "muted"))
                self._add(item, rows, "run", self._call_at(when))
        for call in self.watch.calls:
            for t in call.received if call.whole else ():
                self._flow(t._edge[0] if t._edge is not None else id(t._storage), call)
        for node in nodes:
            for edge in node.edges:
                if edge is not None:
                    self._flow(edge[0], self._place(node))
        if self.failed is not None and not self.failed.whole:
            self._add("failed", [("failed here", "bold"), (self._message(), "plain")], "failed", self.failed)
        for i, t in enumerate(self.outputs):
            self._add_end("output", i, len(self.outputs), t)
            self._flow(t._edge[0] if t._edge is not None else id(t._storage), ("output", i))

    def _add(self, place: Any, rows: list[Row], kind: str, box: _Call | None) -> None:
        self.rows[place] = rows, kind
        self.inside.setdefault(self._box(box), []).append(place)

    def _add_end(self, kind: str, i: int, count: int, t: Tensor) -> None:
        name = kind if count == 1 else f"{kind} {i}"
        self._add((kind, i), [(name, "bold"), (f"{shape_text(t.shape)} {t.dtype}", "plain")], kind, None)

    def _box(self, call: _Call | None) -> _Call | None:
        return None if call is None or call.parent is None else call          # the model itself is the whole drawing

    def _call(self, call: _Call) -> None:
        if not call.whole:
            self.inside.setdefault(self._box(call), [])
            if call.parent is not None:
                self.inside[self._box(call.parent)].append(call)
            return
        count, again = self._count(call.module), f"   (call {call.number}, same layer)" if call.number > 1 else ""
        rows: list[Row] = [(type(call.module).__name__, "bold")]
        if call.name or again:
            rows.append((call.name + again, "plain"))
        rows += [(line, "muted") for line in layer_settings(call.module)]
        rows += [(f"→ {shape_text(shape)}", "plain") for shape in call.shapes]
        if count:
            rows.append((f"{count:,} parameters", "plain"))
        if call is self.failed:
            rows.append((self._message(), "plain"))
        kind = "failed" if call is self.failed else "layer with parameters" if count else "layer"
        self._add(call, rows, kind, call.parent)

    def _message(self) -> str:
        return f"{type(self.error).__name__}: {self.error}"

    @staticmethod
    def _count(module: Module, frozen: bool = False) -> int:
        return sum(p.numel() for p in module.parameters() if not (frozen and p.requires_grad))

    def _call_at(self, serial: int) -> _Call | None:
        """The innermost call during which a node of the tape was made."""
        i = bisect_left(self.starts, serial) - 1
        call = self.watch.calls[i] if i >= 0 else None
        while call is not None and call.end < serial:
            call = call.parent
        return call

    def _place(self, key: Any) -> Any:
        """Where a node, leaf or storage is drawn; None if nowhere."""
        if key in self.watch.places:
            return self.watch.places[key]
        if isinstance(key, Leaf):
            return key if key in self.leaves else None
        if not isinstance(key, Node):
            return None
        call = self._call_at(key.serial)
        return call if call is not None and call.whole else key

    def _flow(self, key: Any, head: Any) -> None:
        """An arrow from what a value came from, unless it stays inside one layer or is a layer's own parameter."""
        tail = self._place(key)
        if tail is None or tail is head:
            return
        if isinstance(tail, Leaf):
            if isinstance(head, _Call) and any(p._edge and p._edge[0] is tail for p in head.module.parameters()):
                return
            if tail not in self.rows:
                name, shape = self.leaves[tail]
                count = f"{math.prod(shape):,} parameters"
                self._add(tail, [(name, "bold"), (shape_text(shape), "plain"), (count, "plain")], "parameter", None)
        self.edges[tail, head] = None

    # ---- writing ----------------------------------------------------------------------------------------------------

    def _write(self, picture: Any, box: _Call | None) -> None:
        for place in self.inside[box]:
            if place in self.rows:
                rows, kind = self.rows[place]
                picture.node(self.ids[place], label=table(rows, kind))
            elif self.inside[place]:
                self.boxes += 1
                with picture.subgraph(name=f"cluster_{self.boxes}") as inner:
                    kind, count = type(place.module).__name__, self._count(place.module)
                    name = place.name + (f" (call {place.number})" if place.number > 1 else "")
                    inner.attr(label=box_label(name, [kind, f"{count:,} parameters"]), labeljust="l",
                               style="filled", fillcolor=BOX[0], color=BOX[1], margin="12")
                    self._write(inner, place)
