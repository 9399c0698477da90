"""Handwritten digits: the 5,000 that come with the package, and MNIST's files from a folder."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Callable
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..tensor import Tensor, tensor
from .dataset import Dataset, TensorDataset

TRAINING_DIGITS = 4000
"""How many of the bundled digits are for training; the other 1,000 are for testing."""

IDX_UINT8 = 0x08
"""The type code of unsigned bytes in an IDX file, the third byte."""
IDX_LIMIT = 2**30
"""Bytes of values read from one IDX file at most; MNIST's largest has 47 million."""


def mnist5k(train: bool | None = None) -> TensorDataset:
    """5,000 handwritten digits of MNIST, 500 of each class, in random order; nothing is downloaded.

    Args:
        train: True for the first 4,000, False for the other 1,000 (the usual split), None for all.

    Returns:
        A data set of images (N, 1, 28, 28) float32 in 0 .. 1, ink is 1, and labels (N,) int64 in 0 .. 9.

    Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits"; CC BY-SA 3.0, see mnist5k.LICENSE.txt.

    Example:
        >>> import tinygrad_cnn as tg
        >>> images, labels = tg.data.mnist5k(train=True).tensors
        >>> images.shape, labels.shape
        ((4000, 1, 28, 28), (4000,))
    """
    if train not in (True, False, None):
        raise TypeError(f"mnist5k: train must be True, False or None, got {train!r}")
    with resources.files(__package__).joinpath("mnist5k.npz").open("rb") as file, np.load(file) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    part = slice(None) if train is None else slice(TRAINING_DIGITS) if train else slice(TRAINING_DIGITS, None)
    return TensorDataset(_scaled(images[part]), tensor(labels[part], dtype=np.int64))


class MNIST(Dataset):
    """MNIST's four IDX files, plain or .gz, from a folder. Nothing is downloaded.

    Unlike torchvision's its images are Tensors (1, 28, 28) float32 in 0 .. 1 even without a transform.

    Args:
        root: the folder with `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
            `t10k-labels-idx1-ubyte`, or one with them in `MNIST/raw`, where torchvision puts them.
        train: the 60,000 training digits, or the 10,000 for testing.
        transform: applied to every image.
        target_transform: applied to every label.

    Attributes:
        data: images (N, H, W) uint8.
        targets: labels (N,) int64 in 0 .. 9.

    Raises:
        FileNotFoundError: a file is in none of the places.
        ValueError: a file, which is named, that is no IDX file, is cut short or too long, or has other counts or values
            than it should have.
    """

    def __init__(self, root: str | PathLike[str], train: bool = True, transform: Callable[[Tensor], Any] | None = None,
                 target_transform: Callable[[int], Any] | None = None):
        for name, function in (("transform", transform), ("target_transform", target_transform)):
            if function is not None and not callable(function):
                raise TypeError(f"MNIST: {name} must be a function, got {function!r}")
        prefix = "train" if train else "t10k"
        image_file = _find(Path(root), f"{prefix}-images-idx3-ubyte")
        label_file = _find(Path(root), f"{prefix}-labels-idx1-ubyte")
        images, labels = _read_idx(image_file, 3), _read_idx(label_file, 1)
        if len(images) != len(labels):
            raise ValueError(f"MNIST: {image_file} has {len(images)} images, {label_file} {len(labels)} labels")
        if labels.size and labels.max() > 9:
            raise ValueError(f"MNIST: {label_file} has label {labels.max()} at position {labels.argmax()}; wanted 0-9")
        self.data, self.targets = tensor(images), tensor(labels, dtype=np.int64)
        self.train, self.transform, self.target_transform = bool(train), transform, target_transform

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, label = _scaled(self.data._data[index]), int(self.targets._data[index])
        return (image if self.transform is None else self.transform(image),
                label if self.target_transform is None else self.target_transform(label))

    def __len__(self) -> int:
        return len(self.data)


def _scaled(pixels: np.ndarray) -> Tensor:
    """(..., H, W) uint8 in 0 .. 255 as a Tensor (..., 1, H, W) float32 in 0 .. 1."""
    return Tensor._wrap((pixels.astype(np.float32) / np.float32(255))[..., None, :, :])


def _find(root: Path, name: str) -> Path:
    folders = (root, root / "MNIST" / "raw", root / "raw")
    for folder in folders:
        for ending in ("", ".gz"):
            if (folder / (name + ending)).is_file():
                return folder / (name + ending)
    raise FileNotFoundError(f"MNIST: {name} (or {name}.gz) is in none of {', '.join(map(str, folders))}")


def _read_idx(path: Path, ndim: int) -> np.ndarray:
    """The bytes of an IDX file: a magic number, `ndim` big-endian 32-bit sizes, then the values in row-major order."""
    header = 4 + 4 * ndim
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            start = file.read(header)
            if len(start) < header:
                raise ValueError(f"MNIST: {path} is cut short: {len(start)} bytes, its header alone has {header}")
            magic, *shape = struct.unpack(f">{1 + ndim}I", start)
            wanted = (IDX_UINT8 << 8) + ndim
            if magic != wanted:
                raise ValueError(f"MNIST: {path} starts with magic number {magic:#010x}, wanted {wanted:#010x}")
            count = math.prod(shape)
            if count > IDX_LIMIT:
                raise ValueError(f"MNIST: {path} claims shape {tuple(shape)}, more than {IDX_LIMIT} bytes")
            values = file.read(count + 1)      # one more than it should have, to notice what is too long
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"MNIST: {path} is a damaged gzip file: {error}") from error
    if len(values) != count:
        problem = "cut short" if len(values) < count else "too long"
        raise ValueError(f"MNIST: {path} is {problem}: it claims shape {tuple(shape)}, {count} values, and has "
                         f"{len(values) if len(values) < count else 'more'}")
    return np.frombuffer(values, np.uint8).reshape(shape)
