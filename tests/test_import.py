"""What `import tinygrad_cnn` does (little) and offers (everything, under its own name)."""

import json
import subprocess
import sys

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn.ops import elementwise, linalg, movement, reduce

HEAVY = ("numba", "matplotlib", "PIL", "graphviz", "tqdm", "safetensors", "scipy", "torch")


def fresh(code):
    """What a new interpreter prints, as JSON."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return json.loads(done.stdout)


def test_importing_is_light_and_silent():
    loaded = fresh("import json, sys, tinygrad_cnn; print(json.dumps(sorted(sys.modules)))")
    assert "tinygrad_cnn.tensor" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_importing_changes_nothing():
    code = """if True:
        import json, random, warnings, os, threading, numpy as np
        def state(): return [np.geterr(), repr(np.random.get_state()[1][:3]), repr(random.getstate()[1][:3]), len(warnings.filters), dict(os.environ), threading.active_count()]
        before = state()
        import tinygrad_cnn
        print(json.dumps(before == state()))"""
    assert fresh(code) is True


def test_arithmetic_needs_no_numba():
    assert fresh("import sys, tinygrad_cnn as tg; x = tg.ones(2, requires_grad=True); (x.exp() * x @ x).sum().backward(); print('\"numba\"' if 'numba' in sys.modules else '\"\"')") == ""


PUBLIC = {n: f for n, f in vars(tg).items() if not n.startswith("_") and callable(f) and getattr(f, "__module__", "").startswith("tinygrad_cnn")}


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_names_are_documented(name):
    assert PUBLIC[name].__doc__, name
    assert getattr(PUBLIC[name], "__name__", name) == name


def test_every_public_operation_of_ops_is_exported():
    for module in (elementwise, linalg, movement, reduce):
        for name, f in vars(module).items():
            if callable(f) and not name.startswith("_") and getattr(f, "__module__", "") == module.__name__ and not isinstance(f, type):
                assert hasattr(tg, name) or hasattr(tg.Tensor, name) or name in {"equal_to", "pad_constant", "check_index", "getitem", "linear", "logsigmoid", "relu6", "softplus"}, name


METHODS = ["abs", "acos", "add", "all", "amax", "amin", "any", "argmax", "argmin", "asin", "atan", "atan2", "bmm", "broadcast_to", "ceil", "chunk", "clamp", "clip", "clone", "cos", "cosh", "cumsum", "div", "dot", "eq", "erf", "exp", "expand", "expm1", "flatten", "flip", "floor", "floor_divide", "gather", "ge", "gt", "index_select", "isfinite", "isinf", "isnan", "le", "log", "log10", "log1p", "log2", "log_softmax", "logical_and", "logical_not", "logical_or", "logical_xor", "logsumexp", "lt", "masked_fill", "masked_select", "matmul", "max", "maximum", "mean", "min", "minimum", "mm", "movedim", "mul", "ne", "neg", "norm", "outer", "permute", "pow", "prod", "reciprocal", "relu", "remainder", "reshape", "roll", "round", "rsqrt", "scatter_add", "sigmoid", "sign", "sin", "sinh", "softmax", "split", "sqrt", "square", "squeeze", "std", "sub", "sum", "tan", "tanh", "tile", "transpose", "tril", "triu", "trunc", "unbind", "unflatten", "unsqueeze", "var", "where"]


@pytest.mark.parametrize("name", METHODS)
def test_operations_are_functions_and_methods(name):
    assert callable(getattr(tg, name)) and callable(getattr(tg.Tensor, name))


SMOKE = {
    "sum": (), "exp": (), "clamp": (0.2, 0.8), "reshape": (3, 2), "permute": (1, 0), "transpose": (0, 1), "flatten": (), "unsqueeze": (0,), "squeeze": (), "expand": (2, 3), "flip": (0,),
    "roll": (1, 0), "split": (2, 1), "chunk": (2,), "unbind": (), "tile": (2, 1), "max": (1,), "min": (), "var": (1,), "std": (), "norm": (), "prod": (0,), "cumsum": (1,), "logsumexp": (1,),
    "softmax": (1,), "log_softmax": (0,), "tril": (), "triu": (1,), "movedim": (0, 1), "unflatten": (1, (3, 1)), "mean": (0,), "pow": (2,), "where": None, "remainder": (0.3,),
}


@pytest.mark.parametrize("name", SMOKE)
def test_a_function_does_what_its_method_does(name):
    x = tg.rand(2, 3) + 0.1
    if SMOKE[name] is None:
        assert tg.where(x > 0.5, x, 0.0).tolist() == x.where(x > 0.5, 0.0).tolist()
        return
    args = SMOKE[name]
    if name == "clamp":
        assert tg.clamp(x, min=0.2, max=0.8).tolist() == x.clamp(0.2, 0.8).tolist() == tg.clip(x, 0.2, 0.8).tolist()
        return
    for a, b in zip(*(out if isinstance(out, tuple) else (out,) for out in (getattr(tg, name)(x, *args), getattr(x, name)(*args))), strict=True):
        assert isinstance(a, tg.Tensor)
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_dtypes_are_numpys():
    assert tg.float32 == np.float32 and tg.float is tg.float32 and tg.double is tg.float64 and tg.long is tg.int64 and tg.bool == np.bool_ and isinstance(tg.int8, tg.dtype)
