"""Gradients against finite differences: the full Jacobian, element by element, and the same for second derivatives."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import graph
from ..grad_mode import enable_grad
from ..graph import Storage
from ..tensor import Tensor, _root

_REFUSED = {
    "fast_mode": "it compares one random direction, which misses wrong single elements; the full Jacobian is always checked",
    "check_forward_ad": "there is no forward mode",
    "check_batched_grad": "there is no batched gradient",
    "check_batched_forward_grad": "there is no forward mode",
    "check_fwd_over_rev": "there is no forward mode",
    "check_rev_over_rev": None,
    "check_backward_ad": None,
    "masked": "there are no masked tensors",
}
"""PyTorch's other arguments, and why they cannot be switched on (None: always on, cannot be switched off)."""

SMOOTH_SHRINK = 0.75
"""One-sided differences of a smooth function close in by 1/2 when eps is halved, at a kink they do not; this lies between."""


class GradcheckError(RuntimeError):
    """A gradient that differs from its finite difference; the message says where, by how much, and the likely cause."""


def gradcheck(func: Callable[..., Any], inputs: Tensor | Sequence[Any], *, eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3,
              raise_exception: bool = True, nondet_tol: float = 0.0, check_undefined_grad: bool = True, check_grad_dtypes: bool = False,
              **other: Any) -> bool:
    """Compare the gradients of a function with central differences: |analytic - numeric| <= atol + rtol |numeric|, every element.

    The full Jacobian is computed both ways, so keep the tensors small (tens of elements) and in float64. The defaults of
    PyTorch, whose other arguments are accepted only at values that change nothing: `fast_mode=True` is refused.

    Args:
        func: takes the inputs, returns a tensor or several. Integer outputs and, if another one requires grad, outputs
            that do not are ignored. Must be deterministic.
        inputs: a tensor or a sequence; those that require grad are checked, other values are passed on. Nothing in
            them has changed afterwards, also when func raises.
        eps: half the distance of the two points of a difference.
        atol, rtol: absolute and relative tolerance.
        raise_exception: raise at a mismatch instead of returning False.
        nondet_tol: how much two runs may differ.
        check_undefined_grad: with several outputs, also check that their gradients together are the sum of each one's alone.
        check_grad_dtypes: also check that every gradient has its input's dtype.

    Returns:
        True if all gradients are right.

    Raises:
        GradcheckError: a mismatch.
        ValueError: no input requires grad, or an argument that cannot be honoured.

    Example:
        >>> import tinygrad_cnn as tg
        >>> x = tg.randn(3, dtype=tg.float64, requires_grad=True)
        >>> tg.autograd.gradcheck(lambda x: (x.exp() * x).sum(), x)
        True
    """
    _refuse("gradcheck", other)
    values = _as_tuple(inputs)
    try:
        _Check("gradcheck", func, values, _names(func, values), eps, atol, rtol, nondet_tol).run(check_undefined_grad, check_grad_dtypes)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(func: Callable[..., Any], inputs: Tensor | Sequence[Any], grad_outputs: Any = None, *, eps: float = 1e-6,
                  atol: float = 1e-5, rtol: float = 1e-3, gen_non_contig_grad_outputs: bool = False, raise_exception: bool = True,
                  nondet_tol: float = 0.0, check_undefined_grad: bool = True, check_grad_dtypes: bool = False, **other: Any) -> bool:
    """Compare second derivatives with central differences of the gradients, with respect to the inputs and to grad_outputs.

    Args:
        func, inputs: as in `gradcheck`.
        grad_outputs: a cotangent per output that requires grad; random if None (the same every time, and without touching
            `manual_seed`'s generator).
        gen_non_contig_grad_outputs: make the random cotangents strided views.
        eps, atol, rtol, raise_exception, nondet_tol, check_undefined_grad, check_grad_dtypes: as in `gradcheck`.

    Returns:
        True if all second derivatives are right.

    Raises:
        GradcheckError: a mismatch.
        ValueError: no input requires grad, or an argument that cannot be honoured.

    Example:
        >>> import tinygrad_cnn as tg
        >>> x = tg.randn(3, dtype=tg.float64, requires_grad=True)
        >>> tg.autograd.gradgradcheck(lambda x: x.sigmoid(), x)
        True
    """
    _refuse("gradgradcheck", other)
    values = _as_tuple(inputs)
    wanted = [v for v in values if isinstance(v, Tensor) and v.requires_grad]
    if not wanted:
        raise ValueError("gradgradcheck: no input requires grad; call requires_grad_() on those to check")
    with enable_grad():
        outputs = _differentiable(_outputs("gradgradcheck", func(*values)))
    if grad_outputs is None:
        random = np.random.default_rng(0)
        cotangents = tuple(_random_cotangent(random, out, gen_non_contig_grad_outputs) for out in outputs)
    else:
        cotangents = tuple(g if g.requires_grad else g.detach().requires_grad_() for g in _as_tuple(grad_outputs))
    if len(cotangents) != len(outputs):
        raise ValueError(f"gradgradcheck: got {len(cotangents)} grad_outputs for {len(outputs)} outputs that require grad")

    def gradients(*arguments: Any) -> tuple[Tensor, ...]:
        again = _differentiable(_outputs("gradgradcheck", func(*arguments[: len(values)])))
        roots = [_root("gradgradcheck", out, g) for out, g in zip(again, arguments[len(values) :], strict=True)]
        edges = [v._edge for v in arguments[: len(values)] if isinstance(v, Tensor) and v._edge is not None]
        found = graph.backward(roots, Tensor._wrap, retain_graph=True, create_graph=True, targets=edges)
        return tuple(found[edge] for edge in edges if edge in found)

    names = [*_names(func, values), *(f"grad_outputs[{k}]" for k in range(len(cotangents)))]
    try:
        check = _Check("gradgradcheck", gradients, values + cotangents, names, eps, atol, rtol, nondet_tol, strict=True)
        check.run(check_undefined_grad, check_grad_dtypes)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


