"""Gradients of an op from those that torch has for its reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Backward = tuple[Callable[..., None], Callable[..., tuple[Tensor | None, ...]]]


def through(function: Callable[..., Tensor]) -> Backward:
    """`setup_context` and `backward` for fastnets.ops.library: `function` once more, and torch's gradients.

    Nothing but the arguments is kept between the two passes. `function` takes those of the operator.
    """

    def setup_context(ctx: Any, inputs: tuple[object, ...], output: Tensor) -> None:
        ctx.others = [None if isinstance(i, Tensor) else i for i in inputs]
        ctx.places = [k for k, i in enumerate(inputs) if isinstance(i, Tensor)]
        ctx.save_for_backward(*(i for i in inputs if isinstance(i, Tensor)))

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        arguments = list(ctx.others)
        needed = [k for k in ctx.places if ctx.needs_input_grad[k]]
        twice = torch.is_grad_enabled()  # gradients of gradients are recorded
        with torch.enable_grad():
            for k, saved in zip(ctx.places, ctx.saved_tensors, strict=True):
                # Views: the gradients of one argument must not reach those that it was computed from.
                arguments[k] = saved.view_as(saved) if twice else saved.detach().requires_grad_(k in needed)
            y = function(*arguments)
            wanted = [arguments[k] for k in needed]
            found = torch.autograd.grad(y, wanted, grad, allow_unused=True, create_graph=twice)
        gradients: list[Tensor | None] = [None] * len(arguments)
        for k, gradient in zip(needed, found, strict=True):
            gradients[k] = gradient
        return tuple(gradients)

    return setup_context, backward
