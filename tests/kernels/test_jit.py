"""How kernels are compiled, cached and run: threads, forced instruction sets, and damaged caches, in new processes."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinygrad_cnn.kernels

ROOT = Path(tinygrad_cnn.kernels.__file__).parents[2]

ERF = """
import numpy as np
from tinygrad_cnn.kernels import elementwise
out = np.empty(2)
elementwise.erf(np.array([0.0, 1.0]), out)
assert abs(out[1] - 0.8427007929497149) < 1e-15 and out[0] == 0, out
"""

# A convolution with ragged channels and its gradients.
CONVOLUTION = """
import numpy as np
from tinygrad_cnn.kernels import conv, jit, options, simd
def results(dtype, algorithm='direct'):
    options.conv_algorithm = algorithm
    random = np.random.default_rng(0)
    x, w = random.standard_normal((3, 17, 19, 21)), random.standard_normal((3, 3, 21, 37))
    x, w = x.astype(dtype), w.astype(dtype)
    y, gx, gw = np.full((3, 17, 19, 37), np.nan, dtype), np.full_like(x, np.nan), np.full_like(w, np.nan)
    how = (1, 1), (1, 1), (1, 1), 1
    conv.conv2d(x, w, w[0, 0, 0], *how, y)
    conv.conv2d_input_grad(y, w, *how, gx)
    conv.conv2d_weight_grad(y, x, *how, gw)
    return y, gx, gw
"""


def run(code: str, root: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the code in a new Python; the caller reads its output."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    return subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, timeout=300,
                          cwd=root, env={**clean, "PYTHONPATH": str(root), **environment}, check=False)


def succeeds(code: str, root: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    result = run(code, root, **environment)
    assert result.returncode == 0, result.stderr
    return result


def test_importing_kernels_imports_no_numba():
    succeeds("import sys; from tinygrad_cnn import kernels; assert 'numba' not in sys.modules; assert kernels.__all__")
    assert "has no attribute 'gemm'" in run("from tinygrad_cnn import kernels; kernels.gemm").stderr


@pytest.mark.parametrize("level", ["avx512", "avx2", "sse", "generic"])
def test_every_instruction_set_gives_the_same_convolution(level):
    code = CONVOLUTION + """
for dtype, algorithm, eps in (np.float32, 'direct', 1e-5), (np.float32, 'winograd', 1e-5), (np.float64, 'auto', 1e-13):
    y, gx, gw = results(dtype, algorithm)
    random = np.random.default_rng(0)
    x, w = random.standard_normal((3, 17, 19, 21)).astype(dtype), random.standard_normal((3, 3, 21, 37)).astype(dtype)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))  # (N, OH, OW, C, R, S)
    expected = np.einsum('nijcrs,rsck->nijk', windows, w.astype(np.float64)) + w[0, 0, 0]
    assert abs(y - expected).max() < eps * abs(expected).max()
    expected = np.einsum('nijcrs,nijk->rsck', windows, y.astype(np.float64))
    assert abs(gw - expected).max() < eps * abs(expected).max()
    product, other = (gx * x.astype(np.float64)).sum(), (y * (y.astype(np.float64) - w[0, 0, 0])).sum()
    assert abs(product - other) < 10 * eps * abs(other)
print(simd.LEVEL)
"""
    result = succeeds(code, TINYGRAD_CNN_SIMD=level, TINYGRAD_CNN_PARALLEL="0")
    order = ["avx512", "avx2", "sse"]
    if level in order and result.stdout.strip() in order:
        assert order.index(result.stdout.strip()) >= order.index(level)


def test_an_unknown_instruction_set_is_named():
    result = run("from tinygrad_cnn.kernels import conv", TINYGRAD_CNN_SIMD="mmx")
    assert "TINYGRAD_CNN_SIMD='mmx': expected one of avx512, avx2" in result.stderr


def test_any_number_of_threads_gives_the_same_bits():
    code = CONVOLUTION + """
from tinygrad_cnn.kernels import norm, pool, winograd
winograd.few_tiles = lambda *_: True
jit.PARALLEL_WORK = -1
def everything():
    y, gx, gw = results(np.float32)
    flat = y.reshape(-1, 37)
    mean, var, a, b, bias = (np.empty(37, np.float32) for _ in range(5))
    norm.channel_mean_var(flat, mean, var)
    norm.channel_sums(flat, flat, mean, var, mean, var, True, a, b)
    conv.bias_grad(y, bias)
    taps = np.random.default_rng(1).integers(0, 9, y.shape).astype(np.uint8)
    scattered = np.empty((3, 19, 21, 37), np.float32)
    pool.scatter_taps(y, taps, ((3, 3), (1, 1), (0, 0), (1, 1)), scattered)
    depthwise = np.empty((3, 3, 1, 21), np.float32)
    conv.conv2d_weight_grad(gx, gx, (1, 1), (1, 1), (1, 1), 21, depthwise)
    tiles, tiles_gx, tiles_gw = results(np.float32, 'winograd')
    winograd.few_tiles = lambda *_: False
    blocks, blocks_gx, _ = results(np.float32, 'winograd')
    winograd.few_tiles = lambda *_: True
    return [y, gx, gw, mean, var, a, b, bias, scattered, depthwise, tiles, tiles_gx, tiles_gw, blocks, blocks_gx]