class _Check:
    """One comparison: the function, its inputs, and the tolerances."""

    def __init__(self, name: str, func: Callable[..., Any], values: tuple[Any, ...], names: list[str], eps: float, atol: float,
                 rtol: float, nondet_tol: float, strict: bool = False):
        self.name, self.func, self.values, self.names, self.strict = name, func, values, names, strict
        self.eps, self.atol, self.rtol, self.nondet_tol = eps, atol, rtol, nondet_tol
        self.wanted = [i for i, v in enumerate(values) if isinstance(v, Tensor) and v.requires_grad]
        if not self.wanted:
            raise ValueError(f"{name}: no input requires grad; call requires_grad_() on those to check")
        self.inputs: list[Tensor] = [values[i] for i in self.wanted]

    def run(self, check_undefined_grad: bool, check_grad_dtypes: bool) -> None:
        """Raise a GradcheckError if anything is off."""
        with enable_grad(), np.errstate(all="ignore"), _own_memory(self.inputs):
            outputs = self._outputs()
            analytic, again = self._analytic(outputs, check_grad_dtypes), self._analytic(self._outputs(), False)
            numeric = self._numeric(outputs)
            for k, out in enumerate(outputs):
                for i in range(len(self.inputs)):
                    self._check_repeatable(k, i, analytic[k][i], again[k][i])
                    self._compare(k, i, out, analytic[k][i], numeric[k][i])
            if check_undefined_grad and len(outputs) > 1:
                self._check_together(self._outputs(), analytic)

    def _outputs(self) -> list[Tensor]:
        """The outputs to check. A gradient that forgot its history (strict) counts as constant, and so does a lone output."""
        outputs = _outputs(self.name, self.func(*self.values))
        differentiable = _differentiable(outputs)
        return outputs if self.strict or not differentiable else differentiable

    def _pull(self, outputs: list[Tensor], cotangents: list[np.ndarray]) -> list[Any]:
        """The gradients of the outputs, so weighted, in the inputs; None for an input they do not depend on."""
        roots = [_root(self.name, out, Tensor._wrap(g)) for out, g in zip(outputs, cotangents, strict=True) if out.requires_grad]
        edges = [x._edge for x in self.inputs if x._edge is not None]
        found = graph.backward(roots, Tensor._wrap, retain_graph=True, create_graph=False, targets=edges) if roots else {}
        return [found.get(edge) for edge in edges]

    def _analytic(self, outputs: list[Tensor], check_dtypes: bool) -> list[list[np.ndarray]]:
        """Per output and input the Jacobian (elements of output, elements of input), a row per backward."""
        jacobians = []
        for k, out in enumerate(outputs):
            rows: list[list[np.ndarray]] = [[] for _ in self.inputs]
            for j in range(out.numel()):
                one = np.zeros(out.shape, out.dtype)
                one.reshape(-1)[j] = 1
                for i, (x, g) in enumerate(zip(self.inputs, self._pull([out], [one]), strict=True)):
                    if g is not None and g.shape != x.shape:
                        raise GradcheckError(f"{self.name}: the gradient of output {k} for {self._input(i)} has shape {g.shape}")
                    if g is not None and check_dtypes and g.dtype != x.dtype:
                        raise GradcheckError(f"{self.name}: the gradient of output {k} for {self._input(i)} is {g.dtype}, not {x.dtype}")
                    rows[i].append(np.zeros(x.numel()) if g is None else g._data.reshape(-1).astype(np.float64))
            jacobians.append([np.array(r).reshape(out.numel(), x.numel()) for r, x in zip(rows, self.inputs, strict=True)])
        return jacobians

    def _numeric(self, outputs: list[Tensor]) -> list[list[np.ndarray]]:
        """The same by central differences, a column per pair of calls."""
        columns: list[list[list[np.ndarray]]] = [[[] for _ in self.inputs] for _ in outputs]
        for i, x in enumerate(self.inputs):
            for j in range(x.numel()):
                (above, high), (below, low), _ = self._around(i, j, self.eps)
                for k in range(len(outputs)):
                    columns[k][i].append((high[k] - low[k]) / (above - below))
        return [[np.array(c).reshape(x.numel(), out.numel()).T for c, x in zip(row, self.inputs, strict=True)]
                for row, out in zip(columns, outputs, strict=True)]

    def _around(self, i: int, j: int, eps: float) -> tuple[tuple[float, list[np.ndarray]], ...]:
        """(element, outputs) with element j of input i at + eps, - eps and in place."""
        data, storage = self.inputs[i]._data, self.inputs[i]._storage
        index = np.unravel_index(j, data.shape)
        before = data[index].copy()
        points = []
        for step in (eps, -eps, 0.0):
            try:
                data[index] = before + step
                storage.version += 1           # what was made of the old values is not made of these
                values = [np.asarray(out._data, np.float64).reshape(-1).copy() for out in self._outputs()]
                points.append((float(data[index]), values))
            finally:
                data[index] = before
                storage.version += 1
        if points[0][0] == points[1][0]:
            raise GradcheckError(f"{self.name}: eps={eps} is lost in rounding at {float(before)} of {self._input(i)}, "
                                 f"{data.dtype}: use float64 or a larger eps")
        return tuple(points)

    def _input(self, i: int) -> str:
        x = self.inputs[i]
        return f"input {self.wanted[i]} ({self.names[self.wanted[i]]}, shape {x.shape}, {x.dtype})"

    def _check_repeatable(self, k: int, i: int, first: np.ndarray, second: np.ndarray) -> None:
        if first.shape != second.shape or not np.allclose(first, second, rtol=0, atol=self.nondet_tol, equal_nan=True):
            worst = np.abs(first - second).max() if first.shape == second.shape else np.inf
            raise GradcheckError(f"{self.name}: not deterministic: two runs of the gradient of output {k} for {self._input(i)} differ by "
                                 f"up to {worst:.3g}, more than nondet_tol={self.nondet_tol}; seed or remove the randomness")

    def _check_together(self, outputs: list[Tensor], analytic: list[list[np.ndarray]]) -> None:
        random = np.random.default_rng(0)
        cotangents = [random.standard_normal(out.shape).astype(out.dtype) for out in outputs]
        for i, g in enumerate(self._pull(outputs, cotangents)):
            apart = sum((c.reshape(-1).astype(np.float64) @ analytic[k][i] for k, c in enumerate(cotangents)), np.zeros(()))
            together = np.zeros(apart.shape) if g is None else g._data.reshape(-1).astype(np.float64)
            if not np.allclose(together, apart, rtol=self.rtol, atol=self.atol):
                raise GradcheckError(f"{self.name}: the gradient of all outputs together for {self._input(i)} is not the sum of each "
                                     f"output's alone: off by up to {np.abs(together - apart).max():.3g}")

    def _compare(self, k: int, i: int, out: Tensor, analytic: np.ndarray, numeric: np.ndarray) -> None:
        limit = self.atol + self.rtol * np.abs(numeric)
        off = ~np.isclose(analytic, numeric, rtol=self.rtol, atol=self.atol)
        if not off.any():
            return
        excess = np.where(off, np.nan_to_num(np.abs(analytic - numeric) / limit, nan=np.inf), -1)
        row, column = np.unravel_index(np.argmax(excess), off.shape)
        x, what = self.inputs[i], "output" if self.name == "gradcheck" else "gradient"
        at = tuple(map(int, np.unravel_index(column, x.shape)))
        of = tuple(map(int, np.unravel_index(row, out.shape)))
        a, n = analytic[row, column], numeric[row, column]
        raise GradcheckError(
            f"{self.name}: {what} {k} (shape {out.shape}) for {self._input(i)}: "
            f"{off.sum()} of {off.size} elements of the Jacobian are off. "
            f"Worst: d {what}{list(of)} / d input{list(at)} is {a:.10g} analytically, {n:.10g} numerically, "
            f"|difference| {abs(a - n):.3g} > {limit[row, column]:.3g} = atol {self.atol:g} + rtol {self.rtol:g} * |numeric|. "
            f"{self._diagnose(k, i, int(row), int(column), out)}")

    def _diagnose(self, k: int, i: int, row: int, column: int, out: Tensor) -> str:
        """The likely cause of the worst mismatch, by what halving eps does to it."""
        if not out.requires_grad:
            return "Likely cause: the function leaves the graph (detach, numpy, no_grad, an op without a rule)."
        if np.float32 in (out.dtype, self.inputs[i].dtype):
            return "Likely cause: float32 rounds too coarsely for finite differences; check in float64."
        slopes = []
        for eps in (self.eps, self.eps / 2):
            (above, high), (below, low), (here, middle) = self._around(i, column, eps)
            f, g, h = high[k][row], low[k][row], middle[k][row]
            slopes.append(((f - g) / (above - below), (f - h) / (above - here), (h - g) / (here - below)))
        (wide, right, left), (narrow, right_half, left_half) = slopes
        facts = f"(numeric {wide:.6g} at eps, {narrow:.6g} at eps/2; one-sided {left:.6g} and {right:.6g})"
        tolerance = self.atol + self.rtol * abs(wide)
        if not np.isfinite([*slopes[0], *slopes[1]]).all():
            return f"Likely cause: the function is not finite or not defined around this point {facts}."
        if abs(right - left) > tolerance and abs(right_half - left_half) > SMOOTH_SHRINK * abs(right - left):
            return f"Likely cause: a kink or jump, where no derivative exists; move the input away from it {facts}."
        if abs(wide - narrow) > tolerance:
            return f"Likely cause: a kink nearby, or more curvature than eps={self.eps:g} resolves; move the input or lessen eps {facts}."
        return f"Likely cause: a wrong rule; the numeric value is stable {facts}."


