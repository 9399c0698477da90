"""Tensor: an array, the edge to what computed it, and operators. See `docs/architecture.md`."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from mmap import mmap
from numbers import Integral
from typing import Any

import numpy as np

from . import graph, layout, memory
from .grad_mode import is_grad_enabled
from .graph import Leaf, Node, Saved, Storage
from .layout import HIDDEN, KEPT, PLAIN
from .memory import owner as owner_of
from .ops import elementwise, linalg, movement, numpy_api, reduce, sorting
from .ops.arguments import guard_methods
from .ops.geometry import DEFAULT_DTYPE, DTYPES, check_dtype, check_fits, check_shape, number
from .primitive import Primitive
from .random import generator


class Tensor:
    """A multi-dimensional array that records what is computed from it. Make one with `tensor`, `zeros`, `randn` ...

    Called as a class it is PyTorch's legacy constructor: `Tensor(2, 3)` has that shape (and zeros in it), `Tensor([2, 3])` those
    values in float32.

    Differences from PyTorch: `.numpy()` works on every tensor and is read-only; `.data` shares the version of its
    tensor, so a write through it is noticed; a tensor made from a NumPy array never shares writable memory with it; where the
    memory of an image or a convolution weight lies in another order than PyTorch's, a view may be a copy, which refuses what
    would tell it from a view: writes to it, and its use after the original was written to.

    Args:
        data: sizes, or one sequence, array or Tensor with the values.

    Attributes:
        requires_grad: whether gradients flow to it.
        grad: the gradient that backward accumulated, or None.
        grad_fn: the recorded op it came from, or None for a leaf.
    """

    __slots__ = ("__dict__", "__weakref__", "_data", "_edge", "_grad", "_layout", "_rebased", "_storage")
    __array_priority__ = 1000

    _data: np.ndarray
    _edge: graph.Edge | None
    _storage: Storage
    _rebased: int
    _grad: Tensor | None
    _layout: Any

    def __init__(self, *data: Any):
        if len(data) == 1 and not isinstance(data[0], Integral):
            (values,) = data
            if isinstance(values, Tensor) and values.dtype == DEFAULT_DTYPE:
                self._share(values)
                return
            if not isinstance(values, (Tensor, np.ndarray, list, tuple)):
                raise TypeError(f"Tensor: wanted sizes, or a sequence or array of values, got {values!r:.80}; use tg.tensor for a number")
            self._share(tensor(values, dtype=DEFAULT_DTYPE))
        else:
            self._share(zeros(*(data or (0,))))

    def _share(self, other: Tensor) -> None:
        """Begin as another tensor's `detach()`."""
        self._data, self._storage, self._layout = other._data, other._storage, other._layout
        self._rebased, self._edge, self._grad = other._storage.rebased, None, None

    # ---- recording --------------------------------------------------------------------------------------------------

    @staticmethod
    def _wrap(array: np.ndarray, storage: Storage | None = None, edge: graph.Edge | None = None, lies: Any = None) -> Tensor:
        """A Tensor over an array as it is: no copy, no check. In PyTorch it would be row-major, unless `lies` says otherwise."""
        self = Tensor.__new__(Tensor)
        self._data, self._edge, self._grad = array, edge, None
        self._storage = Storage() if storage is None else storage
        self._rebased = self._storage.rebased
        self._layout = (PLAIN if array.flags.c_contiguous else HIDDEN) if lies is None else lies
        return self

    @staticmethod
    def _record(primitive: Primitive, args: Sequence[Any], attributes: dict[str, Any]) -> Any:
        """Run a primitive on the arguments' arrays, and remember the call if any of them requires grad."""
        for name, value in attributes.items():
            if isinstance(value, Tensor):
                raise TypeError(f"{primitive.name}: {name} must not be a Tensor: no gradient would flow to it")
        tensors, arrays, plain = [], list(args), True
        for i, a in enumerate(args):
            if isinstance(a, Tensor):
                tensors.append(a)
                arrays[i] = a._data
                if a._layout is not PLAIN:
                    plain = False
                if a._storage.source is not None:
                    a._values(primitive.name)
        result = primitive.run(arrays, attributes)
        several = isinstance(result, tuple)
        if primitive.view is not None:
            outputs: tuple[Tensor, ...] = (Tensor._view(primitive, result, tensors[0], attributes),)
        else:
            outputs = tuple([Tensor._output(primitive, r, tensors, plain) for r in (result if several else (result,))])
        if is_grad_enabled():
            for a in tensors:
                if a._edge is not None or a._rebased != a._storage.rebased:
                    Tensor._attach(primitive, attributes, args, arrays, outputs)
                    break
        return outputs if several else outputs[0]

    @staticmethod
    def _output(primitive: Primitive, result: Any, tensors: list[Tensor], plain: bool) -> Tensor:
        """A result as a Tensor, which shares the storage of the argument whose memory it lies in."""
        array = result if type(result) is np.ndarray else np.asarray(result)
        if array.dtype not in DTYPES:
            raise TypeError(f"{primitive.name}: the result would be {array.dtype}, which tensors do not hold; convert the arguments")
        owner = array if array.base is None else owner_of(array)
        strange = owner.base is not None and type(owner.base) is not mmap
        for a in tensors:
            data = a._data
            if array is data or owner is not array and owner is owner_of(data) or strange and np.may_share_memory(array, data):
                return Tensor._wrap(array, a._storage, None, a._layout if array is data else None)
        if plain or not primitive.broadcasts:
            return Tensor._wrap(array)
        return Tensor._wrap(array, lies=layout.of_elementwise(array, [(a._data, a._layout) for a in tensors]))

    @staticmethod
    def _view(primitive: Primitive, array: np.ndarray, x: Tensor, attributes: dict[str, Any]) -> Tensor:
        """The result of a primitive that views x: over x's memory if PyTorch's would be, else of its own.

        If the layout forbids to share where PyTorch's does, it is a copy that knows its source.
        """
        shares = array is x._data or owner_of(array) is owner_of(x._data)
        if x._layout is PLAIN or x._layout is KEPT:
            return Tensor._wrap(array, x._storage, None, layout.of_view(array)) if shares else Tensor._wrap(array)
        try:
            assert primitive.view is not None
            lies = layout.simplest(primitive.view(layout.stand_in(x._data, x._layout), **attributes), array)
        except ValueError:                     # PyTorch copies
            return Tensor._wrap(array.copy() if shares else array)
        return Tensor._wrap(array, x._storage, None, lies) if shares else Tensor._wrap(array, lies=lies)._stand_for(x)

    def _stand_for(self, source: Tensor) -> Tensor:
        """Be a copy where PyTorch would have a view of the source's memory; returns self."""
        self._storage.source = source._storage.source or (source._storage, source._storage.version)
        return self

    def _values(self, function: str) -> np.ndarray:
        """The array, for reading. RuntimeError if it is a copy in place of a view and the original has changed."""
        if self._storage.source is not None:
            storage, version = self._storage.source
            if storage.version != version:
                raise RuntimeError(
                    f"{function}: this tensor of shape {self.shape} is a copy where PyTorch has a view, because the original lies in "
                    "another order in memory, and the original was written to since; take the view again, or clone() it before the write")
        return self._data

    @staticmethod
    def _attach(primitive: Primitive, attributes: dict[str, Any], args: Sequence[Any], arrays: Sequence[Any],
                outputs: tuple[Tensor, ...]) -> None:
        """Make the outputs know how they were computed, if any argument requires grad."""
        rules, edges = None if primitive.joint_rule is not None else primitive.rules, []
        for i, a in enumerate(args):
            edge = None
            if isinstance(a, Tensor) and (rules is None or i in rules):
                edge = a._edge
                if a._rebased != a._storage.rebased:
                    raise RuntimeError(
                        f"{primitive.name}: argument {i}, a tensor of shape {a._data.shape}, shares memory with a tensor that "
                        "an in-place operation changed; its gradient is lost. Take the view again, or clone() first")
            edges.append(edge)
        wanted = tuple([edge is not None for edge in edges])
        if True not in wanted or "f" not in [out._data.dtype.kind for out in outputs]:
            return
        shapes = tuple([a.shape if isinstance(a, np.ndarray) else () for a in arrays])
        dtypes = tuple([a.dtype if isinstance(a, np.ndarray) else None for a in arrays])
        keep_arguments, keep_outputs = primitive.plan(wanted)
        saved: list[Any] = [None] * len(args)
        for i in keep_arguments:
            a = args[i]
            if isinstance(a, Tensor):
                saved[i] = Saved(a._data, a._storage, a._edge)
            elif isinstance(a, np.ndarray):    # the user's own array may change later: the graph keeps a copy
                saved[i] = Saved(a.copy(order="K"), Storage(), None)
            else:
                saved[i] = a
        node = Node(primitive, attributes, tuple(edges), saved, shapes, dtypes, outputs[0]._data.shape)
        for k in keep_outputs:
            node.results[k] = Saved(outputs[k]._data, outputs[k]._storage, None)
        for k, out in enumerate(outputs):
            if out._data.dtype.kind == "f":
                out._edge = (node, k)

    # ---- facts ------------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes, a tuple of ints."""
        return self._data.shape

    @property
    def dtype(self) -> np.dtype:
        """The element type, a NumPy dtype such as `tg.float32`."""
        return self._data.dtype

    @property
    def ndim(self) -> int:
        """The number of dims."""
        return self._data.ndim

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return self._data.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self._data.nbytes

    @property
    def device(self) -> str:
        """Always "cpu"."""
        return "cpu"

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of one dim."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """The number of dims."""
        return self.ndim

    def numel(self) -> int:
        """The number of elements."""
        return self._data.size

    def is_floating_point(self) -> bool:
        """Whether the dtype is float32 or float64."""
        return self._data.dtype.kind == "f"

    def is_contiguous(self) -> bool:
        """Whether the elements lie in row-major order in memory. Images usually do not: they lie channels-last."""
        return bool(self._data.flags.c_contiguous)

    def contiguous(self) -> Tensor:
        """Itself if it lies in row-major order, in memory and in PyTorch; else a row-major copy.

        Images and convolution weights, which lie otherwise only here, give a copy that refuses to be written to: PyTorch's
        would be themselves.
        """
        if self._layout is PLAIN:
            return self
        out = movement._row_major(self)
        return out._stand_for(self) if self._layout is HIDDEN else out

    def view(self, *shape: Any) -> Tensor:
        """The same elements in another shape, as `reshape`. What cannot share memory refuses writes.

        Unlike in PyTorch a view that is impossible without a copy is a copy; a write to it raises, and so does its use after the
        original was written to.
        """
        out = movement.reshape(self, *shape)
        return out if out._storage is self._storage or out._storage.source else out._stand_for(self)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape:
            raise TypeError("iteration over a 0-d tensor")
        return (self[i] for i in range(len(self)))

    def __hash__(self) -> int:
        return id(self)

    # ---- autograd ---------------------------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to it; settable on leaves."""
        return self._edge is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Switch whether gradients flow to this leaf; returns self.

        Raises:
            RuntimeError: an integer or bool tensor, or switching off a tensor that was computed.
        """
        if requires_grad and not self.is_floating_point():
            raise RuntimeError(f"requires_grad_: only float32 and float64 tensors can require grad, this one is {self.dtype}")
        if not self.is_leaf:
            if requires_grad:
                return self
            raise RuntimeError("requires_grad_: this tensor was computed; only a leaf's requires_grad can change. Use detach()")
        if requires_grad and self._edge is None:
            leaf = self._storage.leaf_of(self) or Leaf(self)
            self._edge, self._rebased = (leaf, 0), self._storage.rebased
            self._storage.guard(leaf)
        elif not requires_grad:
            self._edge = None
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether the user made it (or it needs no gradient), rather than a recorded op."""
        return self._edge is None or isinstance(self._edge[0], Leaf)

    @property
    def grad_fn(self) -> Node | None:
        """The recorded op that computed it; None for a leaf."""
        return None if self._edge is None or isinstance(self._edge[0], Leaf) else self._edge[0]

    @property
    def grad(self) -> Tensor | None:
        """The accumulated gradient, or None."""
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(f"grad: wanted a Tensor or None, got {type(value).__name__}")
            if value.shape != self.shape or value.dtype != self.dtype:
                raise ValueError(f"grad: wanted shape {self.shape} and dtype {self.dtype}, got {value.shape} and {value.dtype}")
        self._grad = value

    def _accumulate(self, g: Tensor, owned: bool) -> None:
        """Add to `.grad`; take g's memory only if backward says nobody else holds it."""
        if self._grad is not None and self._grad.shape != g.shape:
            raise RuntimeError(f"backward: a gradient of shape {g.shape} cannot be added to .grad of shape {self._grad.shape}; "
                               "set that to None")
        if self._grad is not None and self._grad._edge is None and g._edge is None and self._grad._writable:
            with np.errstate(all="ignore"):
                np.add(self._grad._data, g._data, out=self._grad._data)
            self._grad._storage.version += 1
        elif self._grad is not None:
            self._grad = self._grad + g
        else:
            self._grad = g if owned and g._data.flags.writeable else elementwise.clone(g)

    def backward(self, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False,
                 inputs: Sequence[Tensor] | None = None) -> None:
        """Add d self / d leaf, weighted with `gradient`, to the `.grad` of every leaf below.

        Args:
            gradient: the cotangent, of self's shape; may be left out for a single element.
            retain_graph: keep what backward frees, to walk the graph again; defaults to create_graph.
            create_graph: record the walk, so that the gradients can be differentiated.
            inputs: accumulate into these tensors only.

        Raises:
            RuntimeError: nothing requires grad; no gradient for more than one element; a gradient of another shape; the
                graph was freed; a saved tensor was modified in place.

        Example:
            >>> import tinygrad_cnn as tg
            >>> x = tg.tensor([1., 2.], requires_grad=True)
            >>> (x * x).sum().backward()
            >>> x.grad
            tensor([2., 4.], dtype=float32)
        """
        roots = [_root("backward", self, gradient)]
        keep = create_graph if retain_graph is None else retain_graph
        if inputs is None:
            graph.backward(roots, Tensor._wrap, retain_graph=keep, create_graph=create_graph)
            return
        inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        if not inputs:
            raise RuntimeError("backward: inputs is empty")
        edges = [t._own_edge("backward", f"inputs[{i}]") for i, t in enumerate(inputs)]
        found = graph.backward(roots, Tensor._wrap, retain_graph=keep, create_graph=create_graph, targets=edges)
        for t in inputs:
            if t._edge in found:
                t._accumulate(found[t._edge], False)

    def _own_edge(self, function: str, name: str = "the tensor") -> graph.Edge:
        """Where its gradient arrives. RuntimeError if it requires none, or no longer knows its history."""
        if self._edge is None:
            raise RuntimeError(f"{function}: {name} of shape {self.shape} does not require grad and has no grad_fn")
        if self._rebased != self._storage.rebased:
            raise RuntimeError(f"{function}: {name} of shape {self.shape} shares memory with one that an in-place operation "
                               "changed; its history is lost")
        return self._edge

    def detach(self) -> Tensor:
        """The same memory, cut off from the graph."""
        return Tensor._wrap(self._data, self._storage, None, self._layout)

    def retain_grad(self) -> None:
        """Keep this computed tensor's gradient in `.grad` in the next backward."""
        node, index = self._own_edge("retain_grad")
        if isinstance(node, Node) and not self._retains_grad():
            node.retained.append((index, weakref.ref(self)))

    def _retains_grad(self) -> bool:
        return self._edge is not None and any(reference() is self for _, reference in self._edge[0].retained)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Call `hook(gradient)` whenever this tensor's gradient is complete; what it returns, if anything, replaces it.

        Returns:
            A handle with `remove()`, also a context manager.
        """
        node, index = self._own_edge("register_hook")
        return RemovableHandle(node.hooks, (index, hook))

    # ---- the guarded door: every write goes through here -------------------------------------------------------------

    @property
    def data(self) -> Tensor:
        """The values, without history: shares memory and version, so writes are noticed by a graph that saved them."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"data: wanted a Tensor, got {type(value).__name__}")
        if self._edge is not None and not value.is_floating_point():
            raise TypeError(f"data: a tensor that requires grad holds floats, got {value.dtype}")
        self._storage.version += 1             # whoever saved the old values must not find these under the same version
        self._data, self._storage, self._layout, self._rebased = value._data, value._storage, value._layout, value._storage.rebased
        if self._edge is not None and self.is_leaf:
            self._storage.guard(self._edge[0])

    @property
    def _writable(self) -> bool:
        return self._data.flags.writeable and self._storage.source is None

    def _check_writable(self, function: str) -> None:
        if self._storage.source is not None:
            raise RuntimeError(
                f"{function}: this tensor of shape {self.shape} is a copy where PyTorch has a view, because the original lies in another "
                "order in memory; a write to it would not reach the original. Write to the original itself, or clone() first")
        if not self._data.flags.writeable:
            raise RuntimeError(f"{function}: this tensor of shape {self.shape} is an expanded view or shares read-only memory; "
                               "clone() it first")

    def _write(self, array: Any, function: str = "in-place write") -> None:
        """Overwrite the values in place."""
        self._check_writable(function)
        self._data[...] = array
        self._storage.version += 1

    def _recorded(self, *others: Any) -> bool:
        """Whether a write that depends on the others becomes part of the graph."""
        return is_grad_enabled() and (self.requires_grad or any(isinstance(o, Tensor) and o.requires_grad for o in others))

    def _in_place(self, name: str, compute: Callable[..., Any], *others: Any, **options: Any) -> Tensor:
        """self = compute(self, *others), in self's memory; recorded if anything requires grad."""
        recorded = self._recorded(*others)
        if recorded and (self._storage.guarded or self.requires_grad and self.is_leaf):
            raise RuntimeError(f"{name}: a leaf tensor that requires grad (shape {self.shape}), or a view of one, cannot be written "
                               "in place while recording; use `with no_grad():`, or an out-of-place operation")
        if recorded and not self.is_floating_point():
            raise TypeError(f"{name}: a tensor that requires grad cannot be written into a {self.dtype} tensor")
        self._check_writable(name)
        if recorded and self._edge is not None:
            self._own_edge(name)
        if isinstance(compute, Primitive) and compute.over is not None and self._computed_over(compute, others, options, recorded):
            return self
        old = self
        if recorded:                           # the value before the write, as far as its history goes
            old = Tensor._wrap(self._data, Storage(), self._edge, self._layout)
            old._storage.watch = []
            others = tuple([old if o is self else o for o in others])
        result = compute(old, *others, **options)
        if tuple(result.shape) != self.shape:
            raise ValueError(f"{name}: the result's shape {tuple(result.shape)} does not fit into the tensor's own, {self.shape}")
        if result.dtype != self.dtype:
            if result.dtype.kind == "f" and self.dtype.kind != "f":
                raise TypeError(f"{name}: the result is {result.dtype} and cannot be written into a {self.dtype} tensor")
            result = elementwise.to(result, dtype=self.dtype)
        for saved in old._storage.watch or ():     # what the gradient needs of the old value must outlast it
            saved.array = saved.array.copy(order="K")
        old._storage.watch = None
        self._write(result._data)
        if recorded:
            self._continue(result)
        return self

    def _computed_over(self, primitive: Primitive, others: tuple[Any, ...], options: dict[str, Any], recorded: bool) -> bool:
        """Let a primitive write its result over its first argument, self, if its gradient does not need the old value; False if not."""
        args = (self, *others)
        if recorded and (0 in primitive.plan(tuple([self._wants(a) for a in args]))[0] or any(o is self for o in others)):
            return False
        arrays = [a._values(primitive.name) if isinstance(a, Tensor) else a for a in args]
        result = Tensor._wrap(self._data, self._storage, None, self._layout)
        if recorded:
            Tensor._attach(primitive, options, args, arrays, (result,))
        if not primitive.run_over(arrays, options):
            return False
        self._storage.version += 1
        if recorded:
            self._continue(result)
        return True

    @staticmethod
    def _wants(value: Any) -> bool:
        return isinstance(value, Tensor) and value._edge is not None

    def _continue(self, result: Tensor) -> None:
        """Take over the history of the result that was written to self."""
        retains = self._edge is not None and self._retains_grad()
        self._storage.rebased += 1
        self._edge, self._rebased = result._edge, self._storage.rebased
        if self._edge is None:
            return
        if retains:
            self.retain_grad()
        node = self._edge[0]
        if isinstance(node, Node):             # what the new node saved of its result lies in self: follow the version
            for saved in node.results:
                if saved is not None and saved.array is result._data:
                    saved.array, saved.storage, saved.version = self._data, self._storage, self._storage.version
                    self._storage.saved = saved.version

    def _overwrite(self, name: str, value: Any) -> Tensor:
        """self[...] = value; recorded if anything requires grad."""
        if self._recorded(value):
            return self._in_place(name, movement._assign, value, index=(...,))
        self._write(value._values(name) if isinstance(value, Tensor) else value, name)
        return self

    def add_(self, other: Any, *, alpha: float = 1) -> Tensor:
        """self += alpha * other, in place."""
        return self._in_place("add_", elementwise.add, other if alpha == 1 else other * alpha)

    def sub_(self, other: Any, *, alpha: float = 1) -> Tensor:
        """self -= alpha * other, in place."""
        return self._in_place("sub_", elementwise.sub, other if alpha == 1 else other * alpha)

    def mul_(self, other: Any) -> Tensor:
        """self *= other, in place."""
        return self._in_place("mul_", elementwise.mul, other)

    def div_(self, other: Any) -> Tensor:
        """self /= other, in place."""
        return self._in_place("div_", elementwise.div, other)

    def clamp_(self, min: float | None = None, max: float | None = None) -> Tensor:
        """Limit the values to min .. max, in place."""
        return self._in_place("clamp_", elementwise.clamp, min=min, max=max)

    def relu_(self) -> Tensor:
        """max(self, 0), in place."""
        return self._in_place("relu_", elementwise.relu)

    def copy_(self, source: Any) -> Tensor:
        """Overwrite with source, broadcast and converted to self's dtype, in place."""
        source = _as_tensor(source)
        try:
            return self._overwrite("copy_", movement.broadcast_to(source, self.shape) if source.shape != self.shape else source)
        except ValueError:
            raise ValueError(f"copy_: source of shape {source.shape} does not broadcast to {self.shape}") from None

    def fill_(self, value: float) -> Tensor:
        """Overwrite with one number, in place."""
        if isinstance(value, Tensor):
            if value.ndim:
                raise ValueError(f"fill_: value must be a number or a 0-d tensor, got shape {value.shape}")
            return self._overwrite("fill_", value)
        return self._overwrite("fill_", number("fill_", "value", value, self.dtype))

    def zero_(self) -> Tensor:
        """Overwrite with zeros, in place."""
        return self._overwrite("zero_", 0)

    def normal_(self, mean: float = 0, std: float = 1) -> Tensor:
        """Overwrite with normally distributed numbers, in place."""
        return self._overwrite("normal_", generator().normal(mean, std, self.shape).astype(self.dtype))

    def uniform_(self, low: float = 0, high: float = 1) -> Tensor:
        """Overwrite with uniformly distributed numbers in low .. high, in place."""
        return self._overwrite("uniform_", generator().uniform(low, high, self.shape).astype(self.dtype))

    def __iadd__(self, other: Any) -> Tensor:
        return self._in_place("+=", elementwise.add, other)

    def __isub__(self, other: Any) -> Tensor:
        return self._in_place("-=", elementwise.sub, other)

    def __imul__(self, other: Any) -> Tensor:
        return self._in_place("*=", elementwise.mul, other)

    def __itruediv__(self, other: Any) -> Tensor:
        return self._in_place("/=", elementwise.div, other)

    def __ipow__(self, other: Any) -> Tensor:
        return self._in_place("**=", elementwise.pow, other)

    def __getitem__(self, index: Any) -> Tensor:
        return movement.getitem(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        name = "x[...] = value"
        index = movement.check_index(index, self.shape)
        array = value._values(name) if isinstance(value, Tensor) else np.asarray(value)
        if not isinstance(value, (Tensor, np.ndarray, np.generic)):
            check_fits(name, array, self.dtype)
        if array.dtype.kind == "f" and self.dtype.kind != "f" and array.ndim:
            raise TypeError(f"{name}: the value is {array.dtype} and cannot be written into a {self.dtype} tensor")
        if self._recorded(value):
            self._in_place(name, movement._assign, value, index=index)
            return
        self._check_writable(name)
        movement._assign_over(self._data, array, index=index)
        self._storage.version += 1

    # ---- leaving for NumPy and Python --------------------------------------------------------------------------------

    def numpy(self) -> np.ndarray:
        """The values as a read-only NumPy array: a view, unless a graph holds the values for backward; then a copy.

        Copy it to write. No flag makes the memory writable again. Libraries that ignore the flag of a view, such as
        `torch.from_numpy`, can still write to it: what a graph saves while the view is in use is copied, and nothing that was
        made of the values is kept.
        """
        data, storage = self._values("numpy"), self._storage
        if storage.saved == storage.version:
            return _read_only(data.copy(order="K"))
        view = _read_only(data)
        storage.lend(view)
        return view

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy or (dtype is not None and np.dtype(dtype) != self.dtype):
            if copy is False:
                raise ValueError(f"__array__: a {self.dtype} tensor cannot become {np.dtype(dtype)} without a copy")
            return np.array(self._values("__array__"), dtype=dtype, copy=True)
        if copy is False and self._storage.saved == self._storage.version:
            raise ValueError("__array__: a graph holds these values for backward, so they are not lent without a copy")
        return self.numpy()

    def __dlpack__(self, *, stream: Any = None, max_version: tuple[int, int] | None = None, dl_device: Any = None,
                   copy: bool | None = None) -> Any:
        """Hand the values to another library: a copy, unless copy=False asks for the memory itself, read-only.

        Not every library heeds the read-only flag (PyTorch 2.13 does not), so the memory is not handed out unasked.
        """
        if self.requires_grad:
            raise BufferError("__dlpack__: this tensor requires grad; export x.detach()")
        if copy is not False:
            return self._values("__dlpack__").copy(order="K").__dlpack__(stream=stream, max_version=max_version, dl_device=dl_device)
        if max_version is None or max_version < (1, 0):
            raise BufferError("__dlpack__: the consumer cannot take read-only memory, and copy=False forbids a copy")
        if self._storage.saved == self._storage.version:
            raise BufferError("__dlpack__: a graph holds these values for backward, and copy=False forbids a copy")
        return self.numpy().__dlpack__(stream=stream, max_version=max_version, dl_device=dl_device, copy=copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._data.__dlpack_device__()

    def item(self) -> Any:
        """The single element as a Python number."""
        if self._data.size != 1:
            raise ValueError(f"item: a tensor of shape {self.shape} has {self._data.size} elements, wanted 1")
        return self._values("item").item()

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        return self._values("tolist").tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        if self._data.size != 1:
            raise ValueError(f"the truth of a tensor of shape {self.shape} is ambiguous; use any() or all()")
        return bool(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu" or self._data.size != 1:
            raise TypeError(f"only an integer tensor of one element is an index, got {self.dtype} of shape {self.shape}")
        return int(self.item())

    def __contains__(self, value: Any) -> bool:
        return bool((self._values("in") == (value._values("in") if isinstance(value, Tensor) else value)).any())

    def __format__(self, spec: str) -> str:
        if spec and self.ndim:
            raise TypeError(f"format: only a 0-d tensor takes a format such as {spec!r}, this one has shape {self.shape}")
        return format(self.item(), spec) if not self.ndim else str(self)

    def __repr__(self) -> str:
        data = self._values("repr")
        broken = data.dtype.kind == "f" and not np.array_equal(data, np.round(data))
        values = np.array2string(data, precision=4, separator=", ", threshold=1000, prefix="tensor(",
                                 floatmode="maxprec_equal" if broken else "maxprec")
        facts = [values, f"dtype={self.dtype}"]
        if 0 in self.shape:
            facts.insert(1, f"shape={self.shape}")
        if self.grad_fn is not None:
            facts.append(f"grad_fn={self.grad_fn!r}")
        elif self.requires_grad:
            facts.append("requires_grad=True")
        return f"tensor({', '.join(facts)})"

    def __copy__(self) -> Tensor:
        if not self.is_leaf:
            raise RuntimeError("copy: only leaves can be copied; use detach() or clone()")
        out = type(self).__new__(type(self))
        out._share(self)
        return out.requires_grad_(self.requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if not self.is_leaf:
            raise RuntimeError("deepcopy: only leaves can be copied with their history; use detach().clone()")
        out = type(self).__new__(type(self))
        out._share(elementwise.clone(self.detach()))
        out._grad = None if self._grad is None else elementwise.clone(self._grad.detach())
        memo[id(self)] = out
        return out.requires_grad_(self.requires_grad)

    def __reduce__(self) -> Any:
        if not self.is_leaf:
            raise RuntimeError("pickle: only leaves can be stored; use detach()")
        return _rebuild, (type(self), self._values("pickle"), self.requires_grad)

    # ---- NumPy's functions reach ours ---------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        return numpy_api.call_ufunc(ufunc, method, inputs, options)

    def __array_function__(self, function: Callable[..., Any], types: Any, args: Any, options: Any) -> Any:
        return numpy_api.call_function(function, args, options)

    # ---- operators and methods ----------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Tensor: return _operate(elementwise.add, self, other)
    def __radd__(self, other: Any) -> Tensor: return _operate(elementwise.add, other, self)
    def __sub__(self, other: Any) -> Tensor: return _operate(elementwise.sub, self, other)
    def __rsub__(self, other: Any) -> Tensor: return _operate(elementwise.sub, other, self)
    def __mul__(self, other: Any) -> Tensor: return _operate(elementwise.mul, self, other)
    def __rmul__(self, other: Any) -> Tensor: return _operate(elementwise.mul, other, self)
    def __truediv__(self, other: Any) -> Tensor: return _operate(elementwise.div, self, other)
    def __rtruediv__(self, other: Any) -> Tensor: return _operate(elementwise.div, other, self)
    def __floordiv__(self, other: Any) -> Tensor: return _operate(elementwise.floor_divide, self, other)
    def __rfloordiv__(self, other: Any) -> Tensor: return _operate(elementwise.floor_divide, other, self)
    def __mod__(self, other: Any) -> Tensor: return _operate(elementwise.remainder, self, other)
    def __rmod__(self, other: Any) -> Tensor: return _operate(elementwise.remainder, other, self)
    def __pow__(self, other: Any) -> Tensor: return _operate(elementwise.pow, self, other)
    def __rpow__(self, other: Any) -> Tensor: return _operate(elementwise.pow, other, self)
    def __matmul__(self, other: Any) -> Tensor: return _operate(linalg.matmul, self, other)
    def __rmatmul__(self, other: Any) -> Tensor: return _operate(linalg.matmul, other, self)
    def __and__(self, other: Any) -> Tensor: return _operate(elementwise.bitwise_and, self, other)
    def __rand__(self, other: Any) -> Tensor: return _operate(elementwise.bitwise_and, other, self)
    def __or__(self, other: Any) -> Tensor: return _operate(elementwise.bitwise_or, self, other)
    def __ror__(self, other: Any) -> Tensor: return _operate(elementwise.bitwise_or, other, self)
    def __xor__(self, other: Any) -> Tensor: return _operate(elementwise.bitwise_xor, self, other)
    def __rxor__(self, other: Any) -> Tensor: return _operate(elementwise.bitwise_xor, other, self)
    def __eq__(self, other: Any) -> Tensor: return _operate(elementwise.eq, self, other)  # type: ignore[override]
    def __ne__(self, other: Any) -> Tensor: return _operate(elementwise.ne, self, other)  # type: ignore[override]
    def __lt__(self, other: Any) -> Tensor: return _operate(elementwise.lt, self, other)
    def __le__(self, other: Any) -> Tensor: return _operate(elementwise.le, self, other)
    def __gt__(self, other: Any) -> Tensor: return _operate(elementwise.gt, self, other)
    def __ge__(self, other: Any) -> Tensor: return _operate(elementwise.ge, self, other)
    def __neg__(self) -> Tensor: return elementwise.neg(self)
    def __pos__(self) -> Tensor: return self
    def __abs__(self) -> Tensor: return elementwise.abs(self)
    def __invert__(self) -> Tensor: return elementwise.bitwise_not(self)

    add, sub, mul, div, pow, remainder = (elementwise.add, elementwise.sub, elementwise.mul, elementwise.div, elementwise.pow,
                                          elementwise.remainder)
    floor_divide, atan2, maximum, minimum = elementwise.floor_divide, elementwise.atan2, elementwise.maximum, elementwise.minimum
    neg, abs, sign, floor, ceil, round, trunc = (elementwise.neg, elementwise.abs, elementwise.sign, elementwise.floor,
                                                 elementwise.ceil, elementwise.round, elementwise.trunc)
    square, sqrt, rsqrt, reciprocal = elementwise.square, elementwise.sqrt, elementwise.rsqrt, elementwise.reciprocal
    exp, expm1, log, log1p, log2, log10 = (elementwise.exp, elementwise.expm1, elementwise.log, elementwise.log1p,
                                           elementwise.log2, elementwise.log10)
    sin, cos, tan, asin, acos, atan = (elementwise.sin, elementwise.cos, elementwise.tan, elementwise.asin, elementwise.acos,
                                       elementwise.atan)
    sinh, cosh, tanh, erf = elementwise.sinh, elementwise.cosh, elementwise.tanh, elementwise.erf
    sigmoid, relu, clip, clone = elementwise.sigmoid, elementwise.relu, elementwise.clip, elementwise.clone
    isnan, isinf, isfinite = elementwise.isnan, elementwise.isinf, elementwise.isfinite
    logical_and, logical_or, logical_xor, logical_not = (elementwise.logical_and, elementwise.logical_or,
                                                         elementwise.logical_xor, elementwise.logical_not)
    eq, ne, lt, le, gt, ge = (elementwise.eq, elementwise.ne, elementwise.lt, elementwise.le, elementwise.gt, elementwise.ge)
    sum, mean, var, std, norm, prod = reduce.sum, reduce.mean, reduce.var, reduce.std, reduce.norm, reduce.prod
    max, min, amax, amin, argmax, argmin = reduce.max, reduce.min, reduce.amax, reduce.amin, reduce.argmax, reduce.argmin
    any, all, cumsum, logsumexp = reduce.any, reduce.all, reduce.cumsum, reduce.logsumexp
    softmax, log_softmax = reduce.softmax, reduce.log_softmax
    argsort, sort, topk = sorting.argsort, sorting.sort, sorting.topk
    reshape, flatten, unflatten = movement.reshape, movement.flatten, movement.unflatten
    squeeze, unsqueeze, permute, transpose, movedim = (movement.squeeze, movement.unsqueeze, movement.permute, movement.transpose,
                                                       movement.movedim)
    expand, broadcast_to, sum_to_size = movement.expand, movement.broadcast_to, movement.sum_to_size
    flip, roll, split, chunk, unbind = movement.flip, movement.roll, movement.split, movement.chunk, movement.unbind
    tile, gather, scatter_add, index_select = movement.tile, movement.gather, movement.scatter_add, movement.index_select
    repeat = movement.repeat
    masked_fill, masked_select, tril, triu = movement.masked_fill, movement.masked_select, movement.tril, movement.triu
    matmul, mm, bmm, dot, outer = linalg.matmul, linalg.mm, linalg.bmm, linalg.dot, linalg.outer

    def clamp(self, min: float | None = None, max: float | None = None) -> Tensor:
        """The values limited to min .. max."""
        return elementwise.clamp(self, min=min, max=max)

    def where(self, condition: Tensor, other: Any) -> Tensor:
        """self where the condition holds, else other."""
        return elementwise.where(condition, self, other)

    @property
    def T(self) -> Tensor:
        """All dims reversed."""
        return movement.permute(self, tuple(range(self.ndim))[::-1])

    @property
    def mT(self) -> Tensor:
        """The last two dims swapped."""
        return movement.transpose(self, -1, -2)

    def to(self, *args: Any, dtype: Any = None, device: Any = None) -> Tensor:
        """In another dtype (a Tensor stands for its dtype); itself if nothing changes. The only device is "cpu".

        Args:
            args: dtype, device, or both in either order.
            dtype, device: the same by name.
        """
        for value in (*args, device):
            if isinstance(value, str) and value.split(":")[0] in ("cpu", "cuda", "mps"):
                if value != "cpu":
                    raise ValueError(f"to: device {value!r} is not available; this engine runs on the CPU")
            elif value is not None and value is device:
                raise TypeError(f"to: device must be 'cpu', got {value!r:.60}")
            elif value is not None and dtype is not None:
                raise TypeError(f"to: wanted one dtype, got {value!r:.60} and {dtype!r:.60}")
            elif value is not None:
                dtype = value.dtype if isinstance(value, Tensor) else value
        wanted = self.dtype if dtype is None else check_dtype("to", dtype)
        return self if wanted == self.dtype else elementwise.to(self, dtype=wanted)

    def type(self, dtype: Any) -> Tensor:
        """In another dtype."""
        return self.to(dtype)

    def type_as(self, other: Tensor) -> Tensor:
        """In the dtype of another tensor."""
        return self.to(other.dtype)

    def cpu(self) -> Tensor:
        """Itself."""
        return self

    def float(self) -> Tensor:
        """In float32."""
        return self.to(np.float32)

    def double(self) -> Tensor:
        """In float64."""
        return self.to(np.float64)

    def long(self) -> Tensor:
        """In int64."""
        return self.to(np.int64)

    def int(self) -> Tensor:
        """In int32."""
        return self.to(np.int32)

    def bool(self) -> Tensor:
        """In bool: whether non-zero."""
        return self.to(np.bool_)

    def new_zeros(self, *shape: Any) -> Tensor:
        """Zeros of the given shape in self's dtype."""
        return zeros(*shape, dtype=self.dtype)

    def new_tensor(self, data: Any) -> Tensor:
        """New values in self's dtype."""
        return tensor(data, dtype=self.dtype)


guard_methods(Tensor)

_hook_keys = itertools.count()


class RemovableHandle:
    """Takes a hook out again: call `remove()`, or use it as a context manager."""

    def __init__(self, hooks: dict[int, Any], hook: Any):
        self._hooks, self._key = hooks, next(_hook_keys)
        hooks[self._key] = hook

    def remove(self) -> None:
        """Remove the hook; a second call does nothing."""
        self._hooks.pop(self._key, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def _read_only(array: np.ndarray) -> np.ndarray:
    """A view whose flag cannot be raised again: NumPy sees memory that does not allow it."""
    return np.asarray(memoryview(array).toreadonly())  # type: ignore[arg-type]


def _operate(function: Callable[..., Any], x: Any, y: Any) -> Any:
    """An operator: gives way to types it does not know, as Python's own do."""
    return function(x, y) if isinstance(x, _OPERANDS) and isinstance(y, _OPERANDS) else NotImplemented


_OPERANDS = (Tensor, np.ndarray, np.generic, float, int, bool)


def _rebuild(cls: Any, array: np.ndarray, requires_grad: bool) -> Tensor:
    out = cls.__new__(cls)
    out._share(Tensor._wrap(array))
    return out.requires_grad_(requires_grad)


def _root(function: str, output: Tensor, gradient: Any) -> tuple[graph.Edge, Tensor]:
    """Check one output and its cotangent; the cotangent of a single element is 1."""
    if not isinstance(output, Tensor):
        raise TypeError(f"{function}: outputs must be Tensors, got {type(output).__name__}")
    edge = output._own_edge(function)
    if gradient is None:
        if output._data.size != 1:
            raise RuntimeError(f"{function}: the output has shape {output.shape}; only a single element has an implicit gradient, "
                               "pass one of that shape")
        gradient = Tensor._wrap(np.ones(output.shape, output.dtype))
    elif not isinstance(gradient, Tensor):
        gradient = tensor(gradient, dtype=output.dtype)
    if gradient.shape != output.shape:
        raise RuntimeError(f"{function}: the gradient has shape {gradient.shape}, the output {output.shape}")
    return edge, gradient.to(output.dtype)


def _as_tensor(data: Any) -> Tensor:
    return data if isinstance(data, Tensor) else tensor(data)


# ---- making tensors -------------------------------------------------------------------------------------------------


def _plain(data: Any) -> Any:
    """Nested lists with Tensors in them, as NumPy understands them."""
    if isinstance(data, (list, tuple)):
        return [_plain(d) for d in data]
    return data._values("tensor") if isinstance(data, Tensor) else data


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """A new tensor with a copy of the data.

    Args:
        data: numbers, nested lists, a NumPy array, or a Tensor (detached).
        dtype: float32 for Python floats, int64 for ints, bool for bools, an array's own, unless given.
        requires_grad: make it a leaf of the graph.

    Raises:
        ValueError: ragged lists.
        TypeError: data or dtype that tensors cannot hold (float16, complex, strings ...).

    Example:
        >>> import tinygrad_cnn as tg
        >>> tg.tensor([[1, 2], [3, 4]])
        tensor([[1, 2],
                [3, 4]], dtype=int64)
    """
    source = _plain(data)
    try:
        array = np.asarray(source)
    except ValueError as error:
        raise ValueError(f"tensor: data is ragged; every nested list must have the same length ({error})") from None
    if dtype is None:
        own = isinstance(data, (Tensor, np.ndarray, np.generic))
        dtype = DEFAULT_DTYPE if array.dtype == np.float64 and not own else array.dtype
        if array.dtype.byteorder not in "=|" or array.dtype == object:
            raise TypeError(f"tensor: dtype {array.dtype!r} is not supported; convert the array first")
    elif array.dtype.kind not in "fiub" and not _all_integers(array):
        raise TypeError(f"tensor: data of dtype {array.dtype} cannot become a tensor")
    dtype = check_dtype("tensor", dtype)
    if dtype.kind in "iu" and not isinstance(data, (Tensor, np.ndarray)):
        check_fits("tensor", array, dtype)
    new = isinstance(source, (list, tuple)) and array.dtype == dtype
    return Tensor._wrap(array if new else memory.copy(array, dtype)).requires_grad_(requires_grad)


def _all_integers(array: np.ndarray) -> bool:
    """Whether NumPy holds the numbers as objects only because one is too large for int64."""
    return array.dtype == object and all(isinstance(v, int) for v in array.reshape(-1))


def as_tensor(data: Any, dtype: Any = None) -> Tensor:
    """The data itself if it is a Tensor of that dtype, else a new tensor."""
    return data.to(dtype) if isinstance(data, Tensor) else tensor(data, dtype=dtype)


def from_numpy(array: np.ndarray) -> Tensor:
    """A tensor with an array's values.

    Unlike PyTorch's it copies, unless the array and what it is a view of are read-only; it then shares their memory. A graph
    copies what it saves of that, because the flag promises nothing: others may write to the memory in other ways.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy: wanted a NumPy array, got {type(array).__name__}")
    base: Any = array
    locked = array.flags.aligned
    while isinstance(base, np.ndarray):        # nobody may write to it, neither through the array nor through what it is a view of
        locked, base = locked and not base.flags.writeable, base.base
    check_dtype("from_numpy", array.dtype)
    out = Tensor._wrap(array if locked else memory.copy(array, array.dtype))
    out._layout = layout.of_view(out._data)
    out._storage.foreign = locked
    return out


def _filled(name: str, shape: tuple[Any, ...], dtype: Any, requires_grad: bool, make: Callable[..., np.ndarray]) -> Tensor:
    sizes, dtype = check_shape(name, shape), check_dtype(name, DEFAULT_DTYPE if dtype is None else dtype)
    array = make(sizes)
    return Tensor._wrap(array if array.dtype == dtype else memory.copy(array, dtype)).requires_grad_(requires_grad)


def zeros(*shape: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros; float32 unless dtype says otherwise. The shape as ints or one tuple."""
    return _filled("zeros", shape, dtype, requires_grad, lambda s: np.zeros(s, dtype or DEFAULT_DTYPE))


def ones(*shape: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones; float32 unless dtype says otherwise. The shape as ints or one tuple."""
    return _filled("ones", shape, dtype, requires_grad, lambda s: np.ones(s, dtype or DEFAULT_DTYPE))


def empty(*shape: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros too: uninitialised memory is no help to anyone who learns."""
    return zeros(*shape, dtype=dtype, requires_grad=requires_grad)


def full(shape: Any, fill_value: float, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """One value everywhere; its type decides the dtype unless given: float32, int64 or bool."""
    if dtype is None:
        kind = np.asarray(fill_value).dtype.kind
        dtype = DEFAULT_DTYPE if kind == "f" else np.dtype(bool) if kind == "b" else np.dtype(np.int64)
    return _filled("full", (tuple(shape) if isinstance(shape, (tuple, list)) else shape,), dtype, requires_grad,
                   lambda s: np.full(s, number("full", "fill_value", fill_value, np.dtype(dtype))))


def arange(start: float, end: float | None = None, step: float = 1, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """start, start + step, ... up to but without end; int64 for ints, else float32."""
    if step == 0:
        raise ValueError("arange: step must not be 0")
    low, high = (0, start) if end is None else (start, end)
    if dtype is None:
        dtype = np.int64 if all(isinstance(v, (int, np.integer)) for v in (low, high, step)) else DEFAULT_DTYPE
    return Tensor._wrap(np.arange(low, high, step).astype(check_dtype("arange", dtype))).requires_grad_(requires_grad)


def linspace(start: float, end: float, steps: int, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """`steps` evenly spaced numbers from start to end, both included."""
    return _filled("linspace", (steps,), dtype, requires_grad, lambda s: np.linspace(start, end, s[0]))


def eye(n: int, m: int | None = None, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal of an (n, m) matrix, zeros elsewhere."""
    return _filled("eye", (n, n if m is None else m), dtype, requires_grad, lambda s: np.eye(*s))


def rand(*shape: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Uniform random numbers in 0 .. 1."""
    return _filled("rand", shape, dtype, requires_grad, lambda s: np.asarray(generator().random(s)))


def randn(*shape: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Standard normal random numbers."""
    return _filled("randn", shape, dtype, requires_grad, lambda s: np.asarray(generator().standard_normal(s)))


def randint(low: int, high: int | None = None, size: Any = (), dtype: Any = np.int64) -> Tensor:
    """Random integers in low .. high - 1 (0 .. low - 1 if high is a shape or missing)."""
    if isinstance(high, (tuple, list)):
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    if high <= low:
        raise ValueError(f"randint: high {high} must be greater than low {low}")
    return _filled("randint", (size,), dtype, False, lambda s: np.asarray(generator().integers(low, high, s)))


def randperm(n: int) -> Tensor:
    """A random order of 0 .. n - 1, int64."""
    (n,) = check_shape("randperm", (n,))
    return Tensor._wrap(generator().permutation(n).astype(np.int64))


def _like(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def like(x: Tensor, dtype: Any = None, requires_grad: bool = False) -> Tensor:
        return make(tuple(x.shape), dtype=x.dtype if dtype is None else dtype, requires_grad=requires_grad)
    like.__name__, like.__doc__ = f"{make.__name__}_like", f"`{make.__name__}` with another tensor's shape and dtype."
    return like


zeros_like, ones_like, empty_like, rand_like, randn_like = map(_like, (zeros, ones, empty, rand, randn))


def full_like(x: Tensor, fill_value: float, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """`full` with another tensor's shape and dtype."""
    return full(tuple(x.shape), fill_value, dtype=x.dtype if dtype is None else dtype, requires_grad=requires_grad)


def is_tensor(value: Any) -> bool:
    """Whether the value is a Tensor."""
    return isinstance(value, Tensor)
