"""What every image format offers: regions of pixels with their physical units."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Region = tuple[slice, ...]
Unit = Literal["µm", "mm"]


@dataclass(frozen=True)
class Level:
    """One resolution of an image: its spatial shape, and how many level-0 pixels one of its pixels spans."""

    shape: tuple[int, ...]
    downsample: tuple[float, ...]


class Reader(Protocol):
    """An open image. Axes name the dimensions in memory order: spatial ones from "ZYX", channels "C" last.

    `shape` and `dtype` are those of level 0 along `axes`. `spacing` has one entry a spatial axis, in `unit`,
    and is None where the file does not say; `spacing_tags` names the tags that were looked at, for the error
    that a caller raises then. `affine` (4×4, voxel to world mm) is kept for volumes. `decode_seconds` counts the
    time that reads have spent in decompression so far, 0 where a library reads and decodes in one.
    """

    path: Path
    format: str
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    spacing: tuple[float, ...] | None
    unit: Unit
    spacing_tags: tuple[str, ...]
    levels: tuple[Level, ...]
    affine: NDArray[np.float64] | None
    decode_seconds: float

    def read(self, region: Region, level: int = 0) -> NDArray[Any]:
        """The pixels of `region` (a slice with start and stop a spatial axis, inside `level`), all channels."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ArrayLike(Protocol):
    """NumPy, Zarr and the like: what a writer streams from, block by block."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, key: Any) -> Any: ...


@dataclass(frozen=True)
class ClassInfo:
    """A class of a label map: its value, its name, the RGB colour that viewers show."""

    value: int
    name: str
    color: tuple[int, int, int]


@dataclass(frozen=True)
class LabelMap:
    """A finished prediction: `labels` (spatial axes only, integers), with the spacing of their own grid.

    `level0_scale` is how many level-0 pixels of the source one label spans along each axis; None means 1.
    """

    labels: ArrayLike
    axes: str
    spacing: tuple[float, ...] | None
    unit: Unit
    classes: tuple[ClassInfo, ...]
    affine: NDArray[np.float64] | None = None
    level0_scale: tuple[float, ...] | None = None
