"""Inputs of window_accumulate: shared by its tests and its benchmark."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """`images` × `channels` × `size`, and `count` windows at random places."""

    images: int
    channels: int
    size: tuple[int, ...]
    window: tuple[int, ...]
    count: int
    channels_last: bool = False
    dense: bool = False

    @property
    def name(self) -> str:
        sizes = ["x".join(map(str, size)) for size in (self.size, self.window)]
        flags = [flag for flag in ("channels_last", "dense") if getattr(self, flag)]
        return "-".join([f"n{self.images}c{self.channels}", sizes[0], f"{self.count}of{sizes[1]}", *flags])


@dataclass(frozen=True)
class Arguments:
    """The arguments of one call."""

    out: Tensor
    windows: Tensor
    starts: Tensor
    weights: Tensor | list[Tensor]
    floor: float


def make(case: Case, seed: int = 0) -> Arguments:
    """Random arguments; `out` is a view into a larger tensor whose other elements are NaN."""
    random = torch.Generator().manual_seed(seed)
    frame = torch.full((case.images, case.channels, *(size + 2 for size in case.size)), float("nan"))
    windows = torch.randn((case.count, case.channels, *case.window), generator=random)
    if case.channels_last:
        frame, windows = to_channels_last(frame), to_channels_last(windows)
    out = inside(frame)
    out.copy_(torch.randn(out.shape, generator=random))
    room = [case.images, *(size - window + 1 for size, window in zip(case.size, case.window, strict=True))]
    starts = torch.stack([torch.randint(r, (case.count,), generator=random) for r in room], dim=1)
    if case.dense:
        return Arguments(out, windows, starts, torch.rand(case.window, generator=random), 0.0)
    vectors = [torch.rand(size, generator=random) for size in case.window]
    return Arguments(out, windows, starts, vectors, 0.2)


def to_channels_last(tensor: Tensor) -> Tensor:
    """The same values with the channels of a pixel together; any number of spatial axes."""
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


def inside(frame: Tensor) -> Tensor:
    """The frame without its outermost pixels."""
    return frame[(slice(None), slice(None), *(slice(1, -1),) * (frame.dim() - 2))]


CASES = [
    Case(1, 1, (1,), (1,), 1),
    Case(2, 3, (37,), (16,), 5),
    Case(1, 5, (100,), (33,), 4, channels_last=True),
    Case(2, 1, (31, 45), (16, 16), 7),
    Case(1, 3, (64, 50), (17, 15), 6),
    Case(2, 3, (40, 41), (9, 31), 6, channels_last=True),
    Case(1, 21, (30, 33), (13, 7), 5, channels_last=True),
    Case(1, 21, (30, 33), (13, 7), 5),
    Case(1, 3, (20, 20), (20, 20), 3),
    Case(1, 4, (20, 20), (5, 1), 3, channels_last=True),
    Case(1, 3, (33, 20), (8, 19), 4, dense=True),
    Case(1, 3, (33, 20), (8, 19), 4, channels_last=True, dense=True),
    Case(1, 1, (20, 21, 22), (9, 10, 11), 5),
    Case(2, 3, (19, 21, 35), (9, 10, 17), 5),
    Case(1, 3, (19, 21, 35), (9, 10, 17), 5, channels_last=True),
    Case(1, 2, (9, 11, 35), (3, 5, 17), 3, dense=True),
    Case(1, 7, (9, 11, 35), (3, 5, 17), 3, channels_last=True, dense=True),
    Case(1, 3, (96, 96), (64, 64), 8),  # enough elements to run in parallel
    Case(2, 3, (96, 96), (64, 64), 8, channels_last=True),
    Case(1, 3, (20, 20), (5, 5), 0),
]
