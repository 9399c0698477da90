"""The pool of buffers: what is lent, when it comes back, and that nobody ever shares it."""

import gc
import itertools
import os
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_cnn as tg
from tinygrad_cnn import memory

SHAPE = (100, 200)
NBYTES = 4 * 100 * 200


@pytest.fixture(autouse=True)
def held():
    """Bytes that other tests' modules hold, with nothing kept for later."""
    gc.collect()
    memory.empty_cache()
    return memory.stats().current


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_a_buffer_serves_again_once_its_array_is_gone(held):
    array = memory.empty(SHAPE, np.float32)
    address, before = _address(array), memory.stats()
    assert address % 64 == 0 and NBYTES <= before.current - held <= 1.2 * NBYTES + 4096 and array.flags.writeable
    del array
    after = memory.stats()
    assert (after.current, after.cached) == (held, before.current - held) and after.peak == before.peak
    again = memory.empty(SHAPE, np.float32)
    assert _address(again) == address and memory.stats().reused == before.reused + 1


def test_nothing_is_kept_of_an_array_that_is_gone():
    before = len(memory._leases)
    array = memory.empty(SHAPE, np.float32)
    assert len(memory._leases) == before + 1
    del array
    assert len(memory._leases) == before


@pytest.mark.parametrize("write", [lambda x: x.relu_(), lambda x: x.mul_(2.0), lambda x: x.add_(1.0), lambda x: tg.nn.ReLU(inplace=True)(x)])
@pytest.mark.parametrize("recorded", [False, True])
def test_in_place_operations_take_no_memory(write, recorded):
    x = tg.ones(*SHAPE)
    if recorded:
        x = x + tg.ones(1, requires_grad=True)
    memory.empty_cache()
    before = memory.stats().peak
    write(x)
    assert memory.stats().peak == before


@pytest.mark.parametrize("view", [
    lambda a: a[3:], lambda a: a.T, lambda a: a.reshape(-1)[5:7], lambda a: a.view(np.int32), lambda a: a[..., None][0].T, lambda a: memoryview(a),
    lambda a: np.lib.stride_tricks.as_strided(a, (3,), (8,)), lambda a: np.asarray(a, copy=False), lambda a: np.frombuffer(a, np.uint8),
    lambda a: np.from_dlpack(a), lambda a: a.flat, lambda a: tg.Tensor._wrap(a)[2:], lambda a: np.broadcast_to(a, (2, *SHAPE))])
def test_any_view_keeps_it(view):
    array = memory.empty(SHAPE, np.float32)
    address = _address(array)
    kept = view(array)
    del array
    gc.collect()
    other = memory.empty(SHAPE, np.float32)
    assert _address(other) != address
    del kept
    gc.collect()
    assert _address(memory.empty(SHAPE, np.float32)) == address


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60_000), st.booleans()), max_size=40))
def test_arrays_in_use_never_overlap(steps):
    held: list[np.ndarray] = []
    for i, (size, drop) in enumerate(steps):
        array = memory.empty((size,), np.float32)
        array[:] = i
        held.append(array)
        if drop:
            held.pop(len(held) // 2)
    numbers = [a[0] for a in held if a.size]
    assert len(set(numbers)) == len(numbers) and all((a == a[0]).all() for a in held if a.size)
    spans = sorted((_address(a), a.nbytes) for a in held if a.nbytes)
    assert all(start + size <= following for (start, size), (following, _) in itertools.pairwise(spans))


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2), (2, 1, 0)])
def test_empty_like_keeps_the_layout(axes):
    x = np.zeros((30, 40, 50), np.float32).transpose(axes)
    like = memory.empty_like(x)
    assert like.shape == x.shape and like.strides == x.strides
    assert memory.empty_like(x[:, ::2]).shape == x[:, ::2].shape and memory.empty_like(x, np.float64).dtype == np.float64


def test_zeros_are_zeros_in_used_memory():
    memory.empty(SHAPE, np.float32).fill(7)
    assert not memory.zeros(SHAPE, np.float32).any()


def test_an_exception_gives_memory_back():
    current = memory.stats().current

    def fail():
        array = memory.empty(SHAPE, np.float32)
        raise ValueError(array.shape)

    with pytest.raises(ValueError, match="100"):
        fail()
    gc.collect()
    assert memory.stats().current == current


@pytest.mark.parametrize("size", [1 << 50, 1 << 62, 1 << 80])
def test_too_much_is_a_memory_error_and_counts_nothing(size):
    before = memory.stats()
    with pytest.raises(MemoryError, match=str(8 * size)):
        memory.empty((size,), np.float64)
    assert memory.stats() == before
    x, w = tg.ones(1, 1, 2, 2), tg.ones(1, 1, 1, 1)
    with pytest.raises(MemoryError, match="conv2d: no memory for an array of"):
        tg.nn.functional.conv2d(x, w, padding=1 << 24)


def test_threads_share_it_safely(held):
    failures = []

    def work(number):
        for i in range(300):
            array = memory.empty((20_000 + 7 * i,), np.float32)
            array[:] = number
            if (array != number).any():
                failures.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    del threads
    assert not failures and memory.stats().current == held


def test_idle_memory_is_bounded_and_given_back(held):
    for i in range(40):                        # sizes that never come again
        memory.empty(((1 << 22) + (i << 19),), np.uint8)
    stats = memory.stats()
    assert stats.cached <= stats.peak * 5 / 4 + memory.SLACK
    memory.empty_cache()
    assert memory.stats() == (held, held, 0, stats.reused)


def test_results_come_from_it_and_training_settles():
    model = tg.nn.Sequential(tg.nn.Conv2d(3, 16, 3), tg.nn.BatchNorm2d(16), tg.nn.ReLU(), tg.nn.MaxPool2d(2), tg.nn.Flatten(), tg.nn.Linear(3600, 4))
    optimizer = tg.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images, labels = tg.randn(8, 3, 32, 32), tg.arange(8) % 4

    def step():
        optimizer.zero_grad()
        tg.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    for _ in range(3):
        step()
    before, mapped = memory.stats(), memory._pool.mapped
    for _ in range(5):
        step()
    after = memory.stats()
    assert memory._pool.mapped == mapped and after.reused >= before.reused + 5 * 4       # convolution, norm, pooling, scattering
    assert (after.current, after.peak) == (before.current, before.peak)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_writes_into_memory_of_its_own():
    array = memory.empty(SHAPE, np.float32)
    array.fill(1)
    child = os.fork()
    if child == 0:
        array.fill(2)
        other = memory.empty(SHAPE, np.float32)
        other.fill(3)
        os._exit(0 if (array == 2).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (array == 1).all()
