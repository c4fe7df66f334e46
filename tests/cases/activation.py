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
    terms: bool = False
    """Whether scale, shift and residual come before the activation."""
    wide: bool = False
    """Whether x and the residual are slices of the channels of wider tensors."""

    @property
    def name(self) -> str:
        words = [self.activation, "x".join(map(str, self.shape)), *map(str, self.parameters)]
        return "-".join(words + ["terms"] * self.terms + ["wide"] * self.wide)


def make(case: Case, seed: int = 0) -> ActivationCall:
    """Normal values of deviation 3: most of them where the activation bends, some far out."""
    random = torch.Generator().manual_seed(seed)
    kind = activation_of("activation", case.activation, case.parameters)
    batch, channels, *spatial = case.shape

    def values() -> torch.Tensor:
        if not case.terms:
            return 3 * torch.randn(case.shape, generator=random)
        wider = channels + 5 if case.wide else channels
        return 3 * torch.randn(batch, *spatial, wider, generator=random).movedim(-1, 1)[:, :channels]

    x = values()
    if not case.terms:
        return ActivationCall(x, kind)
    scale, shift = torch.randn(2, channels, generator=random)
    return ActivationCall(x, kind, scale.contiguous(), shift.contiguous(), values())


DTYPES = (torch.float32, torch.bfloat16)


def tolerance(case: Case, implementation: str) -> float:
    return 1e-6


CASES = [
    *(Case((2, 5, 13, 7), name) for name in ACTIVATIONS),
    *(Case((1, 21, 50, 47), name) for name in ("relu", "silu", "gelu")),
    Case((3, 7, 5), "leaky", (0.2,)),
    Case((1, 3, 4, 5, 6), "elu", (0.7,)),
    Case((2, 3, 4), "clamp", (0.0, 2.0)),
    Case((0, 3, 4), "relu"),
    *(Case((2, c, 9, 7), "relu", terms=True) for c in (1, 3, 16, 21, 100)),
    *(Case((2, c, 5, 6, 7), "silu", terms=True, wide=True) for c in (1, 3, 16, 37)),
    Case((1, 24, 50), "none", terms=True, wide=True),
    Case((3, 5, 40, 31, 7), "relu", terms=True, wide=True),  # several rows an item
]
