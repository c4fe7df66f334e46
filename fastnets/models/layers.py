"""Building blocks that several families share, in 2D and 3D.

The rule for 3D: depth takes the kernel, stride and padding of the rows. A square kernel k×k becomes k×k×k, and
the factors 1×n and n×1 of the Inception networks become 1×1×n and n×n×1 (depth, rows, columns), which together
see n×n×n as they see n×n in 2D. Every layer keeps its name, so that weights can be inflated.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastnets.errors import InputError

Size = int | tuple[int, int]
Step = tuple[int, Size] | tuple[int, Size, int]


class Layers(NamedTuple):
    """The layer classes of torch.nn for one number of spatial axes."""

    conv: Any
    norm: Any
    max_pool: Any
    avg_pool: Any
    adaptive_avg_pool: Any


def layers(dims: int) -> Layers:
    """The classes for 2 or 3 spatial axes. Raises InputError for other numbers."""
    if dims not in (2, 3):
        raise InputError(f"dims={dims} is not known: pass 2 or 3")
    names = ("Conv", "BatchNorm", "MaxPool", "AvgPool", "AdaptiveAvgPool")
    return Layers(*(getattr(nn, f"{name}{dims}d") for name in names))


def spatial(dims: int, size: Size) -> int | tuple[int, ...]:
    """A size for every axis, or one of (rows, columns), for `dims` axes."""
    return size if isinstance(size, int) or dims == 2 else (size[0], *size)


def named(**modules: nn.Module) -> nn.Sequential:
    """A Sequential whose modules have names."""
    return nn.Sequential(OrderedDict(modules))


def conv_norm(
    dims: int, i: int, o: int, kernel: Size, *, stride: int = 1, padding: Size | None = None, eps: float = 1e-3
) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU: `conv` and `bn` in the state_dict.

    padding: None keeps the size at stride 1, and is none ("valid") at other strides.
    """
    nd = layers(dims)
    if padding is None:
        padding = 0 if stride > 1 else kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)
    conv = nd.conv(i, o, spatial(dims, kernel), stride, spatial(dims, padding), bias=False)
    return named(conv=conv, bn=nd.norm(o, eps=eps), relu=nn.ReLU())


def chain(dims: int, i: int, *steps: Step) -> nn.Sequential:
    """`conv_norm`s one after the other, each (channels, kernel) or (channels, kernel, stride); one stays unwrapped."""
    convs = []
    for o, kernel, *stride in steps:
        convs.append(conv_norm(dims, i, o, kernel, stride=stride[0] if stride else 1))
        i = o
    return convs[0] if len(convs) == 1 else nn.Sequential(*convs)


class Branches(nn.Module):
    """Parallel branches on one input, concatenated along the channels in the order given."""

    def __init__(self, **branches: nn.Module) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)


def he_init(model: nn.Module, *, mode: str = "fan_out") -> None:
    """Convolutions from the normal distribution of He et al. (ICCV 2015), biases at zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")  # type: ignore[arg-type]
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def normal_init(model: nn.Module, *, std: float = 0.01) -> None:
    """Weights of convolutions and linear layers from a normal distribution, biases at zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
