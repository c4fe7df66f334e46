"""Layers of a model by name, and what they give."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fastnets.errors import InputError


def module_named(model: nn.Module, layer: str) -> nn.Module:
    """A layer by its name. Raises InputError, with the last names that there are, for an unknown one."""
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if layer not in modules or not layer:
        have = ", ".join(list(modules)[-8:])
        raise InputError(f"explain: {type(model).__name__} has no layer {layer!r}: its last are {have}")
    return modules[layer]


@contextmanager
def captured(model: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """While the model runs, the outputs of its layer of that name, in the order of the calls."""
    outputs: list[Tensor] = []
    handle = module_named(model, layer).register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


def last_spatial_layer(model: nn.Module, x: Tensor) -> str:
    """The layer that speaks last before the image is pooled to a point: what a map is made of by default.

    Raises InputError where no layer keeps the axes of the image.
    """
    found: list[str] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == x.ndim and max(output.shape[2:]) > 1:
                found.append(name)

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if name and not list(module.children())]
    handles = [module.register_forward_hook(note(name)) for name, module in leaves]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise InputError(f"explain: no layer of {type(model).__name__} gives maps (N, C, …): name one with layer=")
    return found[-1]


def linear_head(model: nn.Module, name: str | None = None) -> nn.Linear:
    """The linear layer that makes the logits: the one of that name, else the last. Raises InputError without one."""
    if name is not None:
        module = dict(model.named_modules()).get(name)
        if not isinstance(module, nn.Linear):
            raise InputError(f"explain: {type(model).__name__} has no linear layer {name!r}: pass head= another name")
        return module
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise InputError(f"explain: {type(model).__name__} has no linear layer: CAM needs one, use grad_cam")
    return linear[-1]
