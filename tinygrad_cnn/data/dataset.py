"""Data sets: samples by index, parts of them, and how samples become a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from .. import random
from ..tensor import Tensor, tensor


class Dataset:
    """Samples by index: define `__getitem__` and `__len__`.

    A class may also define `batch(indices)`, which takes many samples at once, collated; `DataLoader` then uses it,
    unless a subclass has its own `__getitem__`.

    Example:
        >>> import tinygrad_cnn as tg
        >>> class Squares(tg.data.Dataset):
        ...     def __getitem__(self, index):
        ...         return index, index**2
        ...     def __len__(self):
        ...         return 4
        >>> [y.tolist() for x, y in tg.data.DataLoader(Squares(), batch_size=2)]
        [[0, 1], [4, 9]]
    """

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__}: __getitem__ is not defined")


class TensorDataset(Dataset):
    """Tensors of one length; sample i holds their i-th entries.

    Args:
        tensors: Tensors with the same size in dim 0.

    Raises:
        TypeError: something that is not a Tensor.
        ValueError: no tensors, a 0-d one, or sizes that differ.

    Example:
        >>> import tinygrad_cnn as tg
        >>> x, y = tg.data.TensorDataset(tg.ones(5, 2), tg.arange(5))[3]
        >>> x, y
        (tensor([1., 1.], dtype=float32), tensor(3, dtype=int64))
    """

    def __init__(self, *tensors: Tensor):
        for i, t in enumerate(tensors):
            if not isinstance(t, Tensor):
                raise TypeError(f"TensorDataset: tensor {i} must be a Tensor, got {type(t).__name__}; use tg.tensor")
        shapes = [t.shape for t in tensors]
        if not shapes or () in shapes or len({shape[0] for shape in shapes}) > 1:
            raise ValueError(f"TensorDataset: wanted tensors of one size in dim 0, got shapes {shapes}")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(t[index] for t in self.tensors)

    def __len__(self) -> int:
        return self.tensors[0].shape[0]

    def batch(self, indices: np.ndarray) -> list[Tensor]:
        """The samples at the indices: per tensor one of shape (len(indices), ...)."""
        return [t[indices] for t in self.tensors]


class Subset(Dataset):
    """The samples of a data set at some indices.

    Args:
        dataset: anything with `__getitem__` and `__len__`.
        indices: ints within the data set's length, in the order wanted.

    Raises:
        IndexError: an index out of range.
    """

    def __init__(self, dataset: Any, indices: Sequence[int] | np.ndarray):
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or (chosen.dtype.kind not in "iu" and chosen.size):
            raise TypeError(f"Subset: indices must be a list of ints, got {indices!r:.80}")
        outside = [int(i) for i in chosen if not -len(dataset) <= i < len(dataset)]
        if outside:
            raise IndexError(f"Subset: index {outside[0]} is out of range for a data set of {len(dataset)} samples")
        self.dataset, self.indices = dataset, chosen.astype(np.int64)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[index])]

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: np.ndarray) -> Any:
        """The samples at the indices of the subset, collated."""
        return take(self.dataset, self.indices[indices])


def random_split(dataset: Any, lengths: Sequence[float],
                 generator: np.random.Generator | int | None = None) -> list[Subset]:
    """Parts of a data set, drawn at random and without overlap.

    Args:
        dataset: anything with `__getitem__` and `__len__`.
        lengths: the parts' sizes, which sum to the data set's; or fractions, which sum to 1 (what rounding leaves over
            goes to the parts in turn).
        generator: a NumPy generator or a seed; what `tg.manual_seed` seeds by default.

    Raises:
        ValueError: sizes below 0, or that sum to something else.

    Example:
        >>> import tinygrad_cnn as tg
        >>> [len(part) for part in tg.data.random_split(range(10), [0.8, 0.2], generator=0)]
        [8, 2]
    """
    total = len(dataset)
    if not all(isinstance(n, Real) and n >= 0 for n in lengths):
        raise ValueError(f"random_split: lengths must be numbers of 0 or more, got {lengths!r}")
    sizes = [int(n) for n in lengths]
    if not all(isinstance(n, Integral) for n in lengths) and math.isclose(sum(lengths), 1):
        sizes = [math.floor(total * n) for n in lengths]
        for i in range(total - sum(sizes)):
            sizes[i % len(sizes)] += 1
    elif sizes != list(lengths) or sum(sizes) != total:
        raise ValueError(f"random_split: lengths {list(lengths)} sum to neither 1 nor the data set's {total}")
    order = as_generator("random_split", generator).permutation(total)
    ends = np.cumsum(sizes).tolist()
    return [Subset(dataset, order[end - size:end]) for size, end in zip(sizes, ends, strict=True)]


def as_generator(function: str, generator: np.random.Generator | int | None) -> np.random.Generator:
    """A NumPy generator from itself, from a seed, or the package's own."""
    if generator is None:
        return random.generator()
    if isinstance(generator, np.random.Generator):
        return generator
    if not is_count(generator, 0):
        raise TypeError(f"{function}: generator must be a numpy.random.Generator or a seed, got {generator!r}")
    return np.random.default_rng(int(generator))


