"""Inputs of channel_norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastnets.ops.channel_norm import OP as OP
from fastnets.ops.channel_norm import ChannelNormCall
from fastnets.ops.epilogue import activation_of


@dataclass(frozen=True)
class Case:
    """`numbers` as in the call; `mean` is that of the values."""

    shape: tuple[int, ...]
    kind: str
    numbers: tuple[float, ...] = ()
    affine: bool = False
    mean: float = 0
    activation: str = "none"

    @property
    def name(self) -> str:
        flags = "-affine" * self.affine + f"-mean{self.mean:g}" + f"-{self.activation}"
        return f"{self.kind}-{'x'.join(map(str, self.shape))}{''.join(f'-{n:g}' for n in self.numbers)}{flags}"


def make(case: Case, seed: int = 0) -> ChannelNormCall:
    """Normal values of deviation 3."""
    random = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(case.shape, generator=random) + case.mean
    weight, bias = torch.randn(2, case.shape[1], generator=random).unbind()
    affine = (weight, bias) if case.affine else (None, None)
    return ChannelNormCall(x, case.kind, case.numbers, *affine, activation_of("channel_norm", case.activation))


DTYPES = (torch.float32, torch.bfloat16)


def tolerance(case: Case, implementation: str) -> float:
    return 1e-3 if implementation == "torch" and case.mean else 2e-6


ALEXNET = (5, 1e-4, 0.75, 1.0)
CASES = [
    *(Case((2, c, 7, 5), "layer", (1e-6,), affine=True) for c in (2, 3, 21, 24, 96, 728)),
    Case((1, 70, 4, 5, 3), "layer", (1e-5,), activation="gelu"),
    Case((1, 40, 9), "layer", (1e-5,), affine=True, mean=1000),
    Case((1, 1, 9, 8), "layer", (1e-5,), affine=True),
    *(Case((2, c, 7, 5), "local_response", ALEXNET) for c in (1, 3, 21, 64, 728)),
    Case((1, 24, 4, 5, 3), "local_response", (4, 0.5, 0.6, 2.0)),
    Case((1, 3, 40), "local_response", (9, 0.5, 0.75, 2.0), activation="relu"),
    *(Case((2, c, 7, 5), "softmax") for c in (1, 2, 3, 21, 64, 728)),
    Case((1, 5, 4, 5, 3), "softmax", mean=1000),
    Case((1, 21, 50, 47), "softmax"),
    Case((1, 96, 30, 31), "layer", (1e-6,), affine=True),
    *(Case((2, c, 7, 5), "unit", (1e-12,)) for c in (1, 2, 3, 21, 64, 728)),
    Case((1, 12, 4, 5, 3), "unit", (7.0,), activation="relu"),
    Case((0, 4, 6, 6), "softmax"),
    Case((0, 4, 6, 6), "layer", (1e-5,)),
]
