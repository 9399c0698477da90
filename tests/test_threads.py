"""How many threads kernels and BLAS get."""

import os
import threading
import time

import numpy as np
import pytest

import tinygrad_cnn as tg
from tinygrad_cnn.backends import blas
from tinygrad_cnn.kernels import options
from tinygrad_cnn.ops import linalg

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


# ---- BLAS ------------------------------------------------------------------------------------------------------------


class SlowBlas:
    """A setting whose every access lets other threads run, and what it was set to."""

    def __init__(self, threads):
        self.threads = threads

    def get(self):
        threads = self.threads
        time.sleep(1e-5)
        return threads

    def put(self, threads):
        time.sleep(1e-5)
        self.threads = threads


@pytest.fixture
def slow_blas(monkeypatch):
    libraries = [SlowBlas(8), SlowBlas(5)]
    settings = [(library.get, library.put) for library in libraries]
    monkeypatch.setattr(blas, "_settings", lambda: settings)
    monkeypatch.setattr(blas, "_loaded", lambda: ((setting, True) for setting in settings))
    monkeypatch.setattr(blas, "one_thread", blas._OneThread())
    monkeypatch.setattr(linalg, "one_thread", blas.one_thread)
    return libraries


def in_threads(work, count=8):
    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_blas_keeps_to_one_thread_while_any_product_runs_and_is_then_as_before(slow_blas):
    inside, failures = [], []

    def work(number):
        for i in range(50):
            try:
                with blas.one_thread:
                    inside.append(number)
                    time.sleep(1e-5 * (number % 3))
                    failures.extend([library.threads for library in slow_blas if library.threads != 1])
                    if i % 7 == number % 7:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                pass

    in_threads(work)
    assert not failures and len(inside) == 400
    assert [library.threads for library in slow_blas] == [8, 5]


def test_products_leave_the_setting_as_it_was(slow_blas, monkeypatch):
    x = np.ones((128, 64), np.float32)
    seen = []
    matmul = np.matmul
    monkeypatch.setattr(np, "matmul", lambda a, b: seen.append(slow_blas[0].threads) or matmul(a, b))

    def work(number):
        for i in range(20):
            if i % 5 == number % 5:
                with pytest.raises(ValueError, match="mismatch"):
                    linalg._product(x, x)
            elif not (linalg._product(x, x.T) == 64).all():
                seen.append("wrong")

    in_threads(work)
    assert set(seen) == {1} and len(seen) == 160
    assert [library.threads for library in slow_blas] == [8, 5]
    assert linalg._product(x[:2], x.T[:, :2])[0, 0] == 64 and seen[-1] == 8             # small: BLAS keeps to one thread by itself
    monkeypatch.setattr(linalg, "MANY", 1000)
    assert linalg._product(x, x.T)[0, 0] == 64 and seen[-1] == 8                        # huge: all threads pay


def test_a_number_set_during_a_product_holds_after_it(slow_blas):
    with blas.one_thread:
        blas.set_num_threads(3)
        assert [library.threads for library in slow_blas] == [1, 1]
    assert [library.threads for library in slow_blas] == [3, 3]
    blas.set_num_threads(4)
    assert [library.threads for library in slow_blas] == [4, 4]


def test_an_interrupt_half_way_in_does_no_lasting_harm(slow_blas, monkeypatch):
    class Interrupting(set):
        def add(self, ident):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(blas.one_thread, "inside", Interrupting())
        with pytest.raises(KeyboardInterrupt), blas.one_thread:
            pass
    with pytest.raises(KeyboardInterrupt):
        blas.one_thread.__enter__()
        raise KeyboardInterrupt                # before the block began
    with blas.one_thread:
        assert [library.threads for library in slow_blas] == [1, 1]
    assert [library.threads for library in slow_blas] == [8, 5]


REAL_BLAS = """
import os, threading
import numpy as np, threadpoolctl
import tinygrad_cnn as tg
from tinygrad_cnn.backends import blas
def numpys():
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if "numpy" in pool["filepath"] and pool["user_api"] == "blas"]
"""


def test_numpys_own_blas_after_many_products_at_once():
    succeeds(REAL_BLAS + """
blas.set_num_threads(2)
before = numpys()
x = tg.randn(128, 128)
def work():
    for _ in range(300):
        x @ x
def run():
    threads = [threading.Thread(target=work) for _ in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
run()
assert numpys() == before == [2] * len(before)
thread = threading.Thread(target=run)         # the settings belong to no Python thread
thread.start()
tg.set_num_threads(1)
thread.join()
assert numpys() == [1] * len(before)
""")


# ---- forks -----------------------------------------------------------------------------------------------------------

FORK = """
import os, threading
def in_child(work):
    child = os.fork()
    if child == 0:
        right = False
        try:
            right = work()
        finally:
            os._exit(0 if right else 1)
    end = threading.Timer(100, os.kill, [child, 9])         # in place of a deadlock
    end.start()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    end.cancel()
    return status
def forked_while_another_thread_is_in(scope, work, meanwhile=lambda: None):
    inside, leave = threading.Event(), threading.Event()
    def hold():
        with scope:
            inside.set()
            leave.wait(120)
    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    inside.wait(60)
    assert in_child(work) == 0
    meanwhile()
    leave.set()
    thread.join()
"""
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")


@forks
def test_a_child_forked_during_a_product_has_all_threads():
    succeeds(FORK + REAL_BLAS + """
blas.set_num_threads(2)
before = numpys()
def product():
    return float((tg.ones(600, 600) @ tg.ones(600, 600)).sum()) == 600**3 and numpys() == before
def held():
    assert numpys() == [1] * len(before)
forked_while_another_thread_is_in(blas.one_thread, lambda: numpys() == before and product(), held)
assert numpys() == before
""")


# Some lock, and what takes it: large arrays, a product, a kernel on several threads, and one that is compiled or loaded first.
LOCKS = {
    "memory": ("tg.memory._pool.lock", "x = tg.memory.zeros((200, 200), 'f4'); return x.sum() == 0 and tg.memory.stats().current >= x.nbytes"),
    "BLAS": ("tg.backends.blas.one_thread.lock", "return float((tg.ones(600, 600) @ tg.ones(600, 600)).sum()) == 600**3"),
    "random": ("random.generator().bit_generator.lock", "return len(tg.rand(3)) == 3"),
    "kernels": ("jit._door", "jit.PARALLEL_WORK = -1; return erf()"),
    "cache": ("store._lock", "return erf('f8')"),
}


@forks
@pytest.mark.parametrize("lock, work", LOCKS.values(), ids=LOCKS)
def test_a_child_inherits_no_lock_that_a_thread_of_its_parent_held(lock, work):
    succeeds(FORK + f"""
import numpy as np
import tinygrad_cnn as tg
from tinygrad_cnn import random
from tinygrad_cnn.kernels import elementwise, jit, store
def erf(dtype="f4"):
    out = np.empty(3, dtype)
    elementwise.erf(np.array([-9, 0, 9], dtype), out)
    return out.tolist() == [-1, 0, 1]
assert erf()
def work():
    {work}
forked_while_another_thread_is_in({lock}, work)
""")
