"""What a module's full backward hooks see: the gradients that pass its inputs and outputs during one backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..tensor import Tensor


class BackwardWatch:
    """Watches one call of a module by hooks on views of its inputs and outputs, so no other use of them mixes in.

    Args:
        module: what the hooks are told they watch.
        hooks: the module's own dict of hooks, read when backward comes by.
    """

    def __init__(self, module: Any, hooks: dict[int, Callable[..., Any]]):
        self.module, self.hooks = module, hooks
        self.grad_input: list[Any] = []
        self.grad_output: list[Any] = []
        self.awaited_inputs: set[int] = set()
        self.awaited_outputs: set[int] = set()
        self.arrived: set[int] = set()

    def inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The positional arguments, those that need a gradient seen through watched views."""
        passed, self.grad_input, self.awaited_inputs = self._watch(args, self._input_arrived)
        return passed

    def outputs(self, output: Any) -> Any:
        """The output, or a tuple of them, likewise."""
        passed, self.grad_output, self.awaited_outputs = self._watch(
            output if isinstance(output, tuple) else (output,), self._output_arrived)
        return passed if isinstance(output, tuple) else passed[0]

    @staticmethod
    def _watch(values: tuple[Any, ...],
               arrived: Callable[[int, Tensor], Any]) -> tuple[tuple[Any, ...], list[Any], set[int]]:
        passed, awaited = list(values), set()
        for i, value in enumerate(values):
            if isinstance(value, Tensor) and value.requires_grad:
                passed[i] = value.reshape(value.shape)
                passed[i].register_hook(lambda g, i=i: arrived(i, g))
                awaited.add(i)
        return tuple(passed), [None] * len(passed), awaited

    def _output_arrived(self, i: int, g: Tensor) -> None:
        self.grad_output[i] = g
        if not self.awaited_inputs and self._complete(i, self.awaited_outputs):
            self._call()

    def _input_arrived(self, i: int, g: Tensor) -> Tensor | None:
        self.grad_input[i] = g
        replaced = self._call() if self._complete(i, self.awaited_inputs) else None
        return None if replaced is None else replaced[i]

    def _complete(self, i: int, awaited: set[int]) -> bool:
        self.arrived.add(i)
        return self.arrived == awaited

    def _call(self) -> tuple[Any, ...] | None:
        """Call the hooks, each seeing what the one before put in; then be ready for another backward."""
        grad_output = tuple(self.grad_output)
        original = current = tuple(self.grad_input)
        self.grad_input, self.grad_output = [None] * len(original), [None] * len(grad_output)
        self.arrived = set()
        for hook in list(self.hooks.values()):
            replaced = hook(self.module, current, grad_output)
            if replaced is None:
                continue
            current = replaced if isinstance(replaced, tuple) else (replaced,)
            if len(self.awaited_inputs) != 1 or len(current) != len(original):
                raise RuntimeError(
                    f"register_full_backward_hook: a hook of {type(self.module).__name__} returned {len(current)} "
                    f"gradients for {len(original)} inputs, {len(self.awaited_inputs)} of which need one; "
                    "only a single one can be replaced")
        return None if current is original else current
