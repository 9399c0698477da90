"""No kernel reads or writes outside its arrays: each runs with every array directly before, and directly behind, unreadable memory.

`pytest --long tests/kernels/test_guard.py` searches for an hour instead of a minute, at every instruction set, and plants faults.
"""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from tests import child
from tinygrad_cnn.kernels import simd

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs mmap and mprotect")

LEVELS = ("avx512", "avx2", "sse", "generic", "neon")
LOWER = {"avx512": "avx2", "avx2": "sse"}.get(simd.LEVEL, "generic")
LONG = 10_000  # cases


def _search(level, count, variants="serial,parallel", dtypes="float32,float64", threads="2"):
    """Runs random cases; returns how often entries were called, which kernels there are, and which ones ran."""
    printed = child.run("tests.kernels.ragged", "0", str(count), variants, dtypes, "all", seconds=3600, TINYGRAD_CNN_SIMD=level,
                        NUMBA_NUM_THREADS=threads)
    print(printed.strip().rpartition("\n")[2])
    return json.loads(printed.strip().rpartition("\n")[2])


def test_every_kernel_stays_inside_its_arrays():
    """A kernel that no case runs, in one of its variants, fails it, too."""
    found = _search(simd.LEVEL, 2000)
    assert {f"{name} {variant}" for name in found["kernels"] for variant in ("serial", "parallel")} == set(found["met"])


def test_at_a_lower_instruction_set_too():
    _search(LOWER, 500, "serial", "float32")


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("level", LEVELS)
def test_at_every_instruction_set(level, threads, long):
    if not long:
        pytest.skip("needs --long")
    if simd.LEVEL in LEVELS[:3] and level in LEVELS[: LEVELS.index(simd.LEVEL)]:
        pytest.skip(f"this machine has no {level}")
    _search(level, LONG, threads=threads)


READ = """
import sys
import numpy as np
from numba import njit
from tests.kernels import guard

@njit
def read(x, i):
    return x[i]

@njit
def read_own(n, i):
    return read(np.empty(n), i)

guard.install()
side, index, own = map(int, sys.argv[1:])
with guard.guarded(side):
    x = np.arange(5.0)
    i = np.uint64(index % 2**64)               # numba counts no unsigned index from the end
    value = read_own(5, i) if own else read(x, i)
assert np.isnan(value) if own else value == x[index]
"""


@pytest.mark.parametrize("own", [0, 1], ids=["array of NumPy", "array of a kernel"])
@pytest.mark.parametrize(("side", "index", "dies"), [(0, 4, False), (0, 5, True), (1, 0, False), (1, -1, True)])
def test_one_element_too_far_is_fatal(side, index, dies, own):
    result = subprocess.run([sys.executable, "-c", READ, str(side), str(index), str(own)], cwd=child.ROOT, capture_output=True, text=True,
                            env={**os.environ, "PYTHONPATH": str(child.ROOT)}, check=False)
    assert result.returncode == (-signal.SIGSEGV if dies else 0), result.stderr


# A source, a text in it, what that becomes, the family of cases that finds it: masks, edges and scratch memory that are wrong.
FAULTS = [
    ("patches", "L, end = lanes(x), min(end, size)", "L = lanes(x)", "convolutions"),
    ("patches", "row and inside <= j < outside and room >= 0", "row and inside <= j < outside", "convolutions"),
    ("conv", "* line * pitch + L if rows > 0", "* line * pitch if rows > 0", "convolutions"),
    ("conv", "+ 2 * ROWS, pixels", "- ROWS, pixels", "convolutions"),
    ("depthwise", "    if K >= L:\n        return a.reshape(-1)", "    if K >= 1:\n        return a.reshape(-1)", "convolutions"),
    ("columns", "np.empty(R * S * C * most + width, g.dtype)", "np.empty(R * S * C * most, g.dtype)", "convolutions"),
    ("columns", "np.zeros(C * sw * rows * row + width, g.dtype)", "np.zeros(C * sw * rows * row, g.dtype)", "convolutions"),
    ("winograd", "if count % L == 0 and top >= 0 and", "if top >= 0 and", "convolutions"),
    ("weight_grad", "* K + size > g.shape[0]:", "* K + size > g.shape[0] + L:", "convolutions"),
    ("rows", "whole = K // L * L if c + L <= C else 0", "whole = K // L * L", "convolutions"),
    ("rows", "whole = valid // L * L\n", "whole = (valid + L - 1) // L * L\n", "convolutions"),
    ("simd", "with overwriting, builder.if_else(whole_vectors) as", "with overwriting, builder.if_else(whole_rows) as", "convolutions"),
    ("grouped", "lines * width * lanes_of(x.dtype))", "(lines * width - 1) * lanes_of(x.dtype))", "convolutions"),
    ("pool", "if row[1] > 0 and column[1] > 0:", "if True:", "pools"),
    ("resize", "x[n, hi_h[i]], frac_h[i]", "x[n, hi_h[i] + 1], frac_h[i]", "resizings"),
    ("unfold", "if 0 <= h < H and 0 <= w < W:\n                        for c in range(C):\n                            out",
     "if 0 <= h < H and w < W:\n                        for c in range(C):\n                            out", "windows_as_columns"),
]


@pytest.mark.parametrize(("module", "text", "wrong", "family"), FAULTS, ids=[f"{i}-{f[0]}" for i, f in enumerate(FAULTS)])
def test_planted_faults_are_found(module, text, wrong, family, long, tmp_path):
    if not long:
        pytest.skip("needs --long")
    for folder in ("tinygrad_cnn", "tests"):
        shutil.copytree(child.ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    source = tmp_path / "tinygrad_cnn" / "kernels" / f"{module}.py"
    code = source.read_text()
    assert code.count(text) == 1
    source.write_text(code.replace(text, wrong))
    result = subprocess.run([sys.executable, "-m", "tests.kernels.ragged", "0", "2000", "serial", "float32", family], cwd=tmp_path,
                            env={**os.environ, "PYTHONPATH": str(tmp_path), "TINYGRAD_CNN_CACHE_DIR": str(tmp_path / "cache")},
                            capture_output=True, text=True, check=False)
    assert result.returncode == -signal.SIGSEGV, result.stderr[-2000:]
