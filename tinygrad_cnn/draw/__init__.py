"""Pictures of what is computed: `graph` draws the recorded tape, `model` the layers, `save` writes SVG, PNG or DOT."""

from .layers import model
from .picture import save
from .tape import graph

__all__ = ["graph", "model", "save"]
