"""Inputs of linear."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastnets.ops.epilogue import activation_of
from fastnets.ops.linear import OP as OP
from fastnets.ops.linear import LinearCall


@dataclass(frozen=True)
class Case:
    rows: tuple[int, ...]
    inputs: int
    outputs: int
    activation: str = "none"
    bias: bool = True

    @property
    def name(self) -> str:
        rows = "x".join(map(str, self.rows)) or "vector"
        return f"{rows}-{self.inputs}-{self.outputs}-{self.activation}{'' if self.bias else '-plain'}"


def make(case: Case, seed: int = 0) -> LinearCall:
    """Normal values."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn((*case.rows, case.inputs), generator=random)
    weight = torch.randn(case.outputs, case.inputs, generator=random)
    bias = torch.randn(case.outputs, generator=random) if case.bias else None
    return LinearCall(x, weight, bias, activation_of("linear", case.activation))


DTYPES = (torch.float32, torch.bfloat16)


def tolerance(case: Case, implementation: str) -> float:
    return 3e-6


CASES = [
    Case((1,), 512, 1000),
    Case((1,), 2048, 21, "relu"),
    Case((7,), 24, 33, "gelu"),
    Case((130,), 64, 128),
    Case((2, 5, 3), 21, 3, "sigmoid"),
    Case((), 17, 5),
    Case((3,), 1, 1, bias=False),
    Case((65,), 728, 17, "leaky"),
    Case((0,), 8, 4),
]
