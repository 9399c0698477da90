"""Data sets, splits, collation, batches, shifts."""

import math
import warnings
from collections import namedtuple

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import tinygrad_cnn as tg
from tinygrad_cnn import data
from tinygrad_cnn.data import DataLoader, Dataset, Subset, TensorDataset, default_collate, random_split


def pairs(n=10):
    x = np.random.default_rng(0).standard_normal((n, 2, 3)).astype(np.float32)
    return TensorDataset(tg.tensor(x), tg.arange(n)), x


class Plain(Dataset):
    """A data set that can only give one sample at a time."""

    def __init__(self, inner):
        self.inner = inner

    def __getitem__(self, index):
        return self.inner[index]

    def __len__(self):
        return len(self.inner)


class Negated(TensorDataset):
    """Has its own idea of a sample, but inherits `batch`."""

    def __getitem__(self, index):
        return tuple(-t for t in super().__getitem__(index))


def flat(loader):
    return [y for _, ys in loader for y in ys.tolist()]


# ---- data sets ------------------------------------------------------------------------------------------------------


def test_tensor_dataset():
    dataset, x = pairs()
    assert len(dataset) == 10
    a, b = dataset[3]
    np.testing.assert_array_equal(a.numpy(), x[3])
    assert b.item() == 3


@pytest.mark.parametrize("tensors, error", [
    ((), ValueError), ((tg.ones(3), tg.ones(4)), ValueError), ((tg.tensor(1.0),), ValueError),
    ((np.ones(3),), TypeError)])
def test_tensor_dataset_refuses(tensors, error):
    with pytest.raises(error, match="TensorDataset"):
        TensorDataset(*tensors)


def test_subset():
    dataset, x = pairs()
    part = Subset(dataset, [7, 1, -1])
    assert len(part) == 3 and [part[i][1].item() for i in range(3)] == [7, 1, 9]
    (xs, ys), = DataLoader(Subset(part, [2, 0]), batch_size=5)
    np.testing.assert_array_equal(xs.numpy(), x[[9, 7]])
    assert ys.tolist() == [9, 7]
    for indices, error in (([10], IndexError), ([-11], IndexError), ([0.5], TypeError), ([[1]], TypeError)):
        with pytest.raises(error, match="Subset"):
            Subset(dataset, indices)


def test_random_split_is_a_partition_that_the_seed_repeats():
    parts = random_split(range(100), [70, 20, 10], generator=3)
    assert [len(p) for p in parts] == [70, 20, 10]
    drawn = [p[i] for p in parts for i in range(len(p))]
    assert sorted(drawn) == list(range(100)) and drawn != sorted(drawn)
    again = random_split(range(100), [0.7, 0.2, 0.1], generator=np.random.default_rng(3))
    assert [p[i] for p in again for i in range(len(p))] == drawn
    tg.manual_seed(5)
    first = random_split(range(100), [50, 50])[0].indices
    tg.manual_seed(5)
    np.testing.assert_array_equal(random_split(range(100), [50, 50])[0].indices, first)
    assert [len(p) for p in random_split(range(1), [1])] == [1]


@pytest.mark.parametrize("total, lengths, sizes", [
    (10, [1 / 3] * 3, [4, 3, 3]), (11, [1 / 3] * 3, [4, 4, 3]), (9, [1 / 3] * 3, [3, 3, 3]), (7, [0.25] * 4, [2, 2, 2, 1]), (5, [0.5, 0.25, 0.25], [3, 1, 1]),
    (2, [0.2] * 5, [1, 1, 0, 0, 0]), (14, [0.2] * 5, [3, 3, 3, 3, 2]), (11, [0.6, 0.4], [7, 4]), (11, [0.4, 0.6], [5, 6]), (0, [0.5, 0.5], [0, 0]),
    (10, [0.999999999, 0.000000001], [10, 0]), (3, [1.0, 0], [3, 0])])
def test_what_fractions_leave_over_goes_to_the_parts_in_turn(total, lengths, sizes):
    parts = random_split(range(total), lengths, generator=0)
    assert [len(part) for part in parts] == sizes
    assert sorted(part[i] for part in parts for i in range(len(part))) == list(range(total))


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(st.integers(1, 300), st.lists(st.integers(1, 50), min_size=1, max_size=9))
def test_fractions_are_pytorchs(total, weights):
    torch = pytest.importorskip("torch")
    lengths = [weight / sum(weights) for weight in weights]
    hypothesis.assume(sum(lengths) <= 1)       # PyTorch refuses 1.0000000000000002
    with warnings.catch_warnings(action="ignore"):         # of parts without samples
        theirs = torch.utils.data.random_split(range(total), lengths)
    ours = random_split(range(total), lengths)
    assert [len(part) for part in ours] == [len(part) for part in theirs]
    assert all(math.floor(total * n) <= len(part) <= math.floor(total * n) + 1 for part, n in zip(ours, lengths, strict=True))


