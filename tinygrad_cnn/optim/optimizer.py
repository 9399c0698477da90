"""What every optimizer shares: parameter groups, the loop over gradients, and a state that can be saved."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from copy import copy, deepcopy
from numbers import Real
from typing import Any

import numpy as np

from .. import memory
from ..grad_mode import enable_grad
from ..ops.arguments import guard_constructor
from ..tensor import Tensor


class Optimizer:
    """The base of all optimizers. To write one, say in `update` how one parameter changes.

    Unlike in PyTorch the options of every group are checked, not only the defaults; a parameter given twice is refused.

    Args:
        params: an iterable of Tensors, or of (name, Tensor) pairs, or of dicts `{"params": ..., "lr": ...}`, each a
            group with its own options. All are leaves of the graph. `load_state_dict` goes by the names, if there are any.
        defaults: options of the groups that do not set their own.

    Attributes:
        param_groups: a list of dicts: `"params"` and the options. Options may be changed between steps.
        state: per parameter a dict of Tensors, such as its momentum buffer.

    Raises:
        TypeError: something that is not a Tensor.
        ValueError: no parameters, a parameter given twice, one that was computed, an option out of its range.

    Example:
        >>> import numpy as np
        >>> import tinygrad_cnn as tg
        >>> class SignDescent(tg.optim.Optimizer):
        ...     def __init__(self, params, lr=0.5):
        ...         super().__init__(params, {"lr": lr})
        ...     def update(self, w, g, state, group):
        ...         w -= group["lr"] * np.sign(g)
        >>> w = tg.tensor([3.0, -1.0], requires_grad=True)
        >>> optimizer = SignDescent([w])
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> w
        tensor([ 2.5, -0.5], dtype=float32, requires_grad=True)
    """

    state_names: tuple[str, ...] = ()
    """What the state of every parameter holds once it was updated."""
    optional_state_names: tuple[tuple[str, str], ...] = ()
    """What it holds only under an option: pairs of a name and the option."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        guard_constructor(cls)

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]):
        name = type(self).__name__
        if isinstance(params, (Tensor, dict, str)) or not isinstance(params, Iterable):
            raise TypeError(f"{name}: params must be an iterable of Tensors or dicts, got {type(params).__name__}; "
                            "wrap a single one in a list")
        _check_order(name, params)
        groups = list(params)
        if not groups:
            raise ValueError(f"{name}: params is empty; there is nothing to optimize")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        self.defaults = {key: _plain(value) for key, value in defaults.items()}
        self.state: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        self.stepped = False
        self.loads = 0                         # how often a state was loaded: then the rates are no schedule's to set
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, such as layers that are unfrozen during training.

        Args:
            param_group: `"params"` (a Tensor or an iterable of them) and options; defaults fill in the rest.

        Raises:
            TypeError, ValueError: as the constructor. The optimizer is then as before.
        """
        name = type(self).__name__
        if not isinstance(param_group, dict) or "params" not in param_group:
            raise TypeError(f"{name}: a group must be a dict with a 'params' entry, got {param_group!r:.80}")
        given = param_group["params"]
        _check_order(name, given)
        entries = [given] if isinstance(given, Tensor) else list(given)
        named = [e for e in entries if isinstance(e, tuple)]
        if named and len(named) < len(entries):
            raise ValueError(f"{name}: {len(named)} of {len(entries)} params have names; wanted all or none")
        params = [e[1] if isinstance(e, tuple) else e for e in entries]
        known = {id(p) for group in self.param_groups for p in group["params"]}
        for i, p in enumerate(params):
            if not isinstance(p, Tensor):
                raise TypeError(f"{name}: params[{i}] must be a Tensor, got {type(p).__name__}")
            if not p.is_leaf:
                raise ValueError(f"{name}: params[{i}] of shape {p.shape} was computed by {p.grad_fn!r}; only leaves "
                                 "can be optimized. Use detach().requires_grad_()")
            if id(p) in known:
                raise ValueError(f"{name}: params[{i}] of shape {p.shape} is given twice")
            known.add(id(p))
        group = {**self.defaults, **{key: _plain(value) for key, value in param_group.items()}, "params": params}
        if named:
            group["param_names"] = [e[0] for e in entries]
        if any(("param_names" in group) != ("param_names" in other) for other in self.param_groups if params and other["params"]):
            raise ValueError(f"{name}: the params of some groups have names; wanted all or none")
        self.check(group)
        self.param_groups.append(group)

    def check(self, group: dict[str, Any]) -> None:
        """Raise TypeError or ValueError for options that make no sense; each optimizer says which."""
        check_range(type(self).__name__, group, "lr")

    def update(self, w: np.ndarray, g: np.ndarray, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        """Change one parameter in place.

        Args:
            w: the parameter's values, to be written into. They lie in memory without gaps, in any order of dims.
            g: its gradient, of w's shape, dtype and layout, negated under `maximize`; not to be written into.
            state: what this method remembers of the parameter.
            group: the options.
        """
        raise NotImplementedError(f"{type(self).__name__}: update is not defined")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: recomputes the loss and its gradients first.

        Returns:
            What the closure returned, or None.

        Raises:
            RuntimeError: a parameter lies in read-only memory; its dtype or shape is no longer its gradient's or its
                state's. Nothing is changed then.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        work = [(p, p.grad, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        like_it = {*self.state_names, *dict(self.optional_state_names)} - {*SCALAR_STATE}
        for p, grad, _ in work:
            self._check_parameter(p, grad, like_it)
        with np.errstate(all="ignore"):        # Inf and NaN are values, found by looking at the loss
            for p, grad, group in work:
                w = p._data if memory.is_dense(p._data) else p._data.copy(order="K")
                g = -grad._data if group.get("maximize") else grad._data
                self.update(w, g if _lies_like(g, w) else _laid_like(g, w), self.state[p], group)
                if w is not p._data:
                    p._data[...] = w
                p._storage.version += 1        # a graph that saved the old values will say so
        self.stepped = True
        return loss

    def _check_parameter(self, p: Tensor, grad: Tensor, like_it: set[str]) -> None:
        p._check_writable(f"{type(self).__name__}.step")
        shape, dtype = p._data.shape, p._data.dtype
        for name, t in (("gradient", grad), *self.state.get(p, {}).items()):
            if (t._data.shape != shape or t._data.dtype != dtype) and (name in like_it or t is grad):
                raise RuntimeError(f"{type(self).__name__}.step: a parameter of shape {p.shape} and dtype {p.dtype} "
                                   f"has a {name} of shape {t.shape} and dtype {t.dtype}; convert the model first, "
                                   "then make the optimizer")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or overwrite them with zeros where `set_to_none` is False."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none or p.grad is None:
                    p.grad = None
                else:
                    p.grad = p.grad.detach().zero_()

    # ---- saving and loading -----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The state and the options, with numbers instead of parameters, in PyTorch's layout.

        Returns:
            `{"state": {0: {"exp_avg": Tensor, ...}, ...}, "param_groups": [{"lr": ..., "params": [0, ...]}, ...]}`.
            The Tensors are the optimizer's own: the next step changes them. `copy.deepcopy` takes a snapshot.
        """
        number: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for p in group["params"]:
                number[id(p)] = len(number)
            options = {key: copy(value) for key, value in group.items() if key != "params"}
            groups.append({**options, "params": [number[id(p)] for p in group["params"]]})
        return {"state": {number[id(p)]: dict(s) for p, s in self.state.items() if s}, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` (or PyTorch's optimizer of the same name) returned; copies it.

        Where the parameters have names here and in the state, names decide which state is whose, in whatever order the
        groups and parameters come; PyTorch goes by order always. Without names the order must be the same.

        Args:
            state_dict: `{"state": ..., "param_groups": ...}`. An option that is off by default may be missing.

        Raises:
            ValueError: it does not fit: all the reasons at once. The optimizer is then as before.
        """
        name = type(self).__name__
        if not isinstance(state_dict, dict) or not {"state", "param_groups"} <= state_dict.keys():
            raise ValueError(f"{name}.load_state_dict: wanted a dict with 'state' and 'param_groups', got "
                             f"{state_dict!r:.80}")
        for i, group in enumerate(state_dict["param_groups"]):
            if "params" not in group or len(group.get("param_names", group["params"])) != len(group["params"]):
                raise ValueError(f"{name}.load_state_dict: group {i} of the state has no 'params', or not a name for each")
        saved = self._in_own_order(state_dict["param_groups"])
        groups, problems = [], []
        for i, (theirs, ours) in enumerate(zip(saved, self.param_groups, strict=True)):
            missing = [key for key, value in self.defaults.items() if key not in theirs and value is not False]
            if missing:
                problems.append(f"group {i} lacks {', '.join(missing)}")
                continue
            options = {key: _plain(deepcopy(value)) for key, value in theirs.items()}
            group = {**ours, **self.defaults, **options, "params": ours["params"]}
            try:
                self.check(group)
            except (TypeError, ValueError) as error:
                problems.append(f"group {i}: {error}")
            groups.append(group)
        owner = {number: (p, theirs) for theirs, ours in zip(saved, self.param_groups, strict=True)
                 for number, p in zip(theirs["params"], ours["params"], strict=True)}
        if len(owner) < sum(len(group["params"]) for group in saved):
            problems.append("the groups name a parameter twice")
        state: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)
        for number, values in state_dict["state"].items():
            values = {key: value for key, value in values.items() if value is not None}
            if number not in owner:
                problems.append(f"state {number!r} belongs to no parameter")
            elif values:
                p, group = owner[number]
                wanted = [*self.state_names, *(key for key, option in self.optional_state_names if group.get(option))]
                problems += [f"state {number} lacks {key}" for key in wanted if key not in values]
                state[p] = self._load_state(p, number, values, problems)
        if problems:
            raise ValueError(f"{name}.load_state_dict: " + "; ".join(problems))
        self.param_groups, self.state = groups, state
        self.loads += 1

    def _in_own_order(self, saved: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Saved groups, and the numbers and names in each, in the order of this optimizer's: by name, if both have names."""
        function = f"{type(self).__name__}.load_state_dict"
        own: list[Any]
        theirs: list[Any]
        own, theirs = ([group.get("param_names", None if group["params"] else []) for group in groups]
                       for groups in (self.param_groups, saved))
        if own == theirs or None in own or None in theirs:
            sizes, wanted = ([len(group["params"]) for group in groups] for groups in (saved, self.param_groups))
            if sizes != wanted:
                raise ValueError(f"{function}: the groups hold {sizes} parameters, this optimizer's {wanted}")
            return saved
        remedy = "to match by order instead, delete 'param_names' from the state's groups"
        all_own, all_theirs = (list(itertools.chain(*lists)) for lists in (own, theirs))
        if any(len(set(names)) < len(names) for names in (all_own, all_theirs)):
            raise ValueError(f"{function}: some parameters share a name, so names cannot tell which state is whose; {remedy}")
        missing, unexpected = sorted({*all_own} - {*all_theirs}), sorted({*all_theirs} - {*all_own})
        if missing or unexpected:
            raise ValueError(f"{function}: the state is of other parameters: it lacks {missing}, it has {unexpected} instead; {remedy}")
        by_names = {frozenset(names): group for names, group in zip(theirs, saved, strict=True)}
        if by_names.keys() != {frozenset(names) for names in own}:
            raise ValueError(f"{function}: the groups hold the parameters {theirs}, this optimizer's {own}")
        groups = []
        for names in own:
            group = by_names[frozenset(names)]
            number = dict(zip(group.get("param_names", []), group["params"], strict=True))
            groups.append({**group, "params": [number[name] for name in names], "param_names": names})
        return groups

    def _load_state(self, p: Tensor, number: int, values: dict[str, Any], problems: list[str]) -> dict[str, Tensor]:
        """Copies of one parameter's saved values in its own layout; what is wrong with them is added to `problems`."""
        loaded = {}
        for key, value in values.items():
            array = value._data if isinstance(value, Tensor) else np.asarray(value)
            scalar = key in SCALAR_STATE
            if key not in (*self.state_names, *dict(self.optional_state_names)):
                problems.append(f"state {number} has an unexpected {key}")
            elif array.dtype.kind not in "fiu" or array.shape != (() if scalar else p.shape):
                problems.append(f"state {number}: {key} has shape {array.shape} and dtype {array.dtype}, "
                                f"the parameter {p.shape} and {p.dtype}")
            else:
                own = np.zeros(()) if scalar else np.empty_like(p._data)
                own[...] = array
                loaded[key] = Tensor._wrap(own)
        return loaded

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])


def _check_order(function: str, params: Any) -> None:
    if isinstance(params, (set, frozenset)):
        raise TypeError(f"{function}: params is a set, whose order changes from run to run; pass a list")


SCALAR_STATE = ("step", "mu_product")
"""State that is one float64 number per parameter; all other state has the parameter's shape, dtype and layout."""


def _lies_like(x: np.ndarray, w: np.ndarray) -> bool:
    """Whether an array of w's shape has w's layout; strides of dims of size 1 mean nothing."""
    return x.strides == w.strides or all(n == 1 or s == t for n, s, t in zip(w.shape, x.strides, w.strides, strict=True))


def _laid_like(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """A copy of x with w's shape and layout."""
    out = np.empty_like(w)
    out[...] = x
    return out


def buffer(state: dict[str, Tensor], name: str, w: np.ndarray) -> np.ndarray:
    """The array a parameter remembers under a name, zeros at first; it lies in memory as w does, so both stream."""
    if name not in state:
        state[name] = Tensor._wrap(np.zeros_like(w))
    elif not _lies_like(state[name]._data, w):     # the parameter was given other memory since
        state[name] = Tensor._wrap(_laid_like(state[name]._data, w))
    return state[name]._data


def count_step(state: dict[str, Tensor]) -> int:
    """The number of this step of a parameter: 1, 2, ..."""
    if "step" not in state:
        state["step"] = Tensor._wrap(np.zeros(()))
    step = state["step"]._data
    step += 1
    return int(step)


def check_range(function: str, group: dict[str, Any], *names: str, below: float = math.inf) -> None:
    """Raise unless the named options are numbers of 0 or more and less than `below`."""
    for name in names:
        value = group[name]
        if not isinstance(value, Real):
            raise TypeError(f"{function}: {name} must be a number, got {value!r}")
        if not 0 <= float(value) < below:      # also refuses NaN
            wanted = "a finite number of 0 or more" if below == math.inf else f"in 0 .. {below}, without {below}"
            raise ValueError(f"{function}: {name} must be {wanted}, got {value!r}")


def check_betas(function: str, group: dict[str, Any]) -> None:
    """Raise unless `betas` are two numbers in [0, 1)."""
    betas = group["betas"]
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise TypeError(f"{function}: betas must be a pair of numbers, got {betas!r}")
    for i, beta in enumerate(betas):
        check_range(function, {f"betas[{i}]": beta}, f"betas[{i}]", below=1)


def _plain(value: Any) -> Any:
    """NumPy's scalars as Python's: those adapt to an array's dtype, NumPy's would widen float32 to float64."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (tuple, list)):
        return type(value)(_plain(v) for v in value)
    return value
