"""Pictures of what is computed: `graph` draws the recorded tape, `model` the layers, `save` writes SVG, PNG or DOT."""

from ..ops import arguments as _arguments
from .layers import model
from .picture import save
from .tape import graph

__all__ = ["graph", "model", "save"]

_arguments.guard(globals(), __all__)
