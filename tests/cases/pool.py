"""Inputs of pool."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastnets.ops.pool import OP as OP
from fastnets.ops.pool import PoolCall, adaptive_call


@dataclass(frozen=True)
class Case:
    """`window`, `stride`, `padding` and `dilation` are the same along all axes; window 0 is the whole image.

    adaptive: the size of the result, of which the other numbers say nothing then.
    """

    shape: tuple[int, ...]
    kind: str
    window: int
    stride: int
    padding: int = 0
    dilation: int = 1
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor: int = 0
    adaptive: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        numbers = f"w{self.window}s{self.stride}p{self.padding}d{self.dilation}"
        flags = f"{'-ceil' * self.ceil_mode}{'' if self.count_include_pad else '-nopad'}{'-div' * (self.divisor > 0)}"
        numbers = f"to{'x'.join(map(str, self.adaptive))}" if self.adaptive else numbers
        return f"{self.kind}-{'x'.join(map(str, self.shape))}-{numbers}{flags}"


def make(case: Case, seed: int = 0) -> PoolCall:
    """Normal values."""
    x = torch.randn(case.shape, generator=torch.Generator().manual_seed(seed))
    if case.adaptive:
        return adaptive_call(x, case.kind == "avg", case.adaptive)
    axes = len(case.shape) - 2
    window = (case.window,) * axes if case.window else case.shape[2:]
    numbers = (case.stride,) * axes, (case.padding,) * axes, (case.dilation,) * axes
    flags = case.ceil_mode, case.count_include_pad, case.divisor
    return PoolCall(x, case.kind == "avg", window, *numbers, *flags)


DTYPES = (torch.float32, torch.bfloat16)


def tolerance(case: Case, implementation: str) -> float:
    return 1e-6


CASES = [
    Case((2, 64, 18, 19), "max", 2, 2),
    Case((1, 3, 9, 10), "max", 3, 2, 1),
    Case((1, 21, 9, 10), "max", 3, 2, 1, ceil_mode=True),
    Case((2, 24, 11, 9), "max", 2, 1, 0, 3),
    Case((1, 728, 5, 6), "max", 3, 1, 1),
    Case((1, 1, 31, 7), "max", 5, 3, 2, 1),
    Case((1, 5, 7, 6, 8), "max", 2, 2),
    Case((2, 21, 7, 6, 5), "max", 3, 2, 1, ceil_mode=True),
    Case((1, 4, 9, 9, 9), "max", 2, 2, 1, 2),
    Case((1, 17, 33), "max", 3, 2, 1),
    Case((2, 64, 18, 19), "avg", 2, 2),
    Case((1, 3, 9, 10), "avg", 3, 2, 1),
    Case((1, 21, 9, 10), "avg", 3, 2, 1, ceil_mode=True),
    Case((1, 21, 10, 10), "avg", 3, 2, 1, ceil_mode=True, count_include_pad=False),
    Case((1, 24, 10, 9), "avg", 3, 2, 1, count_include_pad=False),
    Case((1, 24, 10, 9), "avg", 3, 3, 1, divisor=5),
    Case((1, 728, 5, 6), "avg", 3, 1, 1),
    Case((1, 1, 31, 7), "avg", 4, 3, 2, ceil_mode=True),
    Case((1, 5, 7, 6, 8), "avg", 2, 2),
    Case((2, 21, 7, 6, 5), "avg", 3, 2, 1, ceil_mode=True, count_include_pad=False),
    Case((1, 17, 33), "avg", 3, 2, 1, divisor=7),
    Case((2, 70, 40, 37), "avg", 0, 1),
    Case((2, 70, 40, 37), "max", 0, 1),
    Case((1, 3, 9, 14, 11), "avg", 0, 1),
    Case((1, 3, 9, 14, 11), "max", 0, 1),
    Case((3, 1, 5), "avg", 0, 1),
    Case((1, 33, 14, 9), "avg", 0, 1, adaptive=(5, 7)),
    Case((2, 70, 14, 9), "max", 0, 1, adaptive=(5, 7)),
    Case((1, 5, 3, 4), "avg", 0, 1, adaptive=(7, 4)),
    Case((1, 21, 5, 7, 6), "max", 0, 1, adaptive=(2, 3, 6)),
    Case((1, 21, 5, 7, 6), "avg", 0, 1, adaptive=(2, 3, 9)),
    Case((2, 3, 11), "avg", 0, 1, adaptive=(4,)),
    Case((0, 4, 6, 6), "avg", 0, 1, adaptive=(4, 4)),
    Case((0, 4, 6, 6), "max", 2, 2),
    Case((0, 4, 6, 6), "avg", 0, 1),
]
