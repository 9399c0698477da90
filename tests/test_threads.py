"""How many threads kernels get."""

import pytest

import tinygrad_cnn as tg
from tinygrad_cnn.kernels import options

from .kernels.test_jit import succeeds


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    monkeypatch.setattr(options, "threads", 0)


def test_the_number_is_kept_and_never_above_the_cores():
    cores = tg.get_num_threads()
    tg.set_num_threads(1)
    assert tg.get_num_threads() == 1
    tg.set_num_threads(10_000)
    assert tg.get_num_threads() == cores


@pytest.mark.parametrize(("threads", "error"), [(0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError), ("2", TypeError)])
def test_wrong_numbers_are_refused(threads, error):
    with pytest.raises(error, match="set_num_threads: threads must be"):
        tg.set_num_threads(threads)
    assert options.threads == 0


def test_kernels_of_every_python_thread_and_blas_follow():
    succeeds("""
import threading
import numba, threadpoolctl
import tinygrad_cnn as tg
tg.set_num_threads(1)
seen = []
def work():
    tg.randn(8, 32, 64, 64).relu()
    seen.append(numba.get_num_threads())
thread = threading.Thread(target=work)
thread.start(); thread.join()
work()
assert seen == [1, 1], seen
assert [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if "numpy" in pool["filepath"]] == [1]
tg.set_num_threads(3)
work()
assert seen[-1] == 3
""", NUMBA_NUM_THREADS="3")


@pytest.mark.parametrize("first", ["tg.set_num_threads(1)", "pass"])
def test_openmp_is_loaded_with_a_short_wait_whatever_kernel_comes_first(first):
    succeeds(f"""
import os, sys
seen = []
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "numba.np.ufunc.omppool":
            seen.append(os.environ.get("GOMP_SPINCOUNT"))
sys.meta_path.insert(0, Watch())
import tinygrad_cnn as tg
from tinygrad_cnn.kernels.jit import SPINS
{first}
tg.nn.functional.conv2d(tg.randn(8, 16, 64, 64), tg.randn(16, 16, 3, 3))
assert set(seen) == {{SPINS}}, seen
assert "GOMP_SPINCOUNT" not in os.environ
""")


def test_more_threads_than_the_call_before_get_scratch_of_their_own():
    succeeds("""
import numpy as np
from tinygrad_cnn.kernels import conv, jit, options
sizes = []
empty = conv.memory.empty
conv.memory.empty = lambda shape, dtype: sizes.append(shape) or empty(shape, dtype)
jit.PARALLEL_WORK = -1
x, w, out = np.ones((4, 32, 32, 16), np.float32), np.ones((5, 5, 16, 16), np.float32), np.empty((4, 28, 28, 16), np.float32)
for threads in 1, 3:
    options.threads = threads
    conv.conv2d(x, w, None, (1, 1), (0, 0), (1, 1), 1, out)
assert min(shape[0] for shape in sizes if len(shape) == 2) == 3, sizes
""", NUMBA_NUM_THREADS="3")
