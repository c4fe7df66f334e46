"""Inputs of nms."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastnets.ops.nms import OP as OP
from fastnets.ops.nms import NmsCall


@dataclass(frozen=True)
class Case:
    """`count` boxes in a square of side 100; groups 0: none are given."""

    count: int
    threshold: float
    groups: int = 0

    @property
    def name(self) -> str:
        return f"{self.count}-{self.threshold}-g{self.groups}"


def make(case: Case, seed: int = 0) -> NmsCall:
    """Random boxes, some of them twice, with scores of few different values."""
    random = torch.Generator().manual_seed(seed)
    corner = 100 * torch.rand(case.count, 2, generator=random)
    boxes = torch.cat([corner, corner + 40 * torch.rand(case.count, 2, generator=random)], dim=1)
    boxes[case.count // 2 : case.count // 2 + case.count // 10] = boxes[: case.count // 10]
    scores = torch.randint(max(case.count // 2, 1), (case.count,), generator=random).float()
    groups = torch.randint(max(case.groups, 1), (case.count,), generator=random).float()
    return NmsCall(boxes, scores, case.threshold, groups if case.groups else None)


def tolerance(case: Case, implementation: str) -> float:
    return 0.0


CASES = [
    Case(1, 0.5),
    Case(17, 0.3),
    Case(300, 0.5),
    Case(300, 0.0),
    Case(400, 0.7, 7),
    Case(250, 0.4, 250),
    Case(33, 1.0),
    Case(0, 0.5),
    Case(0, 0.5, 3),
]
