"""Weights on a GPU, laid out once as their kernel reads them, which would copy any other at every run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastnets.engine.graph import Node
from fastnets.engine.kernels_conv import Conv


def vector_on(vector: Tensor | None, device: torch.device) -> Tensor | None:
    """A vector of the epilogue: kernels add it in float32."""
    return None if vector is None else vector.detach().to(device, torch.float32)


def kept(conv: Conv, scale: Tensor | None, node: Node, device: torch.device, lay: Callable[[Tensor], Tensor]) -> Tensor:
    """The weight times the scale of its outputs as `lay` has it in memory, for all shapes that the network runs at."""
    dtype = node.inputs[0].dtype
    key = (device, dtype, lay, None if scale is None else scale.detach().cpu().numpy().tobytes())
    if key not in conv.packs:
        weight = conv.weight.detach()
        if scale is not None:
            weight = weight.float() * scale.to(weight.device).view(-1, *(1,) * (weight.dim() - 1))
        conv.packs[key] = lay(weight).to(device, dtype)
    packed: Tensor = conv.packs[key]
    return packed


def flat(weight: Tensor) -> Tensor:
    return weight.flatten(1)


def flat_pixels(weight: Tensor) -> Tensor:
    return weight.movedim(1, -1).flatten(1)


def outputs_inside(weight: Tensor) -> Tensor:
    """(Cout, Cin, *kernel) with the outputs together in memory: as our kernels read it, who copy any other."""
    return weight.movedim((0, 1), (-1, -2)).contiguous().movedim((-1, -2), (0, 1))


def outputs_inside_transposed(weight: Tensor) -> Tensor:
    """The same for (Cin, Cout, *kernel)."""
    return weight.movedim((0, 1), (-2, -1)).contiguous().movedim((-2, -1), (0, 1))
