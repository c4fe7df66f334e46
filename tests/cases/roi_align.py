"""Inputs of roi_align."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastnets.ops.roi_align import OP as OP
from fastnets.ops.roi_align import RoiAlignCall


@dataclass(frozen=True)
class Case:
    shape: tuple[int, ...]
    boxes: int
    size: tuple[int, int]
    scale: float = 1.0
    samples: int = 0
    aligned: bool = False

    @property
    def name(self) -> str:
        shape, size = "x".join(map(str, self.shape)), "x".join(map(str, self.size))
        return f"{shape}-{self.boxes}-to-{size}-s{self.scale}-n{self.samples}{'-aligned' * self.aligned}"


def make(case: Case, seed: int = 0) -> RoiAlignCall:
    """Boxes from a point a little outside of the image on, of up to its size; some reach far outside."""
    random = torch.Generator().manual_seed(seed)
    images, _, height, width = case.shape
    x = torch.randn(case.shape, generator=random)
    whole = torch.tensor([width, height]) / case.scale
    corner = (1.4 * torch.rand(case.boxes, 2, generator=random) - 0.2) * whole
    far = corner + torch.rand(case.boxes, 2, generator=random) * whole
    image = torch.randint(images, (case.boxes, 1), generator=random).float()
    boxes = torch.cat([image, corner, far], dim=1)
    return RoiAlignCall(x, boxes, case.size, case.scale, case.samples, case.aligned)


def tolerance(case: Case, implementation: str) -> float:
    return 1e-5  # a position of 100 pixels has the rounding error 4e-6 in float32


CASES = [
    *(Case((2, 64, 13, 17), 5, (7, 7), 0.25, samples, aligned) for samples in (0, 2) for aligned in (False, True)),
    Case((1, 3, 20, 9), 5, (3, 2), 1.0, 0, True),
    Case((1, 21, 8, 8), 5, (14, 14), 0.0625, 2),
    Case((3, 1, 30, 31), 4, (1, 1)),
    Case((1, 728, 5, 6), 3, (2, 3), 0.5, 3, True),
    Case((1, 256, 25, 25), 12, (7, 7), 0.125, 2),
    Case((1, 5, 8, 8), 0, (7, 7)),
]
