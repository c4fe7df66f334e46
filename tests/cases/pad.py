"""Inputs of pad."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastnets.ops.pad import OP as OP
from fastnets.ops.pad import PadCall


@dataclass(frozen=True)
class Case:
    shape: tuple[int, ...]
    padding: tuple[int, ...]
    mode: str

    @property
    def name(self) -> str:
        return f"{self.mode}-{'x'.join(map(str, self.shape))}-by-{'-'.join(map(str, self.padding))}"


def make(case: Case, seed: int = 0) -> PadCall:
    """Normal values."""
    random = torch.Generator().manual_seed(seed)
    return PadCall(torch.randn(case.shape, generator=random), case.padding, case.mode)


def out_shape(call: PadCall) -> tuple[int, ...]:
    return call.shape


def tolerance(case: Case, implementation: str) -> float:
    return 0.0


CASES = [
    *(Case((2, 64, 9, 7), (3, 3, 3, 3), mode) for mode in ("reflect", "replicate", "circular")),
    *(Case((1, 5, 6, 4, 5), (5, 0, 1, 3, 0, 2), mode) for mode in ("reflect", "replicate")),
    *(Case((2, 3, 11), (2, 5), mode) for mode in ("reflect", "replicate", "circular")),
    Case((1, 3, 200, 160), (1, 1, 1, 1), "reflect"),
    Case((1, 1, 1, 3), (4, 2, 0, 0), "replicate"),
    Case((0, 4, 6, 6), (1, 1, 1, 1), "reflect"),
]
