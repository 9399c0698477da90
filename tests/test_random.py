"""The generator's numbers: repeated by a seed or a state, and never shared by forked processes."""

import os

import pytest

import tinygrad_cnn as tg

from .kernels.test_jit import succeeds

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")

CHILDREN = """
import multiprocessing, os, signal, threading, warnings
import tinygrad_cnn as tg
warnings.simplefilter("ignore")                # of forks beside threads
def draw(_=None):
    return tg.rand(4).tolist()
def child(work=draw):
    '''What it returns in a forked child.'''
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.write(write, repr(work()).encode())
        os._exit(0)
    os.close(write)
    end = threading.Timer(100, os.kill, [pid, signal.SIGKILL])      # in place of a deadlock
    end.start()
    with os.fdopen(read, "rb") as file:
        result = file.read().decode()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    end.cancel()
    return eval(result)
def distinct(drawn):
    return len(set(map(tuple, drawn))) == len(drawn)
"""


@forks
def test_forked_children_draw_numbers_of_their_own():
    succeeds(CHILDREN + """
for seed in (None, 0):
    if seed is not None:
        tg.manual_seed(seed)
    drawn = []
    for i in range(10):
        drawn += [child(), child(), child(lambda: child())]
        drawn += child(lambda: [child(), child(), draw(), child(), draw()])
        drawn.append(draw())
    assert distinct(drawn) and len(drawn) == 90
    with multiprocessing.get_context("fork").Pool(4) as pool:
        drawn += pool.map(draw, range(40), chunksize=1)
    assert distinct(drawn) and len(drawn) == 130
""")


@forks
def test_a_seed_repeats_children_too_and_forks_leave_the_parents_numbers_alone():
    succeeds(CHILDREN + """
def run(fork):
    tg.manual_seed(3)
    return [(draw(), [child(), child(lambda: [child(), draw()])] if fork else None) for _ in range(3)]
first = run(True)
assert run(True) == first and [own for own, _ in run(False)] == [own for own, _ in first]
tg.manual_seed(4)
assert child() != first[0][1][0]
tg.manual_seed(3)
draw(), child()
state = tg.get_rng_state()
after = [child(), draw(), child()]
for _ in range(2):
    tg.set_rng_state(state)
    assert [child(), draw(), child()] == after
""")


@forks
def test_a_state_repeats_children_in_another_process():
    said = succeeds(CHILDREN + """
tg.manual_seed(3)
draw(), child()
print(repr((tg.get_rng_state(), [child(), draw(), child()])))
""").stdout
    succeeds(CHILDREN + f"""
state, after = {said}
child()
tg.set_rng_state(state)
assert [child(), draw(), child()] == after
""")


@forks
def test_forks_beside_threads_that_draw_and_fork():
    succeeds("""
import os, time
os.register_at_fork(before=lambda: time.sleep(0.005))      # runs after the package's, so that forks overlap
""" + CHILDREN + """
stop, drawn = threading.Event(), []
def keep_drawing():
    while not stop.is_set():
        tg.rand(100_000)
def keep_forking():
    for _ in range(10):
        drawn.append(child())
threads = [threading.Thread(target=keep_drawing) for _ in range(2)]
forking = [threading.Thread(target=keep_forking) for _ in range(4)]
[t.start() for t in threads + forking]
[t.join() for t in forking]
stop.set()
[t.join() for t in threads]
assert len(drawn) == 40 and distinct(drawn)
""")


def test_a_state_is_put_back():
    state = tg.get_rng_state()
    drawn = tg.rand(5).tolist()
    assert tg.get_rng_state() != state
    tg.set_rng_state(state)
    assert tg.get_rng_state() == state and tg.rand(5).tolist() == drawn
    state.pop("forks")                         # as versions before kept it
    tg.set_rng_state(state)
    assert tg.rand(5).tolist() == drawn


@pytest.mark.parametrize("state", [None, 3, {}, {"forks": 0}, {"bit_generator": "MT19937"}, {"bit_generator": "PCG64"}])
def test_what_is_no_state_is_refused(state):
    before = tg.get_rng_state()
    with pytest.raises(ValueError, match="set_rng_state: wanted a state that get_rng_state returned, got"):
        tg.set_rng_state(state)
    assert tg.get_rng_state() == before
