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
