"""Where the windows of sliding-window inference lie, and in which batches they run: MONAI's rules."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastnets.errors import InputError

Position = tuple[int, ...]


@dataclass(frozen=True)
class Band:
    """Positions [start, stop) along `axis` of one image: what one run of batches covers, where bands are used."""

    image: int
    axis: int
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Batch:
    """Windows that the predictor sees at once, and the band that they belong to.

    `places` is (B, 1 + axes) int64: the image of each window, and its first position along each axis.
    """

    places: Tensor
    band: Band | None = None

    def boxes(self, window: Sequence[int]) -> list[list[slice]]:
        """For each window the slices along N, C and the spatial axes: MONAI's `patch_coord`."""
        return [
            [slice(n, n + 1), slice(None), *(slice(s, s + w) for s, w in zip(start, window, strict=True))]
            for n, *start in self.places.tolist()
        ]


@dataclass(frozen=True)
class WindowGrid:
    """Windows of size `window` over an image of `size`, at every combination of `axis_starts`."""

    size: Position
    window: Position
    axis_starts: tuple[tuple[int, ...], ...]

    def places(self, images: int) -> Tensor:
        """(windows, 1 + axes) int64: image and first position; the last axis changes fastest."""
        return torch.cartesian_prod(torch.arange(images), *map(torch.tensor, self.axis_starts))

    def scaled(self, output_window: Sequence[int]) -> WindowGrid:
        """The same windows in an output where each has the size `output_window`; positions round down.

        In integers: MONAI multiplies by a float ratio, which makes some windows a pixel too small and fails.
        """
        if tuple(output_window) == self.window:
            return self
        zoom = list(zip(output_window, self.window, strict=True))
        return WindowGrid(
            size=tuple(s * out // size for s, (out, size) in zip(self.size, zoom, strict=True)),
            window=tuple(output_window),
            axis_starts=tuple(
                tuple(s * out // size for s in starts)
                for starts, (out, size) in zip(self.axis_starts, zoom, strict=True)
            ),
        )

    def scale_places(self, places: Tensor, output_window: Sequence[int]) -> Tensor:
        """Where windows at `places` lie in the grid `scaled(output_window)`."""
        if tuple(output_window) == self.window:
            return places
        return places * torch.tensor([1, *output_window]) // torch.tensor([1, *self.window])


def make_grid(image: Sequence[int], roi: Sequence[int | None] | int | None, overlap: Sequence[float]) -> WindowGrid:
    """The grid over an image of size `image`, padded where a window is larger.

    `roi` and `overlap` are those of `sliding_window_inference`, `overlap` for each axis.
    """
    window = resolve_window(roi, image)
    size = tuple(map(max, image, window))
    return WindowGrid(size, window, tuple(map(_axis_starts, size, window, overlap)))


def resolve_window(roi: Sequence[int | None] | int | None, image: Sequence[int]) -> Position:
    """`roi` for every axis, with the image's size where an entry is None, 0 or negative."""
    entries = [roi] * len(image) if roi is None or isinstance(roi, int) else list(roi)
    if len(entries) != len(image):
        raise InputError(
            f"sliding_window_inference: roi_size is {roi}, with {len(entries)} entries, and inputs have "
            f"{len(image)} spatial axes: pass one entry an axis, and inputs with channels first (N, C, *spatial)"
        )
    return tuple(int(e) if e is not None and e > 0 else int(i) for e, i in zip(entries, image, strict=True))


def make_batches(grid: WindowGrid, images: int, batch_size: int) -> Iterator[Batch]:
    """All windows of all images in order, `batch_size` at a time; a batch may reach into the next image."""
    return map(Batch, torch.split(grid.places(images), batch_size))


def make_banded_batches(grid: WindowGrid, images: int, batch_size: int, axis: int, steps: int) -> Iterator[Batch]:
    """All windows, band by band: a band holds those at `steps` successive positions along `axis`."""
    places, positions = grid.places(images), grid.axis_starts[axis]
    for image in range(images):
        for first in range(0, len(positions), steps):
            held = positions[first : first + steps]
            band = Band(image, axis, held[0], held[-1] + grid.window[axis])
            starts = places[:, 1 + axis]
            mine = places[(places[:, 0] == image) & (starts >= held[0]) & (starts <= held[-1])]
            ordered = mine[mine[:, 1 + axis].argsort(stable=True)]
            for part in torch.split(ordered, batch_size):
                yield Batch(part, band)


def _axis_starts(size: int, window: int, overlap: float) -> tuple[int, ...]:
    """Window starts at every int(window * (1 - overlap)); the last window ends with the image."""
    interval = window if window == size else max(int(window * (1 - overlap)), 1)
    count = math.ceil((size - window) / interval) + 1
    return tuple(min(i * interval, size - window) for i in range(count))
