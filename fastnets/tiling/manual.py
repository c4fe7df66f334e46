"""Tiles by a halo that the caller vouches for, for networks that cannot be traced."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil

import torch

from fastnets.errors import InputError

from .tiles import AxisTile, TilePlan
from .trace import Shape


def plan_with_halo(
    shape: Shape, probe: torch.Tensor, crop: Shape, *, tile: Sequence[int], halo: Sequence[int]
) -> TilePlan:
    """Tiles by a halo that the caller vouches for, without an analysis.

    `probe` is the network's output for an input of spatial size `crop`; tile and halo must be multiples of the
    network's stride, which only the caller knows.
    """
    axes = []
    out = []
    for axis, length in enumerate(shape[1:]):
        jump = Fraction(crop[axis], probe.shape[axis - len(crop)])
        total = ceil(length / jump)
        width = tile[axis] / jump
        if width.denominator != 1 or (halo[axis] / jump).denominator != 1:
            given = f"axis {axis}: {crop[axis]} input pixels give {probe.shape[axis - len(crop)]} outputs"
            raise InputError(
                f"{given}; tile={tile[axis]} and halo={halo[axis]} must be multiples of the network's stride"
            )
        row = []
        for lo in range(0, total, int(width)):
            start = max(0, int(lo * jump) - halo[axis])
            stop = min(length, int(lo * jump) + tile[axis] + halo[axis])
            row.append(AxisTile(start, stop, lo, min(lo + int(width), total), lo - int(start / jump)))
        axes.append(tuple(row))
        out.append(total)
    return TilePlan(shape[1:], shape[1:], tuple(out), tuple(axes), 0)
