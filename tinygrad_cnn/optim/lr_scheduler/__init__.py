"""Learning-rate schedules: each changes the optimizer's `lr` when its `step` is called, after `optimizer.step`."""

from .cosine import CosineAnnealingLR
from .decay import ExponentialLR, LambdaLR, MultiStepLR, StepLR
from .one_cycle import OneCycleLR
from .plateau import ReduceLROnPlateau
from .scheduler import LRScheduler

__all__ = ["CosineAnnealingLR", "ExponentialLR", "LRScheduler", "LambdaLR", "MultiStepLR", "OneCycleLR",
           "ReduceLROnPlateau", "StepLR"]
