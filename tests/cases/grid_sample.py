"""Inputs of grid_sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastnets.ops.grid_sample import MODES, PADDINGS, GridSampleCall
from fastnets.ops.grid_sample import OP as OP


@dataclass(frozen=True)
class Case:
    shape: tuple[int, ...]
    out: tuple[int, ...]
    mode: str = "linear"
    padding: str = "zeros"
    align_corners: bool = False

    @property
    def name(self) -> str:
        shapes = "-to-".join("x".join(map(str, shape)) for shape in (self.shape, self.out))
        return f"{self.mode}-{self.padding}{'-aligned' * self.align_corners}-{shapes}"


def make(case: Case, seed: int = 0) -> GridSampleCall:
    """Positions in and around the image."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(case.shape, generator=random)
    grid = 3 * torch.rand((len(x), len(case.out), *case.out), generator=random) - 1.5
    return GridSampleCall(x, grid, case.mode, case.padding, case.align_corners)


def tolerance(case: Case, implementation: str) -> float:
    return 1e-5  # the position of a float32 grid


CASES = [
    *(
        Case((2, 21, 9, 11), (7, 5), mode, padding, aligned)
        for mode in MODES
        for padding in PADDINGS
        for aligned in (False, True)
    ),
    *(Case((1, 3, 5, 6, 7), (4, 5, 6), mode, padding) for mode in MODES for padding in PADDINGS),
    Case((2, 64, 8, 8), (30, 31)),
    Case((1, 728, 5, 6), (3, 4), padding="border", align_corners=True),
    Case((1, 1, 1, 1), (3, 4), padding="reflection", align_corners=True),
    Case((1, 2, 3, 1, 4), (3, 4, 2), padding="reflection"),
    Case((0, 4, 6, 6), (3, 3)),
]
