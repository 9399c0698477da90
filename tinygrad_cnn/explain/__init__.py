"""Seeing what a CNN sees: filters, activations, saliency, and the image a neuron wants.

    from tinygrad_cnn import explain
    explain.filters(model[0]).save("filters.png")
    explain.maximize(model, range(10), shape=(1, 28, 28)).picture().save("classes.png")

The model is left exactly as it was by everything here: parameters, gradients, buffers, mode, hooks.
"""

from ..ops import arguments as _arguments
from .filters import activation_grid, filters
from .layers import activations, untouched
from .maximize import Maximized, maximize
from .objectives import Objective, channel, class_logit, neuron
from .picture import Picture, grid, overlay
from .regularizers import Regularizer, l2, total_variation
from .saliency import saliency, saliency_map

__all__ = ["Maximized", "Objective", "Picture", "Regularizer", "activation_grid", "activations", "channel", "class_logit", "filters",
           "grid", "l2", "maximize", "neuron", "overlay", "saliency", "saliency_map", "total_variation", "untouched"]

_arguments.guard(globals(), __all__)
