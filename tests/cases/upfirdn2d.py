"""Inputs of upfirdn2d."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastnets.ops.upfirdn2d import OP as OP
from fastnets.ops.upfirdn2d import Upfirdn2dCall


@dataclass(frozen=True)
class Case:
    """`taps` of the filter: one number for both axes, separable, or ky and kx."""

    shape: tuple[int, ...]
    taps: tuple[int, ...]
    up: tuple[int, int] = (1, 1)
    down: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    flip: bool = False
    gain: float = 1.0

    @property
    def name(self) -> str:
        sizes = ("x".join(map(str, values)) for values in (self.shape, self.taps, self.up, self.down))
        shape, taps, up, down = sizes
        pads = ",".join(map(str, self.padding))
        return f"{shape}-k{taps}-u{up}-d{down}-p{pads}{'-flip' * self.flip}-g{self.gain:g}"


def make(case: Case, seed: int = 0) -> Upfirdn2dCall:
    """Normal values, and a filter whose sum is near 1."""
    random = torch.Generator().manual_seed(seed)
    kernel = torch.rand(case.taps, generator=random) + 0.1
    kernel /= kernel.sum()
    x = torch.randn(case.shape, generator=random)
    return Upfirdn2dCall(x, kernel, case.up, case.down, case.padding, case.flip, case.gain)


def tolerance(case: Case, implementation: str) -> float:
    return 1e-6


CASES = [
    Case((1, 64, 16, 17), (4,), up=(2, 2), padding=(2, 1, 2, 1), gain=4),  # StyleGAN2: twice the size
    Case((1, 64, 17, 16), (4,), down=(2, 2), padding=(1, 1, 1, 1)),  # half
    Case((2, 21, 9, 8), (4,), padding=(2, 1, 1, 2)),
    Case((1, 3, 20, 13), (12,), up=(2, 2), down=(2, 2), padding=(11, 10, 10, 11), gain=4),
    Case((1, 24, 11, 12), (3, 5), up=(3, 2), down=(2, 3), padding=(4, 0, 1, 3), flip=True),
    Case((2, 1, 30, 31), (6, 6), up=(4, 4), padding=(5, 5, 5, 5), gain=16),
    Case((1, 100, 14, 15), (4,), padding=(-2, 3, 1, -4)),
    Case((1, 5, 14, 15), (2, 7), up=(1, 2), padding=(-3, -1, -5, 6), flip=True),
    Case((1, 8, 5, 6), (3,), padding=(7, 8, 9, 6)),  # results that see padding only
    Case((1, 728, 6, 5), (1,), up=(2, 3), padding=(0, 1, 0, 2)),
    Case((1, 16, 9, 9), (1, 1), down=(3, 4), gain=0.5),
    Case((0, 4, 6, 6), (4,), up=(2, 2), padding=(2, 1, 2, 1)),
]
