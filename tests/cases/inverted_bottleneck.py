"""Inputs of inverted_bottleneck."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from fastnets.ops.conv_arguments import Padding, window_of
from fastnets.ops.epilogue import activation_of
from fastnets.ops.inverted_bottleneck import OP as OP
from fastnets.ops.inverted_bottleneck import InvertedBottleneckCall


@dataclass(frozen=True)
class Case:
    """`cin` channels become `middle`, then `cout`; `activations` are those of the three results."""

    batch: int
    cin: int
    middle: int
    cout: int
    size: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    stride: int | tuple[int, int] = 1
    padding: Padding = 1
    biases: bool = True
    residual: bool = False
    activations: tuple[str, str, str] = ("relu6", "relu6", "none")

    @property
    def name(self) -> str:
        size, kernel = ("x".join(map(str, size)) for size in (self.size, self.kernel))
        parts = [f"n{self.batch}", f"{self.cin}to{self.middle}to{self.cout}", size, f"k{kernel}"]
        for letter, value in (("s", self.stride), ("p", self.padding)):
            if value != 1:
                parts.append(letter + str(value).replace(", ", ",").strip("()"))
        parts += [] if self.biases else ["plain"]
        parts += ["residual"] if self.residual else []
        parts += ["-".join(self.activations)]
        return "-".join(parts)


def make(case: Case, seed: int = 0) -> InvertedBottleneckCall:
    """Normal values, weights scaled as networks are initialised."""
    random = torch.Generator().manual_seed(seed)
    depthwise = torch.randn(case.middle, 1, *case.kernel, generator=random)
    sizes = (case.cout, case.middle, case.middle)
    bias, expand_bias, middle_bias = (torch.randn(n, generator=random) if case.biases else None for n in sizes)
    first, middle, last = (activation_of("inverted_bottleneck", name) for name in case.activations)
    call = InvertedBottleneckCall(
        x=torch.randn(case.batch, case.cin, *case.size, generator=random),
        expand=torch.randn(case.middle, case.cin, 1, 1, generator=random) / case.cin**0.5,
        depthwise=depthwise / depthwise[0].numel() ** 0.5,
        project=torch.randn(case.cout, case.middle, 1, 1, generator=random) / case.middle**0.5,
        bias=bias,
        expand_bias=expand_bias,
        middle_bias=middle_bias,
        residual=None,
        window=window_of(2, case.stride, case.padding, 1),
        expand_activation=first,
        middle_activation=middle,
        activation=last,
    )
    residual = torch.randn(call.out_shape, generator=random)
    return replace(call, residual=residual) if case.residual else call


DTYPES = (torch.float32, torch.bfloat16)


def tolerance(case: Case, implementation: str) -> float:
    return 1e-5


CASES = [
    *(Case(2, c, 6 * c, c, (13, 17), residual=True) for c in (1, 3, 21, 24)),
    *(Case(1, 21, c, 30, (13, 17), stride=2) for c in (1, 9, 24, 33, 728)),
    Case(1, 24, 144, 24, (56, 56), residual=True),
    Case(1, 16, 96, 24, (47, 60), stride=2),
    Case(1, 24, 72, 40, (31, 28), (5, 5), padding=2, activations=("hardswish", "hardswish", "none")),
    Case(2, 24, 72, 40, (31, 28), (5, 5), stride=2, padding=((1, 2), (2, 1)), activations=("silu", "silu", "relu")),
    Case(1, 10, 40, 20, (9, 11), activations=("sigmoid", "tanh", "silu")),  # zeros of the padding stay zeros
    Case(1, 10, 40, 20, (9, 11), biases=False, activations=("none", "none", "none")),
    Case(1, 8, 20, 12, (20, 21), (7, 4), padding=((3, 3), (1, 2)), residual=True, activations=("relu", "relu", "relu")),
    Case(1, 8, 20, 12, (14, 15), (1, 3), stride=(3, 2), padding=(0, 5)),
    Case(1, 8, 20, 12, (3, 2), (5, 5), padding=7),
    Case(1, 16, 96, 24, (6, 700)),  # rows are cut
    Case(1, 48, 288, 24, (200, 9)),
    Case(1, 160, 960, 160, (7, 7), residual=True),
    Case(5, 20, 50, 18, (19, 3)),
    Case(0, 16, 32, 8, (9, 9)),
]