first = [a.tobytes() for a in everything()]
for threads in (1, 2, 3, 4):
    options.threads = threads
    assert [a.tobytes() for a in everything()] == first, threads
"""
    succeeds(code, NUMBA_NUM_THREADS="4")


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_python_threads_may_run_kernels_at_once(layer):
    code = CONVOLUTION + """
import threading
jit.PARALLEL_WORK = -1
expected, failures = results(np.float32), []
def work():
    for _ in range(30):
        if any(a.tobytes() != b.tobytes() for a, b in zip(results(np.float32), expected)):
            failures.append(1)
threads = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
assert not failures
"""
    result = run(code, NUMBA_THREADING_LAYER=layer)
    if "No threading layer could be loaded" in result.stderr:
        pytest.skip(f"numba has no {layer} layer here")
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_may_run_kernels():
    code = CONVOLUTION + """
import os
expected = results(np.float32)
jit.PARALLEL_WORK = -1
results(np.float32)
child = os.fork()
if child == 0:
    same = all(np.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(results(np.float32), expected))
    os._exit(0 if same else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    succeeds(code)


def test_threads_can_be_left_out_for_bounds_checks():
    code = CONVOLUTION + """
jit.PARALLEL_WORK = -1
results(np.float32)
assert 'parallel' not in vars(conv._convolve)
"""
    succeeds(code, TINYGRAD_CNN_PARALLEL="0")


def test_bounds_hold_in_the_plain_loops():
    code = """
import numpy as np
from tinygrad_cnn.kernels import norm, pool, resize, unfold
x = np.ones((2, 7, 6, 5), np.float32)
how = (3, 2), (2, 2), (1, 1)
out, taps = np.empty((2, 4, 4, 5), np.float32), np.empty((2, 4, 4, 5), np.uint8)
for pad, windows in (True, how), (False, how), (False, None):
    dilated = windows if windows is None else (*windows, (1, 1))
    pool.max_pool2d(x, dilated, out, taps)
    pool.gather_taps(x, taps, dilated, out)
    pool.scatter_taps(out, taps, dilated, x)
    pool.avg_pool2d(x, windows, pad, 0, out)
    pool.avg_pool2d_adjoint(out, windows, pad, 0, x)
windows = np.empty((2, 16, 3, 2, 5), np.float32)
unfold.unfold(x, *how, (1, 1), (4, 4), windows)
unfold.fold(windows, *how, (1, 1), (4, 4), x)
lo, frac = np.array([0, 3, 5, 2]), np.array([0, 0.5, 1, 0.2])
resize.resize(x, lo, lo, frac, lo, lo, frac, out)
resize.resize_adjoint(out, lo, lo, frac, lo, lo, frac, x)
c = [np.ones(5, np.float32) for _ in range(5)]
flat = x.reshape(-1, 5)
norm.channel_mean_var(flat, *c[:2])
norm.channel_sums(flat, flat, *c[:4], True, *c[:2])
norm.normalize(flat, *c[:2], True, flat.copy())
norm.batch_norm_input_grad(flat, *c, True, *c[:2], flat.copy())
norm.relu_grad_sum(flat.copy(), flat, c[0])
"""
    succeeds(code, TINYGRAD_CNN_PARALLEL="0", NUMBA_BOUNDSCHECK="1")


# -- cache -------------------------------------------------------------------------------------------------------------


def _files(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.kernel"))


def test_a_kernel_is_compiled_once_per_machine(tmp_path):
    cache = tmp_path / "new" / "cache"
    assert "compiling kernels, once per machine" in succeeds(ERF, TINYGRAD_CNN_CACHE_DIR=str(cache)).stderr
    (file,) = _files(cache)
    written = file.stat().st_mtime_ns
    assert succeeds(ERF, TINYGRAD_CNN_CACHE_DIR=str(cache)).stderr == ""
    assert file.stat().st_mtime_ns == written and not list(cache.rglob("*.tmp"))


@pytest.mark.parametrize("damage", ["empty", "short", "flipped", "text"])
def test_a_damaged_file_is_compiled_again(tmp_path, damage):
    succeeds(ERF, TINYGRAD_CNN_CACHE_DIR=str(tmp_path))
    (file,) = _files(tmp_path)
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    file.write_bytes({"empty": b"", "short": whole[:-100], "flipped": bytes(flipped), "text": b"x" * 99}[damage])
    result = succeeds(ERF, TINYGRAD_CNN_CACHE_DIR=str(tmp_path))
    assert "compiling" in result.stderr and "Warning" not in result.stderr
    assert succeeds(ERF, TINYGRAD_CNN_CACHE_DIR=str(tmp_path)).stderr == ""


def test_an_unusable_folder_costs_one_warning(tmp_path):
    (tmp_path / "file").touch()
    single = ERF.replace("[0.0, 1.0]", "[0, 1], 'f4'").replace("np.empty(2)", "np.empty(2, 'f4')")
    result = succeeds(ERF + single.replace("e-15", "e-6"), TINYGRAD_CNN_CACHE_DIR=str(tmp_path / "file" / "below"))
    assert result.stderr.count("RuntimeWarning") == 1 and "TINYGRAD_CNN_CACHE_DIR may name one" in result.stderr
    assert "compiling kernels, in every process" in result.stderr


def test_a_folder_that_vanishes_costs_one_warning(tmp_path):
    code = ERF.replace("elementwise.erf(np.array", "from tinygrad_cnn.kernels import store; import shutil; "
                       f"store._folder(); shutil.rmtree({str(tmp_path)!r}); elementwise.erf(np.array")
    assert succeeds(code, TINYGRAD_CNN_CACHE_DIR=str(tmp_path)).stderr.count("RuntimeWarning") == 1


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners and modes")
def test_a_folder_that_others_can_write_is_refused(tmp_path):
    tmp_path.chmod(0o777)
    result = succeeds(ERF, TINYGRAD_CNN_CACHE_DIR=str(tmp_path))
    assert "can be written by, another user" in result.stderr and not _files(tmp_path)


def test_an_edit_in_any_kernel_source_uses_a_new_folder(tmp_path):
    package = tmp_path / "copy" / "tinygrad_cnn" / "kernels"
    shutil.copytree(Path(tinygrad_cnn.kernels.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package.parent / "__init__.py").touch()
    cache = tmp_path / "cache"
    succeeds(ERF, tmp_path / "copy", TINYGRAD_CNN_CACHE_DIR=str(cache))
    with (package / "taps.py").open("a") as source:
        source.write("\n# edited\n")
    assert "compiling" in succeeds(ERF, tmp_path / "copy", TINYGRAD_CNN_CACHE_DIR=str(cache)).stderr
    assert len(_files(cache)) == 2
    # Edited while a process runs, which goes on to import another module: it must keep what it compiles to itself.
    edit = f"open({str(package / 'taps.py')!r}, 'a').write('# edited'); "
    code = ERF.replace("elementwise.erf(", edit + "elementwise.erf(", 1) + ERF.replace("[0.0, 1.0]", "[0, 1], 'f4'").replace(
        "np.empty(2)", "np.empty(2, 'f4')").replace("e-15", "e-6")
    assert "in every process" in succeeds(code, tmp_path / "copy", TINYGRAD_CNN_CACHE_DIR=str(cache)).stderr
    assert len(_files(cache)) == 2
    assert "compiling" in succeeds(ERF, tmp_path / "copy", TINYGRAD_CNN_CACHE_DIR=str(cache)).stderr
    assert len(_files(cache)) == 3


def test_processes_give_their_compiled_functions_different_symbols(tmp_path):
    """Closures of one name, numbered alike by two processes, were once confused: wrong sums, or a corrupted heap."""
    numbers = []
    for name in "ab":
        succeeds(ERF, TINYGRAD_CNN_CACHE_DIR=str(tmp_path / name))
        (file,) = _files(tmp_path / name)
        numbers.append(set(re.findall(rb"B\d+v(\d+)B", file.read_bytes())))
    assert all(numbers) and numbers[0].isdisjoint(numbers[1])


def test_processes_may_compile_at_once(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TINYGRAD_CNN_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", ERF]
    processes = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for _ in range(4)]
    said = [p.communicate()[1] for p in processes]
    assert [p.returncode for p in processes] == [0] * 4 and any(b"compiling" in text for text in said)
    assert len(_files(tmp_path)) == 1 and not list(tmp_path.rglob("*.tmp"))


def test_read_only_arguments_are_not_written_through():
    from tinygrad_cnn.kernels import jit

    source = np.arange(6.0)
    source.flags.writeable = False
    alias = jit._writable(source)
    assert alias.flags.writeable and np.shares_memory(alias, source) and not source.flags.writeable
    empty = np.empty((0, 2))
    empty.flags.writeable = False
    assert jit._writable(empty).shape == (0, 2)
