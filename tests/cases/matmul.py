"""Inputs of matmul."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastnets.ops.matmul import OP as OP
from fastnets.ops.matmul import MatmulCall


@dataclass(frozen=True)
class Case:
    """`flipped`: the factors lie as those of the transposed product."""

    batch: tuple[int, ...]
    rows: int
    depth: int
    columns: int
    flipped: bool = False

    @property
    def name(self) -> str:
        return "x".join(map(str, (*self.batch, self.rows, self.depth, self.columns))) + "-flipped" * self.flipped


def make(case: Case, seed: int = 0) -> MatmulCall:
    """Values of one sign: sums that cancel have few digits left."""
    random = torch.Generator().manual_seed(seed)
    a, b = (0.5 + torch.rand(*case.batch, case.depth, n, generator=random) for n in (case.rows, case.columns))
    a = a.mT
    if case.flipped:
        return MatmulCall(a, b.mT.contiguous().mT)
    return MatmulCall(a.contiguous(), b)


DTYPES = (torch.float32, torch.bfloat16)


def tolerance(case: Case, implementation: str) -> float:
    return 2e-6


SIZES = ((1, 1, 1), (3, 5, 7), (14, 16, 32), (49, 32, 49), (130, 70, 17), (5, 600, 300), (1, 4096, 64), (64, 4096, 1))
CASES = [
    *(Case((2, 3), *sizes, flipped) for sizes in SIZES for flipped in (False, True)),
    Case((2, 2, 3), 8, 9, 10),
    Case((4,), 31, 16, 33),
    Case((0,), 3, 4, 5),
]
