"""A tile plan as data: what each tile reads, where its result goes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

from .trace import Shape


@dataclass(frozen=True)
class AxisTile:
    """One step along one axis: input [start, stop) gives output [lo, hi), found at `local` in the tile's output."""

    start: int
    stop: int
    lo: int
    hi: int
    local: int


@dataclass(frozen=True)
class Tile:
    """One network call: an AxisTile a spatial axis."""

    axes: tuple[AxisTile, ...]

    @property
    def crop(self) -> tuple[slice, ...]:
        """What to read of the (padded) image."""
        return tuple(slice(a.start, a.stop) for a in self.axes)

    @property
    def region(self) -> tuple[slice, ...]:
        """What this tile contributes to the output."""
        return tuple(slice(a.lo, a.hi) for a in self.axes)

    @property
    def local(self) -> tuple[slice, ...]:
        """Where that is in the network's output for this tile."""
        return tuple(slice(a.local, a.local + a.hi - a.lo) for a in self.axes)


@dataclass(frozen=True)
class TilePlan:
    """All tiles of one image. `spatial` is the image's size, `padded` what the tiles address (≥ spatial).

    `output` is the spatial size of the result. Iterating gives the tiles in row-major order, which is the order
    in which finished regions reach a writer.
    """

    spatial: Shape
    padded: Shape
    output: Shape
    axes: tuple[tuple[AxisTile, ...], ...]
    tile_bytes: int

    def __len__(self) -> int:
        return prod(len(axis) for axis in self.axes)

    def __iter__(self) -> Iterator[Tile]:
        return (Tile(axes) for axes in product(*self.axes))

    @property
    def work(self) -> float:
        """Pixels that the network sees for one of the image: 1 for a single tile, more with every halo."""
        return prod(sum(t.stop - t.start for t in axis) for axis in self.axes) / prod(self.spatial)

    @property
    def crop_shape(self) -> Shape:
        """The largest input of one network call."""
        return tuple(max(t.stop - t.start for t in axis) for axis in self.axes)
