"""torch.compile(model, backend="fastnets"): the graphs that Dynamo finds, run like those of optimize().

pyproject.toml names this module as an entry point, so that torch finds the backend by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from fastnets.engine.module import Optimized


def fastnets(graph: fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
    """The backend: a callable that runs `graph`.

    Parameters and buffers reach it as inputs; they are told apart at the first call and become constants. Where
    gradients are recorded, `graph` itself runs.
    """
    return _Compiled(graph)


class _Compiled:
    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.constants: tuple[int, ...] = ()
        self.optimized: Optimized | None = None

    def __call__(self, *args: Any) -> Any:
        if torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in args):
            return self.graph(*args)
        constant = [index for index, value in enumerate(args) if _is_constant(value)]
        identity = tuple(id(args[index]) for index in constant)
        if self.optimized is None or self.constants != identity:
            self.constants = identity
            bound = _Bound(self.graph, {index: args[index] for index in constant}, len(args))
            self.optimized = Optimized(bound.eval())
        return self.optimized(*(value for index, value in enumerate(args) if index not in set(constant)))


def _is_constant(value: Any) -> bool:
    """Whether Dynamo passes the same tensor at every call: a parameter or a buffer."""
    return isinstance(value, nn.Parameter) or getattr(value, "_dynamo_static_input_type", None) is not None


class _Bound(nn.Module):
    """The graph with some of its inputs fixed."""

    def __init__(self, graph: fx.GraphModule, constants: dict[int, Tensor], count: int) -> None:
        super().__init__()
        self.graph, self.count = graph, count
        self.names = {index: f"constant_{index}" for index in constants}
        for index, value in constants.items():
            self.register_buffer(self.names[index], value.detach())

    def forward(self, *args: Any) -> Any:
        rest = iter(args)
        values = [getattr(self, self.names[i]) if i in self.names else next(rest) for i in range(self.count)]
        return self.graph(*values)