@contextmanager
def _own_memory(inputs: list[Tensor]) -> Iterator[None]:
    """Within, each tensor lies in a writable copy of its memory (of the same layout); afterwards in its own, untouched."""
    kept = [(x, x._data, x._storage, x._rebased) for x in inputs]
    try:
        for x, data, _, _ in kept:
            x._data, x._storage, x._rebased = data.copy(order="K"), Storage(), 0
            if x._edge is not None and x.is_leaf:
                x._storage.guard(x._edge[0])
        yield
    finally:
        for x, data, storage, rebased in kept:
            x._data, x._storage, x._rebased = data, storage, rebased


def _random_cotangent(random: np.random.Generator, out: Tensor, strided: bool) -> Tensor:
    values = random.standard_normal((*out.shape, 2)).astype(out.dtype)[..., 0]
    return Tensor._wrap(values if strided else values.copy()).requires_grad_()


def _as_tuple(values: Any) -> tuple[Any, ...]:
    return tuple(values) if isinstance(values, (tuple, list)) else (values,)


def _outputs(name: str, result: Any) -> list[Tensor]:
    outputs = _as_tuple(result)
    if not outputs or not all(isinstance(out, Tensor) for out in outputs):
        raise TypeError(f"{name}: func must return a Tensor or several, got {[type(out).__name__ for out in outputs]}")
    return [out for out in outputs if out.is_floating_point()]


def _differentiable(outputs: list[Tensor]) -> list[Tensor]:
    return [out for out in outputs if out.requires_grad]


def _names(func: Callable[..., Any], values: tuple[Any, ...]) -> list[str]:
    """What func calls its positional arguments, as far as its signature tells."""
    try:
        parameters = list(inspect.signature(func).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][: len(values)]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "inputs")
    return [*names, *(f"{rest}[{i}]" for i in range(len(values) - len(names)))]


def _refuse(name: str, other: dict[str, Any]) -> None:
    for key, value in other.items():
        if key not in _REFUSED:
            raise TypeError(f"{name}: got an unexpected argument {key!r}")
        reason = _REFUSED[key]
        if reason is None and not value:
            raise ValueError(f"{name}: {key}=False leaves nothing to check")
        if reason is not None and value:
            raise ValueError(f"{name}: {key}={value!r} is not possible: {reason}")
