"""Wrong rules, planted in every primitive and tried on every sample: `python -m tests.autograd.planted [NAME ...]` lists those nobody notices.

For each argument that a rule leads to: its gradient times 1.01, and with one element doubled. For each value a rule reads: that value
detached, so that the first derivative is right and the second wrong. gradcheck, then gradgradcheck, must object.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import tinygrad_cnn as tg
from tinygrad_cnn.autograd import GradcheckError, gradcheck, gradgradcheck
from tinygrad_cnn.primitive import Primitive, Rule, registry

from ..op_samples import SAMPLES, Sample

SAME_ANYWAY = {
    "constant almost everywhere": {
        ("relu", "out"), ("relu6", "out"), ("_relu_grad", "out"), ("abs", "x"), ("clamp", "x"), ("maximum", "x"), ("maximum", "y"), ("minimum", "x"), ("minimum", "y"), ("_amax", "x"), ("_amin", "x"),
        ("_conv2d_relu", "out"), ("_linear_relu", "out"), ("_channel_affine_relu", "out"), ("_relu_bias_grad", "y"), ("remainder", "x"), ("remainder", "y"),
    },
    "the derivative is zero": {(name, what) for name in ("sign", "floor", "ceil", "round", "trunc") for what in ("g", "gradient 0 scaled", "gradient 0, one element doubled")},
    "only where ReLU cuts depends on it": {("_batch_norm", "bias"), ("_batch_norm_grad", "bias")},
    "no gradient leads to an integer or a bool": {
        ("_max_pool2d", "taps"), ("_adaptive_max_pool2d", "taps"), ("_scatter_taps", "taps"), ("_gather_taps", "taps"), ("where", "condition"), ("keep_scaled", "keep")},
}
"""Planted rules that nobody can notice, as (primitive, value detached), by the reason."""


@contextmanager
def planted(p: Primitive, argument: int | None, wrong: Callable[..., Any]) -> Iterator[list[int]]:
    """Within, the rule of an argument, or the joint rule (None), is `wrong(function, values)`. The list counts its calls."""
    right, calls = p.joint_rule if argument is None else p.rules[argument], [0]
    assert right is not None

    @functools.wraps(right.function)           # keeps the signature, by which the rule's values are looked up
    def rule(*values: Any) -> Any:
        calls[0] += 1
        return wrong(right.function, values)

    if argument is None:
        p.joint_rule = Rule(rule, p)
    else:
        p.rules[argument] = Rule(rule, p)
    try:
        yield calls
    finally:
        if argument is None:
            p.joint_rule = right
        else:
            p.rules[argument] = right


def is_noticed(sample: Sample) -> bool:
    """Whether one of the checks objects to the sample."""
    for check, order in ((gradcheck, 1), (gradgradcheck, 2)):
        if sample.order >= order:
            try:
                check(sample.run, sample.tensors())
            except GradcheckError:
                return True
            except RuntimeError:               # a gradient that lost its history altogether
                return True
    return False


def largest(p: Primitive, argument: int | None, sample: Sample) -> dict[int, int]:
    """Of each argument's gradient, by number, the element that is largest: one whose doubling shows."""
    found: dict[int, int] = {}

    def look(function: Any, values: Any) -> Any:
        result = function(*values)
        for at, gradient in enumerate(result) if argument is None else ((argument, result),):
            if gradient is not None and gradient.numel():
                found[at] = int(np.argmax(np.abs(np.nan_to_num(gradient._data))))
        return result

    with planted(p, argument, look):
        inputs = sample.tensors()
        out = sample.run(*inputs)
        roots = [o for o in (out if isinstance(out, tuple) else (out,)) if o.requires_grad]
        if roots:
            random = np.random.default_rng(0)
            tg.autograd.backward(roots, [tg.tensor(random.uniform(0.5, 1.5, o.shape).astype(o.dtype)) for o in roots])
    return found


def changed(result: Any, argument: int | None, at: int, change: Callable[[Any], Any]) -> Any:
    """A rule's result with one argument's gradient changed."""
    if argument is not None:
        return change(result)
    return tuple(change(g) if i == at and g is not None else g for i, g in enumerate(result))


def plants(p: Primitive, sample: Sample) -> Iterator[tuple[str, int | None, Callable[..., Any]]]:
    """(what, argument, wrong rule) of all that is planted for one sample."""
    rules = [(None, p.joint_rule)] if p.joint_rule is not None else list(p.rules.items())
    for argument, rule in rules:
        for at, element in largest(p, argument, sample).items():
            yield f"gradient {at} scaled", argument, lambda f, v, a=argument, at=at: changed(f(*v), a, at, lambda g: g * 1.01)

            def doubled(g: Any, element: int = element) -> Any:
                mask = np.ones(g.shape)
                mask.reshape(-1)[element : element + 1] = 2
                return g * mask

            yield f"gradient {at}, element {element} doubled", argument, lambda f, v, a=argument, at=at, d=doubled: changed(f(*v), a, at, d)
        names = rule.function.__code__.co_varnames[: len(rule.reads)]
        for k, (kind, _) in enumerate(rule.reads):
            if kind in ("g", "argument", "output", "arguments"):
                def detached(f: Any, v: Any, k: int = k) -> Any:
                    return f(*(without_history(value) if i == k else value for i, value in enumerate(v)))
                yield f"{names[k]} detached", argument, detached


def without_history(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(without_history, value))
    return value.detach() if isinstance(value, tg.Tensor) else value


def survivors(name: str, samples: list[Sample]) -> tuple[list[str], int]:
    """What was planted in a primitive's rules and not noticed with any of the samples, and how much was planted."""
    p = registry[name]
    noticed: dict[str, bool] = {}
    total = 0
    for sample in samples:
        if not sample.order:
            continue
        for what, argument, wrong in plants(p, sample):
            total += 1
            with planted(p, argument, wrong) as calls:
                seen = is_noticed(sample)
            key = what.split(", element")[0] + (", one element doubled" if "element" in what else "")
            if calls[0]:
                noticed[key] = noticed.get(key, False) or seen
    return [what for what, seen in noticed.items() if not seen], total


def reason(name: str, what: str) -> str | None:
    """Why nobody can notice it."""
    value = what.removesuffix(" detached")
    return next((why for why, cases in SAME_ANYWAY.items() if (name, value) in cases), None)


def main(*names: str) -> None:
    """See the module."""
    count = 0
    for name in names or sorted(SAMPLES):
        if registry[name].rules or registry[name].joint_rule is not None:
            left, total = survivors(name, SAMPLES[name])
            count += total
            for what in left:
                print(f"{name}: {what}: {reason(name, what) or 'NOT NOTICED'}", flush=True)
    print(f"{count} planted")


if __name__ == "__main__":
    main(*sys.argv[1:])
