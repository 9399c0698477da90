"""Batches of a data set, in order or shuffled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .dataset import as_generator, is_count, take


class DataLoader:
    """Iterate over a data set in batches. It loads in this process; `num_workers` can only be 0.

    Args:
        dataset: anything with `__getitem__` and `__len__`.
        batch_size: samples per batch, 1 or more.
        shuffle: in a new random order at each iteration.
        num_workers: 0.
        collate_fn: makes a batch of a list of samples; `default_collate` by default.
        drop_last: leave out a last batch of fewer samples.
        generator: for the order: a NumPy generator, or a seed, which makes this loader's epochs repeatable; by default
            what `tg.manual_seed` seeds.

    Raises:
        TypeError: a data set without a length.
        ValueError: batch_size below 1, num_workers other than 0.

    Example:
        >>> import tinygrad_cnn as tg
        >>> dataset = tg.data.TensorDataset(tg.arange(5))
        >>> [x.tolist() for (x,) in tg.data.DataLoader(dataset, batch_size=2)]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(self, dataset: Any, batch_size: int = 1, shuffle: bool = False, *, num_workers: int = 0,
                 collate_fn: Callable[[list[Any]], Any] | None = None, drop_last: bool = False,
                 generator: np.random.Generator | int | None = None):
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise TypeError(f"DataLoader: dataset must have __getitem__ and __len__, {type(dataset).__name__} has not")
        if not is_count(batch_size, 1):
            raise ValueError(f"DataLoader: batch_size must be an int of 1 or more, got {batch_size!r}")
        if num_workers != 0:
            raise ValueError(f"DataLoader: num_workers must be 0, got {num_workers!r}; this process loads the batches")
        if collate_fn is not None and not callable(collate_fn):
            raise TypeError(f"DataLoader: collate_fn must be a function, got {collate_fn!r}")
        self.dataset = dataset
        self.batch_size = int(batch_size)
        self.shuffle = bool(shuffle)
        self.drop_last = bool(drop_last)
        self.num_workers = 0
        self.collate_fn = collate_fn
        self.generator = None if generator is None else as_generator("DataLoader", generator)

    def __len__(self) -> int:
        """The number of batches."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        samples = len(self.dataset)
        order = as_generator("DataLoader", self.generator).permutation(samples) if self.shuffle else np.arange(samples)
        return (self._batch(order[i * self.batch_size:(i + 1) * self.batch_size]) for i in range(len(self)))

    def _batch(self, indices: np.ndarray) -> Any:
        if self.collate_fn is None:
            return take(self.dataset, indices)
        return self.collate_fn([self.dataset[int(i)] for i in indices])
