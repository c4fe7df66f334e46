"""Inputs of conv_transpose."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastnets.ops.conv_transpose import OP as OP
from fastnets.ops.conv_transpose import ConvTransposeCall
from fastnets.ops.epilogue import activation_of


@dataclass(frozen=True)
class Case:
    """`kernel`, `stride`, .. are the same along all axes; `groups` divides both channel counts."""

    shape: tuple[int, ...]
    cout: int
    kernel: int = 2
    stride: int = 2
    padding: int = 0
    extra: int = 0
    dilation: int = 1
    groups: int = 1
    residual: bool = False
    activation: str = "none"

    @property
    def name(self) -> str:
        numbers = f"k{self.kernel}s{self.stride}p{self.padding}o{self.extra}d{self.dilation}g{self.groups}"
        flags = "-residual" * self.residual + (f"-{self.activation}" if self.activation != "none" else "")
        return f"{'x'.join(map(str, self.shape))}-to-{self.cout}-{numbers}{flags}"


def make(case: Case, seed: int = 0) -> ConvTransposeCall:
    """Normal values."""
    random = torch.Generator().manual_seed(seed)
    axes = len(case.shape) - 2
    x = torch.randn(case.shape, generator=random)
    weight = torch.randn((case.shape[1], case.cout // case.groups, *(case.kernel,) * axes), generator=random)
    bias = torch.randn(case.cout, generator=random)
    numbers = ((n,) * axes for n in (case.stride, case.padding, case.extra, case.dilation))
    call = ConvTransposeCall(
        x, weight, bias, None, *numbers, case.groups, activation_of("conv_transpose", case.activation)
    )
    residual = torch.randn(call.shape, generator=random) if case.residual else None
    return ConvTransposeCall(x, weight, bias, residual, *_rest(call))


def _rest(call: ConvTransposeCall) -> tuple[object, ...]:
    return (call.stride, call.padding, call.output_padding, call.dilation, call.groups, call.activation)


DTYPES = (torch.float32, torch.bfloat16)


def tolerance(case: Case, implementation: str) -> float:
    return 1e-5 if implementation == "winograd" else 2e-6


CASES = [
    Case((2, 64, 9, 7), 32),
    Case((1, 24, 13, 11), 21, residual=True, activation="relu"),
    Case((1, 3, 5, 6), 1, activation="silu"),
    Case((1, 1, 5, 6), 3),
    Case((1, 728, 3, 4), 40),
    Case((1, 32, 4, 5, 6), 16),
    Case((2, 21, 3, 4, 3), 24, residual=True),
    Case((2, 17, 19), 33),
    Case((1, 20, 7, 8), 12, kernel=4, padding=1),
    Case((1, 20, 7, 8), 12, kernel=3, padding=1, extra=1),
    Case((1, 5, 7, 8), 36, kernel=3, stride=1, padding=1),
    Case((1, 21, 6, 5), 21, kernel=16, stride=8, padding=4, groups=21),
    Case((1, 5, 6, 5), 5, kernel=64, stride=32, padding=16),
    Case((1, 6, 6, 5), 9, kernel=2, stride=3, extra=2),  # some outputs get no input
    Case((1, 6, 6, 5), 9, kernel=3, stride=2, padding=2, dilation=2, extra=1),
    Case((1, 6, 6, 5), 9, kernel=3, stride=3, dilation=3, extra=2, groups=3),
    Case((2, 8, 3, 4, 3), 12, kernel=3, padding=1, extra=1, groups=4, activation="leaky"),
    Case((1, 8, 3, 4, 3), 12, kernel=4, padding=1),
    Case((1, 64, 40, 36), 48),
    Case((2, 40, 15, 8), 64, kernel=4, padding=1, residual=True, activation="silu"),
    Case((1, 16, 1, 30), 33, kernel=4, padding=1, activation="relu"),
    Case((0, 4, 6, 6), 5),
    Case((0, 4, 6, 6), 5, kernel=4, padding=1),
]