@pytest.mark.parametrize("lengths", [[5, 4], [11, -1], [0.5, 0.6], [4.5, 5.5], [4.5, 6.5], ["a"]])
def test_random_split_refuses(lengths):
    with pytest.raises(ValueError, match="random_split"):
        random_split(range(10), lengths)


# ---- collation ------------------------------------------------------------------------------------------------------

Point = namedtuple("Point", "x y")


def test_default_collate():
    assert default_collate([1, 2]).dtype == tg.int64
    assert default_collate([1.5, 2]).dtype == tg.float32
    assert default_collate([np.float64(1.5)]).dtype == tg.float64
    assert default_collate([True, False]).tolist() == [True, False]
    assert default_collate([np.ones(2, np.float32), np.zeros(2, np.float32)]).tolist() == [[1, 1], [0, 0]]
    assert default_collate([tg.tensor(1), tg.tensor(2)]).tolist() == [1, 2]
    batch = default_collate([{"x": (tg.ones(1), 3), "name": "a"}, {"x": (tg.zeros(1), 4), "name": "b"}])
    assert batch["name"] == ["a", "b"] and batch["x"][0].tolist() == [[1], [0]] and batch["x"][1].tolist() == [3, 4]
    assert default_collate([Point(1, 2), Point(3, 4)]).y.tolist() == [2, 4]


@pytest.mark.parametrize("samples, error, message", [
    ([], ValueError, "no samples"), ([None], TypeError, "NoneType"),
    ([tg.ones(2), tg.ones(3)], ValueError, r"\[\(2,\), \(3,\)\]"),
    ([{"a": 1}, {"b": 1}], ValueError, "keys"), ([(1,), (1, 2)], ValueError, r"lengths differ: \[1, 2\]")])
def test_default_collate_refuses(samples, error, message):
    with pytest.raises(error, match=f"default_collate: .*{message}"):
        default_collate(samples)


