"""Inputs of activation."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastnets.ops.activation import OP as OP
from fastnets.ops.activation import ActivationCall
from fastnets.ops.epilogue import ACTIVATIONS, activation_of


@dataclass(frozen=True)
class Case:
    """`parameters` as the caller gives them."""

    shape: tuple[int, ...]
    activation: str
    parameters: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        return "-".join([self.activation, "x".join(map(str, self.shape)), *map(str, self.parameters)])


def make(case: Case, seed: int = 0) -> ActivationCall:
    """Normal values of deviation 3: most of them where the activation bends, some far out."""
    random = torch.Generator().manual_seed(seed)
    kind = activation_of("activation", case.activation, case.parameters)
    return ActivationCall(3 * torch.randn(case.shape, generator=random), kind)


def tolerance(case: Case, implementation: str) -> float:
    return 1e-6


CASES = [
    *(Case((2, 5, 13, 7), name) for name in ACTIVATIONS),
    *(Case((1, 21, 50, 47), name) for name in ("relu", "silu", "gelu")),
    Case((3, 7, 5), "leaky", (0.2,)),
    Case((1, 3, 4, 5, 6), "elu", (0.7,)),
    Case((2, 3, 4), "clamp", (0.0, 2.0)),
    Case((0, 3, 4), "relu"),
]
