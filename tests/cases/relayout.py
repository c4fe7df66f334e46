"""Inputs of relayout."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastnets.ops.relayout import OP as OP
from fastnets.ops.relayout import RelayoutCall


@dataclass(frozen=True)
class Case:
    """From float32 or bfloat16, to either."""

    batch: int
    channels: int
    size: tuple[int, ...]
    channels_last: bool = True
    source: str = "float32"
    target: str = "float32"

    @property
    def name(self) -> str:
        size = "x".join(map(str, self.size))
        where = "last" if self.channels_last else "first"
        return f"n{self.batch}-{self.channels}-{size}-{self.source}-{self.target}-{where}"


def make(case: Case, seed: int = 0) -> RelayoutCall:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(case.batch, case.channels, *case.size, generator=random)
    return RelayoutCall(x.to(getattr(torch, case.source)), getattr(torch, case.target), case.channels_last)


def tolerance(case: Case, implementation: str) -> float:
    """A copy is exact; rounded to bfloat16, it loses half a unit of 8 bits."""
    return 2.0**-8 if case.target == "bfloat16" else 0.0


CASES = [
    Case(batch, channels, size, last, source, target)
    for last in (True, False)
    for source in ("float32", "bfloat16")
    for target in ("float32", "bfloat16")
    for batch, channels, size in (
        (2, 3, (37, 41)),
        (1, 1, (9, 200)),
        (1, 21, (5, 6, 7)),
        (2, 24, (64,)),
        (1, 70, (13, 17)),
        (1, 728, (3, 5)),
        (0, 3, (4, 4)),
    )
]
