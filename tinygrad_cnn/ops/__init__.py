"""Layer 2: primitives. A forward works on arrays, its rules are written in Tensors; see `docs/adding_an_op.md`."""