# ---- batches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 5, 10, 11])
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches(batch_size, drop_last):
    dataset, x = pairs()
    loader = DataLoader(dataset, batch_size=batch_size, drop_last=drop_last)
    batches = list(loader)
    kept = 10 // batch_size * batch_size if drop_last else 10
    assert len(batches) == len(loader) == -(-kept // batch_size)
    assert flat(loader) == list(range(kept))
    assert all(isinstance(b, list) and len(b[0]) == batch_size for b in batches[:-1])
    if batches:
        np.testing.assert_array_equal(np.concatenate([xs.numpy() for xs, _ in batches]), x[:kept])


def test_fast_and_slow_paths_agree_and_the_fast_one_respects_subclasses():
    dataset, _ = pairs()
    for fast, slow in ((dataset, Plain(dataset)), (Subset(dataset, [4, 2]), Plain(Subset(dataset, [4, 2])))):
        loaders = [DataLoader(side, 4, shuffle=True, generator=0) for side in (fast, slow)]
        for a, b in zip(*loaders, strict=True):
            for s, t in zip(a, b, strict=True):
                assert s.dtype == t.dtype
                np.testing.assert_array_equal(s.numpy(), t.numpy())
    assert flat(DataLoader(Negated(*dataset.tensors), 4)) == [-i for i in range(10)]
    assert flat(DataLoader(Subset(Negated(*dataset.tensors), [3]), 4)) == [-3]


def test_batches_keep_channels_last():
    images = tg.tensor(np.zeros((8, 5, 5, 3), np.float32).transpose(0, 3, 1, 2))
    (batch,), *_ = DataLoader(TensorDataset(images), 4, shuffle=True)
    assert batch.shape == (4, 3, 5, 5) and batch.numpy().strides == images.numpy().strides


def test_shuffles_differ_by_epoch_and_repeat_with_the_seed():
    dataset, _ = pairs(50)
    loader = DataLoader(dataset, 8, shuffle=True)
    tg.manual_seed(1)
    epochs = [flat(loader), flat(loader)]
    assert epochs[0] != epochs[1] and sorted(epochs[0]) == sorted(epochs[1]) == list(range(50))
    tg.manual_seed(1)
    assert [flat(loader), flat(loader)] == epochs
    own = DataLoader(dataset, 8, shuffle=True, generator=7)
    seeded = [flat(own), flat(own)]
    tg.rand(3)                                 # the package's generator has no say in a loader that has its own
    other = DataLoader(dataset, 8, shuffle=True, generator=np.random.default_rng(7))
    assert [flat(other), flat(other)] == seeded and seeded[0] != seeded[1]


def test_the_order_is_drawn_when_iteration_starts():
    loader = DataLoader(pairs(50)[0], 8, shuffle=True)
    tg.manual_seed(2)
    expected = flat(loader)
    tg.manual_seed(2)
    batches = iter(loader)
    tg.rand(5)
    assert flat(batches) == expected


def test_unshuffled_loading_draws_nothing():
    tg.manual_seed(0)
    state = tg.get_rng_state()
    list(DataLoader(pairs()[0], 4))
    assert tg.get_rng_state() == state


def test_collate_fn_gets_samples():
    loader = DataLoader(pairs()[0], 4, collate_fn=lambda samples: [y.item() for _, y in samples])
    assert list(loader) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_list_is_a_data_set():
    assert [b.tolist() for b in DataLoader([1, 2, 3], 2)] == [[1, 2], [3]]


@pytest.mark.parametrize("shuffle", [False, True])
def test_an_empty_data_set_has_no_batches(shuffle):
    loader = DataLoader(TensorDataset(tg.zeros(0, 3)), 4, shuffle=shuffle)
    assert len(loader) == 0 and list(loader) == []


@pytest.mark.parametrize("options, error, message", [
    ({"batch_size": 0}, ValueError, "batch_size must be an int of 1 or more, got 0"),
    ({"batch_size": -1}, ValueError, "batch_size"),
    ({"batch_size": 2.0}, TypeError, "batch_size"), ({"batch_size": None}, TypeError, "batch_size"),
    ({"num_workers": 2}, ValueError, "num_workers must be 0, got 2"), ({"generator": "x"}, TypeError, "generator"),
    ({"generator": -1}, TypeError, "generator"), ({"collate_fn": 3}, TypeError, "collate_fn"),
    ({"dataset": iter([1])}, TypeError, "__getitem__ and __len__, list_iterator has not")])
def test_loader_refuses(options, error, message):
    with pytest.raises(error, match=f"DataLoader: .*{message}"):
        DataLoader(**{"dataset": [1, 2], **options})


# ---- shifts ---------------------------------------------------------------------------------------------------------


def shifted_slowly(image, down, right):
    """One image (..., H, W), pixel by pixel."""
    out = np.zeros_like(image)
    height, width = image.shape[-2:]
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                out[..., row, column] = image[..., row - down, column - right]
    return out


@pytest.mark.parametrize("shape", [(200, 2, 5, 4), (200, 5, 4)])
def test_every_image_is_shifted_by_its_own_amount(shape):
    images = np.random.default_rng(0).random(shape).astype(np.float32) + 1
    result = data.random_shift(tg.tensor(images), 1, generator=0).numpy()
    seen = []
    for image, moved in zip(images, result, strict=True):
        matches = [(d, r) for d in (-1, 0, 1) for r in (-1, 0, 1) if np.array_equal(shifted_slowly(image, d, r), moved)]
        assert len(matches) == 1
        seen += matches
    counts = [seen.count((d, r)) for d in (-1, 0, 1) for r in (-1, 0, 1)]
    assert min(counts) >= 8 and max(counts) <= 40               # 200 / 9 = 22 each; 4 standard deviations are 18


def test_shift_repeats_with_the_seed_keeps_layout_and_input():
    x = np.random.default_rng(0).random((6, 7, 7, 3)).transpose(0, 3, 1, 2)
    images = tg.tensor(x)
    tg.manual_seed(3)
    first = data.random_shift(images, 2)
    second = data.random_shift(images, 2)
    tg.manual_seed(3)
    np.testing.assert_array_equal(data.random_shift(images, 2).numpy(), first.numpy())
    assert not np.array_equal(first.numpy(), second.numpy())
    assert first.dtype == tg.float64 and first.numpy().strides == images.numpy().strides
    np.testing.assert_array_equal(images.numpy(), x)
    array = data.random_shift(x, 2, generator=1)
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(data.random_shift(images, 2, generator=1).numpy(), array)
    np.testing.assert_array_equal(data.random_shift(images, 0).numpy(), x)
    assert data.random_shift(tg.zeros(0, 1, 4, 4), 2).shape == (0, 1, 4, 4)


@pytest.mark.parametrize("images, limit, error", [(tg.ones(4, 4), 1, ValueError), (tg.ones(1, 4, 4), -1, ValueError),
                                                  (tg.ones(1, 4, 4), 0.5, TypeError), ([[1]], 1, TypeError),
                                                  (tg.ones(1, 4, 4, requires_grad=True), 1, RuntimeError)])
def test_shift_refuses(images, limit, error):
    with pytest.raises(error, match="random_shift"):
        data.random_shift(images, limit)
