"""Softmax and cross-entropy with class indices as one primitive each way.

The loss of one row of scores x is sum_k q_k (log sum_j exp(x_j) - x_k), where q is what the target asks for:
q_k = share * [k is the target] + spread_k. Its gradient is gap = sum(q) * softmax(x) - q.

Below, scores are taken as a matrix of rows and classes, whatever dims come before and after the class axis.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..primitive import primitive


class Wanted(NamedTuple):
    """What is asked of each row, and how the losses are added up.

    Attributes:
        axis: the scores' class axis.
        indices: (rows,) int64 target classes, any valid one where ignored.
        share: (rows,) the target class's part of q, 0 where ignored; the scores' dtype.
        spread: (classes,) what every class gets besides, except where ignored; None for nothing.
        ignored: (rows,) bool, or None if no row is.
        divisor: of the sum of all losses; None keeps one loss per row.
    """

    axis: int
    indices: np.ndarray
    share: np.ndarray
    spread: np.ndarray | None
    ignored: np.ndarray | None
    divisor: float | None

    def without_ignored(self, rows: np.ndarray) -> np.ndarray:
        """Values per row, exactly 0 where ignored, even if infinite."""
        return rows if self.ignored is None else np.where(self.ignored, rows.dtype.type(0), rows)

    def targets(self) -> tuple[np.ndarray, np.ndarray]:
        """The index of each row's target in the matrix."""
        return np.arange(len(self.indices)), self.indices

    def asked(self, classes: int, rows: np.ndarray | None = None) -> np.ndarray:
        """q (rows, classes), each row times its entry of `rows`, if given."""
        rows = self.without_ignored(np.ones_like(self.share)) if rows is None else rows
        q = np.zeros((len(rows), classes), self.share.dtype)
        q[self.targets()] = rows * self.share
        if self.spread is not None:
            q += np.outer(rows, self.spread)
        return q

    def total(self) -> np.ndarray:
        """sum(q) of each row."""
        return self.share if self.spread is None else self.without_ignored(self.share + self.spread.sum())

    def matrix(self, x: Any) -> Any:
        """An array (..., classes, ...) as a matrix (rows, classes)."""
        moved = x if self.axis == x.ndim - 1 else np.moveaxis(x, self.axis, -1)
        return moved.reshape(len(self.indices), x.shape[self.axis])

    def like(self, matrix: np.ndarray, x: np.ndarray) -> np.ndarray:
        """A matrix (rows, classes) in the shape of x."""
        if self.axis == x.ndim - 1:
            return matrix.reshape(x.shape)
        return np.moveaxis(matrix.reshape(*self.rows_shape(x), x.shape[self.axis]), -1, self.axis)

    def rows_shape(self, x: Any) -> tuple[int, ...]:
        """The shape of x without the class axis."""
        return x.shape[: self.axis] + x.shape[self.axis + 1 :]

    def per_row(self, g: np.ndarray) -> np.ndarray:
        """The cotangent of each row's loss, (rows,), from that of the result."""
        rows = g.reshape(-1) if self.divisor is None else np.broadcast_to(g / self.divisor, self.share.shape)
        return self.without_ignored(rows)


@primitive(returns=("loss", "probs"))
def cross_entropy(x, *, wanted):
    """The loss, per row or added up, and softmax(x)."""
    scores = wanted.matrix(x)
    shifted = scores - scores.max(1, keepdims=True, initial=-np.inf)
    probs = np.exp(shifted)
    sums = probs.sum(1, keepdims=True)
    probs /= sums
    logs = np.log(sums)
    loss = wanted.share * (logs[:, 0] - shifted[wanted.targets()])
    if wanted.spread is not None:
        loss += (logs - shifted) @ wanted.spread
    loss = wanted.without_ignored(loss)
    if wanted.divisor is None:
        return loss.reshape(wanted.rows_shape(x)), wanted.like(probs, x)
    return np.asarray(loss.sum(dtype=np.float64) / wanted.divisor, x.dtype), wanted.like(probs, x)


@cross_entropy.vjp(0)
def _(g, probs, wanted):
    to_loss, to_probs = g
    gradient = None if to_loss is None else _cross_entropy_grad(to_loss, probs, wanted=wanted)
    if to_probs is None:
        return gradient
    weighted = to_probs * probs
    through = weighted - probs * weighted.sum(wanted.axis, keepdim=True)
    return through if gradient is None else gradient + through


@primitive
def _cross_entropy_grad(grad_output, probs, *, wanted):
    """gap * the row's cotangent."""
    rows = wanted.per_row(grad_output)
    gap = wanted.matrix(probs) * (rows * wanted.total())[:, None]
    gap -= wanted.asked(gap.shape[1], rows)
    return wanted.like(gap, probs)


@_cross_entropy_grad.joint_vjp
def _(g, needs, grad_output, probs, wanted):
    shape = (*wanted.rows_shape(probs), 1)
    rows, classes = (x.movedim(wanted.axis, -1) for x in (g, probs))
    total = wanted.total().reshape(shape)
    to_grad = to_probs = None
    if needs[0]:
        each = (rows * (classes * total - wanted.asked(classes.shape[-1]).reshape(classes.shape))).sum(-1)
        to_grad = each if wanted.divisor is None else each.sum() / wanted.divisor
    if needs[1]:
        cotangent = grad_output.unsqueeze(-1) if wanted.divisor is None else grad_output / wanted.divisor
        to_probs = (rows * total * cotangent).movedim(-1, wanted.axis)
    return to_grad, to_probs
