"""Inputs of norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastnets.ops.epilogue import activation_of
from fastnets.ops.norm import OP as OP
from fastnets.ops.norm import NormCall


@dataclass(frozen=True)
class Case:
    """`groups` 0: one a channel. `mean` is that of the values, whose deviation is 1. `given`: moments of the caller."""

    shape: tuple[int, ...]
    groups: int = 0
    mean: float = 0
    affine: bool = True
    given: str = ""
    residual: bool = False
    activation: str = "none"

    @property
    def name(self) -> str:
        flags = [self.given, "residual" * self.residual, "plain" * (not self.affine), self.activation]
        kept = [flag for flag in flags if flag and flag != "none"]
        return "-".join([f"g{self.groups}", "x".join(map(str, self.shape)), f"mean{self.mean:g}", *kept])


def make(case: Case, seed: int = 0) -> NormCall:
    """Normal values around `mean`, each channel with its own offset."""
    random = torch.Generator().manual_seed(seed)
    channels = case.shape[1]
    offset = torch.randn((channels, *(1,) * len(case.shape[2:])), generator=random)
    x = torch.randn(case.shape, generator=random) + offset + case.mean
    weight, bias, mean, variance = (torch.rand(4, channels, generator=random) + 0.5).unbind()
    rows = {"": 0, "image": len(x), "batch": 1}[case.given]
    moments = torch.stack([mean + case.mean, variance], dim=-1).double().expand(rows, channels, 2).clone()
    return NormCall(
        x,
        case.groups or channels,
        weight if case.affine else None,
        bias if case.affine else None,
        moments if rows else None,
        torch.randn(case.shape, generator=random) if case.residual else None,
        activation=activation_of("norm", case.activation),
    )


DTYPES = (torch.float32, torch.bfloat16)


def tolerance(case: Case, implementation: str) -> float:
    return 5e-3 if implementation == "torch" and case.mean else 2e-6  # torch rounds the mean to float32


CASES = [
    Case((2, 64, 20, 31)),
    Case((2, 3, 9, 7), affine=False),
    Case((1, 21, 13, 5), activation="relu"),
    Case((1, 728, 5, 4), activation="silu"),
    Case((2, 1, 31, 33), activation="leaky"),
    Case((1, 24, 5, 6, 7), residual=True, activation="relu"),
    Case((2, 5, 40, 41), residual=True),
    Case((1, 100, 11)),
    Case((1, 3, 40, 41), mean=1000),
    Case((1, 70, 12, 13), mean=-3e4),
    Case((1, 5, 9, 10, 11), mean=1000, activation="elu"),
    Case((2, 64, 9, 7), groups=8),
    Case((2, 21, 9, 7), groups=7, activation="gelu"),
    Case((1, 24, 5, 6, 7), groups=1, mean=1000),
    Case((2, 12, 9, 7), groups=3, given="image", residual=True),
    Case((2, 21, 9, 7), given="image", mean=1000),
    Case((3, 70, 9, 7), given="batch", activation="relu6"),
    Case((3, 5, 4, 9, 7), given="batch", mean=1000),
    Case((1, 2, 300, 250)),  # more than one block of pixels
    Case((0, 4, 6, 6)),
]
