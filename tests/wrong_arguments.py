"""Every public function and constructor, called with one wrong argument: `python -m tests.wrong_arguments FIRST COUNT EVERY` runs some.

Each parameter in turn takes every value of WRONG; the others hold EXAMPLES. What happens is printed as a line for each call: its number,
what is called, and how it ended ("returned", or the error). A call that takes SECONDS is killed by an alarm; memory is limited.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import tinygrad_cnn as tg
from tinygrad_cnn import nn

SECONDS, MEMORY = 20, 3 << 30
F, L = nn.functional, tg.optim.lr_scheduler

SPACES: dict[str, Any] = {"tg": tg, "F": F, "nn": nn, "init": nn.init, "nn.utils": nn.utils, "optim": tg.optim, "schedule": L, "data": tg.data, "explain": tg.explain,
                          "draw": tg.draw, "autograd": tg.autograd, "backends": tg.backends, "memory": tg.memory, "Tensor": tg.Tensor}
SKIPPED = {"no_grad", "enable_grad", "set_grad_enabled", "LoadResult", "MinMax", "Primitive", "primitive", "Module", "Optimizer", "LRScheduler", "Dataset", "Tensor",
           "GradcheckError", "Maximized", "Objective", "Regularizer", "Picture", "RemovableHandle", "Parameter", "generator", "Identity", "register_hook", "owner", "order_of",
           "is_tensor", "Stats"}
"""What takes anything, is a base class to write others from, a record that functions fill in, or not for users."""


def plain() -> tg.Tensor:
    return tg.tensor([[0.5, -1.0, 2.0], [1.5, 0.25, -0.5]])


def image() -> tg.Tensor:
    return tg.tensor(np.random.default_rng(0).uniform(0.1, 0.9, (2, 4, 6, 6)).astype(np.float32))


def weight() -> tg.Tensor:
    return tg.tensor(np.random.default_rng(1).standard_normal((4, 4, 3, 3)).astype(np.float32))


def labels() -> tg.Tensor:
    return tg.tensor([0, 2])


def leaf() -> tg.Tensor:
    t = plain().requires_grad_()
    t.grad = plain()
    return t


def model() -> nn.Module:
    tg.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))


def sgd() -> Any:
    return tg.optim.SGD([leaf()], lr=0.1, momentum=0.9)


IMAGES = {"conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "interpolate", "unfold", "dropout2d", "batch_norm",
          "group_norm", "pixel_shuffle", "local_conv2d", "pad"}

# A right value of each parameter, by its name alone or by function and name.
EXAMPLES: dict[Any, Callable[[], Any]] = {
    "x": plain, "input": plain, "y": plain, "x1": plain, "x2": plain, "tensor": plain, "images": image, "condition": lambda: plain() > 0, "mask": lambda: plain() > 0,
    "weight": weight, "bias": lambda: tg.zeros(4), "target": plain, "running_mean": lambda: tg.zeros(4), "running_var": lambda: tg.ones(4), "index": lambda: tg.tensor([[0, 1, 0]]),
    "src": plain, "tensors": lambda: [plain(), plain()], "data": lambda: [[1.0, 2.0]], "array": lambda: np.ones(3), "other": plain, "value": lambda: 0.5, "gradient": plain,
    "dim": lambda: 0, "dim0": lambda: 0, "dim1": lambda: 1, "dims": lambda: (1, 0), "start_dim": lambda: 0, "end_dim": lambda: -1, "shape": lambda: (3, 2), "size": lambda: (2, 3),
    "repeats": lambda: (2, 1), "sizes": lambda: (1, 2), "chunks": lambda: 2, "split_size": lambda: 1, "shifts": lambda: 1, "source": lambda: 0, "destination": lambda: 1,
    "min": lambda: -1.0, "max": lambda: 1.0, "p": lambda: 0.5, "k": lambda: 1, "n": lambda: 3, "m": lambda: 2, "start": lambda: 0.0, "end": lambda: 3.0, "step": lambda: 1.0, "steps": lambda: 4,
    "low": lambda: 0, "high": lambda: 5, "fill_value": lambda: 1.5, "equation": lambda: "ij,kj->ik", "seed": lambda: 3, "threads": lambda: 1, "state": tg.get_rng_state, "dtype": lambda: tg.float64,
    "kernel_size": lambda: 2, "stride": lambda: 1, "padding": lambda: 1, "dilation": lambda: 1, "groups": lambda: 1, "output_size": lambda: 2, "output_padding": lambda: 0, "pad": lambda: (1, 1),
    "scale_factor": lambda: 2.0, "upscale_factor": lambda: 2, "num_classes": lambda: 4, "normalized_shape": lambda: (3,), "num_groups": lambda: 2, "eps": lambda: 1e-5, "momentum": lambda: 0.1,
    "in_channels": lambda: 4, "out_channels": lambda: 4, "in_features": lambda: 3, "out_features": lambda: 2, "num_features": lambda: 4, "num_channels": lambda: 4, "input_size": lambda: (6, 6),
    "unflattened_size": lambda: (2, 2), "lr": lambda: 0.1, "betas": lambda: (0.9, 0.99), "params": lambda: [leaf()], "optimizer": sgd, "T_max": lambda: 5, "gamma": lambda: 0.5, "step_size": lambda: 2,
    "milestones": lambda: [1, 3], "lr_lambda": lambda: lambda epoch: 0.5, "max_lr": lambda: 1.0, "total_steps": lambda: 10, "parameters": lambda: [leaf()], "max_norm": lambda: 1.0,
    "clip_value": lambda: 1.0, "dataset": lambda: tg.data.TensorDataset(plain(), labels()), "indices": lambda: [0], "lengths": lambda: [1, 1], "batch": lambda: [plain(), plain()],
    "limit": lambda: 1, "root": lambda: "/nowhere", "outputs": lambda: (leaf() * 2).sum(), "inputs": lambda: leaf().double().detach().requires_grad_(), "func": lambda: lambda t: t * 2,
    "model": model, "layer": lambda: "0", "objective": lambda: 1, "maps": lambda: image()[:, :1], "activations": image, "channel": lambda: 1, "drawing": lambda: tg.draw.graph((leaf() * 2).sum()),
    "path": lambda: "/nowhere/drawing.svg", "nonlinearity": lambda: "relu", "a": lambda: 0.0, "b": lambda: 1.0, "mean": lambda: 0.0, "std": lambda: 1.0, "val": lambda: 1.0, "gain": lambda: 1.0,
    "modules": lambda: [nn.ReLU()], "values": lambda: [plain()], "transform": lambda: None, "correction": lambda: 1, "fn": lambda: lambda t: t, "hook": lambda: lambda g: None,
    "gradient_map": image, "negative_slope": lambda: 0.1, "args": lambda: nn.ReLU(),
    ("unflatten", "dim"): lambda: 1, ("sizes", "unflatten"): lambda: (3, 1), ("unflatten", "sizes"): lambda: (3, 1), ("broadcast_to", "shape"): lambda: (2, 2, 3), ("expand", "shape"): lambda: (2, 2, 3),
    ("sum_to_size", "shape"): lambda: (1, 3), ("bmm", "x"): lambda: plain().unsqueeze(0), ("bmm", "y"): lambda: plain().T.unsqueeze(0), ("mm", "y"): lambda: plain().T, ("matmul", "y"): lambda: plain().T,
    ("dot", "x"): lambda: tg.ones(3), ("dot", "y"): lambda: tg.ones(3), ("outer", "x"): lambda: tg.ones(3), ("outer", "y"): lambda: tg.ones(2), ("linear", "weight"): lambda: tg.ones(4, 3),
    ("where", "self"): plain, ("where", "other"): plain, ("scatter_add", "src"): lambda: plain()[:1], ("index_select", "index"): lambda: tg.tensor([1]), ("cat", "dim"): lambda: 0,
    ("randint", "size"): lambda: (2,), ("interpolate", "size"): lambda: None, ("Upsample", "size"): lambda: None, ("interpolate", "align_corners"): lambda: None, ("topk", "k"): lambda: 1,
    ("local_conv2d", "weight"): lambda: tg.ones(2, 4, 3, 3, 4, 4), ("local_conv2d", "bias"): lambda: None, ("local_conv2d", "padding"): lambda: 0, ("fold", "x"): lambda: tg.ones(2, 16, 25),
    ("fold", "output_size"): lambda: 6, ("fold", "padding"): lambda: 0, ("Fold", "output_size"): lambda: 6, ("batch_norm", "weight"): lambda: tg.ones(4), ("group_norm", "weight"): lambda: tg.ones(4),
    ("layer_norm", "weight"): lambda: tg.ones(3), ("layer_norm", "bias"): lambda: tg.ones(3), ("cross_entropy", "target"): labels, ("nll_loss", "target"): labels, ("cross_entropy", "weight"): lambda: tg.ones(3),
    ("nll_loss", "weight"): lambda: tg.ones(3), ("one_hot", "tensor"): labels, ("binary_cross_entropy", "input"): lambda: plain().sigmoid(), ("binary_cross_entropy", "target"): lambda: plain().sigmoid(),
    ("binary_cross_entropy", "weight"): plain, ("binary_cross_entropy_with_logits", "weight"): plain, ("binary_cross_entropy_with_logits", "pos_weight"): lambda: tg.ones(3),
    ("BCELoss", "weight"): plain, ("BCEWithLogitsLoss", "weight"): plain, ("BCEWithLogitsLoss", "pos_weight"): lambda: tg.ones(3), ("CrossEntropyLoss", "weight"): lambda: tg.ones(3),
    ("NLLLoss", "weight"): lambda: tg.ones(3), ("Conv2d", "bias"): lambda: True, ("ConvTranspose2d", "bias"): lambda: True, ("Linear", "bias"): lambda: True, ("BatchNorm2d", "bias"): lambda: True,
    ("BatchNorm1d", "bias"): lambda: True, ("LayerNorm", "bias"): lambda: True, ("LocallyConnected2d", "bias"): lambda: True, ("Softmax", "dim"): lambda: 1, ("LogSoftmax", "dim"): lambda: 1,
    ("norm", "p"): lambda: 2.0, ("normalize", "p"): lambda: 2.0, ("dirac_", "tensor"): weight, ("kaiming_uniform_", "mode"): lambda: "fan_in", ("kaiming_normal_", "mode"): lambda: "fan_in",
    ("kaiming_uniform_", "nonlinearity"): lambda: "leaky_relu", ("kaiming_normal_", "nonlinearity"): lambda: "leaky_relu", ("pad", "mode"): lambda: "constant", ("ZeroPad2d", "padding"): lambda: 1,
    ("arange", "end"): lambda: 3.0, ("TensorDataset", "tensors"): plain, ("backward", "tensors"): lambda: (leaf() * 2).sum(), ("set_rng_state", "state"): tg.get_rng_state, ("einsum", "operands"): plain, ("einsum", "equation"): lambda: "ij->ji",
    ("grad", "outputs"): lambda: GRADED[0], ("grad", "inputs"): lambda: GRADED[1], ("backward", "inputs"): lambda: None, ("Tensor.backward", "gradient"): lambda: None, ("saliency_map", "gradient"): image,
    ("saliency", "target"): lambda: 1, ("retain_graph", "grad"): lambda: True, ("neuron", "layer"): lambda: "0", ("channel", "layer"): lambda: "0", ("class_logit", "k"): lambda: 1,
    ("filters", "layer"): lambda: nn.Conv2d(3, 2, 3), ("overlay", "images"): lambda: image()[:, :1], ("grid", "images"): lambda: image()[:, :1], ("untouched", "model"): model, ("maximize", "start"): lambda: "zeros",
    ("maximize", "shape"): lambda: (4, 6, 6), ("maximize", "steps"): lambda: 1, ("maximize", "lr"): lambda: 1.0, ("maximize", "progress"): lambda: False, ("graph", "params"): lambda: {"w": leaf()},
    ("draw.model", "args"): image, ("model", "x"): image, ("saliency", "x"): image, ("saliency", "images"): image, ("activations", "x"): image, ("PixelShuffle", "upscale_factor"): lambda: 2,
    ("pixel_shuffle", "input"): image, ("l2", "weight"): lambda: 0.5, ("total_variation", "weight"): lambda: 0.5, ("bitwise_and", "x"): lambda: plain() > 0, ("bitwise_and", "y"): lambda: plain() > 1,
    ("bitwise_or", "x"): lambda: plain() > 0, ("bitwise_or", "y"): lambda: plain() > 1, ("bitwise_xor", "x"): lambda: plain() > 0, ("bitwise_xor", "y"): lambda: plain() > 1,
    ("bitwise_not", "x"): lambda: plain() > 0, ("clamp", "min"): lambda: -1.0, ("clip", "min"): lambda: -1.0, ("clamp_", "min"): lambda: -1.0, ("overlay", "maps"): lambda: image()[:, 0],
    ("randint", "low"): lambda: 0, ("randint", "high"): lambda: 5, ("batch_norm", "training"): lambda: True, ("interpolate", "scale_factor"): lambda: 2.0, ("Upsample", "scale_factor"): lambda: 2.0,
    ("OneCycleLR", "total_steps"): lambda: 10, ("ModuleDict", "modules"): lambda: {"a": nn.ReLU()}, ("ReduceLROnPlateau", "factor"): lambda: 0.5, ("MNIST", "root"): lambda: "/nowhere",
    ("AdaptiveMaxPool2d", "output_size"): lambda: 2, ("clip_grad_norm_", "norm_type"): lambda: 2.0, ("normal_", "mean"): lambda: 0.0, ("uniform_", "low"): lambda: 0.0, ("uniform_", "high"): lambda: 1.0,
    ("DataLoader", "batch_size"): lambda: 1, ("randperm", "n"): lambda: 3, ("full_like", "x"): plain, ("view", "shape"): lambda: (3, 2), ("to", "args"): lambda: tg.float64,
    ("sort", "dim"): lambda: 1, ("copy_", "source"): plain, ("conv_transpose2d", "bias"): lambda: tg.zeros(4), ("trunc_normal_", "a"): lambda: -2.0, ("trunc_normal_", "b"): lambda: 2.0,
    ("addcmul", "value"): lambda: 1.0, ("kaiming_uniform_", "a"): lambda: 0.0, ("fill_", "value"): lambda: 1.0, ("type_as", "other"): plain, ("type", "dtype"): lambda: tg.float64,
    ("new_zeros", "shape"): lambda: (2,), ("random_shift", "images"): image, ("numpy", "force"): lambda: False, ("order_of", "strides"): lambda: (4, 2), ("embed", "x"): plain,
}
GRADED: tuple[Any, Any] = (None, None)
RECEIVERS: dict[str, Callable[[], Any]] = {
    "backward": lambda: (leaf() * 2).sum(), "retain_grad": leaf, "item": lambda: tg.ones(1), "bmm": lambda: plain().unsqueeze(0), "dot": lambda: tg.ones(3), "outer": lambda: tg.ones(3),
    "bitwise_and": lambda: plain() > 0,
}

WRONG: dict[str, Callable[[], Any]] = {
    "None": lambda: None, "a string": lambda: "x", "bytes": lambda: b"x", "complex": lambda: 1 + 2j, "nan": lambda: float("nan"), "inf": lambda: float("inf"), "-1": lambda: -1, "0": lambda: 0,
    "-7": lambda: -7, "99": lambda: 99, "1.5": lambda: 1.5, "-2.5": lambda: -2.5, "True": lambda: True, "2**31": lambda: 2**31, "2**63": lambda: 2**63, "10**30": lambda: 10**30, "[]": lambda: [],
    "()": lambda: (), "{}": dict, "a set": lambda: {1, 2}, "(1, 2, 3)": lambda: (1, 2, 3), "(0, 0)": lambda: (0, 0), "(1.5, 2)": lambda: (1.5, 2), "('a', 'b')": lambda: ("a", "b"), "(-1, -1)": lambda: (-1, -1),
    "(2**40, 2**40)": lambda: (2**40, 2**40), "[[1, 2], [3]]": lambda: [[1, 2], [3]], "an object": object, "a type": lambda: int, "a function": lambda: len, "a generator": lambda: iter([1, 2]),
    "a 0-d tensor": lambda: tg.tensor(1.0), "an empty tensor": lambda: tg.zeros(0), "a long vector": lambda: tg.ones(7), "(5, 4, 3, 2, 1)": lambda: tg.ones(5, 4, 3, 2, 1), "integers": lambda: tg.tensor([[5, -9]]),
    "bools": lambda: tg.tensor([True, False]), "float64": lambda: plain().double(), "nans": lambda: plain() * float("nan"), "complex array": lambda: np.ones((2, 3), complex), "object array": lambda: np.array(["a", None]),
    "string array": lambda: np.array(["a", "b"]), "float16 array": lambda: np.ones((2, 3), np.float16), "big-endian array": lambda: np.ones((2, 3), ">f4"), "a dtype": lambda: np.dtype("complex64"),
    "a module": nn.ReLU, "a list of Tensors": lambda: [plain(), labels()], "-inf": lambda: float("-inf"), "a numpy int": lambda: np.int64(-3), "a numpy float": lambda: np.float32(2.5), "a slice": lambda: slice(1, 2),
    "...": lambda: Ellipsis,
}


class Call:
    """A public callable and one of its parameters."""

    def __init__(self, space: str, name: str, function: Any, parameter: str):
        self.space, self.name, self.function, self.parameter = space, name, function, parameter
        self.parameters = parameters(function, space == "Tensor")

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Right ones, by position and by name."""
        global GRADED
        source = leaf()
        GRADED = (source * 2).sum(), source
        positional, named = [], {}
        for p in self.parameters:
            value = self.example(p)
            if value is p.empty:
                continue
            if p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL):
                positional.append(value)
            elif p.kind is not p.VAR_KEYWORD:
                named[p.name] = value
        return positional, named

    def example(self, p: inspect.Parameter) -> Any:
        names = [(f"{self.space}.{self.name}", p.name), (self.name, p.name), p.name]
        if p.default is not p.empty and p.name != self.parameter:
            names = names[:2]                  # what has a default keeps it
        if p.name in ("x", "input", "tensor") and self.name in IMAGES and (self.name, p.name) not in EXAMPLES:
            return image()
        for name in names:
            if name in EXAMPLES:
                return EXAMPLES[name]()
        return p.empty if p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) else plain()

    def run(self, wrong: Callable[[], Any] | None) -> Any:
        """Call it, with the wrong value in the parameter's place, or with right ones alone."""
        positional, named = self.arguments()
        if wrong is not None:
            p = next(p for p in self.parameters if p.name == self.parameter)
            if p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL):
                order = [q.name for q in self.parameters if q.kind in (q.POSITIONAL_ONLY, q.VAR_POSITIONAL)]
                positional[order.index(p.name) :] = [wrong()]
            else:
                named[p.name] = wrong()
        if self.space == "Tensor":
            receiver = RECEIVERS.get(self.name, plain)()
            positional.insert(0, receiver)
        first = [p.name for p in self.parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        star = any(p.kind is p.VAR_POSITIONAL for p in self.parameters)
        if star:                               # what stands before *args must be given by position, too
            before = [named.pop(n) for n in first if n in named]
            at = 1 if self.space == "Tensor" else 0
            positional[at:at] = before
        return self.function(*positional, **named)


def parameters(function: Any, method: bool) -> list[inspect.Parameter]:
    """Those that a caller gives: of a method without the first."""
    return list(inspect.signature(function).parameters.values())[method:]


def public() -> Iterator[tuple[str, str, Any]]:
    """(where, name, callable) of all that a user may call."""
    seen: set[int] = set()
    for space, owner in SPACES.items():
        listed = ("stats", "empty_cache") if owner is tg.memory else getattr(owner, "__all__", None)
        for name, value in vars(owner).items():
            if listed is not None and name not in listed:
                continue
            if name.startswith("_") or name in SKIPPED or not callable(value) or not getattr(value, "__module__", "").startswith("tinygrad_cnn"):
                continue
            if id(value) in seen and space != "Tensor":
                continue
            if isinstance(value, type) and issubclass(value, (Exception, tuple)):
                continue
            seen.add(id(value))
            yield space, name, value


def calls() -> list[tuple[Call, str]]:
    """Every call: a callable, a parameter, and the name of the wrong value."""
    found = []
    for space, name, value in public():
        for p in parameters(value, space == "Tensor"):
            if p.kind is not p.VAR_KEYWORD:
                found += [(Call(space, name, value, p.name), wrong) for wrong in WRONG]
    return found


def is_named(call: Call, error: BaseException) -> bool:
    """Whether an error says which function, or which argument, it speaks of."""
    words = {call.name, *(p.name for p in call.parameters)}
    return any(re.search(rf"\b{re.escape(word)}\b", str(error)) for word in words)


def _too_long(signum: int, frame: Any) -> None:
    raise TimeoutError(f"took more than {SECONDS} s")


def main(first: int, count: int, every: int = 1) -> None:
    """Run some of the calls, in the current folder, to which some may write."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _too_long)
    warnings.simplefilter("ignore")
    for number, (call, wrong) in list(enumerate(calls()))[first : first + count : every]:
        print(f"{number}\t{call.space}.{call.name}\t{call.parameter}\t{wrong}", end="\t", flush=True)
        signal.alarm(SECONDS)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), np.errstate(all="ignore"):
                result = call.run(WRONG[wrong])
                if isinstance(result, tg.Tensor):
                    result.tolist()
            outcome = "returned"
        except BaseException as error:         # whatever it is, it is an answer
            outcome = f"{'named' if is_named(call, error) else 'NAMELESS'}\t{type(error).__name__}\t{str(error)[:150]!r}"
        signal.alarm(0)
        tg.set_num_threads(2)
        print(outcome, flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
