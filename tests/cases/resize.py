"""Inputs of resize."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from fastnets.ops.resize import OP as OP
from fastnets.ops.resize import ResizeCall


@dataclass(frozen=True)
class Case:
    """`size` of the result, or `scale` along every axis."""

    shape: tuple[int, ...]
    mode: str
    size: tuple[int, ...] = ()
    scale: float = 0
    align_corners: bool = False

    @property
    def name(self) -> str:
        to = "x".join(map(str, self.size)) or f"times{self.scale}"
        return f"{self.mode}{'-aligned' * self.align_corners}-{'x'.join(map(str, self.shape))}-to-{to}"


def make(case: Case, seed: int = 0) -> ResizeCall:
    """Normal values."""
    x = torch.randn(case.shape, generator=torch.Generator().manual_seed(seed))
    scale = (case.scale,) * len(case.shape[2:]) if case.scale else None
    size = case.size or tuple(math.floor(s * case.scale) for s in case.shape[2:])
    return ResizeCall(x, size, scale, case.mode, case.align_corners)


DTYPES = (torch.float32, torch.bfloat16)


def tolerance(case: Case, implementation: str) -> float:
    return 1e-6 if implementation == "native" else 1e-5  # torch computes positions in float32


CASES = [
    *(Case((2, 21, 9, 7), mode, scale=2) for mode in ("nearest", "nearest-exact", "linear")),
    *(Case((1, 3, 19, 37), mode, (13, 50)) for mode in ("nearest", "nearest-exact", "linear")),
    *(Case((1, 64, 5, 6, 7), mode, scale=2) for mode in ("nearest", "nearest-exact", "linear")),
    *(Case((2, 1, 5, 6, 7), mode, (9, 3, 8)) for mode in ("nearest", "nearest-exact", "linear")),
    *(Case((1, 24, 31), mode, scale=1.7) for mode in ("nearest", "nearest-exact", "linear")),
    Case((1, 728, 6, 5), "linear", (12, 1), align_corners=True),
    Case((1, 5, 17, 20), "linear", scale=0.4),
    Case((1, 5, 17, 20), "linear", scale=0.4, align_corners=True),
    Case((1, 21, 8, 8), "linear", scale=8),
    Case((1, 21, 8, 8), "linear", (8, 8)),
    Case((1, 5, 4, 5, 6), "linear", scale=2, align_corners=True),
    Case((1, 5, 1, 1), "linear", (4, 5), align_corners=True),
    Case((0, 4, 6, 6), "linear", scale=2),
]
