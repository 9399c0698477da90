"""Data sets, batches, and the digits that come with the package."""

from ..ops import arguments as _arguments
from .augment import random_shift
from .dataset import Dataset, Subset, TensorDataset, default_collate, random_split
from .loader import DataLoader
from .mnist import MNIST, mnist5k

__all__ = ["MNIST", "DataLoader", "Dataset", "Subset", "TensorDataset", "default_collate", "mnist5k", "random_shift",
           "random_split"]

_arguments.guard(globals(), __all__)
