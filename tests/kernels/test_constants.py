"""What is kept of arrays that do not change."""

import gc

import numpy as np
import pytest

from tinygrad_cnn.kernels import constants, conv


@pytest.fixture
def weights():
    return np.random.default_rng(0).standard_normal((3, 3, 5, 7)).astype(np.float32)


def _gradient(w):
    g, out = np.ones((1, 4, 4, 7), np.float32), np.empty((1, 4, 4, 5), np.float32)
    conv.conv2d_input_grad(g, w, (1, 1), (1, 1), (1, 1), 1, out)
    y = np.empty((1, 4, 4, 7), np.float32)
    conv.conv2d(out, w, np.zeros(7, np.float32), (1, 1), (1, 1), (1, 1), 1, y)
    return out, y


def test_results_are_the_same_and_made_once(weights):
    expected = _gradient(weights)
    constants.declare(weights)
    for _ in range(3):
        for a, b in zip(_gradient(weights), expected, strict=True):
            np.testing.assert_array_equal(a, b)
    made = constants._made[id(weights)].results
    kept = list(map(id, made.values()))
    _gradient(weights)
    assert kept and list(map(id, made.values())) == kept


def test_a_new_version_is_read_anew(weights):
    class Storage:
        stamp = 3

    storage = Storage()
    for _ in range(3):
        for times in 1, 2, 3:
            constants.declare(weights, storage)
            assert constants.is_kept(weights) == (times > 1)
            for a, b in zip(_gradient(weights), _gradient(weights.copy()), strict=True):
                np.testing.assert_array_equal(a, b)
        weights *= 2
        storage.stamp += 1
        assert not constants.is_kept(weights)


def test_what_is_taken_back_is_forgotten(weights):
    constants.declare(weights)
    constants.forget(weights[:1])
    assert not constants.is_kept(weights)


def test_other_arrays_are_read_anew(weights):
    first = _gradient(weights)
    weights *= 2
    assert not np.allclose(_gradient(weights)[0], first[0]) and id(weights) not in constants._made


def test_what_was_made_goes_with_its_array():
    gc.collect()
    before = len(constants._made)
    weights = np.ones((3, 3, 5, 7), np.float32)
    constants.declare(weights)
    _gradient(weights[:])
    assert len(constants._made) > before + 1
    del weights
    gc.collect()
    assert len(constants._made) == before