def is_count(value: Any, least: int) -> bool:
    """Whether the value is an integer, not a bool, of at least `least`."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def take(dataset: Any, indices: np.ndarray) -> Any:
    """The samples at the indices, collated: at once where the data set's class says how, else one by one."""
    makers = [next((c for c in type(dataset).__mro__ if name in vars(c)), None) for name in ("batch", "__getitem__")]
    if makers[0] is not None and makers[0] is makers[1]:
        return dataset.batch(indices)
    return default_collate([dataset[int(i)] for i in indices])


def default_collate(batch: Sequence[Any]) -> Any:
    """Samples as one batch, with a new first dim. Python floats become float32, where PyTorch makes them float64.

    Args:
        batch: samples of one kind: Tensors or arrays of one shape, numbers, strings, or tuples, lists, dicts of them.

    Returns:
        A Tensor for Tensors, arrays and numbers; strings as they are; a list with a batch per entry for tuples and
        lists; a dict for dicts.

    Raises:
        ValueError: no samples, or samples whose shapes, lengths or keys differ.
        TypeError: samples of another kind; pass DataLoader a collate_fn.

    Example:
        >>> import tinygrad_cnn as tg
        >>> tg.data.default_collate([(tg.ones(2), 3), (tg.zeros(2), 4)])
        [tensor([[1., 1.],
                [0., 0.]], dtype=float32), tensor([3, 4], dtype=int64)]
    """
    samples = list(batch)
    if not samples:
        raise ValueError("default_collate: got no samples")
    first = samples[0]
    if isinstance(first, (str, bytes)):
        return samples
    if isinstance(first, (Tensor, np.ndarray, np.generic)):
        shapes = [np.shape(s) for s in samples]
        if len(set(shapes)) > 1:
            raise ValueError(f"default_collate: the samples' shapes differ: {sorted(set(shapes))}; resize them, or "
                             "pass a collate_fn")
        return tensor(np.stack([s.numpy() if isinstance(s, Tensor) else s for s in samples]))
    if isinstance(first, Real):
        return tensor(samples)
    if isinstance(first, Mapping):
        if any(s.keys() != first.keys() for s in samples):
            raise ValueError(f"default_collate: the samples' keys differ from the first one's, {list(first)}")
        return {key: default_collate([s[key] for s in samples]) for key in first}
    if isinstance(first, (tuple, list)):
        if any(len(s) != len(first) for s in samples):
            raise ValueError(f"default_collate: the samples' lengths differ: {sorted({len(s) for s in samples})}")
        columns = [default_collate(column) for column in zip(*samples, strict=True)]
        return type(first)(*columns) if hasattr(first, "_fields") else columns
    raise TypeError(f"default_collate: cannot make a batch of {type(first).__name__}; wanted Tensors, arrays, numbers, "
                    "strings, tuples, lists or dicts. Pass a collate_fn")
