"""Inputs of combine."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastnets.ops.combine import OP as OP
from fastnets.ops.combine import CombineCall
from fastnets.ops.epilogue import activation_of


@dataclass(frozen=True)
class Case:
    shape: tuple[int, ...]
    other: tuple[int, ...]
    kind: str
    activation: str = "none"

    @property
    def name(self) -> str:
        shapes = "-".join("x".join(map(str, shape)) for shape in (self.shape, self.other))
        return f"{self.kind}-{shapes}-{self.activation}"


def make(case: Case, seed: int = 0) -> CombineCall:
    """Normal values."""
    random = torch.Generator().manual_seed(seed)
    x, other = (torch.randn(shape, generator=random) for shape in (case.shape, case.other))
    return CombineCall(x, other, case.kind, activation_of("combine", case.activation))


DTYPES = (torch.float32, torch.bfloat16)


def tolerance(case: Case, implementation: str) -> float:
    return 2e-6


KINDS = ("add", "multiply", "prelu", "subtract", "divide")
CASES = [
    *(Case((2, 64, 9, 7), (2, 64, 9, 7), kind) for kind in KINDS),
    *(Case((2, 21, 9, 7), (2, 21, 1, 1), kind) for kind in KINDS),
    *(Case((2, 728, 3, 5), (1, 728, 1, 1), kind) for kind in KINDS),
    *(Case((2, 24, 9, 7), (2, 1, 9, 7), kind, "silu") for kind in KINDS),
    *(Case((2, 5, 4, 5, 6), (1, 1, 4, 1, 6), kind, "relu") for kind in KINDS),
    Case((1, 1, 31, 33), (1, 1, 31, 33), "add", "relu"),
    Case((1, 3, 31), (1, 3, 31), "add", "gelu"),
    Case((1, 3, 100, 120), (1, 3, 1, 120), "add", "relu6"),
    Case((3, 1, 9, 8), (1, 1, 1, 1), "prelu"),
    Case((0, 4, 6, 6), (1, 4, 1, 1), "add"),
]
