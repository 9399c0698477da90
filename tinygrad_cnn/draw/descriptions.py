"""What drawings say of ops and layers: in the words of their documentation, and only what is worth a line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..graph import Node
from ..nn import Module

TITLES = {"_avg_pool2d_adjoint": "avg_pool2d_grad", "_conv2d_input_grad": "conv_transpose2d",
          "_gather_taps": "max_pool2d_gather", "_plane_indices": "max_pool2d_indices", "_resize": "interpolate",
          "_resize_adjoint": "interpolate_grad", "_scatter_index": "getitem_grad", "_scatter_taps": "max_pool2d_grad",
          "_surviving": "setitem_grad", "keep_scaled": "dropout"}
"""Primitives that a reader knows by another name."""

VALUES = {"g": "gradient", "grad_output": "gradient", "keep": "mask", "out": "result", "probs": "probabilities",
          "taps": "indices"}
"""Arguments and results that a reader knows by another name."""

SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**", "remainder": "%"}

HIDDEN = ("in_place", "keepdim", "relu", "shape", "size")
"""Attributes that change no value, or that the result's shape or an op drawn of its own shows already."""

NEUTRAL = {"dilation": "1", "divisor": "0", "groups": "1", "padding": "0", "value": "0"}
"""Values that say nothing happens."""

STATED = ("p",)
"""Settings of layers that are shown also if they are the default."""


def op_title(node: Node) -> str:
    """The op's name."""
    name = node.primitive.name
    return TITLES.get(name) or name.lstrip("_").removesuffix("_relu")


def value_name(node: Node, name: str) -> str:
    """What an op's argument or result is called."""
    return "x" if node.primitive.name == "_conv2d_input_grad" and name == "grad_output" else VALUES.get(name, name)


def op_settings(node: Node) -> str:
    """What the op was asked to do: `kernel 3, stride 2, padding 1`, `x * 1.5`, `x[:, 0]`; empty if nothing special."""
    title, names, attributes = op_title(node), node.primitive.arguments, dict(node.attributes)
    numbers = {name: setting_text(value) for name, value in zip(names, node.arguments, strict=False)
               if isinstance(value, (int, float, np.generic)) or (isinstance(value, np.ndarray) and not value.ndim)}
    index, windows, neutral = attributes.pop("index", None), attributes.pop("windows", None), NEUTRAL
    if isinstance(index, tuple):
        return index_text(index, f" = {numbers.get('value', 'value')}" if title == "setitem" else "")
    if isinstance(windows, tuple):
        attributes = {**dict(zip(("kernel", "stride", "padding", "dilation"), windows, strict=False)), **attributes}
    else:
        neutral = {**NEUTRAL, "stride": "1"}
    if "groups" in attributes:                 # a convolution or one of its gradients
        kernel = node.shapes[names.index("weight")][2:] if "weight" in names else attributes.get("size")
        attributes = {"kernel": kernel, **attributes}
    if node.primitive.name == "keep_scaled":
        attributes = {"p": 1 - 1 / attributes["scale"] if attributes["scale"] else 1}
    return ", ".join([*_expression(title, names, numbers), *_settings(attributes, neutral)])


def _expression(title: str, names: tuple[str, ...], numbers: dict[str, str]) -> Iterator[str]:
    """The numbers among the arguments: `x / 8`, `maximum(x, 0)`."""
    if numbers and len(names) == 2:
        left, right = (numbers.get(name, name) for name in names)
        yield f"{left} {SIGNS[title]} {right}" if title in SIGNS else f"{title}({left}, {right})"
    elif numbers:
        yield f"{title}({', '.join(numbers.get(name, name) for name in names)})"


def _settings(attributes: dict[str, Any], neutral: dict[str, str]) -> Iterator[str]:
    """The attributes worth a word each: `stride 2`, `padding 1`."""
    for name, value in attributes.items():
        text = setting_text(value)
        if name == "widths" and isinstance(value, tuple):
            yield from (f"dim {i} by {setting_text(pair)}" for i, pair in enumerate(value) if setting_text(pair) != "0")
        elif name == "count_include_pad":
            if not value and setting_text(attributes.get("padding")) not in ("", "0"):
                yield "count_include_pad False"
        elif name in HIDDEN or text in ("", neutral.get(name)):
            continue
        elif name in ("dtype", "equation"):
            yield text
        elif name == "divisor":
            yield f"divisor_override {text}"
        else:
            yield name if value is True else f"{name} {text}"


def setting_text(value: Any) -> str:
    """A setting as Python would write it, equal pairs as one number; empty for none and for what takes more than a word."""
    if isinstance(value, (tuple, list)):
        parts = [setting_text(v) for v in value]
        if len(parts) in (1, 2) and parts[0] == parts[-1] and parts[0].lstrip("-").isdigit():
            return parts[0]
        return f"({', '.join(parts)})" if all(parts) and parts else ""
    if isinstance(value, (np.ndarray, np.generic)):
        return "" if value.ndim else setting_text(value.item())
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return np.dtype(value).name
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is False or not isinstance(value, (int, str)) else str(value)


def index_text(index: tuple[Any, ...], assigned: str = "") -> str:
    """An index as in Python, arrays by letters: `x[1:, 0, ...]`, `x[:, i], i of shape (3,)`."""
    parts: list[str] = []
    shapes: list[str] = []
    for i in index:
        if isinstance(i, slice):
            ends = ["" if v is None else str(v) for v in (i.start, i.stop)]
            parts.append(":".join(ends if i.step in (None, 1) else [*ends, str(i.step)]))
        elif isinstance(i, np.ndarray) and i.ndim:
            parts.append("mask" if i.dtype == bool else "ijklmnpq"[len(shapes) % 8])
            shapes.append(f", {parts[-1]} of shape {tuple(i.shape)}")
        else:
            parts.append("..." if i is Ellipsis else "None" if i is None else setting_text(i))
    return f"x[{', '.join(parts) or '()'}]{assigned}{''.join(shapes)}"


def layer_settings(module: Module) -> list[str]:
    """The lines of a layer's `extra_repr` without what is the default: `3, 8, kernel_size=3, padding=1`."""
    usual = {name: repr(p.default) for name, p in inspect.signature(type(module).__init__).parameters.items()
             if p.default is not p.empty and name not in STATED}
    lines = []
    for line in module.extra_repr().splitlines():
        parts = re.split(r", (?![^()\[\]{}]*[)\]}])", re.sub(r"=\((-?\d+), \1\)", r"=\1", line))
        lines.append(", ".join(part for part in parts if usual.get(part.partition("=")[0]) != part.partition("=")[2]))
    return [line for line in lines if line]
