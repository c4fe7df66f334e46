"""The layers that bench/ops.py measures: convolutions of the networks that this library is for."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from cases.conv import BENCH, Case, make

LENGTH = 4


@dataclass(frozen=True)
class Layer:
    """One convolution, or a depthwise and a 1x1 convolution of its results, with ReLU at the end.

    It runs as a chain of equal layers where its output can be the next input, because a library that stores
    tensors in a layout of its own converts once at its ends, as it would in a network.
    """

    parts: tuple[Case, ...]

    @property
    def name(self) -> str:
        """That of the convolution; "separable" and the like where there are two, or one channel a group."""
        first = self.parts[0]
        if first.groups == 1 or first.groups != first.cin:
            return first.name
        kernel, size = ("x".join(map(str, values)) for values in (first.kernel, first.size))
        word = f"separable-{first.cin}to{self.parts[1].cout}" if len(self.parts) > 1 else f"depthwise-{first.cin}"
        return f"{word}-{size}-k{kernel}-s{first.stride}-d{first.dilation}"

    @property
    def length(self) -> int:
        """Of the chain."""
        first = self.parts[0]
        return LENGTH if first.cin == self.parts[-1].cout and first.stride == 1 else 1

    @property
    def operations(self) -> int:
        """Two for each multiplication of the direct algorithm, of one layer."""
        calls = [make(case) for case in self.parts]
        return sum(2 * math.prod(call.out_shape) * call.weight[0].numel() for call in calls)

    def inputs(self) -> torch.Tensor:
        """Contiguous float32."""
        return make(self.parts[0]).x

    def chain(self) -> nn.Sequential:
        """The chain as a torch module; every convolution has weights of its own."""
        modules: list[nn.Module] = []
        for seed in range(self.length):
            for case in self.parts:
                call = make(case, seed=seed)
                kind = nn.Conv2d if len(case.size) == 2 else nn.Conv3d
                shape = case.cin, case.cout, case.kernel, case.stride, case.padding, case.dilation, case.groups
                convolution = kind(*shape, bias=case.bias)  # type: ignore[arg-type]
                convolution.weight.data.copy_(call.weight)
                if call.bias is not None and convolution.bias is not None:
                    convolution.bias.data.copy_(call.bias)
                modules.append(convolution)
            modules.append(nn.ReLU(inplace=True))
        return nn.Sequential(*modules).eval()


def _depthwise(channels: int, *size: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> Layer:
    kernels, padding = (kernel,) * len(size), dilation * (kernel // 2)
    return Layer((Case(1, channels, channels, size, kernels, stride, padding, dilation, channels),))


def _separable(cin: int, cout: int, size: int, stride: int = 1) -> Layer:
    after = -(-size // stride)
    first = Case(1, cin, cin, (size, size), (3, 3), stride, 1, groups=cin, bias=False)
    return Layer((first, Case(1, cin, cout, (after, after), (1, 1))))


_XCEPTION = ((128, 147), (256, 74), (728, 37), (728, 19), (1536, 10))
_MOBILENET = ((128, 56), (256, 28), (512, 14), (1024, 7))

LAYERS = [
    *(Layer((case,)) for case in BENCH),
    *(_separable(channels, channels, size) for channels, size in (*_XCEPTION, *_MOBILENET)),
    _separable(32, 64, 112),
    _separable(64, 128, 112, stride=2),
    _depthwise(128, 112, 112),
    _depthwise(64, 112, 112, stride=2),
    _depthwise(728, 19, 19),
    _depthwise(240, 28, 28, kernel=5),
    _depthwise(64, 128, 128, dilation=4),
    *(_depthwise(32, 64, 64, 64, dilation=dilation) for dilation in (1, 2, 4)),
    _depthwise(21, 96, 96, 96, dilation=4),
]
